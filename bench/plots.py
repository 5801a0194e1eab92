"""Pictures of the benches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

from bench.curves import Curves
from bench.synthetic import INSTRUMENT

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


def draw_errors(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Median error against the number of images, as in the paper's Fig. 4, for both optics, with the bound."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(12, 5), layout="constrained", sharey=True)
    for axis, optics in zip(axes, ("aberrated", "ideal"), strict=True):
        chosen = [r for r in rows if _is_main(r) and r["optics"] == optics]
        for name in dict.fromkeys(r["strategy"] for r in chosen):
            one = [r for r in chosen if r["strategy"] == name]
            style = "--" if name.startswith("brent") else "-"
            axis.semilogy(*_curve(one, "median_um"), f"o{style}", label=name)
            if any(r["bound_um"] for r in one):
                axis.semilogy(*_curve(one, "bound_um"), "k:", label="Cramér–Rao bound")
        axis.axhline(INSTRUMENT.depth_of_field_um / 10, color="grey", lw=0.8, label="0.1 depth of field")
        axis.set(title=f"10×/0.3, {optics} optics, start in ±60 µm", xlabel="images")
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[0].set(ylabel="median |error| (µm)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def _is_main(row: Mapping[str, Any]) -> bool:
    wanted = {"objective": "10x/0.3", "start_um": 60.0, "electrons": 8000.0, "scene": "plain"}
    return all(row[name] == value for name, value in wanted.items())


def _curve(rows: Sequence[Mapping[str, Any]], figure: str) -> tuple[list[int], list[float]]:
    return [r["images"] for r in rows], [float("nan") if r[figure] is None else r[figure] for r in rows]
