"""Masks from a depth map: what lies at the person's depth around the person's bones, up to the depth edge.

For each person: (1) bones from keypoints, and the depth along each by a robust line; (2) pixels near a bone
and at its depth; (3) of these, not the floor, wall or chair that the person touches: a surface that goes on
beyond the body and is a plane, which inverse depth shows whatever the focal length, for 1 / z is linear in
the pixel on every plane; (4) the outline moved to where inverse depth is half-way between the two sides of
the depth edge, as networks blend them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from depthfit.evidence.depth import EDGE_LOG_JUMP, DepthMap
from depthfit.evidence.keypoints import KeypointPerson
from depthfit.evidence.mask import remove_specks
from depthfit.perception.figure import Bone, Figure, draw_bone, make_figure

REACH = 2.0
"""A body reaches this many radii from its bones."""
CORE = 0.3
"""Pixels within this many radii of a bone show the bone's depth."""
DEPTH_TOLERANCE_M = 0.3
"""m: from a bone's depth to the person's nearest and farthest surface around it, with the map's own error."""
_TOLERANCE_RANGE = (0.05, 0.2)
"""The same as a difference of log depth, at least and at most."""
_REACH_DEPTH_M = 0.9
"""m: a bone that is farther than this from the person's middle is another thing's."""
_FAR_BONE = 0.35
_MIN_CORE = 0.3
"""A bone of which less than this share is at the person's depth is hidden."""
_ROBUST_LOG = 0.02
_RING, _PLANE_REACH = 0.1, 0.35
"""Per stature: width of the ring around the figure in which touching surfaces are looked for, and how far
into the figure they go on."""
_PLANE_TOLERANCE, _PLANE_SHARE, _PLANE_TRIES = 0.04, 0.3, 60
"""Of log depth; least share of a region that lies on the plane; draws of three points."""
_PLANE_POINTS = 2000
_PLANE_BLUR, _PLANE_NOISE = 0.03, 0.01
"""Per stature: how far the surface's own depth beside the figure is carried into it; and by how much (log
depth) the figure stands off it there."""
_REGION_AREA, _PLANE_AREA = 0.002, 0.02
"""Per square of the stature: least area of a region of the ring, and of its plane outside the figure."""
_EDGE_WINDOW = 7
_NOWHERE = 1e9
"""Native px: networks blend the two sides of an edge within 2 to 3 px on either side."""
_BONE_WEIGHT, _MIDDLE_WEIGHT = 10.0, 1.0
"""Of a pixel that two people claim: per stature from the bone, and per metre from the person's middle."""


@dataclass(frozen=True)
class _Claim:
    """One person's pixels in a window: ``mask`` (h, w) bool, and ``price`` (h, w), lower = surer."""

    window: tuple[slice, slice]
    mask: np.ndarray
    price: np.ndarray


def depth_masks(
    depth: DepthMap, people: Sequence[KeypointPerson | None], image_size: tuple[int, int]
) -> np.ndarray:
    """Labels (H, W) uint8 of an image: 0 = background, k = k-th person.

    A person without keypoints, or without a bone at a depth that the map shows, gets no pixel.

    Args:
        depth: The image's depth map.
        people: The people's keypoints in image px.
        image_size: (width, height) px.
    """
    reading = depth.metres > 0
    log_depth = cv2.medianBlur(np.log(np.where(reading, depth.metres, 1e6)).astype(np.float32), 5)
    raw_inverse = np.where(reading, 1 / np.where(reading, depth.metres, 1), 0).astype(np.float32)
    inverse = cv2.medianBlur(raw_inverse, 3)
    figures = [None if person is None else make_figure(person, depth.to_native) for person in people]
    bodies = np.zeros(log_depth.shape, bool)
    for figure in figures:
        if figure is not None:
            bodies |= figure.draw(log_depth.shape, 1.0)
    labels = np.zeros(log_depth.shape, np.uint8)
    lowest = np.full(log_depth.shape, np.inf, np.float32)
    for k, figure in enumerate(figures, start=1):
        claim = None if figure is None else _claim(figure, log_depth, inverse, bodies)
        if claim is None:
            continue
        wins = claim.mask & (claim.price < lowest[claim.window])
        lowest[claim.window] = np.where(wins, claim.price, lowest[claim.window])
        labels[claim.window] = np.where(wins, np.uint8(k), labels[claim.window])
    return _full_size(labels, len(people), image_size)


