"""Whatever a client is called or calls something: nothing in it commands a terminal, a log or a service manager."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from focusd.ctl.showing import line, print_result, print_table, say
from focusd.driftlog import EventLog, read_events
from focusd.protocol.events import read_event
from focusd.protocol.methods import METHODS
from focusd.protocol.results import MoveResult
from focusd.terminal import one_line_json, printable
from tests.server.daemon import Daemon
from tests.server.test_server import exchange

BAD = {
    "newline": "x\nWATCHDOG=trigger\nMAINPID=1",
    "carriage return": "fine\rfocus lost",
    "escape": "\x1b]0;title\x07\x1b[2J",
    "C1": "\x9b31m",
    "delete": "a\x7f",
    "nul": "a\x00b",
    "line separator": "a\u2028b",
    "override of direction": "a\u202egnp.exe",
    "isolate": "\u2066a",
    "zero width": "a\u200bb",
    "tags": "a\U000e0041",
    "too long": "x" * 65,
}
SAID: list[tuple[str, str, dict[str, Any]]] = [
    ("focus.run", "client", {}),
    ("focus.run", "request_key", {}),
    ("focus.run", "lease_id", {}),
    ("focus.run", "strategy", {}),
    ("focus.calibrate", "client", {}),
    ("stage.move", "client", {"z_um": 0.0}),
    ("focus.hold", "client", {}),
    ("focus.hold", "position", {}),
    ("lease.acquire", "client", {}),
    ("lease.acquire", "lease_id", {}),
    ("lease.release", "lease_id", {}),
    ("job.status", "job_id", {}),
    ("job.cancel", "job_id", {}),
    ("events.since", "session", {"seq": 0}),
    ("system.hello", "protocol", {}),
    ("map.offset", "channel", {}),
    ("map.predict", "channel", {"positions": [[0, 0]]}),
    ("map.add", "channel", {"x_um": 0, "y_um": 0}),
]


def refusal(daemon: Daemon, method: str, params: dict[str, Any]) -> dict[str, Any]:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    error: dict[str, Any] = exchange(daemon.endpoints.control, [b"", body])["error"]
    return error


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_names_that_hold_commands_are_refused_wherever_they_enter(threaded_daemon: Daemon, bad: str) -> None:
    runs = threaded_daemon.operations.runs
    for method, name, others in SAID:
        error = refusal(threaded_daemon, method, others | {name: bad})
        assert (error["code"], error["data"]["class"]) == (-32602, "RequestError"), (method, name)
        assert name in error["message"]
        assert error["message"].isprintable()
    for tags in ({bad: 1.0}, {"channel": bad}):
        assert refusal(threaded_daemon, "focus.hold", {"tags": tags})["code"] == -32602
    assert refusal(threaded_daemon, bad, {})["code"] in (-32600, -32601)
    assert threaded_daemon.operations.runs == runs


def test_no_text_of_any_method_is_left_out() -> None:
    parts = [
        (method.name, name, json.dumps(part))
        for method in METHODS.values()
        for name, part in method.params.model_json_schema().get("properties", {}).items()
    ]
    texts = [(method, name, part) for method, name, part in parts if '"type": "string"' in part]
    assert len(texts) > len(SAID)
    assert [
        (method, name)
        for method, name, part in texts
        if '"maxLength"' not in part and '"enum"' not in part and '"const"' not in part
    ] == []


def test_other_scripts_and_signs_are_names() -> None:
    assert (
        printable("Zelle 12 · 40×/0.75 – Ölöbjektiv 細胞 клетка 🔬")
        == "Zelle 12 · 40×/0.75 – Ölöbjektiv 細胞 клетка 🔬"
    )


def foreign(text: str) -> dict[str, Any]:
    """An event of a daemon that refuses nothing."""
    data = {"client": text, text: 1, "list": [text], "state": "locked"}
    return {
        "session": "s", "seq": 1, "time": "2026-01-01T00:00:00.000Z", "monotonic_s": 0.0, "topic": "job",
        "job_id": text, "data": data
    }  # fmt: skip


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_what_another_daemon_says_is_shown_and_not_obeyed(bad: str, tmp_path: Path, capsys: Any) -> None:
    shown = line(read_event(foreign(bad)))
    assert re.sub(r"\x1b\[\d+m", "", shown).isprintable(), "but for focusctl's own colours"

    print_result(
        "done", MoveResult.model_validate({"z_start_um": 0.0, "z_um": 1.0, "message": bad, "outcome": bad})
    )
    print_table([[bad, bad]], [bad, bad], bad)
    say(f"cancelling job {bad}")
    printed = capsys.readouterr().out
    assert all(text.isprintable() for text in printed.split("\n"))

    log = EventLog(tmp_path / "log", 10**9)
    log.append(foreign(bad))
    log.close()
    (text,) = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    assert text.isprintable()
    assert list(read_events(tmp_path / "log")) == [foreign(bad)]
    assert json.loads(one_line_json({bad: bad})) == {bad: bad}
