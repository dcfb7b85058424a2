"""A regressor's predictions: ``predictions.npz`` of a scene folder, one row a person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from depthfit.errors import InputError
from depthfit.evidence.files import npz_array, open_npz
from depthfit.evidence.token_probs import TOKEN_SHAPE, TokenProbs

ROTATION_SLACK = 0.01
"""How far a rotation matrix may be off orthonormal (float16 storage stays below 0.002)."""
NUM_BETAS = 10
_NUMBERS: dict[str, list[tuple[int, ...]]] = {
    "box_center": [(2,)],
    "box_size": [()],
    "pred_cam": [(3,)],
    "global_orient": [(3,), (3, 3), (1, 3, 3)],
    "body_pose": [(69,), (23, 3, 3)],
    "betas": [(NUM_BETAS,)],
}
"""Shapes of one row."""
SIMULATED = "simulated"
"""What synthetic scenes name as their regressor."""


@dataclass(frozen=True)
class Predictions:
    """What a regressor said of N people. Camera frame, rotations as SMPL's.

    Attributes:
        imgname: (N,) str, file name (or its stem) of each person's image.
        person: (N,) int64, 1-based number of the person, as in the image's mask.
        box_center: (N, 2) px. Centre of the square crop that the regressor saw.
        box_size: (N,) px, its side.
        pred_cam: (N, 3) crop camera (s, tx, ty).
        root: (N, 3, 3) rotation of the pelvis.
        pose: (N, 23, 3, 3) rotations of joints 1..23.
        betas: (N, 10).
        token_probs: (N, 160, 2048) softmax over the codes of each token, or ``None``. From a file it is
            read row by row, when indexed.
        regressor: Name of the regressor that depthfit ran, or ``None`` for predictions of another program.
            :data:`SIMULATED` for those of synthetic scenes.
    """

    imgname: np.ndarray
    person: np.ndarray
    box_center: np.ndarray
    box_size: np.ndarray
    pred_cam: np.ndarray
    root: np.ndarray
    pose: np.ndarray
    betas: np.ndarray
    token_probs: np.ndarray | TokenProbs | None = None
    regressor: str | None = None

    def __len__(self) -> int:
        return len(self.imgname)

    def rows(self, index: np.ndarray) -> Predictions:
        """The people of ``index`` (M,) int. This reads their token probabilities."""
        return Predictions(
            imgname=self.imgname[index],
            person=self.person[index],
            box_center=self.box_center[index],
            box_size=self.box_size[index],
            pred_cam=self.pred_cam[index],
            root=self.root[index],
            pose=self.pose[index],
            betas=self.betas[index],
            token_probs=None if self.token_probs is None else self.token_probs[index],
            regressor=self.regressor,
        )


def read_predictions(path: Path) -> tuple[Predictions, dict[int, InputError]]:
    """Read predictions.npz.

    Rotations may be axis-angle (N, 3) and (N, 69) rad, or matrices (N, 3, 3) or (N, 1, 3, 3), and
    (N, 23, 3, 3).

    Returns:
        The predictions, and the rows that cannot be used, each with its error; their rotations are NaN.

    Raises:
        InputError: the file as a whole cannot be used.
    """
    with open_npz(path) as archive:
        imgname = npz_array(path, archive, "imgname")
        person = npz_array(path, archive, "person")
        numbers = {field: npz_array(path, archive, field) for field in _NUMBERS}
        has_tokens = "token_probs" in archive.files
        regressor = str(npz_array(path, archive, "regressor")) if "regressor" in archive.files else None
    _check_names(path, imgname, person)
    for field, shapes in _NUMBERS.items():
        _check_column(path, field, numbers[field], len(imgname), shapes)
    numbers = {field: values.astype(np.float32) for field, values in numbers.items()}
    if numbers["global_orient"].ndim == 3:
        numbers["global_orient"] = numbers["global_orient"][:, None]
    bad = _bad_rows(path, imgname, person, numbers)
    good = np.array([row not in bad for row in range(len(imgname))])
    predictions = Predictions(
        imgname=imgname,
        person=person.astype(np.int64),
        box_center=numbers["box_center"],
        box_size=numbers["box_size"],
        pred_cam=numbers["pred_cam"],
        root=_matrices(numbers["global_orient"], good, 1)[:, 0],
        pose=_matrices(numbers["body_pose"], good, 23),
        betas=numbers["betas"],
        token_probs=TokenProbs(path, len(imgname)) if has_tokens else None,
        regressor=regressor,
    )
    return predictions, bad


def write_predictions(path: str | Path, predictions: Predictions) -> None:
    """Write predictions.npz with rotations as matrices and token probabilities as float16.

    Raises:
        ValueError: the fields do not fit together.
    """
    count = len(predictions)
    columns: dict[str, Any] = {
        "imgname": np.asarray(predictions.imgname, dtype=np.str_),
        "person": np.asarray(predictions.person, dtype=np.int64),
        "box_center": predictions.box_center,
        "box_size": predictions.box_size,
        "pred_cam": predictions.pred_cam,
        "global_orient": predictions.root[:, None],
        "body_pose": predictions.pose,
        "betas": predictions.betas,
    }
    shapes: dict[str, list[tuple[int, ...]]] = {"person": [()], **_NUMBERS}
    if predictions.token_probs is not None:
        probs = predictions.token_probs
        # An array may be mapped from a file, and larger than the memory: it is written as it stands.
        rows = probs if isinstance(probs, np.ndarray) else probs[np.arange(count)]
        columns["token_probs"] = np.asarray(rows, dtype=np.float16)
        shapes["token_probs"] = [TOKEN_SHAPE]
    for field, allowed in shapes.items():
        if columns[field].shape not in [(count, *shape) for shape in allowed]:
            raise ValueError(f"{field} has shape {columns[field].shape} for {count} people")
    if predictions.regressor is not None:
        columns["regressor"] = np.asarray(predictions.regressor)
    # Not compressed: token probabilities can then be read one row at a time without unpacking the rest.
    np.savez(Path(path), **columns)


def _check_names(path: Path, imgname: np.ndarray, person: np.ndarray) -> None:
    if imgname.ndim != 1 or imgname.dtype.kind != "U":
        found = f"shape {imgname.shape}, dtype {imgname.dtype}"
        raise InputError(path, "imgname", found, "Save one str a person, (N,), with dtype str.")
    if len(imgname) == 0:
        fix = "Delete the file to start from keypoints."
        raise InputError(path, "imgname", "no rows, so nobody to fit", fix)
    if person.shape != imgname.shape or person.dtype.kind not in "iu" or (person < 1).any():
        found = f"shape {person.shape}, dtype {person.dtype}"
        if person.shape == imgname.shape and person.dtype.kind in "iu":
            found = f"row {np.flatnonzero(person < 1)[0]} is {person.min()}"
        raise InputError(path, "person", found, "Save one whole number from 1 up for each row of imgname.")
    seen: dict[tuple[str, int], int] = {}
    for row, key in enumerate(zip(imgname.tolist(), person.tolist(), strict=True)):
        if key in seen:
            found = f"rows {seen[key]} and {row} are both person {key[1]} of {key[0]!r}"
            raise InputError(path, "person", found, "Number the people of an image 1, 2, 3, ...")
        seen[key] = row


def _check_column(
    path: Path, field: str, values: np.ndarray, count: int, shapes: Sequence[tuple[int, ...]]
) -> None:
    if values.shape in [(count, *shape) for shape in shapes] and values.dtype.kind in "fiu":
        return
    wanted = " or ".join(str((count, *shape)) for shape in shapes)
    found = f"shape {values.shape}, dtype {values.dtype}"
    raise InputError(path, field, found, f"Save numbers of shape {wanted}: a row for each of imgname.")


def _bad_rows(
    path: Path, imgname: np.ndarray, person: np.ndarray, numbers: dict[str, np.ndarray]
) -> dict[int, InputError]:
    """The first thing wrong with each row that cannot be used."""
    bad: dict[int, InputError] = {}

    def report(field: str, wrong: np.ndarray, found: str, fix: str) -> None:
        for row in np.flatnonzero(wrong):
            who = f"{field}[{row}] (person {person[row]} of {str(imgname[row])!r})"
            bad.setdefault(int(row), InputError(path, who, found, fix))

    again = "Run the regressor on this person again, or leave the row out."
    for field, values in numbers.items():
        finite = np.isfinite(values).reshape(len(values), -1).all(1)
        report(field, ~finite, "a number that is not finite", again)
    report("box_size", ~(numbers["box_size"] > 0), "not above zero", "It is the crop's side in px.")
    report("pred_cam", ~(numbers["pred_cam"][:, 0] > 0), "scale s not above zero", again)
    for field in ("global_orient", "body_pose"):
        if numbers[field].ndim == 4:
            report(field, ~_are_rotations(numbers[field]), "not rotation matrices", again)
    return bad


def _are_rotations(matrices: np.ndarray) -> np.ndarray:
    """(N,) bool for (N, J, 3, 3): all of a row's matrices orthonormal, and none a mirror."""
    # A matrix that overflows or holds NaN compares as false, and that is the answer.
    with np.errstate(over="ignore", invalid="ignore"):
        gram = np.einsum("njab,njcb->njac", matrices, matrices)
        orthonormal = (np.abs(gram - np.eye(3)) < ROTATION_SLACK).all((1, 2, 3))
        return orthonormal & (np.linalg.det(matrices) > 0).all(1)


def _matrices(values: np.ndarray, good: np.ndarray, joints: int) -> np.ndarray:
    """Rotation matrices (N, joints, 3, 3), exactly orthonormal; NaN in rows that are not good."""
    result = np.full((len(values), joints, 3, 3), np.nan, dtype=np.float32)
    chosen = values[good].astype(np.float64)
    if len(chosen):
        as_vectors = values.ndim == 2
        rotation = (
            Rotation.from_rotvec(chosen.reshape(-1, 3))
            if as_vectors
            else Rotation.from_matrix(chosen.reshape(-1, 3, 3))
        )
        result[good] = rotation.as_matrix().reshape(-1, joints, 3, 3)
    return result
