"""The rig: what is kept of it, its adapters, its device files, its calibration, its devices."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path

import numpy as np

from focusd.config import ClientConfig, CoreConfig, RigConfig, StageConfig
from focusd.daemon.opening import hold_hardware
from focusd.doctor.finding import Ask, Finding, failure, ok, skipped, warning
from focusd.focus.frame import Frame
from focusd.microscope.factory import open_microscope
from focusd.microscope.guard import GuardedStage
from focusd.microscope.protocol import Microscope
from focusd.scoring.views import PREPROCESSING_VERSION
from focusd.scoring.weights import load_model
from focusd.storage.files import read_small_text, unsealed
from focusd.storage.store import CalibrationStore

LEAST_FREE_BYTES = 100 << 20
WALK_UM = 50.0
"""A way of the stage that a person sees, and that harms nothing at some distance from the sample."""
DEVICE_FILES = ("ttyUSB*", "ttyACM*", "video*")


def state(config: RigConfig) -> Iterator[Finding]:
    """The folder that outlives a run, and what the last run left there."""
    folder = config.state_folder
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(existing, os.W_OK | os.X_OK) or not existing.is_dir():
        yield failure("state", f"{existing}: cannot be written", "change its owner, or set another state_dir")
        return
    if shutil.disk_usage(existing).free < LEAST_FREE_BYTES:
        yield warning("state", f"{existing}: less than 100 MB are free", "make room: calibrations need some")
    else:
        yield ok("state", f"{folder}: can be written")
    if aside := sorted(path.name for path in folder.rglob("*.bad-*")):
        yield warning(
            "state", f"set aside as damaged: {', '.join(aside)}", "look at the disk, then delete them"
        )
    yield from _last_run(folder / "rig.json")


def _last_run(record: Path) -> Iterator[Finding]:
    if not os.path.lexists(record):
        if any(record.parent.glob(f"{record.name}.bad-*")):
            do = "look at the hardware, start focusd, then run `focusctl reconnect`"
            yield failure("last run", "it could not write its record, and may have ended in a fault", do)
        else:
            yield ok("last run", "there was none")
        return
    try:
        values = unsealed(read_small_text(record))
    except (OSError, ValueError) as error:
        do = "look at the hardware; focusd starts disconnected, `focusctl reconnect` connects it"
        yield failure("last run", f"{record}: {error}", do)
        return
    if values["fault"]:
        do = "look at the hardware, start focusd, then run `focusctl reconnect`"
        yield failure("last run", f"ended in a fault: {values['fault']}", do)
    else:
        z = "unknown" if values["z_um"] is None else f"{values['z_um']:.2f} µm"
        yield ok("last run", f"z = {z}; {values['why']} ({values['written']})")


def adapters(config: RigConfig) -> Iterator[Finding]:
    """Micro-Manager's device adapters and its configuration file."""
    settings = config.microscope
    if not isinstance(settings, CoreConfig):
        return
    from pymmcore_plus import find_micromanager

    folder = settings.adapter_path or find_micromanager()
    if not folder or not Path(folder).is_dir():
        do = "run `mmcore install`, or set microscope.adapter_path to a Micro-Manager of the same device interface"
        yield failure("adapters", "no Micro-Manager device adapters are found", do)
        return
    yield ok("adapters", str(folder))
    file = settings.config_file
    if Path(file).is_file() or (Path(folder) / file).is_file():
        yield ok("config_file", file)
    else:
        do = "set microscope.config_file to the file that Micro-Manager's wizard wrote"
        yield failure("config_file", f"{file}: neither beside the configuration nor among the adapters", do)


def permissions(config: RigConfig) -> Iterator[Finding]:
    """Device files that this user may not open."""
    if not isinstance(config.microscope, CoreConfig):
        return
    if sys.platform == "win32":
        yield skipped("permissions", "drivers decide on Windows, not files")
        return
    files = sorted(chain.from_iterable(Path("/dev").glob(pattern) for pattern in DEVICE_FILES))
    for path in files:
        if not os.access(path, os.R_OK | os.W_OK):
            do = f"add this user to the group `{path.group()}`, and log in again; under systemd install usb.conf"
            yield warning("permissions", f"{path}: may not be opened by this user", do)
    if not files:
        yield skipped("permissions", "no serial or video devices here")


