"""One picture a photo that shows what the fit did: photo, before, after, depth residual, side view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from torch import Tensor

from depthfit.report.bodies import (
    COOL,
    WARM,
    PersonView,
    blend_people,
    draw_misses,
    draw_people,
    draw_skeleton,
    scaled_intrinsics,
    scaled_points,
    visible_keypoints,
)
from depthfit.report.canvas import (
    BAD,
    GOOD,
    MUTED,
    TEXT,
    Color,
    arrange,
    put_text,
    row_width,
    text_block,
    text_width,
    titled,
)
from depthfit.report.side_view import draw_side_view
from depthfit.report.summary import PersonSummary, interval

_PANEL_HEIGHT, _PANEL_WIDTH = 900, 960
"""px, the box that a panel fills, whatever the photo's size."""
_RESIDUAL_RANGE = 0.2
"""Log residual at the ends of the colour map; the same for all pictures, so that they compare."""
_READINGS_PER_PERSON = 1200
_DIVERGING = ((33, 102, 172), (103, 169, 207), (247, 247, 247), (239, 138, 98), (178, 24, 43))


@dataclass(frozen=True)
class DepthView:
    """The depth map of a photo and how the fit reads it.

    Attributes:
        depth: (H, W) m as the estimator gave it, of the photo's field of view and of any resolution; zero,
            infinite or NaN where there is no reading.
        focal: px of the photo, the focal length that the estimator assumed.
        log_scale: s: log z = log depth - log focal + log(refined focal) + s.
        people: (H, W) int, k for the pixels of the k-th person from 1, or ``None``: then each person's
            pixels are those that the refined body covers.
    """

    depth: np.ndarray
    focal: float
    log_scale: float
    people: np.ndarray | None = None


def draw_overlay(
    image: np.ndarray,
    faces: Tensor,
    before: Sequence[PersonView],
    after: Sequence[PersonView],
    summaries: Sequence[PersonSummary],
    keypoint_names: Sequence[str],
    depth: DepthView | None = None,
) -> np.ndarray:
    """The report picture of one photo, uint8 RGB.

    Args:
        image: (H, W, 3) uint8 RGB.
        faces: (F, 3) of all bodies.
        before: Every person as predicted, with the prediction's camera.
        after: The same people refined.
        summaries: What the lines above the panels say, one a person.
        keypoint_names: (P,) of the keypoints in ``before`` and ``after``.
        depth: Adds the panel of the depth residual, and readings in the side view.

    Raises:
        ValueError: If the lists are not of one length, or nobody is in them.
    """
    if not before or not len(before) == len(after) == len(summaries):
        counts = f"{len(before)} views before, {len(after)} after, {len(summaries)} summaries"
        raise ValueError(f"every person needs one of each, and there must be people; got {counts}")
    height, width = image.shape[:2]
    fit = min(_PANEL_HEIGHT / height, _PANEL_WIDTH / width)
    size = max(1, round(height * fit)), max(1, round(width * fit))
    photo = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA if fit < 1 else cv2.INTER_CUBIC)
    scale = size[1] / width, size[0] / height
    panels = [
        titled(_photo_panel(photo, after, keypoint_names, scale), "photo and detections"),
        titled(_body_panel(photo, before, faces, WARM, scale), "before: the prediction under its own camera"),
        titled(
            _after_panel(photo, after, faces, keypoint_names, scale),
            "after: refined body, its keypoints, detections (rings)",
        ),
    ]
    readings: list[np.ndarray] = [np.zeros((0, 3))] * len(after)
    if depth is not None:
        panel, readings = _depth_panel(photo, after, faces, scale, depth)
        panels.append(titled(panel, "depth residual: body minus depth map"))
    wide = width > 0.9 * height
    side_width = _side_width(size[1], wide, len(panels))
    side = draw_side_view(
        [v.vertices for v in before], [v.vertices for v in after], faces, readings, (size[0], side_width)
    )
    panels.append(titled(side, "side view, from the right of the camera (+x)"))
    rows = (
        [panels] if not wide else [panels[:3], panels[3:]] if len(panels) == 5 else [panels[:2], panels[2:]]
    )
    total = max(row_width([p.shape[1] for p in row]) for row in rows)
    caption = text_block([_caption(s, i) for i, s in enumerate(summaries)], total)
    return arrange([[caption], *rows])


def _side_width(panel_width: int, wide: bool, panels_before: int) -> int:
    """Fills the second row beside the depth panel; else as wide as a panel, or half as much again."""
    if not wide:
        return round(1.5 * panel_width)
    return row_width([panel_width] * 2) if panels_before == 4 else panel_width


def _photo_panel(
    photo: np.ndarray, people: Sequence[PersonView], names: Sequence[str], scale: tuple[float, float]
) -> np.ndarray:
    panel = photo.copy()
    for view in people:
        draw_skeleton(panel, scaled_points(view.detected, *scale), visible_keypoints(view), names)
    return panel


def _body_panel(
    photo: np.ndarray,
    people: Sequence[PersonView],
    faces: Tensor,
    colors: Sequence[Color],
    scale: tuple[float, float],
) -> np.ndarray:
    cameras = [scaled_intrinsics(view.K.double(), *scale) for view in people]
    return blend_people(photo, [view.vertices for view in people], cameras, faces, colors, 0.8)


