"""Score a saved fit against a saved ground truth: re-scoring never fits again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthfit.errors import InputError
from depthfit.evaluation import errors, metrics
from depthfit.evaluation.errors import Scoring
from depthfit.evaluation.image_metrics import depth_order
from depthfit.evaluation.matching import keys, match_by_number, match_by_overlap, stems
from depthfit.evaluation.pck import PCK

ERRORS = (
    "mpjpe_mm", "pa_mpjpe_mm", "mve_mm", "pa_mve_mm", "camera_mpjpe_mm", "pelvis_mm", "distance_mm",
    "distance_log", "distance_percent", "focal_log", "focal_percent", "reprojection",
)  # fmt: skip
"""Columns of a row of which less is better; each also exists as ``initial_...`` for the prediction with its
own camera."""
SHARES = (*PCK, "iou", "own_iou")
"""Columns of which more is better; also with ``initial_...``."""
MEASURES = (*ERRORS, *SHARES)
TOLERANCE = {"mm": 1e-3, "percent": 1e-4}
"""By a column's unit: errors that differ by less are equal. float32 has 0.0005 mm at 5 m."""
RELATIVE_TOLERANCE = 1e-6
"""Of columns that are shares of something or logarithms."""
LABELS = ("imgname", "person", "status", "accepted")
LEVELS = (0.68, 0.95)
NOT_BY_PERSON = ("keypoint_names", "faces")
FIT_FIELDS = ("imgname", "person", "joints", "focal", "initial_joints", "initial_focal")
TRUTH_FIELDS = ("imgname", "person", "joints", "focal", "keypoints_3d", "K")
Table = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Scores:
    """Result of :func:`score`.

    Attributes:
        rows: One dict a person: imgname, person, status, accepted, ``ERRORS`` and ``SHARES``, and each of
            these with ``initial_`` before it.
        summary: ``protocol``; ``matching``; ``people``, ``images``; ``missing`` (number of people in the
            truth but not in the fit) and ``missing_people``, their names; ``without_truth`` (number of fits
            of people whom the truth does not have); ``accepted`` (share), ``worse``
            (share whose MPJPE grew); per column ``{mean, median, low, high}`` (95 % bootstrap interval of the
            mean over images, or over ``group`` where the truth has it; NaN of one group); ``difference``: per
            column refined minus initial, ``{mean, low, high, worse}``; ``coverage`` of the stated intervals;
            ``depth_order`` of people who share an image; ``pck`` averaged over keypoints.
    """

    rows: list[dict[str, Any]]
    summary: dict[str, Any]


def score(fits_npz: str | Path, ground_truth_npz: str | Path, scoring: Scoring | None = None) -> Scores:
    """Errors of ``fits.npz`` against ``ground_truth.npz``.

    People are matched by image name (without folder and ending) and person number, unless the scoring says
    otherwise. Without ``scoring.bodies``, vertex errors need ``vertices`` in both files and are NaN without.

    Raises:
        InputError: A file or a field is missing, or the two have nobody in common.
    """
    fits, truth = load_table(fits_npz, FIT_FIELDS), load_table(ground_truth_npz, TRUTH_FIELDS)
    return score_tables(fits, truth, scoring or Scoring(), fits_npz)


def score_tables(fits: Table, truth: Table, scoring: Scoring, source: str | Path) -> Scores:
    """:func:`score` of tables in memory; ``source`` names the fits in errors."""
    f_index, t_index = _match(fits, truth, scoring)
    if not len(f_index):
        raise InputError(
            source, "imgname, person", "nobody of the ground truth", "score a fit of the same scene"
        )
    known = keys(truth)
    without = sorted(set(range(len(known))) - set(t_index.tolist()))
    unknown = len(keys(fits)) - len(f_index)
    fits, truth = take(fits, f_index), take(truth, t_index)
    columns: dict[str, np.ndarray] = errors.body_errors(source, fits, truth, scoring)
    pooled: dict[str, dict[str, float]] = {}
    for prefix in errors.PREFIXES:
        found = {
            **errors.camera_errors(fits, truth, prefix),
            **errors.keypoint_errors(fits, truth, prefix),
            **errors.mask_errors(fits, truth, scoring, prefix),
        }
        columns.update({prefix + name: values for name, values in found.items()})
        pooled[prefix or "refined"] = errors.pooled_pck(fits, truth, prefix)
    columns = {prefix + name: columns[prefix + name] for prefix in errors.PREFIXES for name in MEASURES}
    labels: dict[str, np.ndarray] = {name: fits[name] for name in LABELS if name in fits}
    groups = truth["group"].astype(str) if "group" in truth else stems(truth)
    table = {**labels, **columns}
    rows = [{name: _plain(values[i]) for name, values in table.items()} for i in range(len(f_index))]
    summary = _summary(columns, labels, groups)
    text = scoring.protocol.describe("label_joints" in truth)
    summary["protocol"] = {"name": scoring.protocol.name, "text": text}
    summary["matching"] = scoring.matching
    summary["missing"] = len(without)
    summary["without_truth"] = unknown
    summary["missing_people"] = [f"{known[row][0]} #{known[row][1]}" for row in without]
    summary["coverage"] = _coverage(fits, truth)
    summary["depth_order"] = _depth_order(fits, truth)
    summary["pck"] = {"refined": pooled["refined"], "initial": pooled["initial_"]}
    return Scores(rows, summary)


