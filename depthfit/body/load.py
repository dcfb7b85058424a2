"""Load a body: the shipped open one, or a SMPL file that the user brings.

SMPL's files hold ``v_template (V,3)``, ``shapedirs (V,3,B)``, ``posedirs (V,3,207)``,
``J_regressor (24,V)``, ``weights (V,24)``, ``kintree_table (2,24)`` and ``f (F,3)``. Keypoints of SMPL's own
mesh are the vertices that ``smplx`` picks for the face and feet and the kinematic joints elsewhere; any
other mesh must carry its own.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from depthfit.body.asset import GENDERS, read_asset
from depthfit.body.model import Body
from depthfit.body.unpickle import as_array, safe_load
from depthfit.errors import InputError, check_choice
from depthfit.joints import COCO17, JOINT_INDEX, KEYPOINTS, NUM_JOINTS, SMPL_PARENTS

OPEN = "open"
SMPL_VERTICES = 6890
MAX_BETAS = 10
POSE_FEATURES = 9 * (NUM_JOINTS - 1)

_REQUIRED = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "f")
_KEYPOINT_FIELDS = ("keypoint_regressor", "keypoint_joint")
_SMPL_KEYPOINT_VERTEX = {
    "nose": 332, "left_eye": 2800, "right_eye": 6260, "left_ear": 583, "right_ear": 4071,
    "left_big_toe": 3216, "left_small_toe": 3226, "left_heel": 3387,
    "right_big_toe": 6617, "right_small_toe": 6624, "right_heel": 6787,
}  # fmt: skip
_WEIGHT_SUM_TOLERANCE = 1e-3


def load_body(name_or_path: str | Path = OPEN, gender: str = "neutral") -> Body:
    """Load a body on the CPU, in float32.

    Args:
        name_or_path: ``open`` for the shipped body; else a SMPL .pkl or .npz file, or a folder that holds
            ``SMPL_{GENDER}.pkl`` or ``.npz``. The first ten shape directions are kept.
        gender: neutral, male or female. A path to one file already is of one gender.

    Raises:
        InputError: No such body or file, a pickle with anything but data, a missing key, a wrong shape, a
            skeleton that is not SMPL's 24 joints, or a mesh whose keypoints are not known.
    """
    check_choice("models.gender", "gender", gender, GENDERS)
    if str(name_or_path) == OPEN:
        return _open_body(gender)
    path = find_body_file(Path(name_or_path), gender)
    return _smpl_body(_read_fields(path), path)


def is_smpl(body: Body) -> bool:
    """Whether a body is SMPL, as far as its mesh tells, so that SMPL's betas are its own."""
    return body.num_vertices == SMPL_VERTICES


def load_extra_shapedirs() -> Tensor:
    """(V, 3, E) m: shape directions of the open body beside those that fits know, each for N(0, 1)."""
    return _tensor(read_asset().extra_shapedirs)


def _open_body(gender: str) -> Body:
    asset = read_asset()
    space = asset.spaces[gender]
    return Body(
        name=f"open-{gender}",
        v_template=_tensor(space.v_template),
        shapedirs=_tensor(space.shapedirs),
        posedirs=None,
        joint_regressor=_tensor(asset.joint_regressor),
        weights=_tensor(asset.weights),
        faces=torch.from_numpy(np.asarray(asset.faces, dtype=np.int64)),
        keypoint_regressor=_tensor(asset.keypoint_regressor),
        keypoint_joint=_tensor(asset.keypoint_joint),
    )


def _tensor(values: NDArray | sparse.csr_matrix) -> Tensor:
    dense = values.toarray() if isinstance(values, sparse.csr_matrix) else values
    return torch.from_numpy(np.array(dense, dtype=np.float32, order="C"))


