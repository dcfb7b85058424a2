"""Priors on the body pose beside the prediction: populations of poses, and the joints' limits.

Each prior is a sum of squares of residuals in its own sigmas. A step turns joint j from the left,
R_j <- exp(omega_j) R_j; :meth:`PosePrior.normal` gives gradient and Gauss-Newton Hessian in those turns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from depthfit import so3
from depthfit.data.pose_mixture import SIZE, PoseMixture
from depthfit.data.random_poses import joint_limits, twist_axes
from depthfit.joints import NUM_BODY_JOINTS
from depthfit.solver.robust import GemanMcClure, Kernel, Quadratic
from depthfit.struct import TensorStruct


class PosePrior(Protocol):
    """A prior on the rotations (N, 21, 3, 3) of joints 1..21."""

    def cost(self, pose: Tensor) -> Tensor:
        """(N,) half the squared residual."""
        ...

    def normal(self, pose: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient (N, 63) and Hessian (N, 63, 63) in turns of the joints from the left, per rad."""
        ...


@dataclass(frozen=True)
class MixturePrior(TensorStruct):
    """The likeliest component of a mixture over rotation vectors x, robust or not.

    cost = min_k rho(|L_k^-1 (x - mean_k)|^2) / 2 + c_k, with c_k = log det L_k - log weight_k above its
    least: the max-mixture of Olson & Agarwal (RSS 2012) that SMPLify (Bogo et al., ECCV 2016) takes, with
    rho(q) = q. A single component makes it a Gaussian. With a bounded kernel a pose unlike the
    population's is not held to it.

    Attributes:
        mean: (K, 63) rad.
        whiten: (K, 63, 63) inverse L^-1 of the covariances' lower factors, 1 / rad.
        offset: (K,) c_k >= 0.
        kernel: rho.
    """

    mean: Tensor
    whiten: Tensor
    offset: Tensor
    kernel: Kernel

    @classmethod
    def of(
        cls, mixture: PoseMixture, play_rad: float = 0.0, robust_sigmas: float | None = None
    ) -> MixturePrior:
        """The prior of ``mixture``, every direction's spread with ``play_rad`` added in quadrature.

        Args:
            robust_sigmas: Geman-McClure scale of the 63 numbers' residual norm, or ``None``: not robust.
        """
        kernel = Quadratic() if robust_sigmas is None else GemanMcClure(robust_sigmas)
        scale = mixture.scale.double()
        play = play_rad**2 * torch.eye(SIZE, dtype=scale.dtype)
        factor = torch.linalg.cholesky(scale @ scale.mT + play)
        height = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1) - mixture.log_weight
        whiten, like = torch.linalg.inv(factor), mixture.mean
        return cls(like, whiten.to(like), (height - height.min()).to(like), kernel)

    def cost(self, pose: Tensor) -> Tensor:
        return self._costs(self._residuals(pose)).min(-1).values

    def normal(self, pose: Tensor) -> tuple[Tensor, Tensor]:
        vectors = so3.log(pose)
        residuals = self._residuals(pose)
        best = self._costs(residuals).argmin(-1)
        residual = residuals.gather(1, best[:, None, None].expand(-1, -1, residuals.shape[-1]))[:, 0]
        turn = so3.right_jacobian_inverse(-vectors)
        slope = self.whiten[best].unflatten(-1, (NUM_BODY_JOINTS, 3))
        slope = torch.einsum("nrja,njab->nrjb", slope, turn).flatten(2)
        weight = self.kernel.weight((residual**2).sum(-1))[:, None, None]
        return (weight * slope.mT @ residual[..., None])[..., 0], weight * slope.mT @ slope

    def _residuals(self, pose: Tensor) -> Tensor:
        """(N, K, 63) of every component."""
        away = so3.log(pose).flatten(1)[:, None] - self.mean
        return torch.einsum("krs,nks->nkr", self.whiten, away)

    def _costs(self, residuals: Tensor) -> Tensor:
        return self.kernel.value((residuals**2).sum(-1)) / 2 + self.offset


