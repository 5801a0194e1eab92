"""Pictures of the score benches."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib

from bench.curves import Curves

matplotlib.use("Agg")


def draw_curves(optical: Mapping[str, Curves], gaussian: Mapping[str, Curves], path: Path) -> None:
    """Mean curve ± SD of each measure, as in the paper's Fig. 3, and the depth that each leaves open."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(3, 3, figsize=(14, 11), layout="constrained")
    for axis, name in zip(axes.flat, optical, strict=False):
        for curves, colour, label in (
            (optical[name], "tab:blue", "our optics"),
            (gaussian[name], "tab:orange", "Gaussian blur"),
        ):
            values = curves.normalised()
            mean, spread = values.mean(0), values.std(0)
            axis.plot(curves.z_um, mean, color=colour, label=label)
            axis.fill_between(curves.z_um, mean - spread, mean + spread, color=colour, alpha=0.25)
        axis.set(title=name, xlabel="z (µm)", ylabel="normalised score")
    axes.flat[0].legend()
    last = axes.flat[len(optical)]
    for name, curves in optical.items():
        last.semilogy(curves.z_um, curves.depth_uncertainty_um(), label=name)
    last.set(title="dz = σ / |slope| (µm)", xlabel="z (µm)", ylim=(0.3, 300))
    last.legend(fontsize=7)
    figure.savefig(path, dpi=90)
    plt.close(figure)
