"""Data sets that come as one npz of labels and a folder of images: TokenHMR's 3DPW, BEDLAM, SPEC-MTP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthfit.camera import image_center
from depthfit.datasets.labels import (
    Array,
    Bodies,
    ImageSource,
    LabelledScene,
    People,
    from_names,
    number_people,
    place_images,
    rest_pelvis,
    square_boxes,
)
from depthfit.datasets.npz import LabelArchive, as_numbers
from depthfit.errors import InputError
from depthfit.evidence.files import image_size
from depthfit.joints import BODY25

SMPL_POSE = 72
SCALE_UNIT = 200.0
"""px: what a ``scale`` of one means in labels that go back to MPII's."""
HUMAN_DATA_POINTS = 190
HUMAN_DATA = {
    "left_hip": 1, "right_hip": 2, "left_knee": 4, "right_knee": 5, "left_ankle": 7, "right_ankle": 8,
    "left_shoulder": 16, "right_shoulder": 17, "left_elbow": 18, "right_elbow": 19, "left_wrist": 20,
    "right_wrist": 21, "nose": 55, "right_eye": 56, "left_eye": 57, "right_ear": 58, "left_ear": 59,
    "left_big_toe": 60, "left_small_toe": 61, "left_heel": 62, "right_big_toe": 63, "right_small_toe": 64,
    "right_heel": 65,
}  # fmt: skip
"""Columns of HumanData's keypoints: SMPL-X's joints, then SMPL's points of face and feet. OpenPose's own and
those of other regressors follow under other names, and are not read."""
_UNKNOWN = np.nan


def _group(names: list[str]) -> dict[str, list[int]]:
    """Rows by the folder of their image, joined by underscores."""
    out: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        parts = Path(name.replace("\\", "/")).parts[:-1]
        out.setdefault("_".join(parts) or "images", []).append(row)
    return out


@dataclass(frozen=True)
class TokenHMR3DPW:
    """``3dpw_test.npz`` of TokenHMR and 4D-Humans: poses in the camera's frame, OpenPose's 2D, 44 joints.

    The file has no intrinsics and no translation, so errors of place and focal are not known.
    ``imgname``, ``center`` px, ``scale`` px, ``body_pose`` (N, 72) rad, ``betas``; ``gender`` (m or male;
    anything else is female), ``body_keypoints_2d`` (N, 25, 3), ``body_keypoints_3d`` (N, 25, 4) and
    ``extra_keypoints_3d`` (N, 19, 4) m are optional there and here. The 2D points are the label file's own;
    they serve as detections and as the reference of 2D errors alike.

    Attributes:
        root: Folder that ``imgname`` starts from; labels: the npz file.
        bodies: SMPL by gender.
        every: Take every so many images of a sequence.
    """

    root: Path
    labels: Path
    bodies: Bodies
    every: int = 1

    def names(self) -> list[str]:
        """The image folders, one scene each."""
        return sorted(_group(LabelArchive(self.labels).names("imgname")))

    def read(self, name: str) -> LabelledScene:
        """One image folder."""
        archive = LabelArchive(self.labels)
        files = archive.names("imgname")
        rows = np.array(_thinned(files, _group(files)[name], self.every))
        chosen = [files[row] for row in rows]
        imgname = [f"{name}_{Path(n).name}" for n in chosen]
        images = place_images(imgname, [ImageSource(self.root / n) for n in chosen])
        pose = archive.numbers("body_pose", SMPL_POSE)[rows]
        scale = np.asarray(archive.read("scale"), np.float64)[rows]
        gender = ["neutral"] * len(rows)
        if "gender" in archive.fields:
            held = archive.names("gender")
            gender = ["male" if held[row] in ("m", "male") else "female" for row in rows]
        unknown = np.full((len(rows), 3), _UNKNOWN)
        points = None
        if "body_keypoints_2d" in archive.fields:
            points = archive.numbers("body_keypoints_2d", 25, 3)[rows]
        people = People(
            imgname=imgname,
            person=number_people(imgname),
            gender=gender,
            root=pose[:, :3],
            pose=pose[:, 3:],
            betas=archive.numbers("betas", None)[rows][:, :10],
            pelvis=unknown,
            K=np.full((len(rows), 3, 3), _UNKNOWN),
            group=[name] * len(rows),
            keypoints=None if points is None else from_names(BODY25, points),
            label_joints=_joints44(archive, rows),
            boxes=square_boxes(archive.numbers("center", 2)[rows], scale),
        )
        detections: dict[str, list[Array]] = {}
        if points is not None:
            detections = {image: [] for image in images}
            for image, person in zip(imgname, points, strict=True):
                detections[image].append(person)
        return LabelledScene(name, images, people, detections)


def _joints44(archive: LabelArchive, rows: np.ndarray) -> Array | None:
    if "extra_keypoints_3d" not in archive.fields:
        return None
    extra = archive.numbers("extra_keypoints_3d", 19, 4)[rows]
    body = np.zeros((len(rows), 25, 4))
    if "body_keypoints_3d" in archive.fields:
        body = archive.numbers("body_keypoints_3d", 25, 4)[rows]
    return np.concatenate([body, extra], 1)


