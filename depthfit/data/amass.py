"""AMASS motion files (npz): the SMPL+H layout and the SMPL-X layout, both already SMPL's rotations."""

from __future__ import annotations

import zlib
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from scipy.spatial.transform import Rotation

from depthfit.data.clip import Array, Clip
from depthfit.data.rest_skeleton import REST_OFFSETS
from depthfit.errors import InputError
from depthfit.joints import NUM_BODY_JOINTS, SMPL_JOINTS, SMPL_PARENTS

POSED_JOINTS = NUM_BODY_JOINTS + 1
_BODY_NUMBERS = 3 * NUM_BODY_JOINTS
_FPS_KEYS = ("mocap_framerate", "mocap_frame_rate")


def read_amass(path: str | Path) -> Clip:
    """Read root and body joints; AMASS worlds are z up.

    Offsets are those of a plain adult skeleton: the file gives the shape as coefficients of a licensed
    body model, and the rotations do not depend on it.

    Raises:
        InputError: The file is missing or holds no motion (AMASS's ``shape.npz`` files do not).
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(path, "file", "not found", "Give the path of an AMASS npz file")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
            poses = _poses(path, data)
            rate = next((float(data[key]) for key in _FPS_KEYS if key in data), None)
            translation = np.asarray(data["trans"], dtype=np.float64) if "trans" in data else None
    except (OSError, ValueError, TypeError, AttributeError, EOFError, BadZipFile, zlib.error) as error:
        raise InputError(path, "file", f"cannot be read ({error})", "Give an AMASS motion file") from error
    if rate is None or translation is None or len(translation) != len(poses):
        found = f"frame rate {rate}, {len(poses)} poses"
        raise InputError(path, "mocap_framerate/trans", found, "Give an AMASS motion file")
    vectors = np.asarray(poses, dtype=np.float64).reshape(-1, 3)
    rotations = Rotation.from_rotvec(vectors).as_matrix().reshape(len(poses), POSED_JOINTS, 3, 3)
    return Clip(
        names=SMPL_JOINTS[:POSED_JOINTS],
        parents=SMPL_PARENTS[:POSED_JOINTS],
        offsets=REST_OFFSETS[:POSED_JOINTS],
        rotations=rotations,
        translation=translation,
        fps=rate,
    )


def amass_files(folder: str | Path) -> list[Path]:
    """Motion files below ``folder``, sorted; the subjects' ``shape.npz`` files hold no motion."""
    return sorted(p for p in Path(folder).rglob("*.npz") if not p.stem.endswith("shape"))


def _poses(path: Path, data: np.lib.npyio.NpzFile) -> Array:
    if {"root_orient", "pose_body"} <= set(data.files):
        poses = np.concatenate([data["root_orient"], data["pose_body"]], 1)
    elif "poses" in data.files:
        poses = data["poses"][:, : 3 + _BODY_NUMBERS]
    else:
        raise InputError(path, "poses", f"not among {sorted(data.files)}", "Give an AMASS motion file")
    if poses.ndim != 2 or poses.shape[1] != 3 + _BODY_NUMBERS or len(poses) == 0:
        found = f"shape {poses.shape}"
        raise InputError(path, "poses", found, f"Expected (frames, {3 + _BODY_NUMBERS} or more)")
    return poses
