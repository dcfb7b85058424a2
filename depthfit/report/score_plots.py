"""Plots of scores, with matplotlib where it is installed (``pip install depthfit[plots]``)."""

from __future__ import annotations

import importlib.util
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthfit.atomic import atomic_path
from depthfit.evaluation.score import Scores
from depthfit.report.score_tables import METRICS, Stamp

CURVES = ("mpjpe_mm", "pa_mpjpe_mm", "mve_mm", "camera_mpjpe_mm", "distance_percent", "focal_percent")
WIDE_RANGE = ("camera_mpjpe_mm", "distance_percent", "focal_percent")
"""A regressor's own camera is wrong by tens of times: these have logarithmic axes."""
LEAST = 0.01
"""Errors below this are drawn here on a logarithmic axis, which has no zero."""
TITLE_CHARACTERS_PER_INCH = 13
COLOURS = {"initial_": "tab:gray", "": "tab:blue"}


def has_matplotlib() -> bool:
    """Whether plots can be drawn."""
    return importlib.util.find_spec("matplotlib") is not None


def write_plots(folder: Path, scores: Scores, stamp: Stamp) -> list[Path]:
    """Draw ``errors.png`` (share of people below an error), ``paired.png`` (refined over prediction) and
    ``coverage.png`` (stated against found shares) into ``folder``; what is not known is left out."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    title = f"{stamp.dataset}, {stamp.protocol}, {stamp.body}, depthfit {stamp.fitted_with}"
    known = [c for c in CURVES if _column(scores, c) is not None]
    figures = {"errors": _curves(Figure, scores, known)} if known else {}
    if "mpjpe_mm" in known:
        figures["paired"] = _paired(Figure, scores)
    if scores.summary["coverage"]:
        figures["coverage"] = _coverage(Figure, scores)
    paths = []
    for name, figure in figures.items():
        wide = int(figure.get_figwidth() * TITLE_CHARACTERS_PER_INCH)
        figure.suptitle(textwrap.fill(title, wide), fontsize=8)
        path = folder / f"{name}.png"
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=110)
        paths.append(path)
    return paths


def _column(scores: Scores, name: str, prefix: str = "") -> NDArray[np.float64] | None:
    values = np.abs(np.array([float(row[prefix + name]) for row in scores.rows]))
    values = values[np.isfinite(values)]
    return values if len(values) else None


def _curves(figure_class: Any, scores: Scores, columns: list[str]) -> Any:
    wide = min(3, len(columns))
    high = -(-len(columns) // wide)
    figure = figure_class(figsize=(4 * wide, 3 * high), layout="constrained")
    for place, column in enumerate(columns):
        axes = figure.add_subplot(high, wide, place + 1)
        name, unit, factor = METRICS[column]
        limit = 0.0
        for prefix, colour in COLOURS.items():
            values = _column(scores, column, prefix)
            if values is None:
                continue
            ordered = np.sort(values) * factor
            if column in WIDE_RANGE:
                ordered = np.maximum(ordered, LEAST)
            label = "prediction" if prefix else "refined"
            axes.plot(ordered, np.arange(1, len(ordered) + 1) / len(ordered), color=colour, label=label)
            limit = max(limit, float(np.quantile(ordered, 0.95)))
        axes.set(xlabel=f"{name}, {unit}", ylabel="share of people", ylim=(0, 1))
        if column in WIDE_RANGE:
            axes.set_xscale("log")
        else:
            axes.set_xlim(0, limit or 1)
        axes.legend(fontsize=7)
    return figure


def _paired(figure_class: Any, scores: Scores) -> Any:
    figure = figure_class(figsize=(4.5, 4.5), layout="constrained")
    axes = figure.add_subplot()
    before = np.array([float(row["initial_mpjpe_mm"]) for row in scores.rows])
    after = np.array([float(row["mpjpe_mm"]) for row in scores.rows])
    axes.scatter(before, after, s=6, alpha=0.5)
    top = float(np.nanmax(np.concatenate([before, after])))
    axes.plot([0, top], [0, top], color="black", linewidth=0.8)
    axes.set(xlabel="MPJPE of the prediction, mm", ylabel="MPJPE after refinement, mm", aspect="equal")
    return figure


def _coverage(figure_class: Any, scores: Scores) -> Any:
    figure = figure_class(figsize=(4.5, 3.5), layout="constrained")
    axes = figure.add_subplot()
    for name, levels in scores.summary["coverage"].items():
        stated = [float(level.rstrip("%")) / 100 for level in levels]
        axes.plot(stated, list(levels.values()), marker="o", label=name)
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8)
    axes.set(xlabel="stated share", ylabel="share found inside", xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(fontsize=8)
    return figure
