"""Error measures for human meshes and their cameras.

All functions take numpy arrays with leading ``*batch`` axes, points in metres in the camera frame
(x right, y down, z forward), and give one number a batch element. Joint 0 is the pelvis.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]
MM_PER_M = 1000.0
MAX_DRAWS = 1_000_000
"""Groups that a bootstrap draws at a time."""


def _points(predicted: ArrayLike, truth: ArrayLike) -> tuple[Array, Array]:
    a, b = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    if a.shape != b.shape:
        raise ValueError(f"predicted has shape {a.shape} but truth {b.shape}: they must be equal")
    return a, b


def mpjpe(predicted: ArrayLike, truth: ArrayLike, root: int = 0) -> Array:
    """Mean per-joint position error (*batch,) in mm of joints (*batch, J, 3) m, both moved so that joint
    ``root`` is at the origin."""
    a, b = _points(predicted, truth)
    return mean_distance(a - a[..., root : root + 1, :], b - b[..., root : root + 1, :])


def mean_distance(predicted: ArrayLike, truth: ArrayLike) -> Array:
    """Mean distance (*batch,) in mm of corresponding points (*batch, P, 3) m, as they stand."""
    a, b = _points(predicted, truth)
    return np.linalg.norm(a - b, axis=-1).mean(-1) * MM_PER_M


@dataclass(frozen=True)
class Similarity:
    """x -> scale R x + shift, for every batch element.

    Attributes:
        scale: (*batch,); rotation: (*batch, 3, 3); shift: (*batch, 3).
    """

    scale: Array
    rotation: Array
    shift: Array

    def apply(self, points: ArrayLike) -> Array:
        """Points (*batch, P, 3) moved."""
        turned = np.asarray(points, np.float64) @ np.swapaxes(self.rotation, -1, -2)
        return self.scale[..., None, None] * turned + self.shift[..., None, :]


def similarity(predicted: ArrayLike, truth: ArrayLike) -> Similarity:
    """The least-squares scale, rotation and translation of ``predicted`` (*batch, P, 3) onto ``truth``.

    The rotation is a proper one: a mirrored body is not turned into its mirror image.
    Source: Umeyama, "Least-squares estimation of transformation parameters between two point patterns"
    (PAMI 1991).
    """
    a, b = _points(predicted, truth)
    mean_a, mean_b = a.mean(-2), b.mean(-2)
    a, b = a - mean_a[..., None, :], b - mean_b[..., None, :]
    u, singular, vt = np.linalg.svd(np.swapaxes(b, -1, -2) @ a)
    sign = np.ones_like(singular)
    sign[..., 2] = np.sign(np.linalg.det(u @ vt))
    rotation = (u * sign[..., None, :]) @ vt
    spread = (a * a).sum((-1, -2))
    scale = (singular * sign).sum(-1) / np.maximum(spread, np.finfo(np.float64).tiny)
    moved = scale[..., None] * (rotation @ mean_a[..., None])[..., 0]
    return Similarity(scale, rotation, mean_b - moved)


def similarity_align(predicted: ArrayLike, truth: ArrayLike) -> Array:
    """``predicted`` (*batch, P, 3) moved onto ``truth`` by :func:`similarity`."""
    return similarity(predicted, truth).apply(predicted)


def pa_mpjpe(predicted: ArrayLike, truth: ArrayLike) -> Array:
    """Mean joint error (*batch,) in mm after Procrustes alignment with scale of joints (*batch, J, 3) m."""
    return mean_distance(similarity_align(predicted, truth), truth)


def pa_vertex_error(
    vertices: ArrayLike,
    true_vertices: ArrayLike,
    joints: ArrayLike | None = None,
    true_joints: ArrayLike | None = None,
) -> Array:
    """Mean per-vertex error (*batch,) in mm of meshes (*batch, V, 3) m after Procrustes alignment with scale
    (PA-PVE): of the vertices themselves, or, where they are given, of the joints (*batch, J, 3)."""
    if joints is None or true_joints is None:
        return pa_mpjpe(vertices, true_vertices)
    return mean_distance(similarity(joints, true_joints).apply(vertices), true_vertices)


def vertex_error(
    vertices: ArrayLike, pelvis: ArrayLike, true_vertices: ArrayLike, true_pelvis: ArrayLike
) -> Array:
    """Mean per-vertex error (*batch,) in mm of meshes (*batch, V, 3) m, each minus its pelvis (*batch, 3)."""
    a = np.asarray(vertices, np.float64) - np.asarray(pelvis, np.float64)[..., None, :]
    b = np.asarray(true_vertices, np.float64) - np.asarray(true_pelvis, np.float64)[..., None, :]
    return mean_distance(a, b)


def pelvis_error(predicted: ArrayLike, truth: ArrayLike) -> Array:
    """Distance (*batch,) in mm between pelvis positions (*batch, 3) m in the camera frame."""
    a, b = _points(predicted, truth)
    return np.linalg.norm(a - b, axis=-1) * MM_PER_M


def log_error(predicted: ArrayLike, truth: ArrayLike) -> Array:
    """Signed error log(predicted / truth) of positive quantities such as a focal length or a distance."""
    a, b = _points(predicted, truth)
    return np.log(a / b)


def percent_error(predicted: ArrayLike, truth: ArrayLike) -> Array:
    """Absolute relative error in percent."""
    a, b = _points(predicted, truth)
    return 100 * np.abs(a / b - 1)


def reprojection_error(predicted: ArrayLike, truth: ArrayLike) -> Array:
    """Mean 2D distance (*batch,) of points (*batch, K, 2) px over the person's size.

    The size is the longer side of the box around the true points, so that the error does not depend on
    how large the person is in the image.
    """
    a, b = _points(predicted, truth)
    size = (b.max(-2) - b.min(-2)).max(-1)
    return np.linalg.norm(a - b, axis=-1).mean(-1) / size


def share_worse(refined: ArrayLike, initial: ArrayLike, tolerance: float) -> float:
    """Share of people whose error grew by more than ``tolerance``, in the errors' unit: a refused fit, which
    keeps the prediction, is not worse by rounding."""
    a, b = _points(refined, initial)
    return float((a > b + tolerance).mean())


def interval_coverage(error: ArrayLike, std: ArrayLike, level: float) -> float:
    """Share of errors inside the central normal interval of probability ``level`` that ``std`` claims.

    Honest intervals give ``level``. Entries whose ``std`` is not finite made no claim and are left out;
    without any claim the result is NaN.
    """
    e, s = np.broadcast_arrays(np.asarray(error, np.float64), np.asarray(std, np.float64))
    claimed = np.isfinite(s)
    if not claimed.any():
        return float("nan")
    return float((np.abs(e[claimed]) <= stats.norm.ppf(0.5 + level / 2) * s[claimed]).mean())


def bootstrap_interval(
    values: ArrayLike,
    groups: ArrayLike | None = None,
    statistic: Callable[[Array], float] | None = None,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of ``statistic(values)``.

    Args:
        values: (N,) one number a person.
        groups: (N,) label of the image (or video) of each person. Whole groups are drawn, because people of
            one image share its camera, and frames of one video nearly everything: they are not independent.
            ``None`` draws people.
        statistic: (M,) -> float; ``None`` is the mean.
        level: Probability of the interval.
        resamples: Number of draws.
        seed: Of the draws.

    Returns:
        Lower and upper end; NaN of one group, which does not tell how far another would be.
    """
    v = np.asarray(values, np.float64)
    labels = np.arange(len(v)) if groups is None else np.asarray(groups)
    _, group = np.unique(labels, return_inverse=True)
    count = int(group.max()) + 1
    if count == 1:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    if statistic is None:
        samples = _resampled_means(v, group, resamples, rng)
    else:
        members = [v[group == g] for g in range(count)]
        draws = rng.integers(count, size=(resamples, count))
        samples = [statistic(np.concatenate([members[g] for g in draw])) for draw in draws]
    tail = (1 - level) / 2
    low, high = np.quantile(samples, [tail, 1 - tail])
    return float(low), float(high)


