"""All examinations of one rig, in the order in which a start would stumble over them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from focusd.config import RigConfig, load_config
from focusd.doctor import machine, rig
from focusd.doctor.finding import Ask, Finding, failure, ok, skipped
from focusd.errors import FocusdError
from focusd.storage.files import lock

Examination = Callable[[RigConfig], Iterable[Finding]]


def examine(path: Path, hardware: bool, ask: Ask | None = None) -> Iterator[Finding]:
    """Look at everything that the configuration at `path` needs.

    Args:
        hardware: also open the devices and take one exposure; opening may home a stage.
        ask: a person who sees the microscope, and is asked before the stage moves; None: there is none, and nothing
            moves.
    """
    try:
        config = load_config(path)
    except FocusdError as error:
        yield failure(
            "configuration", error.message, "correct the file; configs/ has one for each kind of rig"
        )
        return
    yield ok("configuration", f"{path}: rig {config.name!r}, {config.microscope.kind}")
    for examination in (
        rig.state,
        machine.weights,
        machine.gpu,
        machine.keys,
        rig.adapters,
        rig.permissions,
        rig.calibration,
    ):
        yield from _guarded(examination, config, examination.__name__)
    yield from _alone(config, hardware, ask)


def healthy(findings: Iterable[Finding]) -> bool:
    """Whether nothing fails."""
    return all(finding.level != "failure" for finding in findings)


def _alone(config: RigConfig, hardware: bool, ask: Ask | None) -> Iterator[Finding]:
    """What can be looked at only while no focusd runs the rig."""
    with ExitStack() as resources:
        try:
            lock(config.state_folder / "lock", resources)
        except BlockingIOError:
            yield ok("running", "focusd runs this rig now; `focusctl status` says how it is")
            yield skipped("ports, devices", "in use by the running focusd")
            return
        except OSError:
            pass  # the state folder's own finding says so
        yield ok("running", "no focusd runs this rig now")
        yield from _guarded(machine.ports, config, "ports")
        if hardware:
            yield from _guarded(partial(rig.devices, ask=ask), config, "devices")
        else:
            yield skipped("devices", "not opened", "`--hardware` opens them and takes one exposure")


def _guarded(examination: Examination, config: RigConfig, name: str) -> Iterator[Finding]:
    """The findings of one examination; its own trouble is a finding, and no reason not to go on."""
    try:
        yield from examination(config)
    except FocusdError as error:
        yield failure(name, error.message, "the message says what to do")
    except Exception as error:
        yield failure(
            name, f"{type(error).__name__}: {error}", "please report this: the doctor itself stumbled"
        )
