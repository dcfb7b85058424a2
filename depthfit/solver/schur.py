"""Normal equations of arrow shape: dense blocks that meet only in a few shared unknowns.

Each of I problems has N_i blocks of P unknowns and M shared unknowns. Blocks are kept flat over the
batch, (N, P, P), with ``group`` (N,) naming the problem of each. Source of the elimination: Triggs et
al., "Bundle Adjustment - A Modern Synthesis" (1999), section 6.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from depthfit.struct import TensorStruct


@dataclass(frozen=True)
class ArrowSystem(TensorStruct):
    """Gauss-Newton Hessian and gradient of a batch of arrow-shaped problems.

    Attributes:
        block: (N, P, P); coupling: (N, P, M); shared: (I, M, M).
        block_gradient: (N, P); shared_gradient: (I, M).
    """

    block: Tensor
    coupling: Tensor
    shared: Tensor
    block_gradient: Tensor
    shared_gradient: Tensor

    def damped(self, group: Tensor, damping: Tensor) -> ArrowSystem:
        """Marquardt's damping: the diagonals grow by ``damping`` (I,) of themselves."""
        block, shared = self.block.clone(), self.shared.clone()
        block.diagonal(dim1=-2, dim2=-1).mul_(1 + damping[group, None])
        shared.diagonal(dim1=-2, dim2=-1).mul_(1 + damping[:, None])
        return self.replace(block=block, shared=shared)

    def solve(self, group: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Newton step by eliminating the blocks.

        Returns:
            Block steps (N, P), shared steps (I, M), and (I,) bool: all factorisations succeeded. Steps
            of a problem that failed are zero.
        """
        factor, info = torch.linalg.cholesky_ex(self.block)
        rhs = torch.cat([self.coupling, self.block_gradient[..., None]], -1)
        solved = _substitute(factor, rhs)
        reduction = self.coupling.mT @ solved
        reduced = self.shared - scatter_sum(reduction[..., :-1], group, len(self.shared))
        gradient = self.shared_gradient - scatter_sum(reduction[..., -1], group, len(self.shared))
        shared_factor, shared_info = torch.linalg.cholesky_ex(reduced)
        shared_step = -_substitute(shared_factor, gradient[..., None])[..., 0]
        block_step = -solved[..., -1] - (solved[..., :-1] @ shared_step[group][..., None])[..., 0]
        failed = torch.zeros_like(shared_info).index_add_(0, group, info.abs().to(shared_info.dtype))
        ok = (failed == 0) & (shared_info == 0) & shared_step.isfinite().all(-1)
        finite = scatter_sum((~block_step.isfinite()).any(-1).to(block_step.dtype), group, len(ok)) == 0
        ok = ok & finite
        block_step = torch.where(ok[group, None], block_step, torch.zeros_like(block_step))
        return block_step, torch.where(ok[:, None], shared_step, torch.zeros_like(shared_step)), ok

    def predicted_reduction(self, group: Tensor, block_step: Tensor, shared_step: Tensor) -> Tensor:
        """Fall of the quadratic model, (I,): -(g.d + d.H.d / 2)."""
        curve = (block_step * (self.block @ block_step[..., None])[..., 0]).sum(-1) / 2
        cross = (block_step * (self.coupling @ shared_step[group][..., None])[..., 0]).sum(-1)
        per_block = (self.block_gradient * block_step).sum(-1) + curve + cross
        shared_curve = (shared_step * (self.shared @ shared_step[..., None])[..., 0]).sum(-1) / 2
        per_shared = (self.shared_gradient * shared_step).sum(-1) + shared_curve
        return -(scatter_sum(per_block, group, len(shared_step)) + per_shared)

    def covariance(self, group: Tensor, inflation: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Marginal covariances, the inverse of the Hessian by blocks.

        Args:
            inflation: (I,) factor on the covariance of the shared unknowns, and through it on what the blocks
                owe to them; one if not given.

        Returns:
            Block covariances (N, P, P), cross covariances block x shared (N, P, M), and shared
            covariances (I, M, M). NaN where the Hessian is not positive definite.
        """
        factor, info = torch.linalg.cholesky_ex(self.block)
        eye = torch.eye(self.block.shape[-1], dtype=self.block.dtype, device=self.block.device)
        inverse = torch.cholesky_solve(eye.expand_as(self.block), factor)
        gain = inverse @ self.coupling
        reduced = self.shared - scatter_sum(self.coupling.mT @ gain, group, len(self.shared))
        reduced_factor, reduced_info = torch.linalg.cholesky_ex(reduced)
        small = torch.eye(reduced.shape[-1], dtype=reduced.dtype, device=reduced.device)
        shared = torch.cholesky_solve(small.expand_as(reduced), reduced_factor)
        bad = torch.zeros_like(reduced_info).index_add_(0, group, info.abs().to(reduced_info.dtype))
        bad = (bad != 0) | (reduced_info != 0)
        shared = torch.where(bad[:, None, None], torch.full_like(shared, torch.nan), shared)
        if inflation is not None:
            shared = shared * inflation[:, None, None]
        cross = -gain @ shared[group]
        return inverse - cross @ gain.mT, cross, shared


def _substitute(factor: Tensor, rhs: Tensor) -> Tensor:
    """Forward and back substitution with a lower factor. Unlike ``cholesky_solve``, these are two batched
    calls on a GPU, for any number of right-hand sides, and a CUDA graph can hold them."""
    forward = torch.linalg.solve_triangular(factor, rhs, upper=False)
    return torch.linalg.solve_triangular(factor.mT, forward, upper=True)


def scatter_sum(values: Tensor, group: Tensor, size: int) -> Tensor:
    """Sum rows of ``values`` (N, ...) that share a ``group`` (N,) -> (size, ...)."""
    out = torch.zeros(size, *values.shape[1:], dtype=values.dtype, device=values.device)
    return out.index_add_(0, group, values)
