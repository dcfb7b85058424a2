"""The figures of ``depthfit bench speed`` as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from depthfit.bench.speed_fit import STAGES, FitSpeed
from depthfit.bench.speed_race import ENTRIES, EQUAL, NEAR, Race
from depthfit.bench.speed_scenes import MIXED_PEOPLE, MIXED_SIZES


@dataclass(frozen=True)
class Costs:
    """s a person outside the fit: reading files, making the batch, results as arrays on the host."""

    reading: float
    preparing: float
    results: float


def speed_report(
    fits: Sequence[FitSpeed],
    races: Sequence[Race],
    costs: Costs,
    images: int,
    repeats: int,
    place: str,
    gpu: bool,
) -> str:
    """Both tables with how they were measured."""
    sizes = ", ".join(f"{width} x {height}" for width, height in MIXED_SIZES)
    how = (
        f"{place}. {images} different synthetic images, repeated to the size of the batch; medians of at "
        f"most {repeats} runs after one to warm up; batches lie ready on the device. First run: compilation "
        f"and allocation included. Mixed sizes: images of {sizes} px with one to {len(MIXED_PEOPLE)} "
        "people; elsewhere 1280 x 960 with one person. "
    )
    how += (
        "Shares by one more run that waits for the device at every stage and launches every kernel from "
        "Python; empty where that one ran out of memory. Peak memory is the device's."
        if gpu
        else "Peak memory is the process's so far."
    )
    beside = (
        f"Beside the fit, a person: {1e3 * costs.reading:.1f} ms to read the files, "
        f"{1e3 * costs.preparing:.1f} ms to make the batch, {1e3 * costs.results:.1f} ms for results as "
        "arrays."
    )
    parts = [fit_table(fits)] if fits else []
    parts += [how, beside]
    if races:
        parts += [race_table(races), _rules(races)]
    return "\n\n".join(parts)


def fit_table(fits: Sequence[FitSpeed]) -> str:
    """Whole fits, one row a batch."""
    head = "| fit | people | people/s | s | first run s | LM steps | peak GiB |"
    lines = [head + "".join(f" {stage} |" for stage in STAGES)]
    lines.append("|---|---|---|---|---|---|---|" + "---|" * len(STAGES))
    for fit in fits:
        start = f"| {fit.case.label} | {fit.people} |"
        if fit.failed:
            lines.append(f"{start} {fit.failed} |" + " |" * (4 + len(STAGES)))
            continue
        cells = f" {_short(fit.rate)} | {_short(median(fit.seconds))} | {_short(fit.first)} | {fit.steps:g} |"
        shares = "".join(f" {fit.shares[stage]:.0%} |" if fit.shares else " |" for stage in STAGES)
        lines.append(f"{start}{cells} {fit.peak_gib:.2f} |{shares}")
    return "\n".join(lines)


def race_table(races: Sequence[Race]) -> str:
    """Solvers, one row a batch and solver."""
    lines = [
        f"| people | solver | costs noted | s in all | mean cost over LM's | s to {NEAR:.0%} | s to equal | "
        "times LM, same batch | times LM, largest batch, a person | images at LM's cost or below | "
        "peak GiB | first steps s |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    own = {race.people: race for race in races if race.solver == "lm" and not race.failed}
    largest = own[max(own)] if own else None
    for race in races:
        start = f"| {race.people} | {ENTRIES[race.solver].label} |"
        if race.failed:
            lines.append(f"{start} {race.failed} |" + " |" * 9)
            continue
        taken, bound = (race.seconds, "> ") if race.equal is None else (race.equal, "")
        same = _times(taken, own.get(race.people), 1.0, bound)
        every = _times(taken / race.people, largest, 1.0 / largest.people if largest else 1.0, bound)
        lines.append(
            f"{start} {race.steps} | {_short(race.seconds)} | {race.excess:+.2%} | {_optional(race.near)} | "
            f"{_optional(race.equal)} | {same} | {every} | {race.share:.0%} | {race.peak_gib:.2f} | "
            f"{_short(race.first)} |"
        )
    return "\n".join(lines)


def _rules(races: Sequence[Race]) -> str:
    text = (
        "All solvers minimise the fit's own cost, associations held, from the state after the camera and "
        f"root stages, joint rotations, with depth. Equal: mean cost within {EQUAL:.2%} of LM's last. "
        "A solver stops there, at the end of its schedule, or out of patience."
    )
    recorded = dict.fromkeys(ENTRIES[race.solver].label for race in races if race.recorded)
    if recorded:
        text += f" Recorded as a CUDA graph, as in a fit: {', '.join(recorded)}; no other."
    else:
        text += " None of them is recorded as a CUDA graph."
    missed = [race for race in races if not race.failed and race.equal is None]
    for race in missed:
        text += (
            f" {ENTRIES[race.solver].label}, batch of {race.people}: never at equal cost, "
            f"{race.excess:.2%} above after {_short(race.seconds)} s."
        )
    return text


def _times(seconds: float, own: Race | None, scale: float, bound: str) -> str:
    if own is None or own.equal is None:
        return ""
    return f"{bound}{_short(seconds / (own.equal * scale))}"


def _optional(value: float | None) -> str:
    return "never" if value is None else _short(value)


def _short(value: float) -> str:
    """Three significant digits without an exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 0.001 else f"{value:.5f}"
