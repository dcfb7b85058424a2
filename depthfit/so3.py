"""Rotations: exponential and logarithm of SO(3), and the 6D representations of the field.

Rotation matrices act on column vectors. The 6D representation is that of Zhou et al., "On the
Continuity of Rotation Representations in Neural Networks" (CVPR 2019). Two layouts of it are in use:
TokenHMR and PyTorch3D stack the two vectors as ROWS of the matrix, HMR2.0 as COLUMNS. The same six
numbers therefore give transposed rotations.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor

from depthfit.kernels import use_triton


def _kernels() -> ModuleType:
    """:mod:`depthfit.so3_triton`, imported where it is used: Triton is optional."""
    return import_module("depthfit.so3_triton")


def hat(omega: Tensor) -> Tensor:
    """Skew matrix of a vector: (*batch, 3) -> (*batch, 3, 3) with ``hat(a) @ b = a x b``."""
    x, y, z = omega.unbind(-1)
    o = torch.zeros_like(x)
    return torch.stack([o, -z, y, z, o, -x, -y, x, o], dim=-1).reshape(*omega.shape, 3)


def exp(omega: Tensor) -> Tensor:
    """Rodrigues' formula: rotation vectors (*batch, 3) in rad -> matrices (*batch, 3, 3).

    Exact at zero, where its derivative is ``hat``.
    """
    if use_triton(omega):
        return _kernels().exp(omega)
    theta2 = (omega * omega).sum(-1)[..., None, None]
    small = theta2 < 1e-8
    safe = torch.where(small, torch.ones_like(theta2), theta2)
    theta = safe.sqrt()
    a = torch.where(small, 1 - theta2 / 6, torch.sin(theta) / theta)
    b = torch.where(small, 0.5 - theta2 / 24, (1 - torch.cos(theta)) / safe)
    k = hat(omega)
    return torch.eye(3, dtype=omega.dtype, device=omega.device) + a * k + b * (k @ k)


def log(rotation: Tensor) -> Tensor:
    """Rotation vectors (*batch, 3) in rad, of length <= pi, of matrices (*batch, 3, 3).

    Goes through the unit quaternion with the largest component first, so that it is accurate near
    zero and near pi alike.
    """
    if use_triton(rotation):
        return _kernels().log(rotation)
    q = to_quaternion(rotation)
    q = torch.where(q[..., :1] < 0, -q, q)
    w, v = q[..., :1], q[..., 1:]
    n = v.norm(dim=-1, keepdim=True)
    small = n < 1e-6
    scale = torch.where(small, 2 / w.clamp(min=0.5), 2 * torch.atan2(n, w) / n.clamp(min=1e-12))
    return v * scale


def to_quaternion(rotation: Tensor) -> Tensor:
    """Unit quaternions (*batch, 4), w first, of matrices (*batch, 3, 3) (Shepperd's method)."""
    m = rotation
    xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    yz, zx, xy = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    sxy, szx, syz = m[..., 1, 0] + m[..., 0, 1], m[..., 0, 2] + m[..., 2, 0], m[..., 2, 1] + m[..., 1, 2]
    candidates = torch.stack(
        [
            torch.stack([1 + xx + yy + zz, yz, zx, xy], -1),
            torch.stack([yz, 1 + xx - yy - zz, sxy, szx], -1),
            torch.stack([zx, sxy, 1 - xx + yy - zz, syz], -1),
            torch.stack([xy, szx, syz, 1 - xx - yy + zz], -1),
        ],
        dim=-2,
    )
    best = torch.stack([xx + yy + zz, xx, yy, zz], -1).argmax(-1)
    chosen = torch.gather(candidates, -2, best[..., None, None].expand(*best.shape, 1, 4)).squeeze(-2)
    return chosen / chosen.norm(dim=-1, keepdim=True)


def right_jacobian_inverse(omega: Tensor) -> Tensor:
    """J_r^-1 (*batch, 3, 3): ``log(exp(omega) exp(d)) = omega + J_r^-1(omega) d`` to first order.

    Source: Sola et al., "A micro Lie theory for state estimation in robotics" (2018), equation 144.
    """
    if use_triton(omega):
        return _kernels().right_jacobian_inverse(omega)
    theta2 = (omega * omega).sum(-1)[..., None, None]
    small = theta2 < 1e-6
    safe = torch.where(small, torch.ones_like(theta2), theta2)
    theta = safe.sqrt()
    c = 1 / safe - (1 + torch.cos(theta)) / (2 * theta * torch.sin(theta).clamp(min=1e-9))
    c = torch.where(small, 1 / 12 + theta2 / 720, c)
    k = hat(omega)
    return torch.eye(3, dtype=omega.dtype, device=omega.device) + 0.5 * k + c * (k @ k)


def left_jacobian(omega: Tensor) -> Tensor:
    """J_l (*batch, 3, 3): ``exp(omega + d) = exp(J_l(omega) d) exp(omega)`` to first order.

    Source: Sola et al., "A micro Lie theory for state estimation in robotics" (2018), equation 145.
    """
    if use_triton(omega):
        return _kernels().left_jacobian(omega)
    theta2 = (omega * omega).sum(-1)[..., None, None]
    small = theta2 < 1e-4
    safe = torch.where(small, torch.ones_like(theta2), theta2)
    theta = safe.sqrt()
    b = torch.where(small, 0.5 - theta2 / 24, (1 - torch.cos(theta)) / safe)
    c = torch.where(small, 1 / 6 - theta2 / 120, (theta - torch.sin(theta)) / (safe * theta))
    k = hat(omega)
    return torch.eye(3, dtype=omega.dtype, device=omega.device) + b * k + c * (k @ k)


def from_6d(six: Tensor, layout: str = "rows") -> Tensor:
    """Gram-Schmidt of 6D vectors: (*batch, 6) -> (*batch, 3, 3); ``layout`` is rows or columns.

    The first three numbers are the first vector, the last three the second.
    """
    a1, a2 = six[..., :3], six[..., 3:]
    b1 = torch.nn.functional.normalize(a1, dim=-1)
    b2 = torch.nn.functional.normalize(a2 - (b1 * a2).sum(-1, keepdim=True) * b1, dim=-1)
    b3 = torch.linalg.cross(b1, b2, dim=-1)
    return torch.stack([b1, b2, b3], dim=_stack_axis(layout))


def to_6d(rotation: Tensor, layout: str = "rows") -> Tensor:
    """First two rows (or columns) of matrices (*batch, 3, 3) as (*batch, 6)."""
    two = rotation[..., :2, :] if _stack_axis(layout) == -2 else rotation[..., :, :2].mT
    return two.reshape(*rotation.shape[:-2], 6)


def _stack_axis(layout: str) -> int:
    if layout not in ("rows", "columns"):
        raise ValueError(f"layout={layout!r}: the 6D layout is 'rows' (TokenHMR) or 'columns' (HMR2.0)")
    return -2 if layout == "rows" else -1
