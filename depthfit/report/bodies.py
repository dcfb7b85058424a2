"""Bodies and keypoints drawn over a photo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from depthfit.camera import project
from depthfit.raster import NEAR, rasterize, shade
from depthfit.report.canvas import Color

WARM: tuple[Color, ...] = ((240, 140, 60), (235, 95, 85), (245, 190, 70), (225, 110, 160))
"""Colours of bodies before the fit, one a person, in turn."""
COOL: tuple[Color, ...] = ((85, 165, 240), (75, 200, 175), (150, 140, 245), (100, 210, 235))
"""Colours of bodies after it."""
DETECTED: Color = (255, 255, 255)
_LEFT, _RIGHT, _MIDDLE = (255, 170, 60), (70, 200, 255), (235, 235, 235)
_SUPERSAMPLING = 2
_SUBPIXEL_BITS = 4

LIMBS = (
    ("nose", "left_eye"), ("nose", "right_eye"), ("left_eye", "left_ear"), ("right_eye", "right_ear"),
    ("left_shoulder", "right_shoulder"), ("left_shoulder", "left_elbow"), ("left_elbow", "left_wrist"),
    ("right_shoulder", "right_elbow"), ("right_elbow", "right_wrist"), ("left_shoulder", "left_hip"),
    ("right_shoulder", "right_hip"), ("left_hip", "right_hip"), ("left_hip", "left_knee"),
    ("left_knee", "left_ankle"), ("right_hip", "right_knee"), ("right_knee", "right_ankle"),
    ("left_ankle", "left_heel"), ("left_heel", "left_big_toe"), ("right_ankle", "right_heel"),
    ("right_heel", "right_big_toe"), ("upper_neck", "head_top"), ("nose", "neck"),
)  # fmt: skip
"""Pairs of keypoints that a drawn skeleton joins, where both are there."""


@dataclass(frozen=True)
class PersonView:
    """One person in one image, seen by one camera. P keypoints.

    Attributes:
        vertices: (V, 3) m, camera frame.
        K: (3, 3) px, the camera that this body was made for: the prediction's own, or the refined one.
        projected: (P, 2) px, the body's keypoints under ``K``.
        detected: (P, 2) px; what is not detected may be NaN.
        confidence: (P,), not above 0 where there is no detection.
    """

    vertices: Tensor
    K: Tensor
    projected: Tensor
    detected: Tensor
    confidence: Tensor


@dataclass(frozen=True)
class Drawing:
    """People drawn into one window: ``rgb`` (H, W, 3) uint8, ``person`` (H, W) index or -1, ``depth``
    (H, W) m, infinite where nobody is.
    """

    rgb: np.ndarray
    person: np.ndarray
    depth: np.ndarray


def scaled_intrinsics(K: Tensor, scale_x: float, scale_y: float) -> Tensor:
    """``K`` (3, 3) of a picture resized by these factors; pixel centres stay at integer coordinates."""
    resize = K.new_tensor([[scale_x, 0, (scale_x - 1) / 2], [0, scale_y, (scale_y - 1) / 2], [0, 0, 1]])
    return resize @ K


def scaled_points(points: Tensor, scale_x: float, scale_y: float) -> np.ndarray:
    """``points`` (..., 2) px in the resized picture."""
    scale = np.array([scale_x, scale_y])
    return (points.detach().cpu().double().numpy() + 0.5) * scale - 0.5


def draw_people(
    vertices: Sequence[Tensor],
    K: Sequence[Tensor],
    faces: Tensor,
    colors: Sequence[Color],
    size: tuple[int, int],
) -> Drawing:
    """Shade each person's ``vertices`` (V, 3) under their own ``K`` (3, 3); the nearest wins."""
    drawing = Drawing(np.zeros((*size, 3), np.uint8), np.full(size, -1), np.full(size, np.inf))
    for index, (points, camera) in enumerate(zip(vertices, K, strict=True)):
        mesh = points.detach()[None].float()
        window = _window(mesh[0], camera.to(mesh), size)
        rows, columns = window
        if rows.start >= rows.stop or columns.start >= columns.stop:
            continue
        shifted = camera.detach().clone()
        shifted[:2, 2] -= shifted.new_tensor([columns.start, rows.start])
        shape = rows.stop - rows.start, columns.stop - columns.start
        fragments = rasterize(mesh, faces, shifted[None], shape)
        color = torch.tensor(colors[index % len(colors)], device=mesh.device) / 255.0
        rgb = shade(fragments, mesh, faces, color)[0].cpu().numpy()
        depth = fragments.depth[0].cpu().numpy()
        nearer = depth < drawing.depth[window]
        drawing.rgb[window][nearer] = rgb[nearer]
        drawing.depth[window][nearer] = depth[nearer]
        drawing.person[window][nearer] = index
    return drawing


