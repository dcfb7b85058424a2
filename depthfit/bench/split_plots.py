"""Plots of ``depthfit bench splits``; they need matplotlib (``pip install depthfit[plots]``)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from depthfit.bench.split_scores import Figures
from depthfit.bench.splits import SWEEPS
from depthfit.bench.variants import FITS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curves = Mapping[str, Mapping[str, Mapping[float, Figures]]]
COLOURS = ("tab:orange", "tab:red", "tab:green", "tab:blue", "tab:cyan", "tab:purple")
DPI = 110


def plot_sweeps(curves: Curves, path: Path) -> None:
    """:func:`sweep_figure` as a PNG."""
    sweep_figure(curves).savefig(path, format="png", dpi=DPI)


def sweep_figure(curves: Curves) -> Figure:
    """MPJPE (above, logarithmic: it spans a factor of ten) and distance error (below) against what is swept.

    The distance error is the median of |log(fit / truth)|.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

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
            below.plot(places, [f.distance for f in found.values()], color=colour, marker=".")
        for axis in (above, below):
            axis.set_xticks(list(places), [f"{value:g}" for value in values])
            axis.grid(alpha=0.3)
        below.set_xlabel(SWEEPS[name].title)
    errors, distances = axes[:, 0]
    errors.set_yscale("log")
    errors.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    errors.yaxis.set_major_formatter("{x:g}")
    errors.yaxis.set_minor_locator(NullLocator())
    errors.set_ylabel("MPJPE, mm")
    # Set before all columns are drawn, a limit would end the scaling of the whole row by its data.
    distances.set_ylim(bottom=0)
    distances.set_ylabel("distance error, median |log|")
    handles, labels = errors.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(handles), fontsize=9)
    return figure
