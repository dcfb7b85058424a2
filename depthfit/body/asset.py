"""The file of the open body: one compressed npz, small enough to ship.

Dense arrays are float16 or float32, sparse matrices are index/value lists. Rows that must sum to one are
normalised on reading, so rounding to half precision costs nothing there.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from depthfit.errors import InputError

GENDERS = ("neutral", "male", "female")
ASSET = Path(__file__).resolve().parent.parent / "assets" / "open_body.npz"


@dataclass(frozen=True)
class ShapeSpace:
    """Mean shape (V, 3) m and shape directions (V, 3, B) m per unit of shape."""

    v_template: NDArray[np.floating]
    shapedirs: NDArray[np.floating]


@dataclass(frozen=True)
class OpenBodyAsset:
    """All that the open body's file holds. V vertices, F triangles, K keypoints, E further directions.

    Attributes:
        faces: (F, 3).
        weights: (V, 24) skinning weights.
        joint_regressor: (24, V).
        keypoint_regressor: (K, V) part of the keypoints that rides on vertices.
        keypoint_joint: (K, 24) part that rides on joints.
        spaces: Mean and shape directions of each of ``GENDERS``.
        extra_shapedirs: (V, 3, E) m, orthogonal to the neutral shape directions.
        credit: Where the body comes from and its licence.
    """

    faces: NDArray[np.integer]
    weights: sparse.csr_matrix
    joint_regressor: sparse.csr_matrix
    keypoint_regressor: sparse.csr_matrix
    keypoint_joint: NDArray[np.floating]
    spaces: dict[str, ShapeSpace]
    extra_shapedirs: NDArray[np.floating]
    credit: str


def write_asset(path: str | Path, asset: OpenBodyAsset) -> int:
    """Write ``asset`` to ``path`` and return the size of the file in bytes."""
    arrays: dict[str, NDArray] = {
        "credit": np.array(asset.credit),
        "faces": asset.faces.astype(np.uint16),
        "keypoint_joint": asset.keypoint_joint.astype(np.float32),
        "extra_shapedirs": _half(asset.extra_shapedirs),
    }
    arrays.update(_pack("weights", asset.weights, np.float16))
    arrays.update(_pack("joint_regressor", asset.joint_regressor, np.float32))
    arrays.update(_pack("keypoint_regressor", asset.keypoint_regressor, np.float16))
    for gender, space in asset.spaces.items():
        arrays[f"{gender}_v_template"] = space.v_template.astype(np.float32)
        arrays[f"{gender}_shapedirs"] = _half(space.shapedirs)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    return path.stat().st_size


def read_asset(path: str | Path = ASSET) -> OpenBodyAsset:
    """Read the open body's file.

    Raises:
        InputError: The file is missing or is no open body.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            data = {key: stored[key] for key in stored.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(path, "file", f"cannot be read ({error})", "Run: depthfit body build") from error
    try:
        return OpenBodyAsset(
            faces=data["faces"].astype(np.int64),
            weights=_normalised(_unpack("weights", data)),
            joint_regressor=_normalised(_unpack("joint_regressor", data)),
            keypoint_regressor=_normalised(_unpack("keypoint_regressor", data)),
            keypoint_joint=data["keypoint_joint"],
            spaces={g: ShapeSpace(data[f"{g}_v_template"], _single(data[f"{g}_shapedirs"])) for g in GENDERS},
            extra_shapedirs=_single(data["extra_shapedirs"]),
            credit=str(data["credit"]),
        )
    except KeyError as error:
        raise InputError(path, str(error.args[0]), "missing", "Run: depthfit body build") from error


def _half(directions: NDArray) -> NDArray[np.float16]:
    """Directions first: neighbouring vertices then lie side by side, which compresses better."""
    return np.ascontiguousarray(np.moveaxis(directions, -1, 0)).astype(np.float16)


def _single(stored: NDArray[np.float16]) -> NDArray[np.float32]:
    return np.ascontiguousarray(np.moveaxis(stored.astype(np.float32), 0, -1))


def _pack(name: str, matrix: sparse.csr_matrix, dtype: type) -> dict[str, NDArray]:
    matrix = sparse.csr_matrix(matrix)
    matrix.sort_indices()
    return {
        f"{name}_indptr": matrix.indptr.astype(np.int32),
        f"{name}_indices": matrix.indices.astype(np.uint16),
        f"{name}_data": matrix.data.astype(dtype),
        f"{name}_shape": np.array(matrix.shape, np.int32),
    }


def _unpack(name: str, data: dict[str, NDArray]) -> sparse.csr_matrix:
    return sparse.csr_matrix(
        (
            data[f"{name}_data"].astype(np.float64),
            data[f"{name}_indices"].astype(np.int32),
            data[f"{name}_indptr"],
        ),
        shape=tuple(data[f"{name}_shape"]),
    )


def _normalised(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    """Rows that have any entry are scaled to sum to one."""
    total = np.asarray(matrix.sum(1)).ravel()
    return sparse.diags(1.0 / np.where(total == 0, 1.0, total)) @ matrix
