"""Label files of BEDLAM and CameraHMR: one npz, a row a person."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from depthfit.errors import InputError
from depthfit.evidence.cameras import SIGMA_DEPTH, CameraPrior
from depthfit.pseudo.labels import NUM_BETAS, NUM_POINTS, NUM_POSE, keypoints_44
from depthfit.pseudo.npz_columns import column_names, read_column
from depthfit.pseudo.records import ItemRef, Label, Subject
from depthfit.pseudo.source_folder import FolderSource


@dataclass(frozen=True)
class Columns:
    """What is read of a file, N rows. See ``formats``: CameraHMR's loader.

    Attributes:
        imgname: (N,) str; pose: (N, 72); betas: (N, 10); transl: (N, 3) m, SMPL's, camera frame;
            cam_int: (N, 3, 3); keypoints: (N, 44, 3).
        order: Images in the order of their first rows, with their rows.
    """

    imgname: np.ndarray
    pose: np.ndarray
    betas: np.ndarray
    transl: np.ndarray
    cam_int: np.ndarray
    keypoints: np.ndarray
    order: dict[str, list[int]]


@dataclass(frozen=True)
class NpzSource(FolderSource):
    """One npz, whose ``imgname`` is relative to the folder of images."""

    kind: str = "npz"

    def count(self) -> int:
        return len(read_columns(self.path).order)

    def listed(self, first: int, last: int) -> list[ItemRef]:
        images = list(read_columns(self.path).order.items())[first:last]
        return [ItemRef(name, len(rows), rows) for name, rows in images]

    def subjects(self, ref: ItemRef) -> list[Subject]:
        columns = read_columns(self.path)
        return [_subject(k + 1, columns, row) for k, row in enumerate(ref.where)]

    def masks(self, ref: ItemRef, shape: tuple[int, int]) -> np.ndarray | None:
        return None

    def camera(self, ref: ItemRef) -> CameraPrior | None:
        K = read_columns(self.path).cam_int[ref.where[0]]
        if not np.isfinite(K).all() or K[0, 0] <= 0:
            return None
        return CameraPrior(float(K[0, 0]), SIGMA_DEPTH, (float(K[0, 2]), float(K[1, 2])), "cam_int")


@lru_cache(maxsize=2)
def read_columns(path: str) -> Columns:
    """Read a label file.

    Raises:
        InputError: A column is missing or of a wrong shape.
    """
    file, names = Path(path), column_names(Path(path))
    imgname = read_column(file, "imgname")
    text = np.array([n.decode() if isinstance(n, bytes) else str(n) for n in imgname.tolist()])
    count = len(text)
    pose_name = "pose_cam" if "pose_cam" in names else "pose"
    pose = read_column(file, pose_name).reshape(count, -1)[:, :NUM_POSE]
    betas = read_column(file, "shape")[:, :NUM_BETAS]
    points = read_column(file, "gtkps")[:, :NUM_POINTS]
    transl = np.zeros((count, 3))
    if "trans_cam" in names:
        transl += read_column(file, "trans_cam")
    if "cam_ext" in names:
        transl += read_column(file, "cam_ext")[:, :3, 3]
    cam_int = read_column(file, "cam_int")
    shapes = {
        pose_name: (pose, (count, NUM_POSE)),
        "shape": (betas, (count, NUM_BETAS)),
        "gtkps": (points, (count, NUM_POINTS, 3)),
        "cam_int": (cam_int, (count, 3, 3)),
    }
    for name, (array, shape) in shapes.items():
        if array.shape != shape:
            raise InputError(file, name, f"shape {array.shape}", f"It needs at least {shape}.")
    order: dict[str, list[int]] = {}
    for row, name in enumerate(text.tolist()):
        order.setdefault(name, []).append(row)
    pose, betas, cam_int, points = (a.astype(np.float64) for a in (pose, betas, cam_int, points))
    return Columns(text, pose, betas, transl, cam_int, points, order)


def _subject(number: int, columns: Columns, row: int) -> Subject:
    points, pose, betas = columns.keypoints[row], columns.pose[row], columns.betas[row]
    if not np.isfinite(points).all():
        return Subject(number, None, None, "evidence_not_finite: gtkps", finite=False)
    if not (np.isfinite(pose).all() and np.isfinite(betas).all()):
        return Subject(number, None, None, "label_not_finite: pose or shape", finite=False)
    transl = columns.transl[row]
    placed = bool(np.isfinite(transl).all() and transl[2] > 0)
    focal = float(columns.cam_int[row, 0, 0])
    label = Label(pose, betas, transl if placed else None, focal if placed else None)
    person = keypoints_44(points)
    return Subject(number, person, label, "" if person else "no_keypoints")