def _after_panel(
    photo: np.ndarray,
    people: Sequence[PersonView],
    faces: Tensor,
    names: Sequence[str],
    scale: tuple[float, float],
) -> np.ndarray:
    panel = _body_panel(photo, people, faces, COOL, scale)
    for view in people:
        shown, projected = visible_keypoints(view), scaled_points(view.projected, *scale)
        draw_skeleton(panel, projected, shown, names, color=(20, 60, 130))
        draw_misses(panel, scaled_points(view.detected, *scale), projected, shown)
    return panel


def _depth_panel(
    photo: np.ndarray,
    people: Sequence[PersonView],
    faces: Tensor,
    scale: tuple[float, float],
    depth: DepthView,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The residual in colours over a grey photo, and every person's depth readings (R, 3) m."""
    size = photo.shape[:2]
    cameras = [scaled_intrinsics(view.K.double(), *scale) for view in people]
    drawing = draw_people([view.vertices for view in people], cameras, faces, COOL, size)
    reading = cv2.resize(depth.depth.astype(np.float32), size[::-1], interpolation=cv2.INTER_NEAREST)
    known = np.isfinite(reading) & (reading > 0)
    owner = drawing.person
    if depth.people is not None:
        owner = cv2.resize(depth.people.astype(np.int16), size[::-1], interpolation=cv2.INTER_NEAREST) - 1
    z = np.full(size, np.nan)
    for index, view in enumerate(people):
        mine = known & (owner == index)
        z[mine] = reading[mine] * (float(view.K[0, 0]) / depth.focal * np.exp(depth.log_scale))
    both = np.isfinite(z) & (owner == drawing.person) & (drawing.person >= 0)
    residual = np.zeros(size)
    residual[both] = np.log(drawing.depth[both]) - np.log(z[both])
    grey = cv2.cvtColor(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    panel = (0.45 * grey).astype(np.uint8)
    panel[both] = _diverging(residual[both])
    _color_bar(panel)
    readings = [_points(z, owner == index, cameras[index].cpu().numpy()) for index in range(len(people))]
    return panel, readings


def _points(z: np.ndarray, mine: np.ndarray, K: np.ndarray) -> np.ndarray:
    """Up to ``_READINGS_PER_PERSON`` points (R, 3) m, evenly spread over the person's pixels."""
    rows, columns = np.nonzero(mine & np.isfinite(z))
    step = max(1, len(rows) // _READINGS_PER_PERSON)
    rows, columns = rows[::step], columns[::step]
    rays = np.stack([columns, rows, np.ones_like(rows)], -1) @ np.linalg.inv(K).T
    return rays * z[rows, columns][:, None]


def _diverging(residual: np.ndarray) -> np.ndarray:
    """Colours (..., 3) uint8 of log residuals: blue where the body is nearer, red where it is farther."""
    at = (np.clip(residual / _RESIDUAL_RANGE, -1, 1) + 1) / 2
    stops = np.linspace(0, 1, len(_DIVERGING))
    channels = [np.interp(at, stops, channel) for channel in np.array(_DIVERGING, float).T]
    return np.stack(channels, -1).round().astype(np.uint8)


def _color_bar(panel: np.ndarray) -> None:
    height, width = panel.shape[:2]
    bar_width = min(320, width - 40)
    left, top = (width - bar_width) // 2, height - 50
    plate = panel[top - 28 : height - 8, left - 14 : left + bar_width + 14]
    plate[:] = (0.3 * plate).astype(np.uint8)
    ramp = np.linspace(-_RESIDUAL_RANGE, _RESIDUAL_RANGE, bar_width)
    panel[top : top + 14, left : left + bar_width] = _diverging(ramp)
    ends = f"{100 * _RESIDUAL_RANGE:.0f} %"
    put_text(panel, f"-{ends}", left, top + 33, TEXT, 0.5)
    put_text(panel, "0", left + bar_width // 2 - 5, top + 33, TEXT, 0.5)
    put_text(panel, f"+{ends}", left + bar_width - text_width(f"+{ends}", 0.5), top + 33, TEXT, 0.5)
    put_text(panel, "body nearer", left, top - 9, MUTED, 0.5)
    put_text(panel, "body farther", left + bar_width - text_width("body farther", 0.5), top - 9, MUTED, 0.5)


def _caption(summary: PersonSummary, index: int) -> list[tuple[str, Color]]:
    verdict = "accepted" if summary.accepted else "refused: the prediction's pose is kept"
    pieces: list[tuple[str, Color]] = [
        (summary.name, COOL[index % len(COOL)]),
        (f"{verdict} ({summary.status})", GOOD if summary.accepted else BAD),
        (f"focal {_change(summary.focal, '.0f', summary.focal_std_log)} px", TEXT),
        (f"distance {_change(summary.distance, '.2f', summary.distance_std_log)} m", TEXT),
    ]
    if summary.reprojection is not None:
        pieces.append((f"reprojection {_change(summary.reprojection, '.1f', None)} px", TEXT))
    if summary.depth_residual is not None:
        first, last = (100 * r for r in summary.depth_residual)
        pieces.append((f"depth residual {_change((first, last), '.1f', None)} %", TEXT))
    if summary.mpjpe is not None:
        pieces.append((f"MPJPE {_change(summary.mpjpe, '.0f', None)} mm", TEXT))
    return pieces


def _change(pair: tuple[float, float], form: str, std_log: float | None) -> str:
    text = f"{pair[0]:{form}} -> {pair[1]:{form}}"
    half_width = interval(pair[1], std_log)
    return text if half_width is None else f"{text} +- {half_width:{form}}"
