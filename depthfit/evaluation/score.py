"""Score a saved fit against a saved ground truth: re-scoring never fits again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from depthfit.errors import InputError
from depthfit.evaluation import metrics

ERRORS = (
    "mpjpe_mm", "pa_mpjpe_mm", "mve_mm", "pelvis_mm", "distance_log", "distance_percent", "focal_log",
    "focal_percent", "reprojection",
)  # fmt: skip
"""Columns of a row; each also exists as ``initial_...`` for the prediction with its own camera."""

LABELS = ("imgname", "person", "status", "accepted")
LEVELS = (0.68, 0.95)
Table = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Scores:
    """Result of :func:`score`.

    Attributes:
        rows: One dict a person: imgname, person, status, accepted, ``ERRORS`` and ``initial_`` + ``ERRORS``.
        summary: ``people``, ``images``, ``missing`` (in the truth but not in the fit), ``accepted`` (share),
            ``worse`` (share whose MPJPE grew), per error ``{mean, median, low, high}`` (95 % bootstrap
            interval of the mean over images) and ``coverage`` of the stated intervals.
    """

    rows: list[dict[str, Any]]
    summary: dict[str, Any]


def score(fits_npz: str | Path, ground_truth_npz: str | Path) -> Scores:
    """Errors of ``fits.npz`` against ``ground_truth.npz``.

    People are matched by image name (without folder and ending) and person number. Vertex errors need
    ``vertices`` in both files and are NaN without.

    Raises:
        InputError: A file or a field is missing, or the two have nobody in common.
    """
    fits = _load(fits_npz, ("imgname", "person", "joints", "focal", "initial_joints", "initial_focal"))
    truth = _load(ground_truth_npz, ("imgname", "person", "joints", "focal", "keypoints_3d", "K"))
    where = {key: i for i, key in enumerate(_keys(fits))}
    found = [(where[key], i) for i, key in enumerate(_keys(truth)) if key in where]
    if not found:
        raise InputError(
            fits_npz, "imgname, person", "nobody of the ground truth", "score a fit of the same scene"
        )
    f_index, t_index = (np.array(column) for column in zip(*found, strict=True))
    columns: dict[str, np.ndarray] = {}
    for prefix in ("", "initial_"):
        errors = _errors(fits, truth, f_index, t_index, prefix)
        columns.update({prefix + name: values for name, values in errors.items()})
    labels: dict[str, np.ndarray] = {name: fits[name][f_index] for name in LABELS if name in fits}
    table = {**labels, **columns}
    rows = [{name: _plain(values[i]) for name, values in table.items()} for i in range(len(found))]
    summary = _summary(columns, labels)
    summary["missing"] = len(truth["imgname"]) - len(found)
    summary["coverage"] = _coverage(fits, truth, f_index, t_index)
    return Scores(rows, summary)


def _load(path: str | Path, required: tuple[str, ...]) -> dict[str, np.ndarray]:
    if not Path(path).is_file():
        raise InputError(path, "file", "missing", "name an .npz that a fit or `depthfit synth` wrote")
    with np.load(path, allow_pickle=False) as data:
        table = {name: data[name] for name in data.files}
    for name in required:
        if name not in table:
            raise InputError(path, name, "missing", "write the file again with this version")
    return table


def _keys(table: Table) -> list[tuple[str, int]]:
    return [(Path(str(n)).stem, int(p)) for n, p in zip(table["imgname"], table["person"], strict=True)]


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _errors(
    fits: Table, truth: Table, f_index: np.ndarray, t_index: np.ndarray, prefix: str
) -> dict[str, np.ndarray]:
    """The error columns of the fit (``prefix`` empty) or the prediction (``initial_``)."""
    joints, true_joints = fits[prefix + "joints"][f_index], truth["joints"][t_index]
    focal, true_focal = fits[prefix + "focal"][f_index], truth["focal"][t_index]
    distance, true_distance = joints[:, 0, 2], true_joints[:, 0, 2]
    nothing = np.full(len(f_index), np.nan)
    out = {
        "mpjpe_mm": metrics.mpjpe(joints, true_joints),
        "pa_mpjpe_mm": metrics.pa_mpjpe(joints, true_joints),
        "mve_mm": nothing,
        "pelvis_mm": metrics.pelvis_error(joints[:, 0], true_joints[:, 0]),
        "distance_log": metrics.log_error(distance, true_distance),
        "distance_percent": metrics.percent_error(distance, true_distance),
        "focal_log": metrics.log_error(focal, true_focal),
        "focal_percent": metrics.percent_error(focal, true_focal),
        "reprojection": nothing,
    }
    vertices = prefix + "vertices"
    if vertices in fits and "vertices" in truth:
        out["mve_mm"] = metrics.vertex_error(
            fits[vertices][f_index], joints[:, 0], truth["vertices"][t_index], true_joints[:, 0]
        )
    if prefix + "keypoints_2d" in fits:
        ours, theirs = _shared_keypoints(fits, truth)
        points = truth["keypoints_3d"][t_index][:, theirs] @ truth["K"][t_index].transpose(0, 2, 1)
        predicted = fits[prefix + "keypoints_2d"][f_index][:, ours]
        out["reprojection"] = metrics.reprojection_error(predicted, points[..., :2] / points[..., 2:])
    return out


def _shared_keypoints(fits: Table, truth: Table) -> tuple[list[int], list[int]]:
    ours, theirs = [str(n) for n in fits["keypoint_names"]], [str(n) for n in truth["keypoint_names"]]
    shared = [name for name in ours if name in theirs]
    return [ours.index(name) for name in shared], [theirs.index(name) for name in shared]


def _summary(columns: Table, labels: Table) -> dict[str, Any]:
    names = np.array([Path(str(n)).stem for n in labels["imgname"]])
    out: dict[str, Any] = {
        "people": len(names),
        "images": len(np.unique(names)),
        "accepted": float(labels["accepted"].mean()) if "accepted" in labels else None,
        "worse": metrics.share_worse(columns["mpjpe_mm"], columns["initial_mpjpe_mm"]),
    }
    for name, values in columns.items():
        magnitude = np.abs(values)
        known = np.isfinite(magnitude)
        if known.any():
            low, high = metrics.bootstrap_interval(magnitude[known], names[known])
            out[name] = {
                "mean": float(magnitude[known].mean()),
                "median": float(np.median(magnitude[known])),
                "low": low,
                "high": high,
            }
    return out


def _coverage(
    fits: Table, truth: Table, f_index: np.ndarray, t_index: np.ndarray
) -> dict[str, dict[str, float]]:
    """Share of true values inside the intervals that the fit states, for each stated spread.

    ``joints_std`` is one spread a joint and axis, of positions relative to the pelvis.
    """
    joints, true_joints = fits["joints"][f_index], truth["joints"][t_index]
    relative = (joints - joints[:, :1]) - (true_joints - true_joints[:, :1])
    claims = {
        "focal": ("focal_std_log", metrics.log_error(fits["focal"][f_index], truth["focal"][t_index])),
        "distance": ("distance_std_log", metrics.log_error(joints[:, 0, 2], true_joints[:, 0, 2])),
        "joints": ("joints_std", relative[:, 1:]),
    }
    out: dict[str, dict[str, float]] = {}
    for name, (field, error) in claims.items():
        if field not in fits:
            continue
        std = fits[field][f_index]
        std = std[:, 1:, None] if name == "joints" else std
        out[name] = {f"{level:.0%}": metrics.interval_coverage(error, std, level) for level in LEVELS}
    return out
