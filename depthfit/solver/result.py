"""What a solve tells: a status for each problem of the batch, and the histories."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from torch import Tensor

from depthfit.struct import TensorStruct


class Status(IntEnum):
    """Why the solver left a problem of the batch."""

    CONVERGED = 0
    MAX_STEPS = 1
    STALLED = 2
    NON_FINITE = 3

    @property
    def sentence(self) -> str:
        """The status in words."""
        return _SENTENCES[self]


_SENTENCES = {
    Status.CONVERGED: "the cost no longer changes",
    Status.MAX_STEPS: "the step limit was reached while the cost still fell",
    Status.STALLED: "no damping gave a lower cost",
    Status.NON_FINITE: "the cost is not a finite number at the start",
}


@dataclass(frozen=True)
class SolveSummary(TensorStruct):
    """Outcome of a batched solve of I problems.

    Attributes:
        status: (I,) int64, values of :class:`Status`.
        steps: (I,) int64, accepted steps.
        damping: (I,) last damping.
        costs: (I, steps + 1) cost after each trial; a refused trial repeats the cost before it.
    """

    status: Tensor
    steps: Tensor
    damping: Tensor
    costs: Tensor
