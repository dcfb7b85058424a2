"""The square that a regressor sees of a person."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from baselines.hmr.backbone import CROP_PIXELS

BOX_ASPECT = (192, 256)
"""A person's box is widened (or heightened) to this shape; the crop is the square of its longer side."""
IMAGE_MEAN, IMAGE_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's RGB in [0, 1]."""
BLUR_ABOVE = 1.1
"""Pixels of the image per two pixels of the crop beyond which the image is blurred against aliasing."""
BLUR_REACH = 4.0
"""Standard deviations after which the blur's kernel ends."""


@dataclass(frozen=True)
class Crop:
    """What a regressor sees of one person, and where that lies in the image.

    Attributes:
        pixels: (3, 256, 256) float32, normalised RGB.
        center: (2,) px and size: px, of the square in the image, as predictions.npz has them: pixel (0, 0)
            is the centre of the top-left pixel.
    """

    pixels: np.ndarray
    center: np.ndarray
    size: float


def crop_person(image: np.ndarray, box: np.ndarray) -> Crop:
    """Cut a person out as the demos of 4D-Humans and TokenHMR do, to the last bit where nothing is blurred.

    Args:
        image: (H, W, 3) uint8 RGB.
        box: (4,) px, x0, y0, x1, y1 around the person, as detectors give it: in pixel *edges*, so that the
            whole image is (0, 0, W, H). The official code takes these for pixel centres when it cuts and for
            edges in its camera; half a pixel of the image is the difference.

    Raises:
        ValueError: The box is empty.
    """
    low, high = np.asarray(box, np.float32).reshape(2, 2)
    if not (high > low).any() or not np.isfinite(box).all():
        raise ValueError(f"an empty box: {np.asarray(box).tolist()}")
    center = (low + high) / np.float32(2)
    # Boxes are stored in units of 200 px: without the same rounding single pixels would come out otherwise.
    width, height = (high - low) / np.float32(200) * np.float32(200)
    side = np.float32(max(width, height, width * BOX_ASPECT[1] / BOX_ASPECT[0]))
    matrix = _affine(center, side)
    step = side / CROP_PIXELS / 2
    if step > BLUR_ABOVE:
        image, matrix = _blurred_window(image, matrix, center, float(side), float(step - 1) / 2)
    patch = cv2.warpAffine(
        image, matrix, (CROP_PIXELS, CROP_PIXELS), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT
    )
    mean, std = 255 * np.array(IMAGE_MEAN), 255 * np.array(IMAGE_STD)
    pixels = ((patch - mean) / std).astype(np.float32).transpose(2, 0, 1)
    return Crop(np.ascontiguousarray(pixels), center - np.float32(0.5), float(side))


def _affine(center: np.ndarray, side: np.float32) -> np.ndarray:
    """(2, 3) from image to crop: the square's centre, lower and right middle go to the crop's."""
    half, middle = side / 2, CROP_PIXELS / 2
    axes = np.array([[0, 0], [0, 1], [1, 0]], np.float32)
    return cv2.getAffineTransform(
        (center + half * axes).astype(np.float32), (middle + middle * axes).astype(np.float32)
    )


def _blurred_window(
    image: np.ndarray, matrix: np.ndarray, center: np.ndarray, side: float, sigma: float
) -> tuple[np.ndarray, np.ndarray]:
    """The part of the image that the crop sees, blurred, float32, and the matrix from it to the crop.

    The same numbers as of the whole image, at a fraction of its cost.
    """
    radius = int(BLUR_REACH * sigma + 0.5)
    edge = side / 2 + radius + 2
    size = np.array(image.shape[1::-1])
    low = np.clip(np.floor(center - edge).astype(int), 0, size - 1)
    high = np.clip(np.ceil(center + edge).astype(int) + 1, low + 1, size)
    window = image[low[1] : high[1], low[0] : high[0]].astype(np.float64)
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    kernel /= kernel.sum()
    blurred = cv2.sepFilter2D(window, -1, kernel, kernel, borderType=cv2.BORDER_REPLICATE)
    moved = matrix.copy()
    moved[:, 2] += matrix[:, :2] @ low
    return blurred, moved
