"""Rows of a least-squares term that measures points on the body.

Every term of the evidence sees the person through points in the camera's frame. So a term need only say
how its residual changes with such a point, with the focal, and with the few nuisances; how the point moves
with pose, shape and translation is the same for all (:mod:`depthfit.body.points`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from depthfit.body.model import Skeleton
from depthfit.body.points import PosedPoints
from depthfit.solver.robust import Kernel
from depthfit.state import LOG_FOCAL, LOG_SCALE, NUM_SHARED, PersonState, StepLayout
from depthfit.struct import TensorStruct


@dataclass(frozen=True)
class Rows(TensorStruct):
    """P points with R rows each. The rows of one point are made robust together.

    Attributes:
        residual: (N, P, R) whitened.
        weight: (N, P) in [0, 1]; zero where there is no evidence.
        point: (N, P, R, 3) per m, d residual / d point.
        log_focal: (N, P, R) d residual / d log focal.
        log_scale: (N, P, R) d residual / d log depth scale, or ``None``.
        clothes: (N, P, R, C) per m, or ``None``.
        field: (N, P, R, K) d residual / d field amplitudes, or ``None``.
    """

    residual: Tensor
    weight: Tensor
    point: Tensor
    log_focal: Tensor
    log_scale: Tensor | None = None
    clothes: Tensor | None = None
    field: Tensor | None = None

    def cost(self, kernel: Kernel) -> Tensor:
        """(N,) half the sum of the robust squared norms."""
        squared = (self.residual**2).sum(-1)
        value = torch.where(self.weight > 0, self.weight * kernel.value(squared), torch.zeros_like(squared))
        return value.sum(-1) / 2

    def scaled(self, factor: Tensor) -> Rows:
        """Residuals and derivatives times ``factor`` (N, P); rows without evidence zero, so that what is not
        finite there cannot spread."""
        live = self.weight > 0

        def scale(tensor: Tensor) -> Tensor:
            ones = [1] * (tensor.ndim - 2)
            scaled = tensor * factor.reshape(*factor.shape, *ones)
            return torch.where(live.reshape(*live.shape, *ones), scaled, torch.zeros_like(scaled))

        return self.map(scale).replace(weight=self.weight)


@dataclass(frozen=True)
class PersonBlock(TensorStruct):
    """One term's part of the normal equations: see :class:`depthfit.solver.schur.ArrowSystem`.

    ``shared`` (N, M, M) and ``shared_gradient`` (N, M) are still by person. The pose columns are joint
    turns (rad), before a pose space maps them to its own coordinates.
    """

    block: Tensor
    coupling: Tensor
    shared: Tensor
    block_gradient: Tensor
    shared_gradient: Tensor

    def __add__(self, other: PersonBlock) -> PersonBlock:
        return PersonBlock(
            self.block + other.block,
            self.coupling + other.coupling,
            self.shared + other.shared,
            self.block_gradient + other.block_gradient,
            self.shared_gradient + other.shared_gradient,
        )


def jacobian(
    rows: Rows, points: PosedPoints, skeleton: Skeleton, people: PersonState, layout: StepLayout
) -> tuple[Tensor, Tensor]:
    """Full Jacobian of rows: (N, P, R, layout.size) for people and (N, P, R, 2) for images.

    A step of the focal is a dolly zoom: distances grow with it and bearings shrink, so that every pelvis
    keeps its pixel and its size. Keypoints and canonical depth fix z / f far better than f itself; in these
    coordinates that stiff direction is a person's own, and the soft one is the focal's alone.
    """
    parts = _columns(rows, points, skeleton, people, layout)
    return torch.cat(parts[:-1], -1), parts[-1]


def _columns(
    rows: Rows, points: PosedPoints, skeleton: Skeleton, people: PersonState, layout: StepLayout
) -> list[Tensor]:
    """The Jacobian's columns in the order of ``layout``, and the images'."""
    shape, gradient = rows.residual.shape, rows.point
    bearing = gradient[..., :2] * people.log_distance.exp()[:, None, None, None]
    distance = (gradient * people.transl[:, None, None]).sum(-1, keepdim=True)
    dolly = distance[..., 0] - (bearing * people.bearing[:, None, None]).sum(-1)
    shared = rows.residual.new_zeros(*shape, NUM_SHARED)
    shared[..., LOG_FOCAL] = rows.log_focal + dolly
    if rows.log_scale is not None:
        shared[..., LOG_SCALE] = rows.log_scale
    clothes, field = rows.clothes, rows.field
    return [
        points.turn(gradient, skeleton)[..., : layout.pose.stop],
        gradient @ points.shape,
        bearing,
        distance,
        gradient.new_zeros(*shape, layout.num_clothes) if clothes is None else clothes,
        gradient.new_zeros(*shape, layout.num_field) if field is None else field[..., : layout.num_field],
        shared,
    ]


def normal_block(
    rows: Rows,
    kernel: Kernel,
    points: PosedPoints,
    skeleton: Skeleton,
    people: PersonState,
    layout: StepLayout,
) -> PersonBlock:
    """The term's Gauss-Newton Hessian and gradient, rows weighted by the kernel."""
    weight = rows.weight * kernel.weight((rows.residual**2).sum(-1))
    # Weighted before a row grows to all its columns.
    rows = rows.scaled(weight.sqrt())
    parts = _columns(rows, points, skeleton, people, layout)
    columns = torch.cat([*parts, rows.residual[..., None]], -1).flatten(1, 2)
    return split_gram(columns.mT @ columns, layout)


def split_gram(gram: Tensor, layout: StepLayout) -> PersonBlock:
    """Parts of the products (N, C, C) of all columns: a person's own, the image's, and the residual."""
    p, m = layout.size, NUM_SHARED
    return PersonBlock(
        gram[:, :p, :p],
        gram[:, :p, p : p + m],
        gram[:, p : p + m, p : p + m],
        gram[:, :p, p + m],
        gram[:, p : p + m, p + m],
    )
