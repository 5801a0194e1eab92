"""The demo's timelapse: a sample that drifts, held by the daemon, and what it would look like left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from focusd.client import EventStream
from focusd.demo.pictures import Pixels, photograph
from focusd.demo.rigs import daemons, simulated_rig
from focusd.protocol.events import DriftEvent

DRIFT_UM_PER_MIN = 60.0
"""An hour of a warm room's drift in a minute."""
HELD_S = 10.0
SILENCE_S = 30.0


def run_timelapse(state_dir: Path, work: Path, out: Path, seed: int) -> Path:
    """Hold a drifting sample for some seconds with the simulated rig's calibration; returns the picture.

    Raises:
        FocusdError: the daemon does not start, or finds no focus to begin with.
    """
    with daemons([_rig(state_dir, seed)], work) as running:
        daemon = next(running)
        daemon.client.refocus()
        daemon.client.hold(position="demo")
        with daemon.client.events(DriftEvent, silence_s=SILENCE_S) as stream:
            drift = _collect(stream)
        daemon.client.release()
        config = daemon.config
    focus_um = _rig(state_dir, seed)["microscope"]["focus_z_um"]
    first, last = drift[0].data, drift[-1].data
    drifted_um = _known(last.focus_um) - _known(first.z_um)
    frames = photograph(config, [focus_um - drifted_um, focus_um - _known(last.dz_um)])
    path = out / "timelapse.png"
    draw_timelapse(drift, frames, drifted_um, path)
    return path


def _rig(state_dir: Path, seed: int) -> dict[str, Any]:
    rig = simulated_rig(state_dir, "cells", seed, 0.0)
    rig["microscope"] |= {"drift_um_per_min": DRIFT_UM_PER_MIN}
    rig["hold"] = {"min_interval_s": 0.5, "max_interval_s": 5.0, "drift_um_per_min": DRIFT_UM_PER_MIN}
    return rig


def _collect(stream: EventStream[DriftEvent]) -> list[DriftEvent]:
    """The estimates of a locked hold, for some seconds."""
    drift: list[DriftEvent] = []
    for event in stream:
        if event.data.state == "locked":
            drift.append(event)
        if drift and event.monotonic_s - drift[0].monotonic_s > HELD_S:
            break
    return drift


def _known(um: float | None) -> float:
    assert um is not None, "a locked hold knows it"
    return um


def draw_timelapse(drift: list[DriftEvent], frames: list[Pixels], drifted_um: float, path: Path) -> None:
    """The estimates over time, and the last frame left alone and held."""
    import numpy as np
    from matplotlib import pyplot as plt

    data = [event.data for event in drift]
    seconds = np.array([event.monotonic_s - drift[0].monotonic_s for event in drift])
    focus, sigma, stage = (
        np.array([getattr(told, name) for told in data]) for name in ("focus_um", "sigma_um", "z_um")
    )
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4.6), layout="constrained")
    left.fill_between(seconds, focus - 2 * sigma, focus + 2 * sigma, alpha=0.2, label="focus ± 2σ, estimated")
    left.plot(seconds, stage, color="black", drawstyle="steps-post", label="stage, held")
    left.axhline(stage[0], color="tab:red", linestyle="--", label="stage, left alone")
    left.set(xlabel="seconds", ylabel="z (µm)", title=f"{data[-1].exposures} exposures")
    left.legend()
    low, high = np.percentile(frames[1], [0.5, 99.8])
    titles = (f"left alone: {drifted_um:.0f} µm out of focus", "held, off by as much as it estimates")
    for axes, frame, title in zip((middle, right), frames, titles, strict=True):
        axes.imshow(frame, cmap="gray", vmin=low, vmax=high)
        axes.set_axis_off()
        axes.set_title(title)
    figure.suptitle(f"A timelapse under {DRIFT_UM_PER_MIN:.0f} µm/min of drift, with and without focusd")
    figure.savefig(path, dpi=90)
    plt.close(figure)
