"""Which saved fit is which person of the ground truth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

Table = Mapping[str, np.ndarray]
OVERLAP_GATE = 0.5
"""Mean distance of the keypoints, in the person's true size, beyond which they are different people."""


def keys(table: Table) -> list[tuple[str, int]]:
    """(image stem, person number) of every row."""
    return [(Path(str(n)).stem, int(p)) for n, p in zip(table["imgname"], table["person"], strict=True)]


def stems(table: Table) -> NDArray[np.str_]:
    """(N,) image name of every row, without folder and ending."""
    return np.array([Path(str(name)).stem for name in table["imgname"]], dtype=str)


def match_by_number(fits: Table, truth: Table) -> tuple[NDArray, NDArray]:
    """Rows of both tables with the same image and person number, in the order of the truth."""
    where = {key: i for i, key in enumerate(keys(fits))}
    found = [(where[key], i) for i, key in enumerate(keys(truth)) if key in where]
    pairs = np.array(found, dtype=np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def match_by_overlap(
    fits: Table, truth: Table, fit_xy: NDArray, true_xy: NDArray, visible: NDArray
) -> tuple[NDArray, NDArray]:
    """Rows of both tables whose keypoints lie on each other in the same image, at the least total distance.

    For fits whose numbers are a detector's own.

    Args:
        fit_xy: (M, K, 2) px of every fit; true_xy: (N, K, 2) px and visible (N, K) bool of every truth.
    """
    where: dict[str, list[int]] = {}
    for i, name in enumerate(stems(fits)):
        where.setdefault(str(name), []).append(i)
    rows: dict[str, list[int]] = {}
    for i, name in enumerate(stems(truth)):
        if name in where:
            rows.setdefault(str(name), []).append(i)
    pairs: list[tuple[int, int]] = []
    for name, true_rows in rows.items():
        cost = _distances(fit_xy[where[name]], true_xy[true_rows], visible[true_rows])
        possible = cost <= OVERLAP_GATE
        row, column = linear_sum_assignment(np.where(possible, cost, OVERLAP_GATE))
        keep = possible[row, column]
        pairs += [(where[name][r], true_rows[c]) for r, c in zip(row[keep], column[keep], strict=True)]
    ordered = np.array(sorted(pairs, key=lambda pair: pair[1]), dtype=np.int64).reshape(-1, 2)
    return ordered[:, 0], ordered[:, 1]


def _distances(fit_xy: NDArray, true_xy: NDArray, visible: NDArray) -> NDArray:
    """(M, N) mean distance of visible points over the person's size; infinite where nothing is visible."""
    seen = visible & np.isfinite(true_xy).all(-1)
    low = np.where(seen[..., None], true_xy, np.inf).min(1)
    high = np.where(seen[..., None], true_xy, -np.inf).max(1)
    some = seen.sum(1) >= 2
    size = np.where(some, (high - low).max(-1), 1.0)
    gap = np.linalg.norm(fit_xy[:, None] - np.nan_to_num(true_xy)[None], axis=-1)
    total = np.where(seen[None], gap, 0).sum(-1) / np.maximum(seen.sum(1), 1)
    return np.where(some, total / np.maximum(size, 1e-6), np.inf)
