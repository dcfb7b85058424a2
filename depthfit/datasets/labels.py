"""What a data set says of its people, in depthfit's conventions: camera frame, pelvis translation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from depthfit import so3
from depthfit.body.model import Body
from depthfit.errors import InputError, check_choice
from depthfit.joints import BODY25, KEYPOINTS, NUM_JOINTS

Array = NDArray[np.float64]
Bodies = Callable[[str], Body]
"""Gender -> body."""
CHUNK = 128
GENDERS = {"m": "male", "male": "male", "f": "female", "female": "female", "neutral": "neutral"}


@dataclass(frozen=True)
class ImageSource:
    """An image of a data set; ``turn`` = stored on its side, to be turned by 90 degrees clockwise."""

    path: Path
    turn: bool = False


@dataclass(frozen=True)
class People:
    """Labels of N people as columns; NaN is what a data set does not know.

    Attributes:
        imgname: (N,) names in the scene; person: (N,) 1, 2, ... in each image.
        gender: (N,) male, female or neutral: of the body that the labels are for.
        root: (N, 3) rad, camera frame; pose: (N, 69) rad; betas: (N, 10).
        pelvis: (N, 3) m, camera frame.
        K: (N, 3, 3) px.
        group: (N,) names of the videos they are from, or of the images of a set of photographs: the unit that
            bootstrap intervals draw.
        keypoints: (N, 27, 3) px and confidence of labelled ``joints.KEYPOINTS``, or ``None``.
        label_joints: (N, 44, 4) m, TokenHMR's joints, or ``None``.
        boxes: (N, 4) px, x0 y0 x1 y1, as the data set's own loaders crop; ``None`` = around the body.
    """

    imgname: list[str]
    person: NDArray[np.int64]
    gender: list[str]
    root: Array
    pose: Array
    betas: Array
    pelvis: Array
    K: Array
    group: list[str]
    keypoints: Array | None = None
    label_joints: Array | None = None
    boxes: Array | None = None

    def __len__(self) -> int:
        return len(self.imgname)


@dataclass(frozen=True)
class LabelledScene:
    """A part of a data set that becomes one scene folder.

    Attributes:
        name: Of the folder.
        images: Where each image of the scene (by the name it will have) comes from.
        people: The labels.
        detections: 2D detections that come with the data set, BODY_25 (25, 3) px and confidence of each
            person, by image; empty = none come with it.
    """

    name: str
    images: dict[str, ImageSource]
    people: People
    detections: dict[str, list[Array]] = field(default_factory=dict)


class Reader(Protocol):
    """A data set, part by part."""

    def names(self) -> list[str]:
        """The parts' names, in order."""

    def read(self, name: str) -> LabelledScene:
        """One part."""


def rest_pelvis(bodies: Bodies, gender: str, betas: Array) -> Array:
    """Pelvis (N, 3) m of shaped rest meshes: where SMPL's own translation of zero leaves it."""
    body = bodies(gender)
    shape = body_shape(body, betas)
    moved = torch.einsum("cb,nb->nc", body.joint_shapedirs[0], shape)
    return (body.joint_template[0] + moved).double().numpy()


def body_shape(body: Body, betas: Array) -> Tensor:
    """(N, B) float32 of the body's B directions; further ones are left out, missing ones zero."""
    values = torch.from_numpy(np.asarray(betas, np.float32))[:, : body.num_betas]
    return torch.nn.functional.pad(values, (0, body.num_betas - values.shape[1]))


def to_camera(root: Array, trans: Array, rest: Array, T_camera_world: Array) -> tuple[Array, Array]:
    """SMPL parameters of a world frame in a camera's.

    SMPL turns the body about its rest pelvis J0 and then adds ``trans``, so that the pelvis stands at
    J0 + trans, whatever the root's rotation. That point is moved by the camera; the root is turned.

    Args:
        root: (N, 3) rad; trans: (N, 3) m; rest: (N, 3) m, J0; T_camera_world: (N, 4, 4).

    Returns:
        root (N, 3) rad and pelvis (N, 3) m in the camera's frame.
    """
    rotation, shift = T_camera_world[:, :3, :3], T_camera_world[:, :3, 3]
    turned = torch.from_numpy(rotation) @ so3.exp(torch.from_numpy(root))
    pelvis = np.einsum("nij,nj->ni", rotation, trans + rest) + shift
    return so3.log(turned).numpy(), pelvis


def gender_name(source: str | Path, value: str) -> str:
    """A gender as ``load_body`` names it.

    Raises:
        InputError: It is none of m, male, f, female, neutral.
    """
    check_choice(source, "gender", value, GENDERS)
    return GENDERS[value]


def place_images(names: Iterable[str], sources: Iterable[ImageSource]) -> dict[str, ImageSource]:
    """Where each image of a scene comes from; rows of one image repeat its name and source.

    Raises:
        InputError: Different images would get one name, which also names their evidence whatever its ending.
    """
    out: dict[str, ImageSource] = {}
    paths: dict[str, Path] = {}
    for name, source in zip(names, sources, strict=True):
        other = paths.setdefault(Path(name).stem, source.path)
        if other != source.path:
            fix = "Rename one of them, here and in the labels."
            raise InputError(source.path, "name", f"{name}, as {other} would be called too", fix)
        out[name] = source
    return out


def number_people(imgname: list[str]) -> NDArray[np.int64]:
    """1, 2, ... for the rows of each image, in their order."""
    seen: dict[str, int] = {}
    out = np.zeros(len(imgname), np.int64)
    for row, name in enumerate(imgname):
        out[row] = seen[name] = seen.get(name, 0) + 1
    return out


