"""Text, panels and their arrangement on one picture."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

Color = tuple[int, int, int]

BACKGROUND: Color = (24, 26, 31)
TEXT: Color = (232, 234, 238)
MUTED: Color = (150, 155, 165)
GOOD: Color = (110, 205, 130)
BAD: Color = (245, 170, 70)

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_GAP = 12
_HEADING = 34
_LINE = 27
_SCALE = 0.6


def text_width(text: str, scale: float = _SCALE) -> int:
    """Width in px that ``put_text`` takes."""
    return int(cv2.getTextSize(text, _FONT, scale, 1)[0][0])


def put_text(
    image: np.ndarray, text: str, left: int, baseline: int, color: Color = TEXT, scale: float = _SCALE
) -> int:
    """Draw ASCII ``text`` in place; returns the x where it ends."""
    cv2.putText(image, text, (left, baseline), _FONT, scale, color, 1, cv2.LINE_AA)
    return left + text_width(text, scale)


def put_label(image: np.ndarray, text: str, left: int, baseline: int, color: Color = TEXT) -> None:
    """Small text on a dark plate, legible over a photo."""
    width = text_width(text, 0.5)
    plate = image[max(baseline - 16, 0) : baseline + 7, max(left - 5, 0) : left + width + 5]
    plate[:] = (0.35 * plate + 0.65 * np.array(BACKGROUND)).astype(np.uint8)
    put_text(image, text, left, baseline, color, 0.5)


def titled(panel: np.ndarray, heading: str) -> np.ndarray:
    """``panel`` with a heading above it."""
    strip = np.full((_HEADING, panel.shape[1], 3), BACKGROUND, np.uint8)
    put_text(strip, heading, 2, 24)
    return np.concatenate([strip, panel])


def text_block(lines: Sequence[Sequence[tuple[str, Color]]], width: int) -> np.ndarray:
    """Lines of coloured pieces, each line broken between pieces where it would pass ``width`` px."""
    space = text_width("  ")
    placed: list[tuple[str, Color, int, int]] = []
    row = 0
    for pieces in lines:
        left = _GAP
        for text, color in pieces:
            if left > _GAP and left + text_width(text) > width - _GAP:
                row, left = row + 1, 4 * _GAP
            placed.append((text, color, left, row))
            left += text_width(text) + space
        row += 1
    block = np.full((row * _LINE + _GAP, width, 3), BACKGROUND, np.uint8)
    for text, color, left, line in placed:
        put_text(block, text, left, line * _LINE + 24, color)
    return block


def arrange(rows: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Rows of panels on one background; the panels of a row are of one height."""
    width = max(sum(p.shape[1] + _GAP for p in row) + _GAP for row in rows)
    height = sum(row[0].shape[0] + _GAP for row in rows)
    sheet = np.full((height, width, 3), BACKGROUND, np.uint8)
    top = 0
    for row in rows:
        left = _GAP
        for panel in row:
            sheet[top : top + panel.shape[0], left : left + panel.shape[1]] = panel
            left += panel.shape[1] + _GAP
        top += row[0].shape[0] + _GAP
    return sheet


def row_width(widths: Sequence[int]) -> int:
    """Width of the last panel's right edge from the first panel's left edge, for panels side by side."""
    return sum(widths) + _GAP * (len(widths) - 1)
