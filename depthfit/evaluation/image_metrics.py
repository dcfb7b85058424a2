"""Measures of a whole image: silhouettes, and who stands in front of whom."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from depthfit.raster import rasterize

EQUAL_DEPTH_M = 0.2
"""Two people whose distances differ by less stand equally far (Sun et al., "BEV", CVPR 2022)."""


def mask_iou(predicted: ArrayLike, truth: ArrayLike) -> float:
    """Intersection over union of two masks (H, W) bool; NaN if both are empty."""
    a, b = np.asarray(predicted, bool), np.asarray(truth, bool)
    if a.shape != b.shape:
        raise ValueError(f"the masks have shapes {a.shape} and {b.shape}: they must be equal")
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else float("nan")


def silhouette_labels(vertices: Tensor, faces: Tensor, K: Tensor, size: tuple[int, int]) -> NDArray[np.int64]:
    """(H, W) index + 1 of the person whose mesh each pixel sees first, 0 = nobody.

    Args:
        vertices: (P, V, 3) m, camera frame; faces (F, 3); K (P, 3, 3) px; size (H, W) px.
    """
    depth = rasterize(vertices, faces, K, size).depth
    nearest = depth.argmin(0)
    hit = torch.isfinite(depth.amin(0))
    return torch.where(hit, nearest + 1, torch.zeros_like(nearest)).cpu().numpy()


def silhouette_ious(
    vertices: Tensor, faces: Tensor, K: Tensor, labels: NDArray, people: Sequence[int], longer_side: int
) -> NDArray[np.float64]:
    """(P,) IoU of each person's visible silhouette with the mask; NaN for people without a mask.

    Everyone of the image is drawn, so that people hide each other as they do in the mask.

    Args:
        vertices: (P, V, 3) m, camera frame; faces (F, 3); K (P, 3, 3) px of the mask's image.
        labels: (H, W), k = the person with the number k in ``people`` (P,).
        longer_side: px. Larger masks are reduced to it, by their nearest pixels.
    """
    height, width = labels.shape
    factor = min(1.0, longer_side / max(height, width))
    size = (max(round(height * factor), 1), max(round(width * factor), 1))
    scale = torch.tensor([size[1] / width, size[0] / height], dtype=K.dtype, device=K.device)
    small = cv2.resize(labels, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)
    window = K.clone()
    window[:, :2] *= scale[:, None]
    # Pixel edges, not centres, keep their place when an image is resampled.
    window[:, :2, 2] += (scale - 1) / 2
    drawn = silhouette_labels(vertices, faces, window, size)
    return np.array(
        [
            mask_iou(drawn == p + 1, small == number) if (small == number).any() else np.nan
            for p, number in enumerate(people)
        ]
    )


def depth_relations(distance: ArrayLike, tolerance: float = EQUAL_DEPTH_M) -> NDArray[np.int64]:
    """Relation (P (P - 1) / 2,) of every pair of people by distance (P,) m: -1 the first is nearer, 0 equal
    within ``tolerance`` m, 1 farther. Pairs in the order of ``numpy.triu_indices``."""
    z = np.asarray(distance, np.float64)
    first, second = np.triu_indices(len(z), 1)
    gap = z[first] - z[second]
    return np.where(np.abs(gap) < tolerance, 0, np.sign(gap)).astype(np.int64)


def depth_order(
    predicted: ArrayLike, truth: ArrayLike, images: ArrayLike, tolerance: float = EQUAL_DEPTH_M
) -> tuple[float, int]:
    """Share of pairs of people of one image whose depth relation is the true one, and the number of pairs.

    The rule of BEV's percentage of correct depth relations (PCDR), with its tolerance, on measured truths.

    Args:
        predicted, truth: (N,) m; ``images`` (N,) label of each person's image.

    Returns:
        NaN and 0 where nobody shares an image.
    """
    a, b = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    _, image = np.unique(np.asarray(images), return_inverse=True)
    order = np.argsort(image, kind="stable")
    hits = pairs = 0
    for members in np.split(order, np.flatnonzero(np.diff(image[order])) + 1):
        known = members[np.isfinite(a[members]) & np.isfinite(b[members])]
        same = depth_relations(a[known], tolerance) == depth_relations(b[known], tolerance)
        hits, pairs = hits + int(same.sum()), pairs + len(same)
    return (hits / pairs if pairs else float("nan")), pairs
