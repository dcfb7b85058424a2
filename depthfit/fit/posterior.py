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
    people = state.people
    ones = torch.ones_like(people.log_distance)
    crowd = scatter_sum(ones, fit.group, fit.num_images)
    # N estimates of one camera with equally correlated errors: their mean has (1 + (N - 1) rho) / N of the
    # variance of one, not 1 / N.
    inflation = 1 + COMMON_ERROR * (crowd - 1).clamp(min=0)
    block, cross, shared = fit.linearize(state).covariance(fit.group, inflation)
    skeleton = fit.at(state).skeleton
    rest = fit.table.rest(people.pose, people.betas)
    points = pose_points(fit.body, rest, skeleton, people.pose).map(lambda t: t[:, :NUM_JOINTS])
    eye = torch.eye(3, dtype=people.root.dtype, device=people.root.device).expand(
        len(people.root), NUM_JOINTS, 3, 3
    )
    zero = torch.zeros_like(eye[..., 0])
    rows, _ = jacobian(Rows(zero, zero[..., 0], eye, zero), points, skeleton, people, fit.layout)
    rows[..., fit.layout.pose] = rows[..., fit.layout.pose] @ fit.chart.basis[:, None]
    rows[..., fit.layout.bearing] = 0
    rows[..., fit.layout.distance] = 0
    variance = torch.einsum("njrp,npq,njrq->nj", rows, block, rows)
    # A person's distance is their own step plus the focal's (a dolly zoom).
    k = fit.layout.distance
    distance = block[:, k, k] + 2 * cross[:, k, LOG_FOCAL] + shared[fit.group, LOG_FOCAL, LOG_FOCAL]
    return Posterior(
        # Evidence, however correlated, leaves nobody less sure than the prior was.
        log_focal=torch.minimum(
            CORRELATION * shared[:, LOG_FOCAL, LOG_FOCAL].sqrt(),
            CORRELATION * fit.image_prior.log_focal_sigma,
        )[fit.group],
        log_distance=CORRELATION * distance.clamp(min=0).sqrt(),
        joints=CORRELATION * (variance / 3).clamp(min=0).sqrt(),
    )