def _window(vertices: Tensor, K: Tensor, size: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of the picture that hold all that could be seen of ``vertices`` (V, 3)."""
    points = project(vertices[vertices[:, 2] >= NEAR], K)
    if not len(points):
        return slice(0, 0), slice(0, 0)
    low, high = points.amin(0).floor().tolist(), points.amax(0).ceil().tolist()
    (left, top), (right, bottom) = low, high
    return slice(int(max(top, 0)), int(min(bottom + 1, size[0]))), slice(
        int(max(left, 0)), int(min(right + 1, size[1]))
    )


def blend_people(
    picture: np.ndarray,
    vertices: Sequence[Tensor],
    K: Sequence[Tensor],
    faces: Tensor,
    colors: Sequence[Color],
    opacity: float,
) -> np.ndarray:
    """``picture`` (H, W, 3) with people over it, anti-aliased, each with a fine outline."""
    height, width = picture.shape[:2]
    factor = float(_SUPERSAMPLING)
    cameras = [scaled_intrinsics(k.double(), factor, factor) for k in K]
    drawing = draw_people(vertices, cameras, faces, colors, (height * _SUPERSAMPLING, width * _SUPERSAMPLING))
    seen = drawing.person >= 0
    rows, columns = (_span(np.asarray(seen.any(axis)), _SUPERSAMPLING) for axis in (1, 0))
    if rows.start == rows.stop:
        return picture.copy()
    # Only what is drawn is mixed: it is a part of the picture.
    person, rgb = drawing.person[rows, columns], np.ascontiguousarray(drawing.rgb[rows, columns])
    covered = (person >= 0).astype(np.float32)
    for index in range(len(vertices)):
        mask = (person == index).astype(np.uint8)
        outlines, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        edge = tuple(int(0.45 * c) for c in colors[index % len(colors)])
        cv2.drawContours(rgb, outlines, -1, edge, 2)
    size = covered.shape[1] // _SUPERSAMPLING, covered.shape[0] // _SUPERSAMPLING
    alpha = cv2.resize(covered, size, interpolation=cv2.INTER_AREA)[..., None]
    # Colours are averaged over the covered part alone, or the rim would darken.
    shaded = cv2.resize(rgb * covered[..., None], size, interpolation=cv2.INTER_AREA)
    part = tuple(slice(s.start // _SUPERSAMPLING, s.stop // _SUPERSAMPLING) for s in (rows, columns))
    mixed = picture.copy()
    mixed[part] = (picture[part] * (1 - opacity * alpha) + shaded * opacity).round().clip(0, 255)
    return mixed


def _span(used: np.ndarray, step: int) -> slice:
    """From the first to the last True of ``used`` (N,), at whole steps."""
    places = np.flatnonzero(used)
    if not len(places):
        return slice(0, 0)
    return slice(int(places[0]) // step * step, (int(places[-1]) // step + 1) * step)


def draw_skeleton(
    picture: np.ndarray,
    points: np.ndarray,
    shown: np.ndarray,
    names: Sequence[str],
    color: Color | None = None,
) -> None:
    """Draw limbs and points (P, 2) where ``shown`` (P,), in place; by side of the body if no ``color``.

    A point behind the camera is NaN, and has no place in the picture.
    """
    drawn = shown & np.isfinite(points).all(-1)
    place = {name: _fixed(points[i]) for i, name in enumerate(names) if drawn[i]}
    for a, b in LIMBS:
        if a in place and b in place:
            tint = color or (_side_color(a) if _side_color(a) == _side_color(b) else _MIDDLE)
            cv2.line(picture, place[a], place[b], tint, 2, cv2.LINE_AA, _SUBPIXEL_BITS)
    for name, center in place.items():
        cv2.circle(
            picture, center, 3 << _SUBPIXEL_BITS, color or _side_color(name), -1, cv2.LINE_AA, _SUBPIXEL_BITS
        )


def draw_misses(picture: np.ndarray, detected: np.ndarray, projected: np.ndarray, shown: np.ndarray) -> None:
    """Rings at detections and a line from each to where the body has that keypoint, in place."""
    shown = shown & np.isfinite(projected).all(-1)
    for seen, body in zip(detected[shown], projected[shown], strict=True):
        cv2.line(picture, _fixed(seen), _fixed(body), DETECTED, 1, cv2.LINE_AA, _SUBPIXEL_BITS)
        cv2.circle(picture, _fixed(seen), 4 << _SUBPIXEL_BITS, DETECTED, 1, cv2.LINE_AA, _SUBPIXEL_BITS)


def visible_keypoints(view: PersonView) -> np.ndarray:
    """(P,) bool, where there is a detection."""
    known = torch.isfinite(view.detected).all(-1) & (view.confidence > 0)
    return known.cpu().numpy()


def _side_color(name: str) -> Color:
    return _LEFT if name.startswith("left_") else _RIGHT if name.startswith("right_") else _MIDDLE


def _fixed(point: np.ndarray) -> tuple[int, int]:
    """A point for OpenCV's ``shift``, which draws at fractions of a pixel; far points are held in range."""
    x, y = np.clip(point, -1e5, 1e5) * (1 << _SUBPIXEL_BITS)
    return round(float(x)), round(float(y))
