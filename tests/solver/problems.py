"""Small dense least-squares problems in the solver's form, by autograd."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from depthfit.solver import ArrowSystem, Kernel, Quadratic
from depthfit.solver.schur import scatter_sum

Residual = Callable[[Tensor, Tensor], Tensor]
"""(own unknowns (P,), shared unknowns (M,)) -> residuals (R,)."""


@dataclass
class State:
    """Own (N, P) and shared (I, M) unknowns."""

    own: Tensor
    shared: Tensor


@dataclass
class Dense:
    """N blocks with one residual function each, grouped into problems."""

    residuals: list[Residual]
    group: Tensor
    num_problems: int
    kernel: Kernel = field(default_factory=Quadratic)

    def cost(self, state: State) -> Tensor:
        values = torch.stack([self.kernel.value(r**2).sum() / 2 for r in self._rows(state)])
        return scatter_sum(values, self.group, self.num_problems)

    def linearize(self, state: State) -> ArrowSystem:
        parts = []
        for n, residual in enumerate(self.residuals):
            own, shared = state.own[n], state.shared[self.group[n]]
            r = residual(own, shared)
            jp, js = torch.autograd.functional.jacobian(residual, (own, shared))
            w = self.kernel.weight(r**2)[:, None]
            parts.append(
                (
                    jp.mT @ (w * jp),
                    jp.mT @ (w * js),
                    js.mT @ (w * js),
                    jp.mT @ (w[:, 0] * r),
                    js.mT @ (w[:, 0] * r),
                )
            )
        block, coupling, shared, g, gs = (torch.stack(p) for p in zip(*parts, strict=True))
        count = self.num_problems
        return ArrowSystem(
            block, coupling, scatter_sum(shared, self.group, count), g, scatter_sum(gs, self.group, count)
        )

    def retract(self, state: State, own: Tensor, shared: Tensor, damping: Tensor) -> State:
        return State(state.own + own, state.shared + shared)

    def select(self, accepted: Tensor, new: State, old: State) -> State:
        own = torch.where(accepted[self.group, None], new.own, old.own)
        return State(own, torch.where(accepted[:, None], new.shared, old.shared))

    def _rows(self, state: State) -> list[Tensor]:
        return [r(state.own[n], state.shared[self.group[n]]) for n, r in enumerate(self.residuals)]
