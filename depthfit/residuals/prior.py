"""Priors on what is not the body pose: root, shape, clothes, depth-error field, focal, depth scale."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from depthfit import so3
from depthfit.state import LOG_FOCAL, LOG_SCALE, NUM_SHARED, ImageState, PersonState, StepLayout
from depthfit.struct import TensorStruct


@dataclass(frozen=True)
class PersonPrior(TensorStruct):
    """Normal priors of N people.

    Attributes:
        root: (N, 3, 3) predicted root rotation; ``root_sigma`` (N,) rad.
        betas: (N, B) mean and ``betas_sigma`` (N, B): the product of the population's unit normal with the
            prediction's.
        clothes: (N, C) m mean; ``clothes_sigma`` (N, C) m.
        field_sigma: (N, K) in log depth.
        height_row: (N, B) and ``height_target`` (N,): the row height_row . betas - height_target of a known
            height, in sigmas; zero where it is not known.
        population: (N,) weight of the prior of other people's poses.
    """

    root: Tensor
    root_sigma: Tensor
    betas: Tensor
    betas_sigma: Tensor
    clothes: Tensor
    clothes_sigma: Tensor
    field_sigma: Tensor
    height_row: Tensor
    height_target: Tensor
    population: Tensor

    def residual(self, people: PersonState) -> Tensor:
        """(N, 3 + B + C + K + 1) whitened."""
        root = so3.log(people.root @ self.root.mT) / self.root_sigma[:, None]
        betas = (people.betas - self.betas) / self.betas_sigma
        clothes = (people.clothes - self.clothes) / self.clothes_sigma
        height = ((self.height_row * people.betas).sum(-1) - self.height_target)[:, None]
        return torch.cat([root, betas, clothes, people.field / self.field_sigma, height], -1)

    def add_normal(self, people: PersonState, layout: StepLayout, hessian: Tensor, gradient: Tensor) -> None:
        """Add J^T J (N, P, P) and J^T r (N, P) of :meth:`residual` r in place, with columns as in ``layout``.

        J is diagonal but for the root's rotation and the known height. What ``layout`` has no columns of is
        left out.
        """
        error = so3.log(people.root @ self.root.mT) / self.root_sigma[:, None]
        turn = so3.right_jacobian_inverse(-error * self.root_sigma[:, None]) / self.root_sigma[:, None, None]
        hessian[:, layout.root, layout.root].add_(turn.mT @ turn)
        gradient[:, layout.root].add_((turn.mT @ error[..., None])[..., 0])
        terms = [(layout.clothes, people.clothes, self.clothes, self.clothes_sigma)]
        if not layout.is_rigid:
            height = (self.height_row * people.betas).sum(-1) - self.height_target
            hessian[:, layout.betas, layout.betas].add_(
                self.height_row[:, :, None] * self.height_row[:, None]
            )
            gradient[:, layout.betas].add_(self.height_row * height[:, None])
            zero = torch.zeros_like(people.field)
            terms.append((layout.betas, people.betas, self.betas, self.betas_sigma))
            terms.append((layout.field, people.field, zero, self.field_sigma))
        diagonal = hessian.diagonal(dim1=-2, dim2=-1)
        for columns, value, mean, sigma in terms:
            precision = sigma**-2
            diagonal[:, columns].add_(precision)
            gradient[:, columns].add_((value - mean) * precision)


@dataclass(frozen=True)
class ImagePrior(TensorStruct):
    """Normal priors of I images: log focal (of px) and log depth scale (mean zero)."""

    log_focal: Tensor
    log_focal_sigma: Tensor
    log_scale_sigma: Tensor

    def residual(self, images: ImageState) -> Tensor:
        """(I, 2) whitened."""
        out = images.log_focal.new_zeros(len(images.log_focal), NUM_SHARED)
        out[:, LOG_FOCAL] = (images.log_focal - self.log_focal) / self.log_focal_sigma
        out[:, LOG_SCALE] = images.log_scale / self.log_scale_sigma
        return out

    def precision(self) -> Tensor:
        """(I, 2) square roots of the diagonal of the Hessian."""
        return torch.stack([1 / self.log_focal_sigma, 1 / self.log_scale_sigma], -1)
