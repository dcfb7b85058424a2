"""Errors of the evidence: of a 2D detector, of a monocular depth network, of masks.

Functions take a numpy Generator and exact values, and give what an estimator would have said.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from depthfit.joints import OKS_SIGMA, mirror_name
from depthfit.synth.config import NoiseConfig

Array = NDArray[np.float64]

TAIL_SHARE, TAIL_WIDTH = 0.1, 2.0
"""One draw in ten of a per-image error comes from a tail twice as wide."""
NETWORK_SIDE = 1536
"""px: Depth Pro resamples every image to this square, whatever its shape."""
OUTLIER_SIZE = 0.3
"""Sd of a gross keypoint error, in square roots of the person's area."""
OCCLUDED_FACTOR = 2.0
"""A detector guesses hidden points; they err about twice as much."""
VISIBLE_CONFIDENCE, OCCLUDED_CONFIDENCE, OUTSIDE_CONFIDENCE = 0.9, 0.5, 0.05


def heavy_tailed(rng: Generator, sd: float) -> float:
    """A zero-mean draw of standard deviation ``sd`` from a normal with a wider normal mixed in."""
    wide = TAIL_WIDTH if rng.random() < TAIL_SHARE else 1.0
    mixture_sd = np.sqrt(1 - TAIL_SHARE + TAIL_SHARE * TAIL_WIDTH**2)
    return float(sd * wide / mixture_sd * rng.normal())


