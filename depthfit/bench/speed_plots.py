"""Plots of ``depthfit bench speed``, with matplotlib (``pip install depthfit[plots]``)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from depthfit.atomic import atomic_path
from depthfit.bench.speed_fit import STAGES, Case, FitSpeed
from depthfit.bench.speed_race import ENTRIES, EQUAL, Race

LEAST_EXCESS = 1e-5
"""Nearer to LM's cost than this is drawn here: a logarithmic axis has no zero."""
DPI = 110


def write_speed_plots(
    folder: Path, fits: Sequence[FitSpeed], races: Sequence[Race], place: str
) -> list[Path]:
    """Draw ``speed_fits.png`` and ``speed_solvers.png`` into ``folder``; leaves out what was not measured."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figures = {}
    done = [fit for fit in fits if not fit.failed]
    if done:
        figures["speed_fits"] = _fits(Figure, done)
    if any(not race.failed for race in races):
        figures["speed_solvers"] = _races(Figure, [race for race in races if not race.failed])
    paths = []
    for name, figure in figures.items():
        figure.suptitle(place, fontsize=9)
        path = folder / f"{name}.png"
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=DPI)
        paths.append(path)
    return paths


def _fits(figure_class: type[Any], fits: list[FitSpeed]) -> Any:
    """People a second by batch, and where the time of the largest batch goes."""
    figure = figure_class(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    groups: dict[Case, list[FitSpeed]] = {}
    for fit in fits:
        groups.setdefault(fit.case, []).append(fit)
    spaces = list(dict.fromkeys(case.space for case in groups))
    for case, rows in groups.items():
        marker = "D" if case.mixed else "x" if case.plain else "o"
        style = {"color": f"C{spaces.index(case.space)}", "marker": marker, "markersize": 4}
        people, rate = [r.people for r in rows], [r.rate for r in rows]
        line = "--" if case.plain else "-" if case.depth else ":"
        left.loglog(people, rate, linestyle=line, label=case.label, **style)
    # A mixed batch has as many people as its images happen to hold: no mark of its own.
    sizes = sorted({row.people for row in fits if not row.case.mixed})
    left.set_xticks(sizes, [f"{size:,}" for size in sizes], rotation=45)
    left.minorticks_off()
    rates = [row.rate for row in fits]
    left.set_yticks(_round_steps(min(rates), max(rates)), minor=False)
    left.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    left.set_xlabel("people in the batch")
    left.set_ylabel("people a second")
    left.grid(True, which="major", alpha=0.4)
    left.legend(fontsize=8)
    split = [[r for r in rows if r.shares] for case, rows in groups.items() if case == Case(case.space)]
    last = [max(rows, key=lambda r: r.people) for rows in split if rows]
    base = [0.0] * len(last)
    names = [f"{row.case.space}\n{row.people} people" for row in last]
    for k, stage in enumerate(STAGES):
        shares = [100 * row.shares[stage] for row in last]
        right.bar(names, shares, bottom=base, color=f"C{k}", width=0.6, label=stage)
        base = [low + share for low, share in zip(base, shares, strict=True)]
    right.set_ylabel("share of the time, %")
    right.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _round_steps(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten around ``low`` to ``high``; of a wide range, the powers alone."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if len(powers) <= 3 else (1,)
    return [step * 10.0**power for power in powers for step in steps]


def _races(figure_class: type[Any], races: list[Race]) -> Any:
    """How far each solver's mean cost is above LM's, over time."""
    batches = sorted({race.people for race in races})
    figure = figure_class(figsize=(max(8.0, 5.0 * len(batches)), 4.6), layout="constrained")
    axes = figure.subplots(1, len(batches), squeeze=False, sharey=True)[0]
    names = list(ENTRIES)
    for axis, people in zip(axes, batches, strict=True):
        for race in (race for race in races if race.people == people):
            points = [point for point in race.curve if point[0] > 0]
            excess = [max(above, LEAST_EXCESS) for _, above in points]
            colour = f"C{names.index(race.solver)}"
            label = ENTRIES[race.solver].label
            axis.loglog([seconds for seconds, _ in points], excess, color=colour, label=label)
            if race.equal is not None:
                axis.plot([race.equal], [EQUAL], "o", color=colour, markersize=5)
        axis.axhline(EQUAL, color="0.5", linewidth=0.8, linestyle="--")
        axis.set_title(f"{people} {'person' if people == 1 else 'people'}", fontsize=10)
        axis.set_xlabel("s")
        axis.grid(True, which="major", alpha=0.4)
    axes[0].set_ylabel("mean cost above LM's last, share")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, loc="outside lower center", ncols=3)
    return figure