def _claim(figure: Figure, log_depth: np.ndarray, inverse: np.ndarray, bodies: np.ndarray) -> _Claim | None:
    window = _window(figure, log_depth.shape)
    if window[0].stop <= window[0].start or window[1].stop <= window[1].start:
        return None
    figure = figure.shifted(np.array([window[1].start, window[0].start]))
    log_depth, inverse, bodies = log_depth[window], inverse[window], bodies[window]
    expected = _bone_depths(figure, log_depth)
    if expected is None:
        return None
    bone_depth, on_bone, middle = expected
    far, nearest = cv2.distanceTransformWithLabels(
        (~on_bone).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    by_label = np.zeros(nearest.max() + 1, np.float32)
    by_label[nearest[on_bone]] = bone_depth[on_bone]
    away = np.abs(log_depth - by_label[nearest])
    distance_m = math.exp(middle)
    tolerance = float(np.clip(DEPTH_TOLERANCE_M / distance_m, *_TOLERANCE_RANGE))
    reach = figure.draw(log_depth.shape, REACH)
    mask = reach & (away < tolerance)
    ring = (away < tolerance) & ~reach & ~bodies & _dilate(reach, round(_RING * figure.stature))
    mask &= ~_touching(ring, bodies, log_depth, figure.stature)
    mask = _connected(mask, on_bone)
    mask = _to_edge(mask, inverse)
    price = away / tolerance + _BONE_WEIGHT * far / figure.stature
    price = price + _MIDDLE_WEIGHT * distance_m * np.abs(log_depth - middle)
    return _Claim(window, mask, price.astype(np.float32))


def _window(figure: Figure, size: tuple[int, ...]) -> tuple[slice, slice]:
    ends = np.concatenate([np.stack([bone.start, bone.end]) for bone in figure.bones])
    margin = REACH * max(bone.radius for bone in figure.bones) + (_RING + 0.02) * figure.stature
    low = np.clip(np.floor(ends.min(0) - margin), 0, (size[1], size[0])).astype(int)
    high = np.clip(np.ceil(ends.max(0) + margin) + 1, 0, (size[1], size[0])).astype(int)
    return slice(low[1], high[1]), slice(low[0], high[0])


def _bone_depths(figure: Figure, log_depth: np.ndarray) -> tuple[np.ndarray, np.ndarray, float] | None:
    """Log depth along the bones (h, w), where it is known (h, w) bool, and the person's median."""
    core = figure.draw(log_depth.shape, CORE)
    if not core.any():
        return None
    middle = float(np.median(log_depth[core]))
    near = np.abs(log_depth - middle) < min(_REACH_DEPTH_M / math.exp(middle), _FAR_BONE)
    bones = list(figure.bones)
    if figure.torso is not None:
        center = figure.torso.mean(0)
        bones.append(Bone(center, center, max(bone.radius for bone in bones)))
    value, known = np.zeros(log_depth.shape, np.float32), np.zeros(log_depth.shape, bool)
    for bone in bones:
        canvas = np.zeros(log_depth.shape, np.uint8)
        draw_bone(canvas, bone, CORE)
        on_bone = canvas > 0
        seen = on_bone & near
        if seen.sum() < max(5, _MIN_CORE * on_bone.sum()):
            continue
        along = _along(bone, seen)
        line = _robust_line(along, log_depth[seen].astype(np.float64))
        value[on_bone] = line[0] * np.clip(_along(bone, on_bone), 0, 1) + line[1]
        known |= on_bone
    return (value, known, middle) if known.any() else None


def _along(bone: Bone, pixels: np.ndarray) -> np.ndarray:
    """Share of the way along a bone of each true pixel."""
    y, x = np.nonzero(pixels)
    way = bone.end - bone.start
    length2 = float(way @ way)
    if length2 < 9:  # shorter than 3 px: a point
        return np.zeros(len(x))
    return (np.stack([x, y], -1) - bone.start) @ way / length2


def _robust_line(along: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(slope, offset) by iteratively reweighted least squares with Cauchy's weights."""
    line = np.array([0.0, np.median(values)])
    if np.ptp(along) < 1e-6:
        return line
    rows = np.stack([along, np.ones_like(along)], -1)
    for _ in range(8):
        weight = 1 / np.hypot(1, (rows @ line - values) / _ROBUST_LOG)
        line = np.linalg.lstsq(rows * weight[:, None], values * weight, rcond=None)[0]
    return line


def _touching(ring: np.ndarray, bodies: np.ndarray, log_depth: np.ndarray, stature: float) -> np.ndarray:
    """(h, w) bool, pixels on or behind a plane that reaches the figure from a region of ``ring``.

    A hand or a skirt beyond the figure's reach is flat too; but a plane that a person touches goes on.
    """
    touching = np.zeros(ring.shape, bool)
    rng = np.random.default_rng(0)
    inverse = np.exp(-log_depth)
    rows, columns = np.mgrid[: ring.shape[0], : ring.shape[1]]
    count, regions, stats, _ = cv2.connectedComponentsWithStats(ring.astype(np.uint8))
    for k in range(1, count):
        if stats[k, cv2.CC_STAT_AREA] < max(_REGION_AREA * stature**2, 30):
            continue
        region = regions == k
        y, x = np.nonzero(region)
        pick = rng.permutation(len(x))[:_PLANE_POINTS]
        plane = _fit_plane(rng, x[pick], y[pick], inverse[y[pick], x[pick]])
        if plane is None:
            continue
        ratio = inverse / np.maximum(plane[0] * columns + plane[1] * rows + plane[2], 1e-9)
        outside = _connected((np.abs(ratio - 1) < _PLANE_TOLERANCE) & ~bodies, region)
        if outside.sum() < _PLANE_AREA * stature**2:
            continue
        distance = cv2.distanceTransform((~region).astype(np.uint8), cv2.DIST_L2, 5)
        level = _spread_level(ratio, outside, _PLANE_BLUR * stature)
        touching |= (ratio < level * (1 + _PLANE_NOISE)) & (distance < _PLANE_REACH * stature)
    return touching


def _spread_level(ratio: np.ndarray, outside: np.ndarray, blur_px: float) -> np.ndarray:
    """(h, w) depth of the surface over that of the plane, carried smoothly from ``outside`` into the figure.

    The errors of a depth network are smooth, and several times those of a pixel.
    """
    weight, total = (
        cv2.GaussianBlur(np.where(outside, value, 0).astype(np.float32), (0, 0), blur_px)
        for value in (1.0, ratio)
    )
    return np.where(weight > 1e-3, total / np.maximum(weight, 1e-3), 1.0)


def _fit_plane(
    rng: np.random.Generator, x: np.ndarray, y: np.ndarray, inverse: np.ndarray
) -> np.ndarray | None:
    """(a, b, c) of 1 / z = a x + b y + c on most of the points (RANSAC), or ``None`` if too few agree."""
    middle = np.array([x.mean(), y.mean()])
    rows = np.stack([x - middle[0], y - middle[1], np.ones(len(x))], -1)
    best = np.zeros(len(x), bool)
    for _ in range(_PLANE_TRIES):
        three = rng.choice(len(x), 3, replace=False)
        if abs(np.linalg.det(rows[three])) < 1:  # in one line, within rounding
            continue
        plane = np.linalg.solve(rows[three], inverse[three])
        agrees = np.abs(rows @ plane / inverse - 1) < _PLANE_TOLERANCE
        if agrees.sum() > best.sum():
            best = agrees
    if best.sum() < max(_PLANE_SHARE * len(x), 3):
        return None
    plane = np.linalg.lstsq(rows[best], inverse[best], rcond=None)[0]
    return np.array([plane[0], plane[1], plane[2] - plane[:2] @ middle])


def _connected(mask: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """The parts of ``mask`` that hold a seed."""
    _, parts = cv2.connectedComponents(mask.astype(np.uint8))
    kept = np.unique(parts[seeds & mask])
    return np.isin(parts, kept[kept > 0])


def _to_edge(mask: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """``mask`` with its outline half-way up the steps of inverse depth that run along it."""
    window = np.ones((_EDGE_WINDOW, _EDGE_WINDOW), np.uint8)
    near = cv2.dilate(np.where(mask, inverse, 0), window)
    # Steps inside the mask, such as an arm before the chest, are no outline.
    far = cv2.erode(np.where(mask, np.float32(_NOWHERE), inverse), window)
    step = _dilate(mask, _EDGE_WINDOW // 2) & (near > far * (1 + EDGE_LOG_JUMP))
    inside = (inverse > (near + far) / 2) & (inverse < near * (1 + EDGE_LOG_JUMP))
    return np.where(step, inside, mask)


def _dilate(mask: np.ndarray, radius: int) -> np.ndarray:
    side = 2 * max(radius, 1) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    return cv2.dilate(mask.astype(np.uint8), kernel) > 0


def _full_size(labels: np.ndarray, people: int, image_size: tuple[int, int]) -> np.ndarray:
    """Labels in the size of the image, without specks; interpolated, so that outlines stay smooth."""
    out = np.zeros(image_size[::-1], np.uint8)
    for k in range(1, people + 1):
        mask = labels == k
        if mask.any():
            share = cv2.resize(
                remove_specks(mask).astype(np.float32), image_size, interpolation=cv2.INTER_LINEAR
            )
            out[(share > 0.5) & (out == 0)] = k
    return out