def find_body_file(path: Path, gender: str) -> Path:
    """The file that ``load_body`` reads for a path other than ``open``.

    Raises:
        InputError: There is none, or it is of another kind.
    """
    if path.is_dir():
        names = [f"SMPL_{gender.upper()}{suffix}" for suffix in (".pkl", ".npz")]
        found = [path / name for name in names if (path / name).is_file()]
        if not found:
            fix = "Put that file there, choose another gender, or use the body 'open'."
            raise InputError(path, "models.body", f"holds neither {names[0]} nor {names[1]}", fix)
        return found[0]
    if not path.is_file():
        fix = "Give 'open', a SMPL .pkl or .npz file, or the folder that holds SMPL_NEUTRAL.pkl."
        raise InputError(path, "models.body", "no such file or folder", fix)
    if path.suffix not in (".pkl", ".npz"):
        raise InputError(path, "models.body", f"has the suffix {path.suffix!r}", "Give a .pkl or .npz file.")
    return path


def _read_fields(path: Path) -> dict[str, NDArray]:
    stored = _read_npz(path) if path.suffix == ".npz" else safe_load(path)
    if not isinstance(stored, Mapping):
        raise InputError(path, "file", f"holds a {type(stored).__name__}, not a dict", "Give a SMPL file.")
    missing = [key for key in _REQUIRED if key not in stored]
    if missing:
        fix = "Give a SMPL body file; SMPL's model files hold: " + ", ".join(_REQUIRED) + "."
        raise InputError(path, ", ".join(missing), "missing", fix)
    carried = [key for key in _KEYPOINT_FIELDS if key in stored]
    fields = {key: as_array(stored[key], path, key) for key in (*_REQUIRED, *carried)}
    for key, values in fields.items():
        if not np.isfinite(values).all():
            raise InputError(path, key, "holds values that are not finite", "Give an undamaged file.")
    return fields


def _read_npz(path: Path) -> dict[str, Any]:
    wanted = (*_REQUIRED, *_KEYPOINT_FIELDS)
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files if key in wanted}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        fix = "Give an npz of plain numeric arrays (a sparse J_regressor must be stored dense)."
        raise InputError(path, "file", f"cannot be read ({error})", fix) from error


def _smpl_body(fields: dict[str, NDArray], path: Path) -> Body:
    kintree = fields["kintree_table"]
    if kintree.shape != (2, NUM_JOINTS) or not _is_smpl_tree(kintree):
        found = f"shape {kintree.shape}" if kintree.shape != (2, NUM_JOINTS) else "other parents than SMPL's"
        fix = f"Give an adult SMPL body of {NUM_JOINTS} joints (not SMPL-H, SMPL-X or an animal)."
        raise InputError(path, "kintree_table", found, fix)
    count = len(fields["v_template"])
    shapes = {
        "v_template": (count, 3),
        "shapedirs": (count, 3, None),
        "posedirs": (count, 3, POSE_FEATURES),
        "J_regressor": (NUM_JOINTS, count),
        "weights": (count, NUM_JOINTS),
        "f": (None, 3),
        "keypoint_regressor": (len(KEYPOINTS), count),
        "keypoint_joint": (len(KEYPOINTS), NUM_JOINTS),
    }
    for key in fields.keys() & shapes.keys():
        _check_shape(path, key, fields[key], shapes[key])
    if fields["shapedirs"].shape[-1] < MAX_BETAS:
        found = f"{fields['shapedirs'].shape[-1]} shape directions"
        raise InputError(path, "shapedirs", found, f"Give a body file of {MAX_BETAS} or more.")
    _check_values(path, fields, count)
    from_vertices, from_joints = _keypoints(fields, path)
    posedirs = fields["posedirs"]
    return Body(
        name=path.stem.lower().replace("_", "-"),
        v_template=_tensor(fields["v_template"]),
        shapedirs=_tensor(fields["shapedirs"][..., :MAX_BETAS]),
        posedirs=_tensor(posedirs) if posedirs.any() else None,
        joint_regressor=_tensor(fields["J_regressor"]),
        weights=_tensor(fields["weights"]),
        faces=torch.from_numpy(fields["f"].astype(np.int64)),
        keypoint_regressor=_tensor(from_vertices),
        keypoint_joint=_tensor(from_joints),
    )


