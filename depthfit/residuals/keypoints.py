"""Keypoints: the projected point against the detected one, in detector sigmas."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from depthfit.residuals.rows import Rows
from depthfit.residuals.tals import threshold_scaled
from depthfit.struct import TensorStruct

MIN_DEPTH = 0.05
"""m; a point nearer than this is behind the camera for all practical purposes."""


@dataclass(frozen=True)
class KeypointTargets(TensorStruct):
    """Detected keypoints of N people.

    Attributes:
        xy: (N, K, 2) px.
        sigma: (N, K) px; infinite where the point was not detected.
        threshold: (N, K) px of threshold-adaptive loss scaling, or ``None`` without it.
        norm: Of the error that is compared with it.
    """

    xy: Tensor
    sigma: Tensor
    threshold: Tensor | None = None
    norm: int = 2

    def trust(self, xy: Tensor) -> Tensor:
        """(N, K) weight of points projected to ``xy`` (N, K, 2) px; zero where nothing was detected."""
        seen = self.sigma.isfinite().to(xy.dtype)
        if self.threshold is None:
            return seen
        error = (xy - self.xy).norm(p=self.norm, dim=-1)
        return threshold_scaled(seen, error, self.threshold)


def projection(points: Tensor, focal: Tensor, center: Tensor) -> tuple[Tensor, Tensor]:
    """Pinhole projection and its derivative.

    Args:
        points: (N, P, 3) m, camera frame; focal: (N,) px; center: (N, 2) px.

    Returns:
        (N, P, 2) px and d px / d point (N, P, 2, 3). Depth is kept above ``MIN_DEPTH``.
    """
    z = points[..., 2:].clamp(min=MIN_DEPTH)
    f = focal[:, None, None]
    ray = points[..., :2] / z
    eye = torch.eye(2, dtype=points.dtype, device=points.device).expand(*ray.shape[:-1], 2, 2)
    free = (points[..., 2:] > MIN_DEPTH).to(points.dtype)
    derivative = torch.cat([eye, -(ray * free)[..., None]], -1) * (f / z)[..., None]
    return f * ray + center[:, None], derivative


def keypoint_rows(points: Tensor, focal: Tensor, center: Tensor, targets: KeypointTargets) -> Rows:
    """(projection - detection) / sigma.

    Args:
        points: (N, K, 3) m, camera frame; focal: (N,) px; center: (N, 2) px.
    """
    xy, derivative = projection(points, focal, center)
    inverse = 1 / targets.sigma[..., None]
    residual = (xy - targets.xy) * inverse
    return Rows(
        residual=residual,
        weight=targets.trust(xy),
        point=derivative * inverse[..., None],
        log_focal=(xy - center[:, None]) * inverse,
    )
