"""Scores as Markdown and CSV, every row stamped with what it was made with."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from depthfit.evaluation.published import PublishedRow
from depthfit.evaluation.score import Scores

METRICS = {
    "mpjpe_mm": ("MPJPE", "mm", 1.0), "pa_mpjpe_mm": ("PA-MPJPE", "mm", 1.0),
    "mve_mm": ("MVE (PVE)", "mm", 1.0), "pa_mve_mm": ("PA-PVE", "mm", 1.0),
    "camera_mpjpe_mm": ("joints in camera space", "mm", 1.0), "pelvis_mm": ("pelvis", "mm", 1.0),
    "distance_mm": ("distance (Tz)", "mm", 1.0), "distance_percent": ("distance", "%", 1.0),
    "focal_percent": ("focal", "%", 1.0), "reprojection": ("reprojection", "% of size", 100.0),
    "pck_box_005": ("PCK 0.05 of box", "%", 100.0), "pck_box_010": ("PCK 0.1 of box", "%", 100.0),
    "pck_head_050": ("PCK 0.5 of head", "%", 100.0), "pck_head_100": ("PCK 1.0 of head", "%", 100.0),
    "pck_torso_050": ("PCK 0.5 of torso", "%", 100.0), "pck_torso_100": ("PCK 1.0 of torso", "%", 100.0),
    "iou": ("mIoU", "%", 100.0), "own_iou": ("mIoU with the fit's own masks", "%", 100.0),
}  # fmt: skip
"""Column -> heading, unit, factor from the column's unit."""


@dataclass(frozen=True)
class Stamp:
    """What a result was made with; stands in every row.

    Attributes:
        dataset: Name and part, or the ground truth's file.
        protocol: How joints were compared.
        body: Of the fit; true_body: of the ground truth.
        tokenizer, init: Of the fit.
        camera: Where the focal lengths came from; keypoints: where the 2D came from.
        matching: How people were found in the ground truth: person (by number) or overlap.
        config: The fit's resolved configuration, its file and the start of its SHA-256.
        fitted_with, scored_with: Versions of depthfit.
    """

    dataset: str
    protocol: str
    body: str
    true_body: str
    tokenizer: str
    init: str
    camera: str
    keypoints: str
    matching: str
    config: str
    fitted_with: str
    scored_with: str


MOST_NAMED = 3
"""So many differing values of a stamp's field stand in a table; more are counted."""


def stamp_of_all(stamps: Sequence[Stamp]) -> Stamp:
    """The stamp of a table of several fits: what they share, and where they differ what all of them have."""
    fields: dict[str, str] = {}
    for name in asdict(stamps[0]):
        values = list(dict.fromkeys(getattr(stamp, name) for stamp in stamps))
        many = f"{len(values)} different ones, by person in rows.csv"
        fields[name] = "; ".join(values) if len(values) <= MOST_NAMED else many
    return Stamp(**fields)


def markdown_report(
    scores: Scores, stamp: Stamp, references: Sequence[PublishedRow], remark: str = ""
) -> str:
    """The whole report: what was scored, the table, and published rows beside it, or why there are none."""
    summary = scores.summary
    lines = [
        f"# {stamp.dataset}, protocol {stamp.protocol}",
        "",
        f"{summary['protocol']['text']}.",
        "",
        *(f"- {name.replace('_', ' ')}: {value}" for name, value in asdict(stamp).items()),
        "",
        *_counts(summary),
        "",
        *_table(summary),
    ]
    if references or remark:
        beside = _reference_table(summary, stamp, references) if references else [remark]
        lines += ["", "## Beside published figures", "", *beside]
    return "\n".join(lines) + "\n"


def _counts(summary: Mapping[str, Any]) -> list[str]:
    accepted, worse, order = summary["accepted"], summary["worse"], summary["depth_order"]
    out = [
        f"- people: {summary['people']} in {summary['images']} images; {summary['missing']} of the ground "
        "truth have no fit and are in no figure below"
    ]
    if summary["without_truth"]:
        out.append(
            f"- fits of people whom the ground truth does not have, not scored: {summary['without_truth']}"
        )
    if accepted is not None:
        out.append(f"- accepted: {accepted:.1%}")
    if worse is not None:
        out.append(f"- made worse (MPJPE): {worse:.1%}")
    for name, levels in summary["coverage"].items():
        stated = ", ".join(f"{share:.0%} inside the {level} interval" for level, share in levels.items())
        out.append(f"- {name}: {stated}")
    out += _pooled(summary["pck"])
    if order["pairs"]:
        out.append(
            f"- depth order of {order['pairs']} pairs: {order['initial']:.1%} -> {order['refined']:.1%}"
        )
    return out