def smooth_field(rng: Generator, size: tuple[int, int], length: float, waves: int = 96) -> Array:
    """A random field (H, W) of zero mean, unit variance and squared-exponential covariance.

    Made of random Fourier features (Rahimi & Recht, NeurIPS 2007): its waves have random directions and
    wavelengths, so that no basis of a few cosines or polynomials holds it.

    Args:
        rng: Source of randomness.
        size: (H, W) px.
        length: Distance in px at which the correlation has fallen to exp(-1/2).
        waves: Number of features; more come closer to a Gaussian process.
    """
    height, width = size
    # The field is smooth on `length`, so a coarse grid with a few points a length says all.
    step = max(length / 8, 1.0)
    rows, columns = int(np.ceil(height / step)) + 1, int(np.ceil(width / step)) + 1
    y, x = np.linspace(0, height - 1, rows), np.linspace(0, width - 1, columns)
    frequency = rng.normal(size=(waves, 2)) / length
    phase = rng.uniform(0, 2 * np.pi, size=waves)
    # cos(a + b) separates, which turns the sum over waves into two matrix products.
    across, down = np.outer(x, frequency[:, 0]), np.outer(y, frequency[:, 1]) + phase
    coarse = np.cos(down) @ np.cos(across).T - np.sin(down) @ np.sin(across).T
    map_x = np.broadcast_to(np.arange(width) * (columns - 1) / max(width - 1, 1), size).astype(np.float32)
    map_y = np.arange(height)[:, None] * (rows - 1) / max(height - 1, 1)
    map_y = np.broadcast_to(map_y, size).astype(np.float32)
    fine = cv2.remap(coarse, map_x, map_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return fine * np.sqrt(2 / waves)


def detect_keypoints(
    rng: Generator,
    points: Array,
    names: Sequence[str],
    area: float,
    visible: NDArray[np.bool_],
    size: tuple[int, int],
    noise: NoiseConfig,
) -> Array:
    """What a 2D pose detector says: (K, 3) of x, y px and confidence.

    The spread of a point is its OKS sigma (the annotators' own, in square roots of the area) times
    ``keypoint_factor``, times a difficulty of its own that the confidence reflects; hidden points err twice
    as much. ViTPose's errors on COCO are about a third of the annotators' spread, with 2-5 % of points
    swapped left to right or lost.

    Args:
        rng: Source of randomness.
        points: (K, 2) px, true positions.
        names: (K,) names of the points.
        area: px^2, of the person's mask.
        visible: (K,) whether the camera sees the point.
        size: (H, W) px of the image.
        noise: Levels.
    """
    root_area = np.sqrt(area)
    count = len(names)
    true = points.copy()
    swap = noise.keypoint_outliers / 2
    for i, name in enumerate(names):
        partner = mirror_name(name)
        if name.startswith("left_") and partner in names and rng.random() < swap:
            j = names.index(partner)
            true[[i, j]] = true[[j, i]]
    difficulty = np.exp(0.4 * rng.normal(size=count) - 0.4**2)
    sigma = np.array([OKS_SIGMA[name] for name in names]) * noise.keypoint_factor * root_area * difficulty
    sigma = np.where(visible, sigma, OCCLUDED_FACTOR * sigma)
    found = true + sigma[:, None] * rng.normal(size=(count, 2))
    lost = rng.random(count) < noise.keypoint_outliers / 2
    found += np.where(lost, OUTLIER_SIZE * root_area, 0.0)[:, None] * rng.normal(size=(count, 2))
    confidence = np.where(visible, VISIBLE_CONFIDENCE, OCCLUDED_CONFIDENCE) * difficulty**-0.25
    confidence = confidence * rng.uniform(0.9, 1.05, count) * np.where(lost, rng.uniform(0.3, 1, count), 1)
    limit = np.array([size[1] - 0.5, size[0] - 0.5])
    outside = ((points < -0.5) | (points > limit)).any(-1)
    confidence = np.where(outside, OUTSIDE_CONFIDENCE * rng.random(count), confidence)
    # Detectors answer with a cell of their heatmap, which does not reach beyond the image.
    found = np.clip(found, 0, limit - 0.5)
    return np.concatenate([found, np.clip(confidence, 0.01, 0.99)[:, None]], -1)


def estimate_depth(
    rng: Generator, depth: Array, focal: float, limb_px: float, noise: NoiseConfig
) -> tuple[NDArray[np.float32], float]:
    """What Depth Pro says: a metric depth map (H, W) in m, and the focal length in px that it assumed.

    log D - log f_D = log z - log f + s + field + pixel noise. The network measures z / f and multiplies by
    its own focal length, so an error of f_D goes into D one to one. Published errors: log f 0.25 (share
    within 25 % on six photo sets), log scale 0.12 indoors to 0.3 outdoors, a low-frequency field of 3-6 %,
    1 % a pixel. Edges mix foreground and background in inverse depth, which is what the network puts out
    and resamples.

    Args:
        rng: Source of randomness.
        depth: (H, W) exact z in m, finite everywhere.
        focal: True focal length in px.
        limb_px: About the width of a limb in this image.
        noise: Levels.
    """
    size = depth.shape
    estimated_focal = focal * np.exp(heavy_tailed(rng, noise.focal_log))
    scale = heavy_tailed(rng, noise.depth_log_scale)
    wide = smooth_field(rng, size, max(size) * rng.uniform(0.25, 1.0))
    narrow = smooth_field(rng, size, limb_px * rng.uniform(0.7, 2.0))
    error = scale + noise.depth_warp * np.sqrt(0.5) * (wide + narrow)
    inverse = np.exp(-error) / depth
    if noise.depth_boundary_px > 0:
        half = noise.depth_boundary_px / 2
        shrink = [max(1.0, side / NETWORK_SIDE) for side in size]
        inverse = cv2.GaussianBlur(inverse, (0, 0), half * shrink[1], sigmaY=half * shrink[0])
    pixel = np.exp(noise.depth_pixel * rng.normal(size=size))
    return (estimated_focal / focal * pixel / inverse).astype(np.float32), float(estimated_focal)


def segment(rng: Generator, labels: NDArray[np.uint8], count: int, noise: NoiseConfig) -> NDArray[np.uint8]:
    """What an instance segmenter says: the label map (H, W), k = k-th person, with uneven outlines.

    Each person's outline moves in and out by a smooth random amount, and some lose a bite.

    Args:
        rng: Source of randomness.
        labels: (H, W) exact, 0 = background.
        count: Number of people.
        noise: Levels.
    """
    best = np.zeros(labels.shape)
    out = np.zeros_like(labels)
    for k in range(1, count + 1):
        inside = (labels == k).astype(np.uint8)
        root_area = np.sqrt(inside.sum())
        distance = cv2.distanceTransform(inside, cv2.DIST_L2, 5) - cv2.distanceTransform(
            1 - inside, cv2.DIST_L2, 5
        )
        # Between pixels of either side the outline is half a pixel from both.
        distance = distance - 0.5 * np.sign(distance)
        length = max(0.08 * root_area, 4.0)
        signed = distance + noise.mask_px * smooth_field(rng, labels.shape, length)
        bitten, place = rng.random() < noise.mask_bites, rng.random()
        radius = rng.uniform(0.05, 0.12) * root_area
        rim = np.argwhere((distance > 0) & (distance < 1.5))
        if bitten and len(rim):
            y, x = rim[int(place * len(rim))]
            rows, columns = np.ogrid[: labels.shape[0], : labels.shape[1]]
            signed = np.minimum(signed, np.hypot(rows - y, columns - x) - radius)
        wins = signed > best
        best, out = np.where(wins, signed, best), np.where(wins, np.uint8(k), out)
    return out