def _thinned(files: list[str], rows: list[int], every: int) -> list[int]:
    """Rows of every so many images, all people of an image together."""
    images = {name: k for k, name in enumerate(sorted({files[row] for row in rows}))}
    return [row for row in rows if images[files[row]] % every == 0]


@dataclass(frozen=True)
class Bedlam:
    """BEDLAM's training labels (SMPL): ``imgname``, ``center``, ``scale`` (/ 200), ``pose_cam`` (N, 72),
    ``shape``, ``trans_cam``, ``cam_ext`` (N, 4, 4), ``cam_int`` (N, 3, 3), ``gtkps`` px.

    The body's place in the camera is ``trans_cam`` + the translation of ``cam_ext``, either of which may be
    missing. Bodies are the neutral SMPL: ``gender`` is that of the subject, not of the body. Images of
    ``closeup`` scenes are stored on their side.

    Attributes:
        root: Holds a folder for each scene, ``SCENE/png/``; labels: ``SCENE.npz``, or the folder of them.
        bodies: SMPL by gender.
        every: Take every so many images.
    """

    root: Path
    labels: Path
    bodies: Bodies
    every: int = 1

    def names(self) -> list[str]:
        """The label files, one scene each.

        Raises:
            InputError: There are none.
        """
        if self.labels.is_file():
            return [self.labels.stem]
        found = sorted(path.stem for path in self.labels.glob("*.npz"))
        if not found:
            raise InputError(self.labels, "labels", "no npz file", "Name BEDLAM's folder of label files.")
        return found

    def read(self, name: str) -> LabelledScene:
        """One label file.

        Raises:
            InputError: It cannot be used; labels of SMPL-X are not SMPL's.
        """
        path = self.labels if self.labels.is_file() else self.labels / f"{name}.npz"
        archive = LabelArchive(path)
        files = archive.names("imgname")
        rows = np.array(_thinned(files, list(range(len(files))), self.every))
        pose = archive.numbers("pose_cam", None)[rows]
        if pose.shape[1] != SMPL_POSE:
            fix = "These are SMPL-X labels; give BEDLAM's SMPL label files."
            raise InputError(path, "pose_cam", f"{pose.shape[1]} numbers, not {SMPL_POSE}", fix)
        betas = archive.numbers("shape", None)[rows][:, :10]
        trans = np.zeros((len(rows), 3))
        if "trans_cam" in archive.fields:
            trans = trans + archive.numbers("trans_cam", 3)[rows]
        if "cam_ext" in archive.fields:
            trans = trans + archive.numbers("cam_ext", 4, 4)[rows, :3, 3]
        scene = name.removesuffix("_6fps").removesuffix("_30fps")
        imgname = [f"{name}_{Path(files[row]).name}" for row in rows]
        folder = self.root / name / "png"
        if not folder.is_dir():
            folder = self.root / scene / "png" if (self.root / scene / "png").is_dir() else self.root
        people = People(
            imgname=imgname,
            person=number_people(imgname),
            gender=["neutral"] * len(rows),
            root=pose[:, :3],
            pose=pose[:, 3:],
            betas=betas,
            pelvis=trans + rest_pelvis(self.bodies, "neutral", betas),
            K=archive.numbers("cam_int", 3, 3)[rows],
            group=[f"{name}_{Path(files[row]).parent.name}" for row in rows],
            boxes=square_boxes(
                archive.numbers("center", 2)[rows],
                np.ravel(archive.read("scale"))[rows].astype(np.float64) * SCALE_UNIT,
            ),
        )
        images = place_images(imgname, [ImageSource(folder / files[row], "closeup" in name) for row in rows])
        return LabelledScene(name, images, people)


