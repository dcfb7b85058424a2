"""What stands in for :class:`depthfit.fit.graphs.Recorder` where there is no CUDA."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

Out = TypeVar("Out")


def tensors(item: Any) -> list[Tensor]:
    """All that an item holds, in order."""
    if isinstance(item, Tensor):
        return [item]
    if dataclasses.is_dataclass(item):
        item = [getattr(item, f.name) for f in dataclasses.fields(item)]
    values = item.values() if isinstance(item, dict) else item if isinstance(item, (list, tuple)) else ()
    return [tensor for value in values for tensor in tensors(value)]


class StandIn:
    """Replays by doing the work again, into the tensors handed out first; no number is in these before.

    Attributes:
        recorded, replayed: How often.
    """

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def record(self, work: Callable[[], Out]) -> tuple[Callable[[], None], Out]:
        self.recorded += 1
        first, out = work(), work()
        for before, tensor in zip(tensors(first), tensors(out), strict=True):
            # What is the same both times is a buffer of the work's own.
            if before.data_ptr() != tensor.data_ptr():
                tensor.fill_(torch.nan if tensor.is_floating_point() else -1)

        def replay() -> None:
            self.replayed += 1
            for tensor, value in zip(tensors(out), tensors(work()), strict=True):
                tensor.copy_(value)

        return replay, out
