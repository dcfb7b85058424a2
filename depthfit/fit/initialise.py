"""The closed-form start: where a predicted body must stand for its keypoints to meet the detections."""

from __future__ import annotations

import torch
from torch import Tensor

from depthfit.residuals import KeypointTargets

MIN_START_DISTANCE = 0.3
"""m; no start is nearer."""


def translation(points: Tensor, targets: KeypointTargets, focal: Tensor, center: Tensor) -> Tensor:
    """Least-squares translation of a rigid set of points under a known camera.

    u = f (X + t_x) / (Z + t_z) + c is linear in t once multiplied by the depth; its algebraic error is the
    reprojection error times that depth, which is nearly the same for all points of one person.

    Args:
        points: (N, K, 3) m, about the pelvis; focal: (N,) px; center: (N, 2) px.

    Returns:
        (N, 3) m. Where fewer than two points are seen, or they do not fix a distance in front of the
        camera, the pelvis stands ``MIN_START_DISTANCE`` away or farther on the ray of their mean.
    """
    weight = torch.where(targets.sigma.isfinite(), 1 / targets.sigma, torch.zeros_like(targets.sigma))
    offset = torch.where(weight[..., None] > 0, targets.xy - center[:, None], torch.zeros_like(targets.xy))
    f = focal[:, None, None].expand(*weight.shape, 1)
    zero = torch.zeros_like(f)
    rows = torch.cat(
        [torch.cat([f, zero, -offset[..., :1]], -1), torch.cat([zero, f, -offset[..., 1:]], -1)], 1
    )
    target = offset * points[..., 2:] - f * points[..., :2]
    target = torch.cat([target[..., 0], target[..., 1]], 1)
    both = torch.cat([weight, weight], 1)
    a, b = rows * both[..., None], (target * both)[..., None]
    # A very weak pull to a few metres keeps the system solvable for one point or none.
    ridge = torch.diag(torch.tensor([1e-6, 1e-6, 1e-6])).to(a) * focal.square()[:, None, None]
    ridge_target = torch.tensor([0.0, 0.0, 4.0]).to(a)[:, None]
    scale = weight.square().mean(-1).clamp(min=1e-12)[:, None, None]
    solved = torch.linalg.solve(a.mT @ a + ridge * scale, a.mT @ b + ridge * scale @ ridge_target)[..., 0]
    # A solution behind the camera, or at it, says nothing but where in the image the person is.
    total = weight.sum(-1, keepdim=True).clamp(min=1e-12)
    middle = (offset * weight[..., None]).sum(1) / total / focal[:, None]
    beside = torch.cat([middle, torch.ones_like(middle[:, :1])], -1) * MIN_START_DISTANCE
    return torch.where(solved[:, 2:] < MIN_START_DISTANCE, beside, solved)
