"""Pictures of worlds: shaded image, exact depth, and who is where."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from depthfit import camera as pinhole
from depthfit.raster import rasterize, shade
from depthfit.synth.noise import smooth_field
from depthfit.synth.scene import Placed, World

FARTHEST = 60.0
"""m: depth of what is farther, or the sky."""
WALL_CLEARANCE = (0.4, 5.0)
"""m: range of the distance between the hindmost person and a wall."""
TILE = 0.5
"""m: side of the floor's tiles."""
WINDOW_MARGIN = 2
HIDDEN_BY = 0.12
"""m: a point is hidden when the surface before it is this much nearer; joints lie inside the body."""
SENSOR_NOISE = 2.0
"""Sd of the picture's grain, in grey levels."""


@dataclass(frozen=True)
class Picture:
    """What an ideal camera records.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        depth: (H, W) float64 m, z of what each pixel sees.
        labels: (H, W) uint8, 0 = background, k = k-th person.
        visible: (N, K) bool, keypoints inside the image with nothing before them.
        unhidden: (N,) share of each person's silhouette that no other person hides.
    """

    image: NDArray[np.uint8]
    depth: NDArray[np.float64]
    labels: NDArray[np.uint8]
    visible: NDArray[np.bool_]
    unhidden: NDArray[np.float64]


def render(rng: Generator, world: World, faces: Tensor) -> Picture:
    """Picture of a world whose bodies have ``faces`` (F, 3). ``rng`` draws the background and the grain."""
    depth, color = _background(rng, world)
    labels = np.zeros(depth.shape, np.uint8)
    silhouette = []
    for k, placed in enumerate(world.people, start=1):
        rows, columns, near, paint = _draw(placed, world.camera.K, faces, depth.shape)
        window = (rows, columns)
        silhouette.append(np.isfinite(near).sum())
        front = near < depth[window]
        depth[window] = np.where(front, near, depth[window])
        color[window] = np.where(front[..., None], paint, color[window])
        labels[window] = np.where(front, np.uint8(k), labels[window])
    kept = np.array([(labels == k + 1).sum() for k in range(len(silhouette))])
    grain = SENSOR_NOISE * rng.standard_normal(color.shape, np.float32)
    image = np.clip(cv2.GaussianBlur(color, (0, 0), 0.5) + grain, 0, 255).astype(np.uint8)
    visible = np.stack([_visible(placed, world.camera.K, depth) for placed in world.people])
    return Picture(image, depth, labels, visible, kept / np.maximum(silhouette, 1))


def _draw(
    placed: Placed, K: Tensor, faces: Tensor, size: tuple[int, ...]
) -> tuple[slice, slice, NDArray[np.float64], NDArray[np.float32]]:
    """Rows and columns of the window around a person, and there depth (infinite beside) and colour."""
    vertices = placed.clothed[None]
    points = pinhole.project(placed.clothed, K)
    low = (points.amin(0).floor() - WINDOW_MARGIN).int().tolist()
    high = (points.amax(0).ceil() + WINDOW_MARGIN).int().tolist()
    left, right = np.clip([low[0], high[0] + 1], 0, size[1]).tolist()
    top, bottom = np.clip([low[1], high[1] + 1], 0, size[0]).tolist()
    shifted = K.clone()
    shifted[:2, 2] -= torch.tensor([left, top])
    window = (bottom - top, right - left)
    fragments = rasterize(vertices, faces, shifted[None], window, cull_backfaces=True)
    paint = shade(fragments, vertices, faces, placed.person.shape.color[None])[0]
    depth = fragments.depth[0].double().numpy()
    return slice(top, bottom), slice(left, right), depth, paint.numpy().astype(np.float32)


def _visible(placed: Placed, K: Tensor, depth: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(K,) whether each keypoint is inside the image and not behind something."""
    points = pinhole.project(placed.keypoints, K).round().long().numpy()
    height, width = depth.shape
    inside = ((points >= 0) & (points < (width, height))).all(-1)
    x, y = np.clip(points, 0, (width - 1, height - 1)).T
    return inside & (placed.keypoints[:, 2].numpy() - depth[y, x] < HIDDEN_BY)


def _background(rng: Generator, world: World) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Depth (H, W) m and colour (H, W, 3) in [0, 255] of a tiled floor and two walls in a corner.

    The inverse depth of a plane n . x = d is n . ray / d, linear in the pixel: the nearest plane is the
    largest of a few linear functions.
    """
    width, height = world.camera.size
    to_world = world.camera.T_camera_world.double().numpy().T
    # World direction, of unit z in the camera, of pixel (u, v) is rays @ (u, v, 1).
    rays = to_world @ np.linalg.inv(world.camera.K.double().numpy())
    people = np.concatenate([p.clothed.double().numpy() for p in world.people]) @ to_world.T
    paints = rng.uniform(70, 210, (2, 3))
    floor_color, wall_color = 0.4 * paints + 0.6 * paints.mean(-1, keepdims=True)
    normals, colors = [np.array([0.0, -1.0, 0.0]) / world.height], [floor_color]
    # The camera looks along the world's -z; walls left and right of it, each beyond everybody.
    for side in (-1, 1):
        angle = side * np.radians(rng.uniform(25, 65))
        normal = np.array([np.sin(angle), 0.0, -np.cos(angle)])
        distance = max((people @ normal).max(), 0.0) + rng.uniform(*WALL_CLEARANCE)
        normals.append(normal / distance)
        colors.append(wall_color * rng.uniform(0.75, 1.0))
    u, v = np.arange(width), np.arange(height)[:, None]
    inverse = np.stack([a * u + b * v + c for a, b, c in np.stack(normals) @ rays])
    depth = 1 / np.maximum(inverse.max(0), 1 / FARTHEST)
    nearest = inverse.argmax(0)
    color = np.stack(colors).astype(np.float32)[nearest]
    texture = 1 + 0.06 * smooth_field(rng, (height, width), height * 0.12).astype(np.float32)
    rows, columns = np.nonzero(nearest == 0)
    x, _, z = depth[rows, columns] * (rays @ np.stack([columns, rows, np.ones_like(rows)]))
    tiles = (np.floor(x / TILE) + np.floor(z / TILE)) % 2
    texture[rows, columns] = 0.85 + 0.15 * tiles
    return depth, color * texture[..., None]
