"""One schema, both ways: what goes over a socket is what the table of methods says, and everything is made from it."""

from __future__ import annotations

import inspect
import json
from typing import Any, get_args

import anyio
import click
import numpy as np
import pytest
import zmq
from pydantic import TypeAdapter

from focusd.client import AsyncClient, Client
from focusd.client.calls import Call, Calls, Waiting
from focusd.config import AutofocusConfig
from focusd.ctl.commands import app
from focusd.ctl.options import OWN
from focusd.focus.focus import Surface
from focusd.protocol import methods
from focusd.protocol.events import AnyEvent, Event
from focusd.protocol.failure import Failure
from focusd.protocol.messages import TOPICS
from focusd.protocol.methods import METHODS, Method
from focusd.protocol.model import docs_of
from focusd.protocol.openrpc import openrpc
from focusd.protocol.results import Started
from tests.daemon.scripted import ScriptedMicroscope
from tests.server.daemon import Daemon
from tests.server.test_server import exchange

FRAMES = [{"dtype": "uint16", "shape": [3, 8], "z_um": 1.0}]
COMMANDS: dict[str, Method[..., Any]] = {
    "calibrate": methods.CALIBRATE,
    "refocus": methods.REFOCUS,
    "move": methods.MOVE,
    "backlash": methods.BACKLASH,
    "hold": methods.HOLD,
    "map add": methods.MAP_ADD,
    "map predict": methods.MAP_PREDICT,
    "map offset": methods.MAP_OFFSET,
    "calibrations show": methods.SHOW_CALIBRATION,
    "calibrations use": methods.USE_CALIBRATION,
    "calibrations remove": methods.REMOVE_CALIBRATION,
}


class Asking:
    """A client of any language: JSON in, JSON out."""

    def __init__(self, daemon: Daemon) -> None:
        self.control = daemon.endpoints.control
        self.answers: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, method: str, *pixels: bytes, **params: Any) -> dict[str, Any]:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
            socket.connect(self.control)
            socket.send_multipart([b"", json.dumps(body).encode(), *pixels])
            assert socket.poll(100_000), "no reply"
            reply = json.loads(socket.recv_multipart()[-1])
        assert "result" in reply, (method, reply)
        self.answers.append((method, reply["result"]))
        result: dict[str, Any] = reply["result"]
        return result


def ask_everything(ask: Asking) -> None:
    """Each method, in each of the states in which it answers otherwise."""
    for method in ("system.hello", "system.ping", "state.get", "rpc.discover", "map.clear", "map.get"):
        ask(method)
    ask("map.predict", positions=[[0, 0]])
    job_id = ask("focus.run")["job_id"]
    while ask("job.status", job_id=job_id)["state"] in ("queued", "running"):
        pass
    ask("job.cancel", job_id=job_id)
    ask("focus.run", wait=True)
    ask("map.add", x_um=0, y_um=0)
    ask("map.offset", channel="DAPI", offset_um=1.5)
    ask("map.get")
    ask("map.predict", positions=[[0, 0], [9e5, 0]])
    ask("stage.move", wait=True, z_um=5)
    ask("stage.backlash", wait=True, repeats=2)
    for method in ("stage.move", "focus.calibrate", "focus.run"):
        params = {"z_um": 5} if method == "stage.move" else {"strategy": "fail"} if "run" in method else {}
        job_id = ask(method, **params)["job_id"]
        while ask("job.status", job_id=job_id)["state"] in ("queued", "running"):
            pass
    ask("focus.run", wait=True)
    first, second = (ask("focus.calibrate", wait=True)["id"] for _ in range(2))
    ask("calibrations.list")
    ask("calibrations.show", id=first)
    ask("calibrations.use", id=first)
    ask("calibrations.remove", id=second)
    ask("focus.release")
    ask("focus.hold", position="A1", tags={"celsius": 37.0, "channel": "DAPI"})
    ask("state.get")
    ask("focus.score", bytes(48), frames=FRAMES, track=True)
    lease_id = ask("lease.acquire", seconds=5)["lease_id"]
    ask("state.get")
    ask("lease.release", lease_id=lease_id)
    ask("focus.release")
    run = ask("focus.ask", z_um=0)
    while run["expose_um"]:
        frame = ScriptedMicroscope(run["expose_um"][0]).snap()
        told = {"dtype": "uint16", "shape": frame.pixels.shape, "z_um": frame.z_um}
        run = ask("focus.tell", frame.pixels.tobytes(), run=run["run"], frames=[told])
    ask("focus.drop", run=run["run"])
    ask("events.since", seq=0, limit=10_000)


def without_measurements(value: Any) -> Any:
    """The same without what an error tells under names of its own."""
    if isinstance(value, list):
        return [without_measurements(item) for item in value]
    if not isinstance(value, dict):
        return value
    names = {"class", "outcome", "retryable"} if {"class", "retryable"} <= set(value) else set(value)
    return {name: without_measurements(value[name]) for name in names}


def test_each_answer_is_as_its_model_says_and_nothing_is_lost(threaded_daemon: Daemon) -> None:
    ask = Asking(threaded_daemon)

    ask_everything(ask)

    assert {method for method, _ in ask.answers} == set(METHODS) - {"system.reconnect"}
    for name, answer in ask.answers:
        method = METHODS[name]
        is_started = method.is_long and set(answer) == {"job_id"}
        model = TypeAdapter(Started if is_started else method.result)
        model.validate_python(without_measurements(answer), extra="forbid")
        assert model.dump_python(model.validate_python(answer), mode="json") == answer, name