@torch.no_grad()
def truth_columns(people: People, bodies: Bodies) -> dict[str, np.ndarray]:
    """Columns of ``ground_truth.npz``: the labels, and joints and keypoints posed from them.

    imgname, person, group, gender, focal px, K, global_orient, body_pose, betas, transl (the pelvis), joints
    (N, 24, 3) and keypoints_3d (N, 27, 3) m in the camera's frame, joints_local about the pelvis,
    keypoint_names, boxes (N, 4) px and box_size (N,) px, the longer side; where they are labelled
    keypoints_2d with keypoints_visible, and label_joints. What is not known is NaN.
    """
    local, points = _posed(people, bodies)
    K = people.K
    columns = {
        "imgname": np.array(people.imgname),
        "person": people.person,
        "group": np.array(people.group),
        "gender": np.array(people.gender),
        "focal": np.sqrt(K[:, 0, 0] * K[:, 1, 1]),
        "K": K,
        "global_orient": people.root,
        "body_pose": people.pose,
        "betas": people.betas,
        "transl": people.pelvis,
        "joints": local + people.pelvis[:, None],
        "joints_local": local,
        "keypoints_3d": points + people.pelvis[:, None],
        "keypoint_names": np.array(KEYPOINTS),
    }
    if people.keypoints is not None:
        columns["keypoints_2d"] = people.keypoints[..., :2]
        columns["keypoints_visible"] = people.keypoints[..., 2]
    if people.label_joints is not None:
        columns["label_joints"] = people.label_joints
    columns["boxes"] = body_boxes(columns) if people.boxes is None else people.boxes
    columns["box_size"] = (columns["boxes"][:, 2:] - columns["boxes"][:, :2]).max(1)
    return columns


def _posed(people: People, bodies: Bodies) -> tuple[Array, Array]:
    joints = np.full((len(people), NUM_JOINTS, 3), np.nan)
    points = np.full((len(people), len(KEYPOINTS), 3), np.nan)
    genders = np.array(people.gender)
    known = np.isfinite(people.root).all(1) & np.isfinite(people.pose).all(1)
    for gender in np.unique(genders[known]):
        body, rows = bodies(str(gender)), np.flatnonzero((genders == gender) & known)
        for part in np.array_split(rows, -(-len(rows) // CHUNK)):
            root = so3.exp(torch.from_numpy(people.root[part]).float())
            pose = so3.exp(torch.from_numpy(people.pose[part]).float().unflatten(-1, (-1, 3)))
            skeleton, vertices = body.forward(root, pose, body_shape(body, people.betas[part]))
            joints[part] = skeleton.position.numpy()
            points[part] = body.keypoints(skeleton, vertices).numpy()
    return joints, points


def projected(columns: dict[str, np.ndarray]) -> tuple[Array, NDArray[np.bool_]]:
    """True keypoints (N, 27, 2) px and which are in front of the camera (N, 27), of ``truth_columns``."""
    points = columns["keypoints_3d"] @ columns["K"].transpose(0, 2, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        xy = points[..., :2] / points[..., 2:]
        return xy, np.isfinite(xy).all(-1) & (points[..., 2] > 0)


def true_keypoints(columns: dict[str, np.ndarray]) -> Array:
    """(N, 27, 3) px and confidence: labelled keypoints, else the projected ones; zero where unknown."""
    if "keypoints_2d" in columns:
        return np.concatenate([columns["keypoints_2d"], columns["keypoints_visible"][..., None]], -1)
    xy, seen = projected(columns)
    return np.where(seen[..., None], np.concatenate([xy, np.ones_like(xy[..., :1])], -1), 0)


def to_body25(keypoints: Array) -> Array:
    """``joints.KEYPOINTS`` (..., 27, 3) in the order of OpenPose's BODY_25 (..., 25, 3)."""
    return keypoints[..., [KEYPOINTS.index(name) for name in BODY25], :]


def from_names(names: tuple[str, ...], triples: Array) -> Array:
    """Points ``names`` (N, len(names), 3) in the order of ``joints.KEYPOINTS`` (N, 27, 3); others zero."""
    out = np.zeros((*triples.shape[:-2], len(KEYPOINTS), 3))
    for column, name in enumerate(names):
        if name in KEYPOINTS:
            out[..., KEYPOINTS.index(name), :] = triples[..., column, :]
    return out


def body_boxes(columns: dict[str, np.ndarray], margin: float = 1.0) -> Array:
    """Boxes (N, 4) px around the true keypoints, widened about their centre; NaN without any.

    Args:
        margin: Side per side of the tight box.
    """
    points = true_keypoints(columns)
    seen = points[..., 2:] > 0
    low = np.where(seen, points[..., :2], np.inf).min(1)
    high = np.where(seen, points[..., :2], -np.inf).max(1)
    known = seen.sum((1, 2)) > 0
    center, half = (low + high) / 2, margin * (high - low) / 2
    return np.where(known[:, None], np.concatenate([center - half, center + half], -1), np.nan)


def square_boxes(center: Array, size: Array) -> Array:
    """Boxes (N, 4) px of centre (N, 2) and width and height (N, 2) or side (N,)."""
    half = np.broadcast_to(size.reshape(len(center), -1), center.shape) / 2
    return np.concatenate([center - half, center + half], -1)


def by_image(people: People) -> Iterator[tuple[str, list[int]]]:
    """Every image's name and its rows, in the order of persons."""
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(people.imgname):
        rows.setdefault(name, []).append(row)
    for name, chosen in rows.items():
        yield name, sorted(chosen, key=lambda row: int(people.person[row]))
