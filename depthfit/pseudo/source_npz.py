"""Label files of BEDLAM and CameraHMR: one npz, a row a person."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from depthfit.errors import InputError
from depthfit.evidence.cameras import SIGMA_DEPTH, CameraPrior
from depthfit.evidence.files import read_bytes
from depthfit.pseudo.labels import NUM_BETAS, NUM_POINTS, NUM_POSE, keypoints_44
from depthfit.pseudo.npz_columns import column_names, read_column
from depthfit.pseudo.records import Item, ItemRef, Label, Subject, Unit, UnitPlan, cut_chunks
from depthfit.pseudo.source import check_folder, decode, depth_file, failed_item, image_evidence, reason, rgb


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
class NpzSource:
    """One label file.

    Attributes:
        path: The npz.
        images: Folder that ``imgname`` is relative to.
        depth: Folder with STEM.npz, or ``None``.
        chunk, shard_images: People in a chunk and images in a unit.
    """

    path: str
    images: str
    depth: str | None
    chunk: int
    shard_images: int
    kind: str = "npz"

    def units(self) -> list[Unit]:
        check_folder("images", self.images)
        check_folder("depth", self.depth)
        count = len(read_columns(self.path).order)
        return [
            Unit(f"{k:06d}", self.path, first, min(first + self.shard_images, count))
            for k, first in enumerate(range(0, count, self.shard_images))
        ]

    def plan(self, unit: Unit) -> UnitPlan:
        images = list(read_columns(self.path).order.items())[unit.first : unit.last]
        items = [ItemRef(name, len(rows), rows) for name, rows in images]
        return UnitPlan(unit, tuple(items), cut_chunks(items, self.chunk))

    def read(self, plan: UnitPlan, chunk: int) -> tuple[list[Item], int]:
        first, last = plan.chunks[chunk]
        read = [self._read(ref) for ref in plan.items[first:last]]
        return [item for item, _ in read], sum(size for _, size in read)

    def pixels(self, plan: UnitPlan, key: str) -> np.ndarray:
        path = Path(self.images) / key
        return rgb(path, read_bytes(path))

    def _read(self, ref: ItemRef) -> tuple[Item, int]:
        path, columns = Path(self.images) / ref.key, read_columns(self.path)
        try:
            data = read_bytes(path)
            height, width = decode(path, data).shape[:2]
        except InputError as error:
            return failed_item(ref.key, ref.people, reason("image_unreadable", error)), 0
        subjects = [_subject(k + 1, columns, row) for k, row in enumerate(ref.where)]
        try:
            depth = depth_file(self.depth, path.stem, (width, height))
        except InputError as error:
            return Item(ref.key, subjects, None, reason("evidence_unusable", error)), len(data)
        K = columns.cam_int[ref.where[0]]
        known = np.isfinite(K).all() and K[0, 0] > 0
        camera = CameraPrior(float(K[0, 0]), SIGMA_DEPTH, (float(K[0, 2]), float(K[1, 2])), "cam_int")
        evidence = image_evidence(
            path, data, (width, height), subjects, None, depth, camera if known else None
        )
        return Item(ref.key, subjects, evidence), len(data)


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
