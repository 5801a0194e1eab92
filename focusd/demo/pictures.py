"""The demo's pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray

from focusd.config import RigConfig
from focusd.microscope.factory import open_microscope
from focusd.microscope.guard import GuardedStage
from focusd.protocol.results import CalibrationCurve, Curve, Probe

matplotlib.use("Agg")

Pixels = NDArray[np.unsignedinteger]


def photograph(config: RigConfig, z_um: list[float]) -> list[Pixels]:
    """What the rig's camera sees at some positions."""
    microscope = open_microscope(config)
    try:
        stage = GuardedStage(microscope, config.stage)
        frames = []
        for z in z_um:
            stage.move_to(z)
            frames.append(microscope.snap().pixels)
        return frames
    finally:
        microscope.close()


def draw_calibration(calibration: CalibrationCurve, title: str, path: Path) -> None:
    """The calibration curve, its profile, its full width at half maximum."""
    from matplotlib import pyplot as plt

    fit = np.array(calibration.profile.b)
    half, level = calibration.fwhm_um / 2, (fit.min() + fit.max()) / 2
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    label = f"Moffat profile, R² {calibration.r2:.3f}"
    axes.plot(calibration.profile.z_um, fit, color="tab:orange", label=label)
    axes.plot(
        calibration.curve.z_um, calibration.curve.b, "o", color="tab:blue", markersize=4, label="measured"
    )
    axes.annotate("", (-half, level), (half, level), arrowprops={"arrowstyle": "<->", "color": "grey"})
    axes.text(0, level, f"FWHM {2 * half:.0f} µm", ha="center", va="bottom", color="grey")
    axes.set(xlabel="defocus z (µm)", ylabel="blurriness b_calib", title=title, ylim=(0, None))
    axes.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_run(
    run: dict[str, Any],
    probes: list[Probe],
    curve: Curve,
    frames: list[Pixels],
    path: Path,
) -> None:
    """A refocus: the frame before and after (there is none if it failed), and its probes on the calibration curve."""
    from matplotlib import pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4.6), layout="constrained")
    low, high = np.percentile(frames[-1], [0.5, 99.8])
    panels = ((left, "before", "z_start_um"), (middle, "after", "z_found_um"))
    for axes, _, _ in panels:
        axes.set_axis_off()
    for (axes, name, key), frame in zip(panels, frames, strict=False):
        axes.imshow(frame, cmap="gray", vmin=low, vmax=high)
        axes.set_title(f"{name}, z = {run[key]:.1f} µm")
    _draw_probes(right, run, probes, curve)
    figure.suptitle(f"{run['sample']}: {_told(run)}")
    figure.savefig(path, dpi=90)
    plt.close(figure)


def _told(run: dict[str, Any]) -> str:
    """How the run ended, in a few words."""
    error_um = run["error_um"]
    if error_um is None:
        return str(run["outcome"])
    return f"error {error_um:+.2f} µm ({error_um / run['dof_um']:+.2f} DOF)"


def _draw_probes(axes: Any, run: dict[str, Any], probes: list[Probe], curve: Curve) -> None:
    """The scores of the exposures over z, and the curve where the search has put it."""
    found = run["z_found_um"] is not None
    moved_um = np.array(curve.z_um) + (run["z_found_um"] if found else run["z_true_um"])
    label = "b_calib, moved to the focus found" if found else "b_calib at the true focus"
    axes.plot(moved_um, curve.b, color="tab:blue", label=label)
    z, b, sigma = ([getattr(probe, name) for probe in probes] for name in ("z_um", "b", "sigma"))
    axes.errorbar(
        z, b, sigma, fmt="o", color="tab:red", capsize=3, label="exposures (median of the field, σ)"
    )
    for number, (x, y) in enumerate(zip(z, b, strict=True), 1):
        axes.annotate(str(number), (x, y), textcoords="offset points", xytext=(6, 6))
    axes.axvline(run["z_true_um"], color="black", linestyle=":", label="true focus")
    axes.axvspan(
        run["z_true_um"] - run["dof_um"] / 2, run["z_true_um"] + run["dof_um"] / 2, color="black", alpha=0.08
    )
    axes.set(xlabel="z (µm)", ylabel="blurriness b", ylim=(0, None))
    axes.legend(fontsize=8)
