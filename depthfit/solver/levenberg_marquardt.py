"""Batched Levenberg-Marquardt: one damping, one decision and one end for each problem of the batch.

Source of the damping rule: Nielsen, "Damping parameter in Marquardt's method" (1999).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from depthfit.solver.result import SolveSummary, Status
from depthfit.solver.schur import ArrowSystem

State = TypeVar("State")


class LeastSquares(Protocol[State]):
    """What the solver needs of a batch of I problems with N blocks."""

    group: Tensor
    """(N,) int64: the problem that each block belongs to."""

    def cost(self, state: State) -> Tensor:
        """(I,) robust cost."""
        ...

    def linearize(self, state: State) -> ArrowSystem:
        """Gauss-Newton system at ``state``, rows weighted by the robust kernel."""
        ...

    def retract(self, state: State, block_step: Tensor, shared_step: Tensor, damping: Tensor) -> State:
        """Move by steps (N, P) and (I, M); ``damping`` (I,) is that of the step."""
        ...

    def select(self, accepted: Tensor, new: State, old: State) -> State:
        """``new`` for the problems where ``accepted`` (I,) is true, else ``old``."""
        ...


@dataclass(frozen=True)
class LevenbergMarquardtConfig:
    """Settings of the solver.

    Attributes:
        max_steps: Trials, accepted or not.
        initial_damping: Relative to the diagonal of the Hessian.
        max_damping: A problem whose damping passes this has stalled.
        min_damping: Floor, below which a step is a Gauss-Newton step anyway.
        relative_tolerance: A problem whose step lowers its cost, or promises to, by less than this part
            of it has converged.
    """

    max_steps: int = 20
    initial_damping: float = 1e-2
    max_damping: float = 1e7
    min_damping: float = 1e-7
    relative_tolerance: float = 1e-6


def minimize(
    problem: LeastSquares[State],
    state: State,
    config: LevenbergMarquardtConfig,
    damping: Tensor | None = None,
) -> tuple[State, SolveSummary]:
    """Minimise every problem of the batch from ``state``.

    Args:
        damping: (I,) to go on from an earlier solve; else ``config.initial_damping``.

    Returns:
        The state of lowest cost seen for each problem, and the summary.
    """
    cost = problem.cost(state)
    status = torch.full_like(cost, Status.MAX_STEPS, dtype=torch.int64)
    active = cost.isfinite()
    status = status.masked_fill(~active, Status.NON_FINITE)
    damping = torch.full_like(cost, config.initial_damping) if damping is None else damping.clone()
    growth = torch.full_like(cost, 2.0)
    steps = torch.zeros_like(status)
    costs = [cost]
    system: ArrowSystem | None = None
    for _ in range(config.max_steps):
        if _none(active):
            break
        if system is None:
            system = problem.linearize(state)
        block_step, shared_step, solved = system.damped(problem.group, damping).solve(problem.group)
        trial = problem.retract(state, block_step, shared_step, damping)
        trial_cost = problem.cost(trial)
        predicted = system.predicted_reduction(problem.group, block_step, shared_step)
        gain = (cost - trial_cost) / predicted.clamp(min=1e-12)
        accepted = active & solved & trial_cost.isfinite() & (trial_cost < cost)
        fall = torch.where(accepted, (cost - trial_cost) / cost.clamp(min=1e-12), torch.ones_like(cost))
        state = problem.select(accepted, trial, state)
        cost = torch.where(accepted, trial_cost, cost)
        costs.append(cost)
        steps += accepted
        shrink = (1 - (2 * gain.clamp(0, 1) - 1) ** 3).clamp(min=1 / 3)
        damping = torch.where(accepted, damping * shrink, torch.where(active, damping * growth, damping))
        damping = damping.clamp(min=config.min_damping)
        growth = torch.where(accepted, torch.full_like(growth, 2.0), growth * 2)
        # A step that promises nothing more has converged too, whether or not rounding accepts it.
        promise = solved & (predicted < config.relative_tolerance * cost)
        converged = active & ((accepted & (fall < config.relative_tolerance)) | promise)
        stalled = active & (damping > config.max_damping)
        status = status.masked_fill(converged, Status.CONVERGED).masked_fill(stalled, Status.STALLED)
        active = active & ~converged & ~stalled
        if not _none(accepted):
            system = None
    return state, SolveSummary(status, steps, damping, torch.stack(costs, -1))


def _none(mask: Tensor) -> bool:
    """Whether no problem is in ``mask``; on a GPU, where asking would stall the queue, the work is done."""
    return not mask.is_cuda and not mask.any()
