"""Markdown of ``depthfit bench splits``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from depthfit.bench.cells import LOG_ERRORS, log_cell
from depthfit.bench.split_scores import Figures
from depthfit.bench.splits import SWEEPS
from depthfit.bench.variants import FITS
from depthfit.report.score_tables import interval_text

Splits = Mapping[str, Figures]


def markdown(
    by_fit: Mapping[str, Splits],
    by_level: Mapping[str, Mapping[str, Splits]],
    curves: Mapping[str, Mapping[str, Mapping[float, Figures]]],
    floors: Mapping[str, float],
    ablated: Mapping[str, Splits],
) -> str:
    """All tables; an empty mapping leaves its tables out."""
    blocks: list[str] = []
    if by_fit:
        blocks += ["MPJPE, mm", mpjpe_table(by_fit)]
        blocks += ["Focal / distance, median |log|", camera_table(by_fit)]
    for key in by_fit:
        if key.startswith(("joint", "no_masks")):
            blocks += [FITS[key].name, target_table(key, by_fit, floors)]
    for level, fits in by_level.items():
        if fits:
            blocks += [f"MPJPE, mm, errors of the evidence: {level}", mpjpe_table(fits)]
    for name, swept in curves.items():
        blocks += [f"MPJPE, mm, against {SWEEPS[name].title}", sweep_table(swept)]
    if ablated:
        blocks += ["Ablations, priors and TALS: MPJPE, mm", mpjpe_table(ablated), overall_table(ablated)]
    return "\n\n".join(blocks)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def mpjpe_table(by_fit: Mapping[str, Splits]) -> str:
    """MPJPE of the prediction and of every fit, by split."""
    splits = next(iter(by_fit.values()))
    rows = [["prediction", *(f"{f.prediction:.1f}" for f in splits.values())]]
    rows += [[FITS[key].name, *(f"{f.mpjpe:.1f}" for f in found.values())] for key, found in by_fit.items()]
    return table(["fit", *(f"{name} ({f.people})" for name, f in splits.items())], rows)


def camera_table(by_fit: Mapping[str, Splits]) -> str:
    """Median errors of focal and distance, by split, as in :func:`log_cell`."""
    splits = next(iter(by_fit.values()))
    rows = [
        [FITS[key].name, *(f"{log_cell(f.focal)} / {log_cell(f.distance)}" for f in found.values())]
        for key, found in by_fit.items()
    ]
    return table(["fit", *splits], rows)


def overall_table(by_fit: Mapping[str, Splits]) -> str:
    """More of every fit, over all people."""
    head = ["fit", "MPJPE", "PA-MPJPE", "reprojection", *LOG_ERRORS, "worse", "accepted"]
    rows = []
    for key, splits in by_fit.items():
        f = splits[list(splits)[-1]]
        name = FITS[key].name
        row = [name, interval_text(f.mpjpe, f.low, f.high, ".1f"), f"{f.pa:.1f}", f"{f.reprojection:.2%}"]
        rows.append([*row, log_cell(f.focal), log_cell(f.distance), f"{f.worse:.1%}", f"{f.accepted:.0%}"])
    return table(head, rows)


def best_rival(by_fit: Mapping[str, Splits], split: str) -> tuple[str, float] | None:
    """Name and MPJPE of the best fit of a split that is not a joint one and knows no truth."""
    found = [
        (FITS[key].name, splits[split].mpjpe)
        for key, splits in by_fit.items()
        if is_rival(key) and not FITS[key].knows_focal
    ]
    return min(found, key=lambda pair: pair[1], default=None)


def is_rival(key: str) -> bool:
    """Whether a fit is another method, not the joint one or a part of it."""
    return not FITS[key].name.startswith("joint")


def target_table(key: str, by_fit: Mapping[str, Splits], floors: Mapping[str, float]) -> str:
    """What is asked of a joint fit, by split."""
    head = [
        "split",
        "MPJPE",
        "under prediction",
        "joints in the image",
        "worse",
        "accepted",
        "best rival",
        *LOG_ERRORS,
    ]
    head += ["its floor", "in 68 % / 95 %: focal", "distance", "joints"]
    rows = []
    for name, f in by_fit[key].items():
        rival = best_rival(by_fit, name)
        rows.append(
            [
                name,
                interval_text(f.mpjpe, f.low, f.high, ".1f"),
                f"{f.gain:.0%}",
                f"{1 - f.seen_mpjpe / f.seen_prediction:.0%}",
                f"{f.worse:.1%}",
                f"{f.accepted:.0%}",
                "" if rival is None else f"{rival[1]:.1f} ({rival[0]})",
                log_cell(f.focal),
                log_cell(f.distance),
                log_cell(floors[name]),
                *(
                    " / ".join(f"{v:.0%}" for v in f.coverage[c].values())
                    for c in ("focal", "distance", "joints")
                ),
            ]
        )
    return table(head, rows)


def sweep_table(fits: Mapping[str, Mapping[float, Figures]]) -> str:
    """MPJPE against the value swept."""
    values = next(iter(fits.values()))
    rows = [["prediction", *(f"{f.prediction:.1f}" for f in values.values())]]
    rows += [[FITS[key].name, *(f"{f.mpjpe:.1f}" for f in found.values())] for key, found in fits.items()]
    return table(["fit", *(f"{value:g}" for value in values)], rows)
