"""Percentage of correct keypoints, by each source's own measure of a person.

* ``box``: the longer side of the person's box. HMR2.0 and TokenHMR report 0.05 and 0.1 of it.
* ``head``: the head segment, from the upper neck to the top of the head in the image (MPII's PCKh: 0.5).
* ``torso``: from the left shoulder to the right hip in the image (Sapp & Taskar, "MODEC", CVPR 2013).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
SEGMENTS = {"head": ("upper_neck", "head_top"), "torso": ("left_shoulder", "right_hip")}
PCK = {
    "pck_box_005": ("box", 0.05), "pck_box_010": ("box", 0.1),
    "pck_head_050": ("head", 0.5), "pck_head_100": ("head", 1.0),
    "pck_torso_050": ("torso", 0.5), "pck_torso_100": ("torso", 1.0),
}  # fmt: skip
"""Columns of the tables: measure and threshold."""


def person_size(
    truth: ArrayLike,
    visible: ArrayLike,
    names: Sequence[str],
    measure: str,
    box_size: ArrayLike | None = None,
) -> Array:
    """Size (N,) px of each person in the image; NaN where the points that define it are not known.

    Args:
        truth: (N, K, 2) px, true keypoints ``names`` (K,); ``visible`` (N, K) bool.
        measure: ``box``, ``head`` or ``torso``.
        box_size: (N,) px, longer side of the label's box; ``None`` takes the box around the visible points.
    """
    xy: Array = np.asarray(truth, np.float64)
    seen: NDArray[np.bool_] = np.asarray(visible, bool)
    if measure == "box":
        if box_size is not None:
            return np.asarray(box_size, np.float64)
        some = seen.sum(1) > 0
        low = np.where(seen[..., None], xy, np.inf).min(1)
        high = np.where(seen[..., None], xy, -np.inf).max(1)
        side: Array = np.where(some[:, None], high, 0) - np.where(some[:, None], low, 0)
        return np.where(some, side.max(1), np.nan)
    ends = SEGMENTS[measure]
    if any(name not in names for name in ends):
        return np.full(len(xy), np.nan)
    a, b = (list(names).index(name) for name in ends)
    length = np.linalg.norm(xy[:, a] - xy[:, b], axis=-1)
    return np.where(seen[:, a] & seen[:, b], length, np.nan)


def correct_keypoints(predicted: ArrayLike, truth: ArrayLike, size: ArrayLike, threshold: float) -> NDArray:
    """(N, K) bool: keypoints (N, K, 2) px nearer to the truth than ``threshold`` x ``size`` (N,) px.

    A person of unknown size (NaN) has no correct point; leave such people out.
    """
    gap: Array = np.asarray(predicted, np.float64) - np.asarray(truth, np.float64)
    return np.linalg.norm(gap, axis=-1) < threshold * np.asarray(size, np.float64)[:, None]


def pck(
    predicted: ArrayLike, truth: ArrayLike, visible: ArrayLike, size: ArrayLike, threshold: float
) -> Array:
    """(N,) share of each person's visible keypoints that are correct; NaN without any, or without a size."""
    seen = np.asarray(visible, bool)
    correct = correct_keypoints(predicted, truth, size, threshold) & seen
    known = seen.any(1) & np.isfinite(np.asarray(size, np.float64))
    return np.where(known, correct.sum(1) / np.maximum(seen.sum(1), 1), np.nan)


def mean_over_keypoints(correct: ArrayLike, visible: ArrayLike) -> float:
    """Mean over the keypoints (K) of each one's share of correct people, as HMR2.0 averages.

    Args:
        correct, visible: (N, K) bool. Keypoints that nobody shows do not count; NaN if there is none.
    """
    seen = np.asarray(visible, bool)
    hits: Array = (np.asarray(correct, bool) & seen).sum(0)
    count: Array = seen.sum(0)
    return float((hits[count > 0] / count[count > 0]).mean()) if (count > 0).any() else float("nan")