def _pooled(pck: Mapping[str, Mapping[str, float]]) -> list[str]:
    """PCK as HMR2.0 averages it; the table's is the mean over people."""
    known = [name for name, value in pck["refined"].items() if math.isfinite(value)]
    if not known:
        return []
    parts = (f"{METRICS[n][0]} {pck['initial'][n]:.1%} -> {pck['refined'][n]:.1%}" for n in known)
    return [f"- mean over keypoints: {', '.join(parts)}"]


def _table(summary: Mapping[str, Any]) -> list[str]:
    """Means with 95 % bootstrap intervals where they are known."""
    head = ("", "prediction", "refined", "refined - prediction", "worse")
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for column, (name, unit, factor) in METRICS.items():
        if column not in summary and f"initial_{column}" not in summary:
            continue
        before, after = (_mean(summary.get(p + column), factor) for p in ("initial_", ""))
        change = summary["difference"].get(column)
        worse = "" if change is None else f"{change['worse']:.1%}"
        cells = (f"{name}, {unit}", before, after, _mean(change, factor, signed=True), worse)
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _mean(found: Mapping[str, float] | None, factor: float, signed: bool = False) -> str:
    if found is None:
        return ""
    mean, low, high = (found[key] * factor for key in ("mean", "low", "high"))
    return interval_text(mean, low, high, "+.1f" if signed else ".1f")


def interval_text(mean: float, low: float, high: float, form: str) -> str:
    """``mean [low, high]``; the mean alone where its interval is not known."""
    return f"{mean:{form}} [{low:{form}}, {high:{form}}]" if math.isfinite(low) else f"{mean:{form}}"


def _reference_table(
    summary: Mapping[str, Any], stamp: Stamp, references: Sequence[PublishedRow]
) -> list[str]:
    lines = ["| | MVE mm | MPJPE mm | PA-MPJPE mm | |", "|---|---|---|---|---|"]
    for row in references:
        lines.append(
            f"| {row.method} | {row.mve} | {row.mpjpe} | {row.pa_mpjpe} | as published: {row.source} |"
        )
    for prefix, name in (("initial_", f"{stamp.init}, this run"), ("", "refined, this run")):
        cells = [
            f"{summary[prefix + c]['mean']:.1f}" if prefix + c in summary else ""
            for c in ("mve_mm", "mpjpe_mm", "pa_mpjpe_mm")
        ]
        lines.append(f"| {name} | {' | '.join(cells)} | measured here |")
    return lines


def table_csv(scores: Scores, stamp: Stamp, references: Sequence[PublishedRow]) -> str:
    """One line a metric and side (prediction, refined, difference, published), each with the stamp."""
    stamped = asdict(stamp)
    rows: list[dict[str, Any]] = []
    for column, (name, unit, factor) in METRICS.items():
        for label, found in (
            ("prediction", scores.summary.get(f"initial_{column}")),
            ("refined", scores.summary.get(column)),
            ("difference", scores.summary["difference"].get(column)),
        ):
            if found is not None:
                ends = {key: found[key] * factor for key in ("mean", "low", "high")}
                values = {key: value for key, value in ends.items() if math.isfinite(value)}
                rows.append({"metric": name, "unit": unit, "of": label, **values, **stamped})
    for row in references:
        for name, value in (("MVE (PVE)", row.mve), ("MPJPE", row.mpjpe), ("PA-MPJPE", row.pa_mpjpe)):
            shared = {"dataset": stamp.dataset, "protocol": stamp.protocol}
            rows.append({"metric": name, "unit": "mm", "of": f"{row.method}, as published: {row.source}",
                         "mean": value, **shared})  # fmt: skip
    return _csv(rows, ["metric", "unit", "of", "mean", "low", "high", *stamped])


def rows_csv(scores: Scores, stamps: Sequence[Stamp], links: Sequence[str]) -> str:
    """One line a person, with the link to its overlay and the stamp of its fit."""
    rows = [
        {**row, "overlay": link, **asdict(stamp)}
        for row, stamp, link in zip(scores.rows, stamps, links, strict=True)
    ]
    return _csv(rows, list(rows[0]))


def rows_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """CSV of rows, under every column that one of them has; what a row lacks is empty."""
    return _csv(rows, list(dict.fromkeys(name for row in rows for name in row)))


def _csv(rows: Sequence[Mapping[str, Any]], fields: list[str]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
