"""3DPW as its authors publish it: ``imageFiles/SEQ/image_%05d.jpg`` and ``sequenceFiles/SPLIT/SEQ.pkl``.

A sequence's pickle holds lists over one or two actors: ``poses`` (F, 72) rad and ``trans`` (F, 3) m in a
world frame, ``betas``, ``genders`` (m or f), ``poses2d`` (F, 3, 18) of OpenPose's COCO layout,
``campose_valid`` (F,), ``jointPositions`` (F, 72) m; and for all ``cam_poses`` (F, 4, 4) world to camera and
``cam_intrinsics`` (3, 3). (von Marcard et al., "Recovering Accurate 3D Human Pose in The Wild Using IMUs and
a Moving Camera", ECCV 2018.)
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from depthfit.body.unpickle import as_array, safe_load
from depthfit.datasets.labels import (
    Array,
    Bodies,
    ImageSource,
    LabelledScene,
    People,
    from_names,
    gender_name,
    number_people,
    rest_pelvis,
    to_body25,
    to_camera,
)
from depthfit.datasets.npz import as_numbers
from depthfit.errors import InputError, check_choice

_log = logging.getLogger(__name__)
COCO18 = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow",
    "left_wrist", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle",
    "right_eye", "left_eye", "right_ear", "left_ear",
)  # fmt: skip
"""OpenPose's COCO layout, that of ``poses2d``."""
SPLITS = ("train", "validation", "test")
PELVIS_SLACK = 0.005
"""m: how far the pelvis of ``jointPositions`` may be off the body's before the body is doubted."""


@dataclass(frozen=True)
class ThreeDPW:
    """3DPW's raw sequences; each is a scene. People are numbered in the order of actors with valid labels.

    Attributes:
        root: Holds imageFiles/ and sequenceFiles/.
        bodies: SMPL by gender; the pelvis of the labels needs them.
        split: train, validation or test.
        every: Take every so many frames.
    """

    root: Path
    bodies: Bodies
    split: str = "test"
    every: int = 1

    def names(self) -> list[str]:
        """Sequences of the split.

        Raises:
            InputError: There is no such split, or it is empty.
        """
        check_choice("command line", "split", self.split, SPLITS)
        folder = self.root / "sequenceFiles" / self.split
        found = sorted(path.stem for path in folder.glob("*.pkl"))
        if not found:
            fix = "root is 3DPW's folder, with imageFiles/ and sequenceFiles/ inside."
            raise InputError(folder, "sequences", "no pkl file", fix)
        return found

    def read(self, name: str) -> LabelledScene:
        """One sequence: the frames whose camera pose is valid for the actor.

        Raises:
            InputError: The file cannot be used.
        """
        path = self.root / "sequenceFiles" / self.split / f"{name}.pkl"
        content = safe_load(path)
        if not isinstance(content, Mapping):
            raise InputError(path, "file", f"a {type(content).__name__}", "Give 3DPW's own file.")
        T_camera_world = _numbers(path, content, "cam_poses", None, 4, 4)
        K = _numbers(path, content, "cam_intrinsics", 3, 3)
        actors = [
            self._actor(path, name, content, actor, T_camera_world)
            for actor in range(len(_entry(path, content, "poses")))
        ]
        rows = sorted(
            ((frame, actor) for actor, a in enumerate(actors) for frame in a["frame"].tolist()),
        )
        chosen = [(actor, int(np.flatnonzero(actors[actor]["frame"] == frame)[0])) for frame, actor in rows]

        def column(key: str) -> Array:
            return np.array([actors[actor][key][row] for actor, row in chosen])

        imgname = [f"{name}_{frame:05d}.jpg" for frame, _ in rows]
        people = People(
            imgname=imgname,
            person=number_people(imgname),
            gender=[actors[actor]["gender"] for _, actor in rows],
            root=column("root"),
            pose=column("pose"),
            betas=column("betas"),
            pelvis=column("pelvis"),
            K=np.tile(K, (len(rows), 1, 1)),
            group=[name] * len(imgname),
        )
        folder = self.root / "imageFiles" / name
        images = {
            f"{name}_{frame:05d}.jpg": ImageSource(folder / f"image_{frame:05d}.jpg") for frame, _ in rows
        }
        detections: dict[str, list[Array]] = {image: [] for image in images}
        for image, points in zip(imgname, column("points"), strict=True):
            if (points[:, 2] > 0).any():
                detections[image].append(to_body25(from_names(COCO18, points)))
        return LabelledScene(name, images, people, detections)

    def _actor(
        self, path: Path, name: str, content: Mapping[str, Any], actor: int, T_camera_world: Array
    ) -> dict[str, Any]:
        """One actor's valid frames as columns."""
        poses = _numbers(path, content, "poses", None, 72, actor=actor)
        count = len(poses)
        trans = _numbers(path, content, "trans", count, 3, actor=actor)
        points = _numbers(path, content, "poses2d", count, 3, 18, actor=actor).transpose(0, 2, 1)
        valid = _numbers(path, content, "campose_valid", count, actor=actor) > 0
        betas = np.ravel(as_array(_entry(path, content, "betas")[actor], path, f"betas[{actor}]"))[:10]
        gender = gender_name(path, str(_entry(path, content, "genders")[actor]))
        if len(T_camera_world) != count:
            found = f"{len(T_camera_world)} for {count} frames of poses[{actor}]"
            raise InputError(path, "cam_poses", found, "Give 3DPW's own file.")
        rest = rest_pelvis(self.bodies, gender, betas[None])
        if "jointPositions" in content:
            joints = _numbers(path, content, "jointPositions", count, 72, actor=actor)
            off = float(np.median(np.linalg.norm(joints[:, :3] - trans - rest, axis=1)))
            if off > PELVIS_SLACK:
                _log.warning(
                    "%s: the pelvis of jointPositions[%d] is %.0f mm off the %s body's: are models.body's "
                    "files those of the data set?", name, actor, 1000 * off, gender
                )  # fmt: skip
        frame = np.flatnonzero(valid & (np.arange(count) % self.every == 0))
        root, pelvis = to_camera(poses[frame, :3], trans[frame], rest, T_camera_world[frame])
        return {
            "frame": frame,
            "gender": gender,
            "root": root,
            "pose": poses[frame, 3:],
            "betas": np.tile(betas, (len(frame), 1)),
            "pelvis": pelvis,
            "points": points[frame],
        }


def _entry(path: Path, content: Mapping[str, Any], field: str) -> Any:
    if field not in content:
        raise InputError(path, field, "missing", "Give 3DPW's own file.")
    return content[field]


def _numbers(
    path: Path, content: Mapping[str, Any], field: str, *shape: int | None, actor: int | None = None
) -> Array:
    value = _entry(path, content, field)
    if actor is None:
        return as_numbers(path, field, value, shape)
    if not isinstance(value, list | tuple | np.ndarray) or len(value) <= actor:
        raise InputError(path, f"{field}[{actor}]", "missing", "Give 3DPW's own file.")
    return as_numbers(path, f"{field}[{actor}]", value[actor], shape)