def test_a_failure_is_as_its_model_says(threaded_daemon: Daemon) -> None:
    body = b'{"jsonrpc": "2.0", "id": 1, "method": "focus.run", "params": {"strategy": "fail", "wait": true}}'
    error = exchange(threaded_daemon.endpoints.control, [b"", body])["error"]
    read = Failure.model_validate(error)
    assert read.model_dump(mode="json") == error
    assert read.error().data["probes"], "what was measured"


@pytest.mark.anyio
async def test_each_topic_has_a_model_and_events_lose_nothing(daemon: Daemon) -> None:
    """But for a record of the log, which says what it likes."""
    known: TypeAdapter[Event] = TypeAdapter(AnyEvent)
    seen: dict[str, dict[str, Any]] = {}
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.connect(daemon.endpoints.events)
        socket.subscribe(b"focusd/1/")
        async with AsyncClient(daemon.endpoints.control) as client:
            await anyio.sleep(0.2)
            await client.calibrate()
            await client.refocus()
            with pytest.raises(Exception, match="field"):
                await client.refocus(strategy="fail")
            daemon.operations.scorer.structure = 1.0
            await client.hold(position="A1", tags={"celsius": 37.0})
            with anyio.fail_after(30):
                while set(seen) != set(TOPICS) - {"log"}:
                    while socket.poll(0):
                        event = json.loads(socket.recv_multipart()[-1])
                        seen[event["topic"]] = event
                        told = known.validate_python(without_measurements(event), extra="forbid")
                        assert type(told) is not Event, json.dumps(event)
                        assert known.dump_python(known.validate_python(event), mode="json") == event
                    await anyio.sleep(0.05)


def test_the_document_names_a_schema_for_each_param_result_and_error() -> None:
    document = json.loads(openrpc())
    schemas = document["components"]["schemas"]

    for method in document["methods"]:
        model = METHODS[method["name"]].params
        assert {param["name"] for param in method["params"]} == set(model.model_fields)
        undescribed = [p["name"] for p in method["params"] if not p["schema"].get("description")]
        assert not undescribed, method["name"]
        named = [part["$ref"].rpartition("/")[2] for part in _parts(method["result"]["schema"])]
        assert named
        assert all(schemas[name]["properties"] for name in named)
        assert all(error["code"] < 0 for error in method["errors"])
    assert {"code", "message", "data"} == set(schemas["Failure"]["properties"])
    assert all(ref.rpartition("/")[2] in schemas for ref in _refs(document))


def _parts(schema: dict[str, Any]) -> list[dict[str, Any]]:
    return [inner for part in schema["anyOf"] for inner in _parts(part)] if "anyOf" in schema else [schema]


def _refs(value: Any) -> list[str]:
    if isinstance(value, list):
        return [ref for item in value for ref in _refs(item)]
    if not isinstance(value, dict):
        return []
    return [*([value["$ref"]] if "$ref" in value else []), *(ref for v in value.values() for ref in _refs(v))]


def command_of(name: str) -> click.Command:
    command: click.Command = app
    for part in name.split():
        assert isinstance(command, click.Group)
        command = command.commands[part]
    return command


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_every_param_of_its_method(name: str) -> None:
    model = COMMANDS[name].params
    parameters = {parameter.name: parameter for parameter in command_of(name).params}
    assert set(model.model_fields) - OWN <= set(parameters)
    for field in set(model.model_fields) - OWN:
        if isinstance(parameter := parameters[field], click.Option):
            assert parameter.help == docs_of(model)[field]


def test_both_clients_have_every_method_with_its_params() -> None:
    calls = {call.method.name: call for call in vars(Calls).values() if isinstance(call, Call)}
    assert set(calls) == set(METHODS)
    for name, call in calls.items():
        own = {"self"} | (set(Waiting.model_fields) if METHODS[name].is_long else set())
        of_frames = {"focus.score": {"z_um"}, "focus.tell": {"z_um", "full_scale"}}.get(name, set())
        assert (
            set(call.__signature__.parameters) - own
            == set(METHODS[name].params.model_fields) - own | of_frames
        )


def test_a_surface_is_asked_for_by_the_same_names_everywhere() -> None:
    """Of a request, of a run that a client drives, in the configuration, and where it is decided."""
    known = set(get_args(Surface))
    asked = [
        get_args(model.model_fields["surface"].annotation)[0]
        for model in (methods.REFOCUS.params, methods.ASK.params)
    ]
    configured = AutofocusConfig.model_fields["surface"].annotation
    assert [set(get_args(each)) for each in (*asked, configured)] == [known] * 3
    assert "sharpest" in known


def test_a_client_shows_what_it_takes_and_answers_in_a_line(threaded_daemon: Daemon) -> None:
    with Client(threaded_daemon.endpoints.control) as client:
        assert {"prior", "surface", "far", "timeout_s"} < set(inspect.signature(client.refocus).parameters)
        assert "into focus" in (client.refocus.__doc__ or "")
        with pytest.raises(TypeError, match="surfaces"):
            client.refocus(surfaces="mean")  # type: ignore[call-arg]
        assert client.refocus(surface="sharpest").geometry.sharpest_um is not None
        found = client.refocus(surface="median", prior=(np.float64(12.0), 3))
        assert len(repr(found)) < 500
        assert "sigma_um=" in repr(found)
        assert client.job(client.refocus(wait=False).job_id).client == "python"