def calibration(config: RigConfig) -> Iterator[Finding]:
    """The objective's calibration, and that it was made with this network."""
    objective = config.objective.name
    store = CalibrationStore(config.state_folder / "calibrations")
    do = "focus by eye on a flat textured sample, then run `focusctl calibrate`"
    if not store.exists(objective):
        yield warning("calibration", f"{objective!r} has none", do)
        return
    found = store.load(objective)
    wanted = {
        "model_sha256": load_model(config.scorer.weights).sha256,
        "preprocessing": PREPROCESSING_VERSION,
    }
    if any(found.fingerprint.get(key) != value for key, value in wanted.items()):
        yield failure("calibration", f"{objective!r} was calibrated with another network", do)
    else:
        yield ok("calibration", f"{objective!r}: FWHM {found.fwhm_um:.1f} µm, R² {found.r2:.3f}")


def devices(config: RigConfig, ask: Ask | None) -> Iterator[Finding]:
    """Camera and stage, opened: one position read, one exposure taken; nothing is moved unless a person agrees."""
    if isinstance(config.microscope, ClientConfig):
        yield skipped("devices", "camera and stage are the clients'")
        return
    with ExitStack() as resources:
        hold_hardware(config, resources)
        microscope = open_microscope(config)
        resources.callback(microscope.close)
        z_um, limits = microscope.position_um(), config.stage
        if limits.min_um <= z_um <= limits.max_um:
            yield ok("stage", f"stands at {z_um:.2f} µm, inside {limits.min_um:g} … {limits.max_um:g} µm")
        else:
            says = f"stands at {z_um:.2f} µm, outside {limits.min_um:g} … {limits.max_um:g} µm"
            yield failure("stage", says, "bring it inside by hand, or correct stage.min_um and stage.max_um")
        yield _light(microscope.snap(), microscope.camera_name, config.autofocus.max_saturated)
        if isinstance(config.microscope, CoreConfig):
            yield _direction(microscope, limits, ask)


def _direction(microscope: Microscope, limits: StageConfig, ask: Ask | None) -> Finding:
    """Which way the stage goes: images cannot show it, so that a person has to look."""
    away = -1 if limits.towards_sample == "increasing" else 1
    start_um = microscope.position_um()
    there_um = min(max(start_um + away * WALK_UM, limits.min_um), limits.max_um)
    way = f"from {start_um:.1f} to {there_um:.1f} µm"
    if ask is None:
        return skipped("direction", "not walked", "run `focusd doctor --hardware` in a terminal, and look")
    if abs(there_um - start_um) < WALK_UM / 2:
        do = "bring the stage further from that limit, then run `focusd doctor --hardware` again"
        return skipped("direction", f"too near a limit to move away from the sample: {way}", do)
    if not ask(
        "Bring the objective millimetres away from the sample by hand, or take the sample off. "
        f"May the stage now move {way} and back?"
    ):
        return skipped("direction", "not walked, as you said", "find out by hand which way z goes")
    apart = _seen_apart(GuardedStage(microscope, limits), there_um, ask)
    return _judged(apart, f"{way}, which stage.towards_sample = {limits.towards_sample!r} calls away")


def _seen_apart(stage: GuardedStage, there_um: float, ask: Ask) -> bool | None:
    """Whether objective and sample went apart on the way there; however it ends, the stage goes back."""
    stage.begin_operation()
    try:
        stage.move_to(there_um)
        return ask("The stage has moved. Did objective and sample go apart?")
    finally:
        stage.return_to_start()


def _judged(apart: bool | None, way: str) -> Finding:
    if apart:
        return ok("direction", f"objective and sample went apart {way}")
    if apart is None:
        do = "look again, with a dial gauge or on the focus knob, before focusd moves this stage"
        return warning("direction", f"nobody could tell which way the stage went {way}", do)
    do = "do not run focusd before stage.towards_sample, or the stage's own setting, has been put right"
    return failure("direction", f"objective and sample came CLOSER {way}", do)


def _light(frame: Frame, camera: str, max_saturated: float) -> Finding:
    height, width = frame.pixels.shape[:2]
    says = f"{camera}: {width}×{height}, mean {frame.pixels.mean():.0f} of {frame.full_scale}"
    if frame.saturated_fraction > max_saturated:
        return warning("camera", f"{says}, saturated", "lower camera.exposure_ms or the lamp")
    if not np.ptp(frame.pixels):
        return warning("camera", f"{says}, all pixels alike", "open the shutter, switch the lamp on")
    return ok("camera", says)
