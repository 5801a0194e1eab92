"""Events are numbered without a gap, dated, and remembered up to a bound."""

from __future__ import annotations

from datetime import datetime

from focusd.daemon.events import Event, EventBus
from tests.told import told


def test_events_are_numbered_over_all_topics_and_dated() -> None:
    bus = EventBus()
    seen: list[Event] = []
    with bus.subscribed(seen.append):
        bus.publish("job", {"state": "running"}, "j1")
        bus.publish("log", {})
    bus.publish("log", {"after": "the end of the subscription"})
    assert [(event["seq"], event["topic"], event["job_id"]) for event in seen] == [
        (1, "job", "j1"),
        (2, "log", None),
    ]
    assert {event["session"] for event in seen} == {bus.session}
    assert datetime.fromisoformat(seen[0]["time"]).utcoffset() is not None
    assert seen[0]["monotonic_s"] <= seen[1]["monotonic_s"]


def test_the_latest_events_are_remembered() -> None:
    bus = EventBus(capacity=5)
    assert told(bus.since(0, 10)) == []
    for number in range(8):
        bus.publish("log", {"number": number})
    assert [event["seq"] for event in told(bus.since(0, 10))] == [4, 5, 6, 7, 8]
    assert [event["seq"] for event in told(bus.since(5, 2))] == [6, 7]
    assert bus.since(8, 10) == bus.since(99, 10) == []


def test_an_event_keeps_what_was_true_when_it_was_published() -> None:
    bus = EventBus()
    probes = [1]
    bus.publish("focus.progress", {"probes": probes})
    probes.append(2)
    assert told(bus.since(0, 1))[0]["data"] == {"probes": [1]}


def test_each_start_has_its_own_session() -> None:
    assert EventBus().session != EventBus().session
