"""Where the time of a fit goes: timers around the functions that it is made of, for the time of a run."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any

import torch


class StageClock:
    """Seconds by stage. A stage inside another one is taken off the outer one, so that they add up.

    Args:
        device: Work queued on it is waited for before a timer is read.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._device = device
        self._inner: list[float] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the block's time as that of a stage."""
        began = self._now()
        self._inner.append(0.0)
        try:
            yield
        finally:
            taken = self._now() - began
            self.seconds[name] += taken - self._inner.pop()
            if self._inner:
                self._inner[-1] += taken

    @contextmanager
    def watching(self, functions: Sequence[tuple[Any, str, str]]) -> Iterator[None]:
        """Count the calls of functions, given as (module or class, attribute, stage), within the block."""
        with ExitStack() as stack:
            for owner, attribute, name in functions:
                original = getattr(owner, attribute)
                setattr(owner, attribute, self._timed(original, name))
                stack.callback(setattr, owner, attribute, original)
            yield

    def _timed(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.stage(name):
                return function(*args, **kwargs)

        return timed

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
