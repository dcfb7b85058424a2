"""A small library of real body poses, from clips that no tokenizer training sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from depthfit import so3
from depthfit.data.random_poses import rest_skeleton_joints
from depthfit.errors import InputError

LIBRARY_FILE = Path(__file__).parent.parent / "assets" / "poses.npz"
CREDIT = (
    "The data used in this project was obtained from mocap.cs.cmu.edu. "
    "The database was created with funding from NSF EIA-0196217."
)
CATEGORIES = {
    "everyday": ("02_01", "salsa_14", "salsa_29", "indian_08"),
    "hard": ("01_03", "01_09", "02_04", "02_05", "martial_06", "martial_10"),
}
"""Walking and dancing; climbing, hanging, jumping, balancing, punching and martial arts."""


@dataclass(frozen=True)
class PoseLibrary:
    """n poses of one category.

    Attributes:
        body: (n, 21, 3, 3) rotations of joints 1..21.
        root: (n, 3, 3) rotation of the pelvis in a world whose y axis is up; its heading is arbitrary.
        clip: n clip names.
        frame: (n,) frame in the clip, at 30 frames a second.
    """

    body: Tensor
    root: Tensor
    clip: tuple[str, ...]
    frame: Tensor


def load_pose_library(category: str, path: str | Path = LIBRARY_FILE) -> PoseLibrary:
    """The shipped poses of ``everyday`` or ``hard``.

    Raises:
        InputError: There is no such category.
    """
    with np.load(path, allow_pickle=False) as data:
        rows = np.flatnonzero(data["kind"] == category)
        if not len(rows):
            raise InputError(path, "kind", repr(category), f"Use one of: {', '.join(CATEGORIES)}")
        rotvec, root, clip, frame = (data[key][rows] for key in ("rotvec", "root", "clip", "frame"))
    return PoseLibrary(
        body=so3.exp(torch.from_numpy(rotvec.astype(np.float32))),
        root=so3.exp(torch.from_numpy(root.astype(np.float32))),
        clip=tuple(str(name) for name in clip),
        frame=torch.from_numpy(frame.astype(np.int64)),
    )


def build_pose_library(
    mocap: str | Path,
    output: str | Path,
    categories: Mapping[str, tuple[str, ...]] = CATEGORIES,
    count: int = 300,
) -> None:
    """Choose ``count`` poses a category, as different as can be, from a file of ``prepare_mocap``.

    Keys: ``rotvec`` (P, 21, 3) and ``root`` (P, 3) float16 rad, ``kind``, ``clip`` and ``frame`` (P,), and
    ``credit``.

    Raises:
        InputError: A clip is missing or was not held out of training.
    """
    with np.load(mocap, allow_pickle=False) as data:
        names, held_out, clip = data["names"], data["held_out"], data["clip"]
        rotvec, root, frame = data["rotvec"], data["root"], data["frame"]
    chosen, kinds = [], []
    for category, clips in categories.items():
        missing = set(clips) - set(names[held_out])
        if missing:
            raise InputError(mocap, "clips", str(missing), "Hold these clips out of training")
        rows = np.flatnonzero(np.isin(names[clip], clips))
        poses = so3.exp(torch.from_numpy(rotvec[rows].astype(np.float32)))
        spread = farthest_points(rest_skeleton_joints(poses).flatten(1), min(count, len(rows)))
        chosen.append(rows[spread.numpy()])
        kinds += [category] * len(spread)
    rows = np.concatenate(chosen)
    np.savez_compressed(
        output,
        rotvec=rotvec[rows],
        root=root[rows],
        kind=np.array(kinds),
        clip=names[clip[rows]],
        frame=frame[rows],
        credit=np.array(CREDIT),
    )


def farthest_points(points: Tensor, count: int) -> Tensor:
    """Indices (count,) of rows of (N, D), each the farthest from all chosen before; the first is row 0."""
    chosen = [0]
    distance = (points - points[0]).square().sum(-1)
    while len(chosen) < count:
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, (points - points[chosen[-1]]).square().sum(-1))
    return torch.tensor(chosen)
