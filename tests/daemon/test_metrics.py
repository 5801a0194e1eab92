"""Figures for Prometheus: counted from what really happens, served to this machine alone, shown by the dashboard."""

from __future__ import annotations

import json
import re
import socket
import threading
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import anyio
import pytest
from anyio import to_thread
from prometheus_client.parser import text_string_to_metric_families

from focusd.config import MetricsConfig, RigConfig
from focusd.daemon import metrics, record
from focusd.daemon.events import EventBus
from focusd.daemon.metrics import HOST, REGISTRY, Bookkeeper, MetricsError, served
from focusd.daemon.operations import RigOperations
from focusd.demo.rigs import free_ports
from focusd.errors import NoSampleError
from focusd.protocol.failure import Failure
from tests.daemon.scripted import refocus

DASHBOARD = Path(__file__).parents[2] / "configs" / "grafana-dashboard.json"


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_jobs_are_counted_by_how_they_end() -> None:
    bus, before = EventBus(), value("focusd_jobs_total", kind="refocus", outcome="no_sample")
    with bus.subscribed(Bookkeeper().hear):
        bus.publish("job", {"kind": "refocus", "client": "", "state": "running"}, "j")
        assert value("focusd_job_running") == 1
        error = Failure.of(NoSampleError("empty")).model_dump()
        bus.publish("job", {"kind": "refocus", "client": "", "state": "failed", "error": error}, "j")
    assert value("focusd_job_running") == 0
    assert value("focusd_jobs_total", kind="refocus", outcome="no_sample") == before + 1
    assert value("focusd_job_seconds_count", kind="refocus") >= 1


def test_state_and_results_become_figures() -> None:
    bus, before = EventBus(), value("focusd_sigma_um_count")
    with bus.subscribed(Bookkeeper().hear):
        bus.publish("state", {"z_um": 12.5, "fault": "it hung", "calibration": {"usable": True}})
        bus.publish("focus.done", {"kind": "refocus", "shift_um": -4.0, "sigma_um": 0.25})
        bus.publish("focus.done", {"kind": "calibrate", "fwhm_um": 90.0})
        assert (value("focusd_z_um"), value("focusd_fault"), value("focusd_calibrated")) == (12.5, 1, 1)
        bus.publish("state", {"fault": None})
        assert (value("focusd_z_um"), value("focusd_fault"), value("focusd_calibrated")) == (12.5, 0, 0)
    assert value("focusd_sigma_um_count") == before + 1


def test_the_backend_that_serves_is_the_only_one_told() -> None:
    bus = EventBus()
    with bus.subscribed(Bookkeeper().hear):
        bus.publish("state", {"backend": "cuda"})
        assert value("focusd_backend", backend="cuda") == 1
        bus.publish("state", {"backend": "cpu"})
        bus.publish("state", {"fault": "nothing is known of the backend"})
    assert value("focusd_backend", backend="cpu") == 1
    assert REGISTRY.get_sample_value("focusd_backend", {"backend": "cuda"}) is None


def test_a_hold_is_told_by_its_last_estimate() -> None:
    bus = EventBus()
    with bus.subscribed(Bookkeeper().hear):
        bus.publish("state", {"hold": {"state": "locked"}})
        bus.publish("drift", {"dz_um": -0.5, "sigma_um": 0.2, "velocity_um_per_min": 1.25})
        bus.publish("drift", {"dz_um": None, "sigma_um": 0.3, "velocity_um_per_min": 1.25})
    figures = {name: value("focusd_hold", figure=name) for name in ("dz_um", "sigma_um")}
    assert figures == {"dz_um": -0.5, "sigma_um": 0.3}
    assert value("focusd_hold_locked") == 1


def test_what_waits_for_the_disk_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers, taken = threading.Event(), threading.Event()

    def hangs(*_: object) -> None:
        taken.set()
        answers.wait(10)

    monkeypatch.setattr(record, "_run", hangs)
    bus = EventBus()
    with record.recorded(bus, tmp_path / "events.sqlite"):
        bus.publish("drift", {})
        assert taken.wait(10)
        for _ in range(3):
            bus.publish("drift", {})
        waiting = value("focusd_queue_depth", queue="disk")
        answers.set()
    assert waiting == 3


@pytest.mark.anyio
async def test_dose_and_latency_come_from_the_rig_itself(calibrated: RigOperations) -> None:
    names: list[tuple[str, dict[str, str]]] = [
        ("focusd_exposures_total", {}),
        ("focusd_exposure_seconds_total", {}),
    ]
    names += [("focusd_stage_seconds_count", {"stage": stage}) for stage in ("camera", "stage", "score")]
    before = [value(name, **labels) for name, labels in names]
    result = await refocus(calibrated)
    grown = [value(name, **labels) - old for (name, labels), old in zip(names, before, strict=True)]
    assert grown[0] == grown[2] == grown[4] == result.exposures
    assert grown[1] == pytest.approx(result.exposures / 1000)
    assert grown[3] >= result.exposures - 1  # each further exposure lies elsewhere


async def page(port: int) -> str:
    """The figures as served."""

    def get() -> str:
        text: bytes = urllib.request.urlopen(f"http://{HOST}:{port}/metrics", timeout=10).read()
        return text.decode()

    return await to_thread.run_sync(get)


@pytest.mark.anyio
async def test_they_are_served_on_loopback_and_no_longer_than_asked() -> None:
    (port,) = free_ports(1)
    async with served(MetricsConfig(port=port), "bench", "focusnet-1"):
        text = await page(port)
        with pytest.raises(MetricsError, match=f"metrics.port {port}: Address already in use"):
            async with served(MetricsConfig(port=port), "", ""):
                pass
        with pytest.raises(urllib.error.HTTPError, match="404") as missing:
            await to_thread.run_sync(urllib.request.urlopen, f"http://{HOST}:{port}/elsewhere")
        missing.value.close()
    assert HOST == "127.0.0.1"
    info = next(family for family in text_string_to_metric_families(text) if family.name == "focusd_info")
    assert info.samples[0].labels["model"] == "focusnet-1"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, port), timeout=10)


@pytest.mark.anyio
async def test_half_sent_questions_cost_no_thread_and_are_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "ANSWER_S", 0.5)
    (port,) = free_ports(1)
    async with served(MetricsConfig(port=port), "bench", "focusnet-1"):
        await page(port)
        threads = threading.active_count()
        with ExitStack() as resources:
            half = [resources.enter_context(socket.create_connection((HOST, port))) for _ in range(200)]
            for connection in half:
                connection.sendall(b"GET /metrics HTTP/1.1\r\nX: ")
            await anyio.sleep(0.1)
            assert threading.active_count() <= threads
            for connection in half:
                connection.settimeout(10)
                assert await to_thread.run_sync(_hung_up, connection)
        assert "focusd_info" in await page(port)


def _hung_up(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_they_are_off_by_default() -> None:
    assert RigConfig.model_fields["metrics"].default.port is None


def test_the_dashboard_asks_for_figures_that_exist_and_for_all_of_them() -> None:
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    asked = {
        name
        for panel in panels
        for target in panel["targets"]
        for name in re.findall(r"focusd_[a-z_]+", target["expr"])
    }
    there = {metric.name for metric in REGISTRY.collect()}
    plain = {re.sub("_(bucket|total|info)$", "", name) for name in asked}
    assert plain == there
