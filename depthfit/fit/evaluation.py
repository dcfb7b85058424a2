"""What the cost at a state and the normal equations there have in common, worked out once for both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor

from depthfit.body.model import Skeleton
from depthfit.residuals import Rows
from depthfit.residuals.depth import RayHit
from depthfit.state import FitState
from depthfit.struct import TensorStruct, where


@dataclass(frozen=True)
class SurfaceRows(TensorStruct):
    """Rows on the surface of N people.

    Attributes:
        depth, contour: The rows.
        hit: Where the depth samples' rays meet the body.
        rest, posed: (N, S, 3) m, the vertices that the matches name: shaped, and in the camera's frame.
    """

    depth: Rows
    contour: Rows
    hit: RayHit
    rest: Tensor
    posed: Tensor


@dataclass(frozen=True)
class Evaluation(TensorStruct):
    """N people under a state.

    Attributes:
        skeleton: The posed joints.
        landmarks: (N, K, 3) m, the keypoints' places, the pelvis at the origin; keypoints: Their rows.
        surface: The rows on the surface, or the kernels' view of them
            (:class:`depthfit.residuals.triton_surface.Surface`).
    """

    skeleton: Skeleton
    landmarks: Tensor
    keypoints: Rows
    surface: TensorStruct


Source: TypeAlias = Callable[[], Evaluation]


@dataclass
class Recent:
    """Evaluations of the last states of a solve: a trial's cost is followed by the equations of whatever was
    accepted of it. States are told apart by identity. Where gradients are wanted, nothing is kept or found.
    """

    _kept: list[tuple[FitState, Source]] = field(default_factory=list)

    def at(self, state: FitState, evaluate: Callable[[FitState], Evaluation]) -> Evaluation:
        """The evaluation at ``state``, made only if it is not known."""
        if torch.is_grad_enabled():
            return evaluate(state)
        source = self._find(state)
        found = evaluate(state) if source is None else source()
        others = [(known, kept) for known, kept in self._kept if known is not state]
        self._kept = [*others[-1:], (state, lambda: found)]
        return found

    def mix(self, chosen: FitState, new: FitState, old: FitState, rows: Tensor) -> None:
        """Note that ``chosen`` is ``new`` for the people in ``rows`` (N,) bool, and ``old`` elsewhere."""
        one, other = self._find(new), self._find(old)
        if one is None or other is None:
            self._kept = []
            return
        # Only done if anybody asks.
        self._kept = [(chosen, lambda: where(rows, one(), other()))]

    def _find(self, state: FitState) -> Source | None:
        return next((source for known, source in self._kept if known is state), None)
