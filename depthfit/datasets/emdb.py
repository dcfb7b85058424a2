"""EMDB as its authors publish it: ``PX/SEQ/images/%05d.jpg`` and ``PX/SEQ/PX_SEQ_data.pkl``.

The pickle holds gender, ``emdb1`` and ``emdb2`` (the benchmarks that the sequence is part of),
``good_frames_mask`` (F,), camera ``intrinsics`` (3, 3) and ``extrinsics`` (F, 4, 4) world to camera, smpl
``poses_root`` (F, 3), ``poses_body`` (F, 69), ``trans`` (F, 3) and ``betas`` (10,) in a world frame, and
bboxes ``bboxes`` (F, 4) with ``invalid_idxs``. (Kaufmann et al., "EMDB: The Electromagnetic Database of
Global 3D Human Pose and Shape in the Wild", ICCV 2023.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from depthfit.body.unpickle import safe_load
from depthfit.datasets.labels import (
    Array,
    Bodies,
    ImageSource,
    LabelledScene,
    People,
    gender_name,
    rest_pelvis,
    to_camera,
)
from depthfit.datasets.npz import as_numbers
from depthfit.errors import InputError


@dataclass(frozen=True)
class EMDB:
    """EMDB's raw sequences; each is a scene of one person.

    Attributes:
        root: Holds P0/ ... P9/.
        bodies: SMPL by gender.
        split: ``emdb1`` or ``emdb2``.
        every: Take every so many frames.
    """

    root: Path
    bodies: Bodies
    split: str = "emdb1"
    every: int = 1

    def names(self) -> list[str]:
        """``PX_SEQ`` of the benchmark's sequences.

        Raises:
            InputError: There are none, or a file cannot be read.
        """
        if self.split not in ("emdb1", "emdb2"):
            raise InputError("command line", "split", repr(self.split), "Use emdb1 or emdb2.")
        found = sorted(self.root.glob("P*/*/*_data.pkl"))
        names = [p.stem.removesuffix("_data") for p in found if bool(_load(p).get(self.split))]
        if not names:
            fix = "root is EMDB's folder, with P0/ ... P9/ inside."
            raise InputError(self.root, self.split, f"none of {len(found)} sequences is part of it", fix)
        return names

    def read(self, name: str) -> LabelledScene:
        """One sequence: its good frames.

        Raises:
            InputError: The file cannot be used.
        """
        subject, _, sequence = name.partition("_")
        folder = self.root / subject / sequence
        path = folder / f"{name}_data.pkl"
        content = _load(path)
        smpl, camera = _part(path, content, "smpl"), _part(path, content, "camera")
        root = _numbers(path, smpl, "smpl", "poses_root", None, 3)
        count = len(root)
        pose = _numbers(path, smpl, "smpl", "poses_body", count, 69)
        trans = _numbers(path, smpl, "smpl", "trans", count, 3)
        betas = np.ravel(_field(path, smpl, "smpl", "betas"))[:10].astype(np.float64)
        T_camera_world = _numbers(path, camera, "camera", "extrinsics", count, 4, 4)
        K = _numbers(path, camera, "camera", "intrinsics", 3, 3)
        good = as_numbers(path, "good_frames_mask", content.get("good_frames_mask"), (count,)) > 0
        frame = np.flatnonzero(good & (np.arange(count) % self.every == 0))
        gender = gender_name(path, str(content.get("gender")))
        rest = rest_pelvis(self.bodies, gender, betas[None])
        turned, pelvis = to_camera(root[frame], trans[frame], rest, T_camera_world[frame])
        imgname = [f"{name}_{i:05d}.jpg" for i in frame]
        people = People(
            imgname=imgname,
            person=np.ones(len(frame), np.int64),
            gender=[gender] * len(frame),
            root=turned,
            pose=pose[frame],
            betas=np.tile(betas, (len(frame), 1)),
            pelvis=pelvis,
            K=np.tile(K, (len(frame), 1, 1)),
            group=[name] * len(imgname),
            boxes=_boxes(path, content, count)[frame],
        )
        images = {
            image: ImageSource(folder / "images" / f"{i:05d}.jpg")
            for image, i in zip(imgname, frame, strict=True)
        }
        return LabelledScene(name, images, people)


def _load(path: Path) -> Mapping[str, Any]:
    content = safe_load(path)
    if not isinstance(content, Mapping):
        raise InputError(path, "file", f"a {type(content).__name__}", "Give EMDB's own file.")
    return content


def _part(path: Path, content: Mapping[str, Any], part: str) -> Mapping[str, Any]:
    held = content.get(part)
    if not isinstance(held, Mapping):
        raise InputError(path, part, "missing", "Give EMDB's own file.")
    return held


def _field(path: Path, held: Mapping[str, Any], part: str, field: str) -> Any:
    if field not in held:
        raise InputError(path, f"{part}.{field}", "missing", "Give EMDB's own file.")
    return held[field]


def _numbers(path: Path, held: Mapping[str, Any], part: str, field: str, *shape: int | None) -> Array:
    return as_numbers(path, f"{part}.{field}", _field(path, held, part, field), shape)


def _boxes(path: Path, content: Mapping[str, Any], count: int) -> Array:
    """Boxes (F, 4) px; NaN where the file calls one invalid."""
    held = _part(path, content, "bboxes")
    boxes = _numbers(path, held, "bboxes", "bboxes", count, 4)
    boxes[np.ravel(np.asarray(held.get("invalid_idxs", []))).astype(np.int64)] = np.nan
    return boxes
