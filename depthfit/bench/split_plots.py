"""Plots of ``depthfit bench splits``; they need matplotlib (``pip install depthfit[plots]``)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from depthfit.bench.split_scores import Figures
from depthfit.bench.splits import SWEEPS
from depthfit.bench.variants import FITS

COLOURS = ("tab:orange", "tab:red", "tab:green", "tab:blue", "tab:cyan", "tab:purple")
DPI = 110


def plot_sweeps(curves: Mapping[str, Mapping[str, Mapping[float, Figures]]], path: Path) -> None:
    """MPJPE (above) and distance error (below) against every value swept; PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.0 * len(curves), 5.6), layout="constrained")
    axes = figure.subplots(2, len(curves), sharey="row", squeeze=False)
    for column, (name, fits) in enumerate(curves.items()):
        values = list(next(iter(fits.values())))
        above, below = axes[0, column], axes[1, column]
        # Values are evenly spaced: they grow by factors, and one of them may be zero.
        places = range(len(values))
        predicted = [f.prediction for f in next(iter(fits.values())).values()]
        above.plot(places, predicted, color="gray", linestyle="--", marker=".", label="prediction")
        for colour, (key, found) in zip(COLOURS, fits.items(), strict=False):
            above.plot(
                places, [f.mpjpe for f in found.values()], color=colour, marker=".", label=FITS[key].name
            )
            below.plot(places, [100 * f.distance for f in found.values()], color=colour, marker=".")
        for axis in (above, below):
            axis.set_xticks(list(places), [f"{value:g}" for value in values])
            axis.grid(alpha=0.3)
            axis.set_ylim(bottom=0)
        below.set_xlabel(SWEEPS[name].title)
    axes[0, 0].set_ylabel("MPJPE, mm")
    axes[1, 0].set_ylabel("distance error, median, %")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(handles), fontsize=9)
    figure.savefig(path, format="png", dpi=DPI)