def _resampled_means(values: Array, group: NDArray, resamples: int, rng: np.random.Generator) -> list[float]:
    """Means of resampled groups. Sums and sizes of the groups are all that they need, however many people
    there are; a few resamples at a time keep the memory small."""
    total, size = np.bincount(group, values), np.bincount(group)
    step = max(1, MAX_DRAWS // len(total))
    means: list[float] = []
    while len(means) < resamples:
        picks = rng.integers(len(total), size=(min(step, resamples - len(means)), len(total)))
        means += (total[picks].sum(1) / size[picks].sum(1)).tolist()
    return means


@dataclass(frozen=True)
class PairedDifference:
    """Refined minus baseline, person by person: negative is better for an error.

    Attributes:
        mean: Of the differences.
        low, high: 95 % bootstrap interval of the mean, whole groups drawn; NaN of one group.
        worse: Share of people whose error grew.
    """

    mean: float
    low: float
    high: float
    worse: float


def paired_difference(
    refined: ArrayLike, initial: ArrayLike, tolerance: float, groups: ArrayLike | None = None, seed: int = 0
) -> PairedDifference:
    """Compare two errors (N,) of the same people.

    Args:
        tolerance: Of :func:`share_worse`.
        groups: (N,) label of each person's image or video, as in :func:`bootstrap_interval`.

    Raises:
        ValueError: Nobody to compare, or different numbers of people.
    """
    a, b = _points(refined, initial)
    if a.size == 0:
        raise ValueError("there is nobody to compare")
    change = a - b
    low, high = bootstrap_interval(change, groups, seed=seed)
    return PairedDifference(float(change.mean()), low, high, share_worse(a, b, tolerance))