@dataclass(frozen=True)
class HumanData:
    """Labels in MMHuman3D's HumanData layout, as SPEC-MTP, PDHuman and HuMMan are given out for camera
    metrics: ``image_path``, ``smpl`` (a dict with ``global_orient``, ``body_pose``, ``betas``, ``transl``),
    ``K`` or ``focal_length``, ``bbox_xywh`` (N, 5), ``keypoints2d`` (N, 190, 3) px and confidence, or those
    columns of it that ``keypoints2d_mask`` (190,) names. ``transl`` is SMPL's own, in the camera's frame.
    With a focal length alone the principal point is the middle of the image. Labelled keypoints are read only
    where the camera or the body's place is not known: projected ones are all of those that a fit has.

    Attributes:
        root: Folder that ``image_path`` starts from; labels: the npz file.
        bodies: SMPL by gender; ``meta.gender`` (m or f) is used where the file has it, else neutral.
        every: Take every so many images.
    """

    root: Path
    labels: Path
    bodies: Bodies
    every: int = 1

    def names(self) -> list[str]:
        """The one file."""
        return [self.labels.stem]

    def read(self, name: str) -> LabelledScene:
        """All of the file.

        Raises:
            InputError: It cannot be used.
        """
        archive = LabelArchive(self.labels)
        files = archive.names("image_path")
        rows = np.array(_thinned(files, list(range(len(files))), self.every))
        smpl = archive.read("smpl")
        if not isinstance(smpl, Mapping):
            raise InputError(self.labels, "smpl", f"a {type(smpl).__name__}", "It is a dict of arrays.")
        root = self._numbers(smpl, "global_orient", len(files), 3)[rows]
        pose = self._numbers(smpl, "body_pose", len(files), 69)[rows]
        betas = self._numbers(smpl, "betas", len(files), None)[rows][:, :10]
        gender = self._genders(archive, len(files))
        chosen = [gender[row] for row in rows]
        pelvis = np.full((len(rows), 3), _UNKNOWN)
        if "transl" in smpl:
            pelvis = self._numbers(smpl, "transl", len(files), 3)[rows] + np.concatenate(
                [rest_pelvis(self.bodies, g, b[None]) for g, b in zip(chosen, betas, strict=True)]
            )
        box = archive.numbers("bbox_xywh", None)[rows]
        # Images of one data set may share a name, and its last folders too, in different takes.
        imgname = ["_".join(Path(files[row].strip("/")).parts) for row in rows]
        sources = [ImageSource(self.root / files[row]) for row in rows]
        K = self._intrinsics(archive, rows, sources)
        placed = np.isfinite(K).all() and np.isfinite(pelvis).all()
        people = People(
            imgname=imgname,
            person=number_people(imgname),
            gender=chosen,
            root=root,
            pose=pose,
            betas=betas,
            pelvis=pelvis,
            K=K,
            group=imgname,
            # Labels are of SMPL's own joints, up to 3 cm away from the points that a fit has.
            keypoints=None if placed else self._keypoints(archive, rows),
            boxes=np.concatenate([box[:, :2], box[:, :2] + box[:, 2:4]], -1),
        )
        return LabelledScene(name, place_images(imgname, sources), people)

    def _numbers(self, smpl: Mapping[str, Any], field: str, count: int, width: int | None) -> Array:
        if field not in smpl:
            raise InputError(self.labels, f"smpl.{field}", "missing", "Give a HumanData file with SMPL.")
        values = np.asarray(smpl[field])
        return as_numbers(self.labels, f"smpl.{field}", values.reshape(len(values), -1), (count, width))

    def _genders(self, archive: LabelArchive, count: int) -> list[str]:
        meta = archive.get("meta")
        held = meta.get("gender") if isinstance(meta, Mapping) else None
        if held is None:
            return ["neutral"] * count
        return [{"m": "male", "f": "female"}.get(str(g)[:1], "neutral") for g in held]

    def _intrinsics(self, archive: LabelArchive, rows: NDArray, sources: list[ImageSource]) -> Array:
        """K (N, 3, 3) of ``rows`` (N,), whose images are ``sources``; NaN if the file does not tell."""
        if "K" in archive.fields:
            held = np.asarray(archive.read("K")).reshape(-1, 3, 3)
            return as_numbers(self.labels, "K", held, (None, 3, 3))[rows]
        if "focal_length" not in archive.fields:
            return np.full((len(rows), 3, 3), _UNKNOWN)
        held = np.asarray(archive.read("focal_length"))
        focal = as_numbers(self.labels, "focal_length", held.reshape(len(held), -1), (None, None))[rows]
        # Labels without K do not tell the size of the image either.
        centers = {path: image_center(*image_size(path)).numpy() for path in {s.path for s in sources}}
        K = np.zeros((len(rows), 3, 3))
        K[:, 0, 0], K[:, 1, 1], K[:, 2, 2] = focal[:, 0], focal[:, -1], 1
        K[:, :2, 2] = [centers[source.path] for source in sources]
        return K

    def _keypoints(self, archive: LabelArchive, rows: NDArray) -> Array | None:
        """Labelled keypoints (N, 27, 3) of ``rows`` (N,); ``None`` if the file has none."""
        if "keypoints2d" not in archive.fields:
            return None
        held = np.full(HUMAN_DATA_POINTS, True)
        if "keypoints2d_mask" in archive.fields:
            held = archive.numbers("keypoints2d_mask") > 0
        points = archive.numbers("keypoints2d", None, 3)[rows]
        if len(held) != HUMAN_DATA_POINTS or points.shape[1] not in (HUMAN_DATA_POINTS, held.sum()):
            found = f"{points.shape[1]} points and a mask of {len(held)}"
            fix = f"HumanData has {HUMAN_DATA_POINTS} points, or those of keypoints2d_mask alone."
            raise InputError(self.labels, "keypoints2d", found, fix)
        # Points that are masked out hold no labels, whether or not the file has columns for them.
        whole = np.zeros((len(rows), HUMAN_DATA_POINTS, 3))
        whole[:, held] = points if points.shape[1] == held.sum() else points[:, held]
        return from_names(tuple(HUMAN_DATA), whole[:, list(HUMAN_DATA.values())])
