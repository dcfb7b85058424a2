"""fits.npz: one row a person, and the parts it is put together from."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch

from depthfit import __version__, so3
from depthfit.atomic import atomic_path
from depthfit.errors import InputError
from depthfit.fit.adapter import Prediction
from depthfit.fit.result import BodyResult, PersonFit
from depthfit.joints import KEYPOINTS
from depthfit.tokens.vqvae import NUM_TOKENS

COST_TERMS = ("keypoints", "depth", "contour", "pose_prior", "population", "other_priors")
VERSION = "depthfit_version"
EVIDENCE = "evidence"
"""In an image's part: the fingerprint of the evidence that its rows were made from."""
UNUSED = "unused_detections"
"""In an image's part: how many detected people none of its rows is of."""
SHARED = ("keypoint_names", "faces", EVIDENCE, UNUSED)
"""Fields of fits.npz that are not one row a person."""


def person_row(name: str, prediction: Prediction, fit: PersonFit) -> dict[str, Any]:
    """One row of fits.npz; see the README for the fields. Tokens are -1 where the fit did without them."""
    row: dict[str, Any] = {
        "imgname": name,
        "person": prediction.person,
        "row": prediction.row,
        "betas_predicted": prediction.has_betas,
        "token_entropy": np.nan if prediction.token_entropy is None else prediction.token_entropy,
        "status": fit.status,
        "accepted": fit.accepted,
        "depth_log_scale": fit.log_scale,
        "focal_std_log": fit.focal_std_log,
        "distance_std_log": fit.distance_std_log,
        "joints_std": fit.joints_std,
        "tokens": fit.tokens if len(fit.tokens) else np.full(NUM_TOKENS, -1, np.int16),
        "reprojection": fit.reprojection[1],
        "initial_reprojection": fit.reprojection[0],
        "depth_residual": fit.depth_residual[1],
        "initial_depth_residual": fit.depth_residual[0],
        "iterations": fit.iterations,
        VERSION: __version__,
        **_body_fields("", fit.refined),
        **_body_fields("initial_", fit.initial),
    }
    for term in COST_TERMS:
        row[f"cost_{term}_before"] = fit.cost_before.get(term, np.nan)
        row[f"cost_{term}_after"] = fit.cost_after.get(term, np.nan)
    return row


def fit_of_row(row: dict[str, Any]) -> PersonFit:
    """The fit that a row was written of, in the row's float32; the inverse of :func:`person_row`."""
    tokens = row["tokens"]
    return PersonFit(
        status=str(row["status"]),
        accepted=bool(row["accepted"]),
        initial=_body_of_row("initial_", row),
        refined=_body_of_row("", row),
        tokens=tokens[tokens >= 0],
        log_scale=float(row["depth_log_scale"]),
        focal_std_log=float(row["focal_std_log"]),
        distance_std_log=float(row["distance_std_log"]),
        joints_std=row["joints_std"],
        reprojection=(float(row["initial_reprojection"]), float(row["reprojection"])),
        depth_residual=(float(row["initial_depth_residual"]), float(row["depth_residual"])),
        cost_before=_costs(row, "before"),
        cost_after=_costs(row, "after"),
        iterations=int(row["iterations"]),
    )


def write_rows(path: Path, rows: Sequence[dict[str, Any]], extra: dict[str, np.ndarray]) -> None:
    """Write rows as arrays of one npz, atomically."""
    table: dict[str, Any] = {}
    for key in rows[0] if rows else {}:
        value = np.array([row[key] for row in rows])
        table[key] = value.astype(np.float32) if value.dtype == np.float64 else value
    named: dict[str, Any] = {**extra, "keypoint_names": np.array(KEYPOINTS)}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **table, **named)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
            yield data
    except (OSError, ValueError, EOFError, TypeError, AttributeError, BadZipFile, zlib.error) as error:
        fix = "Delete it, and run again: its people are fitted anew."
        raise InputError(path, "file", f"damaged ({error})", fix) from error


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a file that :func:`write_rows` wrote."""
    with _opened(path) as data:
        table = {key: data[key] for key in data.files if key not in SHARED}
    count = len(next(iter(table.values()))) if table else 0
    return [{key: value[i] for key, value in table.items()} for i in range(count)]


def rows_at(rows: Sequence[dict[str, Any]], person: np.ndarray, places: np.ndarray) -> list[dict[str, Any]]:
    """An image's rows with today's places in predictions.npz, which may have got other images since.

    Args:
        person: (N,) numbers of the image's people there; places: (N,) their rows.
    """
    by_person = dict(zip(person.tolist(), places.tolist(), strict=True))
    return [{**row, "row": by_person[int(row["person"])]} for row in rows]


def versions_of(path: Path) -> set[str]:
    """Versions of depthfit that made the rows of a file that :func:`write_rows` wrote; none without rows."""
    with _opened(path) as data:
        if "imgname" not in data.files:
            return set()
        return set(data[VERSION].tolist()) if VERSION in data.files else {"unknown"}


def evidence_of(path: Path) -> str | None:
    """Fingerprint of the evidence behind an image's part; none in files of many images."""
    with _opened(path) as data:
        return str(data[EVIDENCE]) if EVIDENCE in data.files else None


def unused_detections(path: Path) -> int:
    """Detected people of an image whom none of its part's rows is of."""
    with _opened(path) as data:
        return int(data[UNUSED])


def _body_fields(prefix: str, body: BodyResult) -> dict[str, Any]:
    K = np.array([[body.focal, 0, body.center[0]], [0, body.focal, body.center[1]], [0, 0, 1]], np.float32)
    return {
        f"{prefix}focal": body.focal,
        f"{prefix}K": K,
        f"{prefix}transl": body.transl,
        f"{prefix}distance": float(body.transl[2]),
        f"{prefix}global_orient": _axis_angle(body.root[None])[0],
        f"{prefix}body_pose": _axis_angle(body.pose).reshape(-1),
        f"{prefix}betas": body.betas,
        f"{prefix}joints": body.joints,
        f"{prefix}keypoints_3d": body.keypoints_3d,
        f"{prefix}keypoints_2d": body.keypoints_2d,
    }


def _body_of_row(prefix: str, row: dict[str, Any]) -> BodyResult:
    turns = np.concatenate([row[f"{prefix}global_orient"], row[f"{prefix}body_pose"]]).reshape(-1, 3)
    rotations = so3.exp(torch.from_numpy(turns)).numpy()
    return BodyResult(
        focal=float(row[f"{prefix}focal"]),
        center=row[f"{prefix}K"][:2, 2],
        transl=row[f"{prefix}transl"],
        root=rotations[0],
        pose=rotations[1:],
        betas=row[f"{prefix}betas"],
        joints=row[f"{prefix}joints"],
        keypoints_3d=row[f"{prefix}keypoints_3d"],
        keypoints_2d=row[f"{prefix}keypoints_2d"],
    )


def _costs(row: dict[str, Any], when: str) -> dict[str, float]:
    costs = {term: float(row[f"cost_{term}_{when}"]) for term in COST_TERMS}
    return {term: cost for term, cost in costs.items() if np.isfinite(cost)}


def _axis_angle(rotations: np.ndarray) -> np.ndarray:
    return so3.log(torch.from_numpy(rotations)).numpy()