def _is_smpl_tree(kintree: NDArray) -> bool:
    """Row 0 names each joint's parent by the identifiers in row 1; the root's parent is -1 as uint32."""
    column = {int(identifier): j for j, identifier in enumerate(kintree[1])}
    parents = [column.get(int(parent), -1) for parent in kintree[0, 1:]]
    return tuple(parents) == SMPL_PARENTS[1:]


def _check_shape(path: Path, key: str, values: NDArray, expected: tuple[int | None, ...]) -> None:
    matches = values.ndim == len(expected) and all(
        want is None or have == want for have, want in zip(values.shape, expected, strict=True)
    )
    if not matches or 0 in values.shape:
        wanted = ", ".join("any" if n is None else str(n) for n in expected)
        fix = f"It must be ({wanted}), as v_template and SMPL's {NUM_JOINTS} joints have it."
        raise InputError(path, key, f"shape {values.shape}", fix)


def _check_values(path: Path, fields: dict[str, NDArray], count: int) -> None:
    faces = fields["f"]
    if faces.min() < 0 or faces.max() >= count:
        found = f"vertex indices {faces.min()}..{faces.max()} for {count} vertices"
        raise InputError(path, "f", found, "Give an undamaged file.")
    # smplx does not normalise the weights, so neither may depthfit: bad ones are an error.
    worst = np.abs(fields["weights"].sum(1) - 1.0).max()
    if worst > _WEIGHT_SUM_TOLERANCE:
        raise InputError(
            path, "weights", f"rows sum to one only within {worst:.3g}", "Give an undamaged file."
        )


def _keypoints(fields: dict[str, NDArray], path: Path) -> tuple[NDArray, NDArray]:
    """Regressors of ``joints.KEYPOINTS`` from posed vertices (K, V) and posed joints (K, 24)."""
    carried = [key for key in _KEYPOINT_FIELDS if key in fields]
    if len(carried) == len(_KEYPOINT_FIELDS):
        total = fields["keypoint_regressor"].sum(1) + fields["keypoint_joint"].sum(1)
        if np.abs(total - 1.0).max() > _WEIGHT_SUM_TOLERANCE:
            found = "rows of keypoint_regressor and keypoint_joint do not sum to one together"
            raise InputError(path, "keypoint_regressor", found, "Export the body again.")
        return fields["keypoint_regressor"], fields["keypoint_joint"]
    count = len(fields["v_template"])
    if carried or count != SMPL_VERTICES:
        found = f"keypoints of a mesh of {count} vertices are not known, and the file has {carried or 'none'}"
        fix = (
            f"Add keypoint_regressor ({len(KEYPOINTS)}, {count}) and keypoint_joint ({len(KEYPOINTS)}, "
            f"{NUM_JOINTS}) for depthfit.joints.KEYPOINTS, or give SMPL's own mesh of {SMPL_VERTICES}."
        )
        raise InputError(path, ", ".join(_KEYPOINT_FIELDS), found, fix)
    return smpl_keypoints(fields["v_template"])


def smpl_keypoints(v_template: NDArray) -> tuple[NDArray, NDArray]:
    """Keypoint regressors of SMPL's mesh: from vertices (K, 6890) and from joints (K, 24).

    ``upper_neck`` is the head joint, where the skull meets the neck; ``head_top`` is the highest vertex of
    the template (6890, 3), which stands upright in its T pose.
    """
    vertex = {**_SMPL_KEYPOINT_VERTEX, "head_top": int(v_template[:, 1].argmax())}
    joints: dict[str, tuple[str, ...]] = {name: (name,) for name in COCO17 if name in JOINT_INDEX}
    joints["neck"] = ("left_shoulder", "right_shoulder")
    joints["mid_hip"] = ("left_hip", "right_hip")
    joints["upper_neck"] = ("head",)
    from_vertices = np.zeros((len(KEYPOINTS), len(v_template)))
    from_joints = np.zeros((len(KEYPOINTS), NUM_JOINTS))
    for row, name in enumerate(KEYPOINTS):
        if name in vertex:
            from_vertices[row, vertex[name]] = 1.0
        else:
            for joint in joints[name]:
                from_joints[row, JOINT_INDEX[joint]] = 1.0 / len(joints[name])
    return from_vertices, from_joints
