"""Instance masks: reading, the contour of a person with its normals, and signed distances."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy.ndimage import map_coordinates

from depthfit.errors import InputError
from depthfit.evidence.files import decode_image, read_bytes

CONTOUR_POINTS = 240
SPECK_FRACTION = 0.01
"""Islands and holes below this share of the person's largest part are noise of the segmentation."""
_EDGE_BLUR_PX = 1.0
_NORMAL_BLUR_PX = 2.0
"""Blur that averages the normals over a mask's staircase."""
_LEAST_STEEPNESS = 0.02
"""Gradient per px of the blurred mask below which a part is too thin to have sides; 0.2 on an edge."""
_BINARY_MASK = 255


@dataclass(frozen=True)
class Contour:
    """Points on the boundary of a person's mask, spread evenly by arc length.

    Attributes:
        points: (count, 2) px, on the boundary itself: between the last pixel inside and the first outside.
        normals: (count, 2) unit where valid, outward.
        valid: (count,) bool; false where the mask ends for another reason than the person's outline: at
            the image's border, or beside another person's mask, who may be in front. Also false on parts
            of a single pixel, which have no sides.
    """

    points: np.ndarray
    normals: np.ndarray
    valid: np.ndarray


def read_mask(path: Path, image_size: tuple[int, int]) -> np.ndarray:
    """Labels (H, W) uint8 of an 8-bit PNG: 0 = background, k = k-th person.

    Raises:
        InputError: the file cannot be used.
    """
    labels = decode_image(path, read_bytes(path), cv2.IMREAD_UNCHANGED)
    if labels.dtype != np.uint8 or labels.ndim != 2:
        channels = 1 if labels.ndim == 2 else labels.shape[2]
        found = f"{8 * labels.itemsize} bits, {channels} channel(s)"
        fix = "Save an 8-bit PNG of one channel without a palette; each pixel is the person's number, or 0."
        raise InputError(path, "pixels", found, fix)
    width, height = image_size
    if labels.shape != (height, width):
        found = f"{labels.shape[1]} x {labels.shape[0]}, but the image is {width} x {height}"
        raise InputError(path, "size", found, "Save the mask in the size of the image, turned upright.")
    if np.array_equal(np.unique(labels[labels > 0]), [_BINARY_MASK]):
        fix = "A mask holds the person's number, not 255: write 1 for the first person."
        raise InputError(path, "pixels", "the values 0 and 255", fix)
    return labels


def person_area(labels: np.ndarray, person: int) -> int:
    """Number of pixels of ``person`` in ``labels`` (H, W)."""
    return int((labels == person).sum())


def remove_specks(mask: np.ndarray, fraction: float = SPECK_FRACTION) -> np.ndarray:
    """``mask`` (H, W) bool without islands and holes below ``fraction`` of its largest part."""
    for side in (True, False):
        _, parts, stats, _ = cv2.connectedComponentsWithStats((mask == side).astype(np.uint8))
        area = stats[:, cv2.CC_STAT_AREA]
        if len(area) < 2:  # no person at all, or no background
            return mask
        if side:
            least = fraction * area[1:].max()
        small = area < least
        small[0] = False
        mask = mask ^ small[parts]
    return mask


def mask_contour(
    labels: np.ndarray, person: int, count: int = CONTOUR_POINTS, gap_px: float = 3.0
) -> Contour:
    """Outer and inner contours of one person in ``labels`` (H, W) uint8.

    A pixel chain has the mask's staircase and lies half a pixel inside. Each of its points is moved onto
    the half-way level of the slightly blurred mask: exact on straight edges, and 1 / (2 r) px too far
    inside on a curve of radius r px. A person without a pixel gets points that are all invalid.

    Args:
        labels: (H, W) as ``read_mask`` gives them.
        person: Label of the person.
        count: Number of points.
        gap_px: A point this close to another person's mask counts as touching it.
    """
    mask = labels == person
    if not mask.any():
        return Contour(np.zeros((count, 2)), np.zeros((count, 2)), np.zeros(count, dtype=bool))
    mask = remove_specks(mask)
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    edge = _Blurred(mask, _EDGE_BLUR_PX)
    chains = [edge.onto_boundary(chain[:, 0].astype(np.float64)) for chain in found]
    points = _spread(chains, count)
    height, width = labels.shape
    border = ((points < 1) | (points > np.array([width, height]) - 2)).any(-1)
    gradient = _Blurred(mask, _NORMAL_BLUR_PX).gradient(points)
    steepness = np.linalg.norm(gradient, axis=-1, keepdims=True)
    has_normal = steepness[:, 0] > _LEAST_STEEPNESS
    normals = -gradient / np.maximum(steepness, _LEAST_STEEPNESS)
    valid = has_normal & ~border & ~_beside_others(labels, person, points, gap_px)
    return Contour(points, normals, valid)


class _Blurred:
    """A blurred mask and its gradient, sampled between pixels."""

    def __init__(self, mask: np.ndarray, blur_px: float) -> None:
        value = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), blur_px, borderType=cv2.BORDER_REPLICATE)
        self._value = value
        self._gradient = [cv2.Sobel(value, cv2.CV_32F, *axes, scale=1 / 8) for axes in ((1, 0), (0, 1))]

    def onto_boundary(self, points: np.ndarray) -> np.ndarray:
        """Newton steps towards level 1/2. Parts thinner than the blur have no such level beside them:
        hence at most one pixel in all, and none where the gradient vanishes."""
        moved = points
        for _ in range(3):
            gradient = self._at(moved, *self._gradient)
            missing = 0.5 - self._at(moved, self._value)
            moved = moved + missing * gradient / np.maximum((gradient**2).sum(-1, keepdims=True), 1e-3)
            step = moved - points
            length = np.linalg.norm(step, axis=-1, keepdims=True)
            moved = points + step / np.maximum(length, 1)
        return moved

    def gradient(self, points: np.ndarray) -> np.ndarray:
        return self._at(points, *self._gradient)

    @staticmethod
    def _at(points: np.ndarray, *images: np.ndarray) -> np.ndarray:
        x, y = points.T
        return np.stack([map_coordinates(image, [y, x], order=1, mode="nearest") for image in images], -1)


def _spread(chains: list[np.ndarray], count: int) -> np.ndarray:
    """``count`` points at equal arc length along closed chains, one after the other."""
    starts = np.concatenate(chains)
    ends = np.concatenate([np.roll(chain, -1, axis=0) for chain in chains])
    reached = np.concatenate([[0.0], np.cumsum(np.linalg.norm(ends - starts, axis=-1))])
    along = (np.arange(count) + 0.5) * reached[-1] / count
    piece = np.clip(np.searchsorted(reached, along, side="right") - 1, 0, len(starts) - 1)
    length = np.maximum(reached[piece + 1] - reached[piece], 1e-9)
    share = ((along - reached[piece]) / length)[:, None]
    return starts[piece] * (1 - share) + ends[piece] * share


def _beside_others(labels: np.ndarray, person: int, points: np.ndarray, gap_px: float) -> np.ndarray:
    others = (labels != 0) & (labels != person)
    if not others.any():
        return np.zeros(len(points), dtype=bool)
    distance = cv2.distanceTransform((~others).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    x, y = points.T
    return map_coordinates(distance, [y, x], order=1, mode="nearest") <= gap_px
