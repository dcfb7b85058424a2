"""Bodies and depth readings seen from the side, where errors along the line of sight show."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from depthfit.report.bodies import COOL, WARM, blend_people
from depthfit.report.canvas import MUTED, Color, put_label, put_text

_FLOOR: Color = (34, 37, 44)
_GRID: Color = (58, 62, 72)
_DOT: Color = (250, 235, 150)
_EYE_DISTANCE = 500.0
"""m from the side: far enough that sizes hardly change with x."""


def draw_side_view(
    before: Sequence[Tensor],
    after: Sequence[Tensor],
    faces: Tensor,
    readings: Sequence[np.ndarray],
    size: tuple[int, int],
) -> np.ndarray:
    """Picture (H, W, 3) of bodies (V, 3) m in the camera frame, seen from +x: z to the right, y down.

    Predictions are often tens of metres off, where one scale would leave nothing to see: each body before
    the fit is moved so that its middle is that of the same person after it.

    Args:
        before: Bodies of the prediction, one a person.
        after: The same people refined.
        faces: (F, 3).
        readings: (R, 3) m for each person, points of the depth map in the camera frame; may be empty.
        size: (H, W) of the picture.
    """
    height, width = size
    moved = [b + (a.mean(0) - b.mean(0)) for b, a in zip(before, after, strict=True)]
    shown = torch.cat([*moved, *after])
    low, high = shown.amin(0), shown.amax(0)
    middle = ((low + high) / 2).double()
    extent = (high - low).clamp(min=0.1)
    scale = float(min(0.80 * width / extent[2], 0.84 * height / extent[1]))
    left_z, top_y = float(middle[2]) - width / 2 / scale, float(middle[1]) - height / 2 / scale
    picture = np.full((height, width, 3), _FLOOR, np.uint8)
    step = _draw_grid(picture, left_z, top_y, scale)
    focal = scale * _EYE_DISTANCE
    K = torch.tensor(
        [[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]], dtype=torch.float64
    )
    cameras = [K] * len(after)
    for bodies, colors, opacity in ((moved, WARM, 0.6), (after, COOL, 0.72)):
        turned = [_seen_from_side(body.cpu(), middle.cpu()) for body in bodies]
        picture = blend_people(picture, turned, cameras, faces.cpu(), colors, opacity)
    for points in readings:
        for z, y in points[:, [2, 1]]:
            x_px, y_px = (z - left_z) * scale, (y - top_y) * scale
            if 0 <= x_px < width and 0 <= y_px < height:
                cv2.circle(picture, (int(x_px * 16), int(y_px * 16)), 20, _DOT, -1, cv2.LINE_AA, 4)
    _draw_legend(picture, any(len(points) for points in readings), step)
    return picture


def _seen_from_side(vertices: Tensor, middle: Tensor) -> Tensor:
    """Camera frame of an eye at +x that looks along -x with y down: its x is the old z."""
    x, y, z = (vertices.double() - middle).unbind(-1)
    return torch.stack([z, y, _EYE_DISTANCE - x], -1)


def _draw_grid(picture: np.ndarray, left_z: float, top_y: float, scale: float) -> float:
    """Lines a round number of metres apart, with z written below; returns their distance."""
    height, width = picture.shape[:2]
    step = next(s for s in (0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 50, 100, 1000) if s * scale >= 75 or s == 1000)
    for k in range(math.ceil(left_z / step), math.floor((left_z + width / scale) / step) + 1):
        x = round((k * step - left_z) * scale)
        cv2.line(picture, (x, 0), (x, height), _GRID, 1)
        put_text(picture, f"{k * step:g}", x + 4, height - 8, MUTED, 0.5)
    for k in range(math.ceil(top_y / step), math.floor((top_y + height / scale) / step) + 1):
        y = round((k * step - top_y) * scale)
        cv2.line(picture, (0, y), (width, y), _GRID, 1)
    return step


def _draw_legend(picture: np.ndarray, with_readings: bool, step: float) -> None:
    put_label(picture, "before (warm), moved to the refined place", 10, 22, WARM[0])
    put_label(picture, "after (cool)", 10, 46, COOL[0])
    if with_readings:
        put_label(picture, "depth readings", 10, 70, _DOT)
    text = f"camera at the left; z in m, grid {step:g} m"
    put_label(picture, text, 10, picture.shape[0] - 32, MUTED)
