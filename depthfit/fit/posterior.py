"""Standard deviations of what came out, from the Hessian at the solution (Laplace's approximation)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from depthfit.body.points import pose_points
from depthfit.fit.nuisance import COMMON_ERROR, CORRELATION
from depthfit.fit.system import BodyFit
from depthfit.joints import NUM_JOINTS
from depthfit.residuals.rows import Rows, jacobian
from depthfit.solver.schur import scatter_sum
from depthfit.state import LOG_FOCAL, FitState
from depthfit.struct import TensorStruct


@dataclass(frozen=True)
class Posterior(TensorStruct):
    """Posterior standard deviations of N people.

    Attributes:
        log_focal: (N,) of the image's focal; log_distance: (N,) of the pelvis' z.
        joints: (N, 24) m, of a coordinate of the joint relative to the pelvis (root of the mean variance
            of the three).
    """

    log_focal: Tensor
    log_distance: Tensor
    joints: Tensor


def posterior(fit: BodyFit, state: FitState) -> Posterior:
    """Marginal deviations; the shared camera's uncertainty is in every person's."""
    ones = torch.ones_like(state.people.log_distance)
    crowd = scatter_sum(ones, fit.group, fit.num_images)
    # N estimates of one camera with equally correlated errors: their mean has (1 + (N - 1) rho) / N of the
    # variance of one, not 1 / N.
    inflation = 1 + COMMON_ERROR * (crowd - 1).clamp(min=0)
    block, cross, shared = fit.linearize(state).covariance(fit.group, inflation)
    rows = _joint_rows(fit, state)
    variance = torch.einsum("njrp,npq,njrq->nj", rows, block, rows)
    # A held focal is as uncertain as it was before, and the system knows nothing of it.
    free = fit.free_shared[LOG_FOCAL]
    focal = torch.where(free, shared[:, LOG_FOCAL, LOG_FOCAL], fit.image_prior.log_focal_sigma.square())
    # A person's distance is their own step plus the focal's (a dolly zoom).
    k = fit.layout.distance
    distance = block[:, k, k] + 2 * cross[:, k, LOG_FOCAL] + focal[fit.group]
    return Posterior(
        # Evidence, however correlated, leaves nobody less sure than the prior was.
        log_focal=CORRELATION * torch.minimum(focal.sqrt(), fit.image_prior.log_focal_sigma)[fit.group],
        log_distance=CORRELATION * distance.clamp(min=0).sqrt(),
        joints=CORRELATION * (variance / 3).clamp(min=0).sqrt(),
    )


def unrefined(fit: BodyFit, state: FitState, fitted: Posterior, refused: Tensor) -> Posterior:
    """Deviations of people who keep their prediction: what the prior says of it.

    Args:
        state: With the predictions.
        fitted: Deviations of the fit.
        refused: (N,) bool. The focal is known as well as the fit of the image's others leaves it, and as the
            prior has it where there is none.

    Returns:
        For all N people. A distance is as sure as the focal and the height of the predicted shape.
    """
    prior, layout = fit.person_prior, fit.layout
    variance = fit.center.new_zeros(len(refused), layout.size)
    variance[:, layout.root] = prior.root_sigma[:, None].square()
    variance[:, layout.pose] = 1
    variance[:, layout.betas] = prior.betas_sigma.square()
    joints = torch.einsum("njrp,np->nj", _joint_rows(fit, state).square(), variance)
    seen = scatter_sum((~refused).long(), fit.group, fit.num_images)[fit.group] > 0
    own = CORRELATION * fit.image_prior.log_focal_sigma[fit.group]
    focal = torch.where(seen, fitted.log_focal, own)
    mean, slope = fit.body.height()
    log_height = (slope / mean * prior.betas_sigma).norm(dim=-1)
    return Posterior(focal, torch.hypot(focal, log_height), (joints / 3).sqrt())


def _joint_rows(fit: BodyFit, state: FitState) -> Tensor:
    """(N, 24, 3, P) derivative of the joints about the pelvis along a step of the fit."""
    people, layout = state.people, fit.layout
    skeleton = fit.at(state).skeleton
    rest = fit.table.rest(people.pose, people.betas)
    points = pose_points(fit.body, rest, skeleton, people.pose).map(lambda t: t[:, :NUM_JOINTS])
    eye = torch.eye(3, dtype=people.root.dtype, device=people.root.device).expand(
        len(people.root), NUM_JOINTS, 3, 3
    )
    zero = torch.zeros_like(eye[..., 0])
    rows, _ = jacobian(Rows(zero, zero[..., 0], eye, zero), points, skeleton, people, layout)
    rows[..., layout.pose] = rows[..., layout.pose] @ fit.chart.basis[:, None]
    rows[..., layout.bearing] = 0
    rows[..., layout.distance] = 0
    return rows