def load_table(path: str | Path, required: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The arrays of an npz.

    Raises:
        InputError: The file or a required field is missing.
    """
    if not Path(path).is_file():
        raise InputError(path, "file", "missing", "name an .npz that a fit or `depthfit synth` wrote")
    with np.load(path, allow_pickle=False) as data:
        table = {name: data[name] for name in data.files}
    for name in required:
        if name not in table:
            raise InputError(path, name, "missing", "write the file again with this version")
    return table


def take(table: Table, index: NDArray) -> dict[str, np.ndarray]:
    """Rows ``index`` of every column."""
    return {name: v if name in NOT_BY_PERSON else v[index] for name, v in table.items()}


def _match(fits: Table, truth: Table, scoring: Scoring) -> tuple[NDArray, NDArray]:
    if scoring.matching == "person":
        return match_by_number(fits, truth)
    ours, theirs = [str(n) for n in fits["keypoint_names"]], [str(n) for n in truth["keypoint_names"]]
    names = [name for name in ours if name in theirs]
    xy, visible = errors.image_points(truth)
    chosen = [theirs.index(name) for name in names]
    predicted = fits["keypoints_2d"][:, [ours.index(name) for name in names]]
    return match_by_overlap(fits, truth, predicted, xy[:, chosen], visible[:, chosen])


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _summary(columns: Table, labels: Table, groups: NDArray) -> dict[str, Any]:
    out: dict[str, Any] = {
        "people": len(groups),
        "images": len(np.unique(stems(labels))),
        "accepted": float(labels["accepted"].mean()) if "accepted" in labels else None,
        "worse": None,
    }
    for name, values in columns.items():
        magnitude = np.abs(values)
        known = np.isfinite(magnitude)
        if known.any():
            low, high = metrics.bootstrap_interval(magnitude[known], groups[known])
            out[name] = {
                "mean": float(magnitude[known].mean()),
                "median": float(np.median(magnitude[known])),
                "low": low,
                "high": high,
            }
    out["difference"] = _differences(columns, groups)
    if "mpjpe_mm" in out["difference"]:
        out["worse"] = out["difference"]["mpjpe_mm"]["worse"]
    return out


def _differences(columns: Table, groups: NDArray) -> dict[str, dict[str, float]]:
    out = {}
    for name in MEASURES:
        refined, initial = np.abs(columns[name]), np.abs(columns[f"initial_{name}"])
        known = np.isfinite(refined) & np.isfinite(initial)
        if known.any():
            a, b = refined[known], initial[known]
            tolerance = TOLERANCE.get(name.rpartition("_")[2], RELATIVE_TOLERANCE)
            difference = metrics.paired_difference(a, b, tolerance, groups[known])
            if name in SHARES:  # more is better: worse are those who lost
                difference = dataclasses.replace(difference, worse=metrics.share_worse(-a, -b, tolerance))
            out[name] = dataclasses.asdict(difference)
    return out


def _coverage(fits: Table, truth: Table) -> dict[str, dict[str, float]]:
    """Share of true values inside the intervals that the fit states, for each stated spread.

    ``joints_std`` is one spread a joint and axis, of positions relative to the pelvis.
    """
    joints, true_joints = fits["joints"], truth["joints"]
    # Data sets that do not know where a person stands still know the joints about the pelvis.
    local = truth["joints_local"] if "joints_local" in truth else true_joints - true_joints[:, :1]
    relative = (joints - joints[:, :1]) - local
    claims = {
        "focal": ("focal_std_log", metrics.log_error(fits["focal"], truth["focal"])),
        "distance": ("distance_std_log", metrics.log_error(joints[:, 0, 2], true_joints[:, 0, 2])),
        "joints": ("joints_std", relative[:, 1:]),
    }
    out: dict[str, dict[str, float]] = {}
    for name, (field, error) in claims.items():
        if field not in fits:
            continue
        std = fits[field]
        std = std[:, 1:, None] if name == "joints" else std
        # What has no known truth makes no claim either.
        std = np.where(np.isfinite(error), std, np.nan)
        out[name] = {f"{level:.0%}": metrics.interval_coverage(error, std, level) for level in LEVELS}
    return out


def _depth_order(fits: Table, truth: Table) -> dict[str, float]:
    """Share of pairs of people of an image in the true order, for both sides, and the number of pairs."""
    true_z, images = truth["joints"][:, 0, 2], stems(truth)
    refined, pairs = depth_order(fits["joints"][:, 0, 2], true_z, images)
    initial, _ = depth_order(fits["initial_joints"][:, 0, 2], true_z, images)
    return {"pairs": pairs, "refined": refined, "initial": initial}