@dataclass(frozen=True)
class LimitPrior(TensorStruct):
    """Joints outside their ranges of motion (:mod:`depthfit.data.random_poses`).

    A rotation is a swing followed by a twist about the bone, R = exp(swing) exp(twist bone); swing (along the
    two axes across the bone) and twist may lie within (least, greatest) freely, and what is beyond is the
    residual.

    Attributes:
        least, greatest: (21, 3) rad along x, y and z.
        bone: (21, 3) unit axis of the twist.
        sigma_rad: Spread beyond the limits.
    """

    least: Tensor
    greatest: Tensor
    bone: Tensor
    sigma_rad: float

    @classmethod
    def of(cls, sigma_rad: float) -> LimitPrior:
        """The limits of random poses."""
        limits = joint_limits()
        bone = torch.nn.functional.one_hot(twist_axes(), 3).to(limits)
        return cls(limits[..., 0], limits[..., 1], bone, sigma_rad)

    def cost(self, pose: Tensor) -> Tensor:
        angles, _ = swing_twist(pose, self.bone)
        return (self._excess(angles) ** 2).sum((-1, -2)) / 2

    def normal(self, pose: Tensor) -> tuple[Tensor, Tensor]:
        angles, derivative = swing_twist(pose, self.bone)
        excess = self._excess(angles)
        rows = derivative * (excess != 0)[..., None] / self.sigma_rad
        gradient = (rows.mT @ excess[..., None])[..., 0].flatten(1)
        return gradient, _block_diagonal(rows.mT @ rows)

    def _excess(self, angles: Tensor) -> Tensor:
        """(N, 21, 3) sigmas beyond the limits, signed."""
        beyond = (angles - self.greatest).clamp(min=0) - (self.least - angles).clamp(min=0)
        return beyond / self.sigma_rad


def swing_twist(rotation: Tensor, bone: Tensor) -> tuple[Tensor, Tensor]:
    """Angles (N, J, 3) rad of rotations (N, J, 3, 3), and their derivative (N, J, 3, 3) by left turns.

    The angle along ``bone`` (J, 3), an axis of the frame, is the twist, phi = 2 atan2(v . a, w) of the
    quaternion (w, v); the other two are the swing's, s = log(R exp(-phi a)). With a turn omega,

        d phi = (w (w a + v x a) + (v . a) v) . omega / (w^2 + (v . a)^2),
        d s = J_l^-1(s) (omega - exp(s) a d phi).
    """
    q = so3.to_quaternion(rotation)
    q = torch.where(q[..., :1] < 0, -q, q)
    w, v = q[..., :1], q[..., 1:]
    axis = bone.expand_as(v)
    along = (v * axis).sum(-1, keepdim=True)
    twist = 2 * torch.atan2(along, w)
    size = (w * w + along * along).clamp(min=1e-9)
    d_twist = (w * (w * axis + torch.linalg.cross(v, axis, dim=-1)) + along * v) / size
    swing_rotation = rotation @ so3.exp(-twist * axis)
    swing = so3.log(swing_rotation)
    carried = (swing_rotation @ axis[..., None]) * d_twist[..., None, :]
    eye = torch.eye(3, dtype=rotation.dtype, device=rotation.device)
    d_swing = so3.right_jacobian_inverse(-swing) @ (eye - carried)
    across = (1 - axis)[..., None]
    return swing * (1 - axis) + twist * axis, d_swing * across + axis[..., None] * d_twist[..., None, :]


def _block_diagonal(blocks: Tensor) -> Tensor:
    """(N, 63, 63) with (N, 21, 3, 3) along the diagonal."""
    eye = torch.eye(NUM_BODY_JOINTS, dtype=blocks.dtype, device=blocks.device)
    return torch.einsum("njab,jk->njakb", blocks, eye).flatten(1, 2).flatten(2)
