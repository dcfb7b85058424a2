"""Files in the exact formats of public data sets, with synthetic people in them.

Fields, shapes and frames are those that the data sets' own and other public loaders use.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from tests.body.smpl_files import python2_pickle

SIZE = (160, 120)
K = np.array([[150.0, 0, 79.5], [0, 150.0, 59.5], [0, 0, 1]])


@dataclass(frozen=True)
class Motion:
    """A person in a world frame, SMPL's parameters: poses (F, 72), trans (F, 3), betas (10,), gender."""

    poses: np.ndarray
    trans: np.ndarray
    betas: np.ndarray
    gender: str


def motion(seed: int, frames: int, gender: str, place: tuple[float, float, float] = (0, 0, 0)) -> Motion:
    """Someone standing about ``place`` (y up), turning and bending a little."""
    rng = np.random.default_rng(seed)
    poses = rng.normal(0, 0.25, (frames, 72))
    poses[:, :3] = Rotation.from_euler(
        "yxz", rng.uniform([-180, -30, -30], [180, 30, 30], (frames, 3)), True
    ).as_rotvec()
    return Motion(poses, rng.normal(0, 0.1, (frames, 3)) + place, rng.normal(0, 1.5, 10), gender)


def extrinsics(seed: int, frames: int) -> np.ndarray:
    """T_camera_world (F, 4, 4): a camera 4 m away that turns, tilts and rolls."""
    rng = np.random.default_rng(seed)
    flip = np.diag([1.0, -1.0, -1.0])
    out = np.tile(np.eye(4), (frames, 1, 1))
    angles = np.stack(
        [rng.uniform(-15, 15, frames), rng.uniform(-180, 180, frames), rng.uniform(-10, 10, frames)]
    )
    out[:, :3, :3] = flip @ Rotation.from_euler("xyz", angles.T, degrees=True).as_matrix()
    out[:, :3, 3] = rng.normal((0, 0.2, 4.0), 0.1, (frames, 3))
    return out


def write_image(path: Path, value: int = 90, size: tuple[int, int] = SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.full((size[1], size[0], 3), value, np.uint8)
    picture[0, 0] = 255
    assert cv2.imwrite(str(path), picture)
    return path


def write_3dpw(
    root: Path,
    name: str,
    people: list[Motion],
    T_camera_world: np.ndarray,
    valid: np.ndarray,
    poses2d: np.ndarray,
    joints: np.ndarray,
    split: str = "test",
) -> Path:
    """``sequenceFiles/SPLIT/NAME.pkl`` as Python 2 wrote it, and the images.

    Args:
        valid: (people, F); poses2d: (people, F, 3, 18); joints: (people, F, 72) m.
    """
    count = len(T_camera_world)
    content = {
        "sequence": name,
        "poses": [p.poses for p in people],
        "trans": [p.trans for p in people],
        # Files of later releases hold 300 shape directions.
        "betas": [np.concatenate([p.betas, np.full(290, 9.0)]) for p in people],
        "genders": [p.gender[0] for p in people],
        "poses2d": list(poses2d),
        "jointPositions": list(joints),
        "campose_valid": [v.astype(np.int64) for v in valid],
        "cam_poses": T_camera_world,
        "cam_intrinsics": K,
        "img_frame_ids": np.arange(count) * 2,
        "v_template_clothed": [np.zeros((3, 3)) for _ in people],
        "texture_maps": [np.zeros((2, 2, 3), np.uint8) for _ in people],
        "poses_60Hz": [np.repeat(p.poses, 2, 0) for p in people],
    }
    path = root / "sequenceFiles" / split / f"{name}.pkl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(python2_pickle(content))
    for frame in range(count):
        write_image(root / "imageFiles" / name / f"image_{frame:05d}.jpg", 60 + frame)
    return path


def write_emdb(
    root: Path,
    subject: str,
    sequence: str,
    person: Motion,
    T_camera_world: np.ndarray,
    good: np.ndarray,
    emdb1: bool = True,
) -> Path:
    """``PX/SEQ/PX_SEQ_data.pkl`` and the images."""
    count = len(T_camera_world)
    boxes = np.tile([10.0, 20.0, 70.0, 100.0], (count, 1))
    content = {
        "gender": person.gender,
        "name": f"{subject}_{sequence}",
        "emdb1": emdb1,
        "emdb2": not emdb1,
        "n_frames": count,
        "good_frames_mask": good,
        "camera": {"intrinsics": K, "extrinsics": T_camera_world, "width": SIZE[0], "height": SIZE[1]},
        "smpl": {
            "poses_root": person.poses[:, :3],
            "poses_body": person.poses[:, 3:],
            "trans": person.trans,
            "betas": person.betas,
        },
        "kp2d": np.zeros((count, 24, 2)),
        "bboxes": {"bboxes": boxes, "invalid_idxs": np.flatnonzero(~good)},
    }
    folder = root / subject / sequence
    for frame in range(count):
        write_image(folder / "images" / f"{frame:05d}.jpg")
    path = folder / f"{subject}_{sequence}_data.pkl"
    path.write_bytes(pickle.dumps(content))
    return path


def write_npz(path: Path, columns: dict[str, Any]) -> Path:
    """An npz as its authors save it: columns of objects are pickled."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **columns)
    return path


def objects(values: list[Any]) -> np.ndarray:
    """A 1-d object array."""
    out = np.empty(len(values), object)
    out[:] = values
    return out
