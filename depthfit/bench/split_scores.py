"""Saved fits of many parts, put together and scored by split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from depthfit.bench.floor import MEDIAN_OF_NORMAL, distance_floor, height_error
from depthfit.bench.pool import Job
from depthfit.bench.splits import Part
from depthfit.body.model import Body
from depthfit.evaluation.errors import MM_PER_M, Scoring
from depthfit.evaluation.matching import match_by_number
from depthfit.evaluation.score import FIT_FIELDS, NOT_BY_PERSON, TRUTH_FIELDS, load_table, score_tables, take

Table = dict[str, np.ndarray]
PERSON_ERRORS = (
    "initial_mpjpe_mm", "mpjpe_mm", "pa_mpjpe_mm", "focal_log", "distance_log", "reprojection",
)  # fmt: skip
PERSON = ("group", "level", "fit", "image", "person", "accepted", *PERSON_ERRORS)
"""Columns of people.csv; the errors as in ``depthfit eval``."""


@dataclass(frozen=True)
class Figures:
    """Some people under one fit; errors in mm or shares.

    Attributes:
        people: Their number; missing: Those of the truth without a fit.
        prediction, mpjpe, pa: Mean MPJPE of the prediction and of the fit, and the fit's PA-MPJPE.
        seen_prediction, seen_mpjpe: The first two over the joints inside the image alone.
        low, high: 95 % interval of ``mpjpe``, over images.
        focal, distance: Median errors, as shares; ``distance_deviation`` is the mean square one's root.
        worse: Share with a larger MPJPE than predicted.
        accepted: Share.
        coverage: Of focal, distance and joints: shares inside the 68 % and the 95 % intervals.
        reprojection, initial_reprojection: Medians of the fit's and the prediction's error in the image, in
            shares of the person's size.
    """

    people: int
    missing: int
    prediction: float
    mpjpe: float
    seen_prediction: float
    seen_mpjpe: float
    low: float
    high: float
    pa: float
    focal: float
    distance: float
    worse: float
    accepted: float
    coverage: dict[str, dict[str, float]]
    reprojection: float
    initial_reprojection: float

    @property
    def gain(self) -> float:
        """Share by which the MPJPE is under the prediction's."""
        return 1 - self.mpjpe / self.prediction


def tables(parts: Sequence[Part], key: str, job: Job) -> tuple[Table, Table]:
    """Fits and truth of all people of ``parts``."""
    fits = [load_table(job.fits(part, key), FIT_FIELDS) for part in parts]
    truth = [load_table(job.scene(part) / "ground_truth.npz", TRUTH_FIELDS) for part in parts]
    return _stack(fits), _stack(truth)


def _stack(tables: Sequence[Table]) -> Table:
    first = tables[0]
    return {
        name: first[name] if name in NOT_BY_PERSON else np.concatenate([table[name] for table in tables])
        for name in first
    }


_SCORED: dict[tuple[str, ...], tuple[Figures, list[dict[str, Any]]]] = {}
"""Scores that were asked before: saved fits do not change."""


def figures(parts: Sequence[Part], key: str, job: Job) -> Figures:
    """The figures of a fit over ``parts``, whose images have different names."""
    return _of_parts(parts, key, job)[0]


def people(parts: Sequence[Part], key: str, job: Job) -> list[dict[str, Any]]:
    """``PERSON`` of everybody in ``parts`` under one fit."""
    by_image = {part.scene.first + i: part for part in parts for i in range(part.scene.images)}
    found = []
    for row in _of_parts(parts, key, job)[1]:
        part = by_image[int(Path(str(row["imgname"])).stem)]
        numbers = {name: float(f"{row[name]:.4g}") for name in PERSON_ERRORS}
        known = {"group": part.group, "level": part.level, "fit": key, "image": Path(row["imgname"]).stem}
        found.append({**known, "person": row["person"], "accepted": int(row["accepted"]), **numbers})
    return found


def _of_parts(parts: Sequence[Part], key: str, job: Job) -> tuple[Figures, list[dict[str, Any]]]:
    name = (job.out, key, *(part.name for part in parts))
    if name not in _SCORED:
        _SCORED[name] = scored(*tables(parts, key, job), key)
    return _SCORED[name]


def figures_of(fits: Table, truth: Table, source: str) -> Figures:
    """The figures of matched tables."""
    return scored(fits, truth, source)[0]


def scored(fits: Table, truth: Table, source: str) -> tuple[Figures, list[dict[str, Any]]]:
    """The figures of matched tables, and the scores of each person."""
    scores = score_tables(fits, truth, Scoring(), source)
    return _figures(fits, truth, scores.summary), scores.rows


def _figures(fits: Table, truth: Table, summary: dict[str, Any]) -> Figures:

    def value(name: str, kind: str) -> float:
        return float(summary[name][kind])

    return Figures(
        people=int(summary["people"]),
        missing=int(summary["missing"]),
        prediction=value("initial_mpjpe_mm", "mean"),
        mpjpe=value("mpjpe_mm", "mean"),
        seen_prediction=seen_error(fits, truth, "initial_"),
        seen_mpjpe=seen_error(fits, truth, ""),
        low=value("mpjpe_mm", "low"),
        high=value("mpjpe_mm", "high"),
        pa=value("pa_mpjpe_mm", "mean"),
        focal=value("focal_log", "median"),
        distance=value("distance_log", "median"),
        worse=float(summary["worse"]),
        accepted=float(summary["accepted"]),
        coverage=summary["coverage"],
        reprojection=value("reprojection", "median"),
        initial_reprojection=value("initial_reprojection", "median"),
    )


def seen_error(fits: Table, truth: Table, prefix: str) -> float:
    """Mean error, mm about the pelvis, of the true joints that lie inside the image, over all people."""
    f, t = match_by_number(fits, truth)
    ours, theirs, K = fits[f"{prefix}joints"][f], truth["joints"][t], truth["K"][t]
    pixels = theirs @ K.transpose(0, 2, 1)
    # The principal point is the middle of the image.
    inside = (np.abs(pixels[..., :2] / pixels[..., 2:] - K[:, None, :2, 2]) <= K[:, None, :2, 2]).all(-1)
    error = np.linalg.norm((ours - ours[:, :1]) - (theirs - theirs[:, :1]), axis=-1)
    return float(error[inside].mean() * MM_PER_M)


def floor(parts: Sequence[Part], key: str, job: Job, body: Body) -> float:
    """Median error of the log distance that heights and depth scales of ``parts`` leave; one noise level."""
    fits, truth = tables(parts, key, job)
    f, t = match_by_number(fits, truth)
    height = height_error(body, take(fits, f), take(truth, t), job.fit.body.betas_sigma)
    return MEDIAN_OF_NORMAL * distance_floor(height, parts[0].scene.noise.depth_log_scale)


def plain(figures: Figures) -> dict[str, Any]:
    """For a JSON file."""
    return {**vars(figures), "gain": figures.gain}
