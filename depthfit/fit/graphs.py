"""Rounds recorded as CUDA graphs: a round is hundreds of small kernels, which Python would launch too slowly.

A graph replays on fixed memory (the cached tables are part of it: those caches never let go). So people are
copied into buffers for a certain number of them, padded with copies of the last one (in an image that nobody
else has), and every kind of round is recorded once for each such number. What was recorded serves all later
batches of that size.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from depthfit.fit.problem import Batch
from depthfit.fit.space import PoseSpace
from depthfit.fit.stages import MAX_CARRIED_DAMPING, Plan, Scheduler, Solved, flat_chart
from depthfit.fit.system import Matches, RobustScales
from depthfit.solver import minimize
from depthfit.state import FitState
from depthfit.struct import TensorStruct, copy_into, repeat_last

SIZES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
"""Numbers of people for which rounds are recorded; more than the last are padded to its multiples."""

Out = TypeVar("Out")


class RoundGraphs:
    """Recordings of one :class:`depthfit.fit.fitter.Fitter`: one body, tokenizer and set of settings."""

    def __init__(self) -> None:
        self._stages: dict[Hashable, _Recorded] = {}
        self._recorder = Recorder()

    def run(self, stages: Scheduler, state: FitState, plans: list[tuple[Plan, float, bool]]) -> Solved:
        """The rounds of one stage, from ``state``."""
        try:
            return self._run(stages, state, plans)
        except torch.cuda.OutOfMemoryError:
            # Whoever tries again with fewer people needs the memory that the recordings hold.
            self._stages.clear()
            self._recorder = Recorder()
            raise

    def _run(self, stages: Scheduler, state: FitState, plans: list[tuple[Plan, float, bool]]) -> Solved:
        size = padded_size(len(stages.batch.group))
        key = (size, *_shapes(stages.batch), *_shapes(stages.space), *_shapes(state.people))
        recorded = self._stages.get(key)
        if recorded is None:
            recorded = self._stages[key] = _Recorded(stages, state, size, self._recorder)
        recorded.load(stages.batch, stages.space, state)
        matches: Matches | None = None
        for plan, widen, new_chart in plans:
            if new_chart:
                recorded.make_chart()
            matches = recorded.round(plan, stages.robust(widen))
        assert matches is not None
        plan, widen, _ = plans[-1]
        return recorded.solved(stages, matches, plan, stages.robust(widen))


def padded_size(n: int) -> int:
    """People in the buffers for ``n``."""
    place = bisect.bisect_left(SIZES, n)
    return SIZES[place] if place < len(SIZES) else -(-n // SIZES[-1]) * SIZES[-1]


class Recorder:
    """Records work on the device for replay."""

    def __init__(self) -> None:
        self._pool: Any = None

    def record(self, work: Callable[[], Out]) -> tuple[Callable[[], None], Out]:
        """A function that does the work again, and the tensors that it then fills.

        The work is done once beforehand, which compiles kernels and fills caches.
        """
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            work()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # All graphs share memory: they run one after another, and what is needed later is copied out.
        # Other threads may use the device meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            out = work()
        self._pool = graph.pool()
        return graph.replay, out


class _Recorded:
    """Buffers of one size and the rounds recorded on them."""

    def __init__(self, stages: Scheduler, state: FitState, size: int, recorder: Recorder) -> None:
        self._size, self._recorder = size, recorder
        batch = _padded(stages.batch, size)
        space = cast(PoseSpace, repeat_last(_struct(stages.space), size))
        self._stages = replace(stages, batch=batch, space=space, graphs=None)
        self._state = FitState(repeat_last(state.people, size), repeat_last(state.images, size))
        self._chart = repeat_last(stages.space.empty_chart(state.people), size)
        like = self._state.images.log_focal
        self._damping = torch.empty_like(like)
        self._steps = torch.zeros(size, dtype=torch.int64, device=like.device)
        self._status = torch.zeros_like(self._steps)
        self._robust = RobustScales(*(like.new_zeros(()) for _ in range(3)))
        self._rounds: dict[Plan, tuple[Callable[[], None], Matches]] = {}
        self._charts: Callable[[], None] | None = None

    def load(self, batch: Batch, space: PoseSpace, state: FitState) -> None:
        """Begin a stage."""
        size = self._size
        self._people, self._images = len(batch.group), batch.num_images
        copy_into(self._stages.batch, _padded(batch, size))
        copy_into(_struct(self._stages.space), repeat_last(_struct(space), size))
        copy_into(self._state.people, repeat_last(state.people, size))
        copy_into(self._state.images, repeat_last(state.images, size))
        self._chart.basis.copy_(flat_chart(self._state.people).basis)
        self._damping.fill_(self._stages.solver().initial_damping)
        self._steps.zero_()

    def make_chart(self) -> None:
        """A new chart at the present state."""
        if self._charts is None:
            space = self._stages.space
            self._charts = (
                self._recorder.record(self._chart_work)[0] if space.recordable else self._chart_work
            )
        self._charts()

    def _chart_work(self) -> None:
        copy_into(self._chart, self._stages.space.chart(self._state.people))

    def round(self, plan: Plan, robust: RobustScales) -> Matches:
        """One round; the matches are overwritten by the next."""
        for name in ("keypoints", "depth", "contour"):
            getattr(self._robust, name).fill_(getattr(robust, name))
        if plan not in self._rounds:
            kept = self._kept()
            self._rounds[plan] = self._recorder.record(lambda: self._work(plan))
            self._restore(kept)
        replay, matches = self._rounds[plan]
        replay()
        return matches

    def solved(self, stages: Scheduler, matches: Matches, plan: Plan, robust: RobustScales) -> Solved:
        """What the last round left, of the people and images that were loaded."""

        def people(item: Any) -> Any:
            return item.map(lambda t: t[: self._people].clone())

        images = self._state.images.map(lambda t: t[: self._images].clone())
        fit = stages.assemble(people(matches), people(self._chart), plan, robust)
        state = FitState(people(self._state.people), images)
        return Solved(state, fit, self._steps[: self._images].clone(), self._status[: self._images].clone())

    def _work(self, plan: Plan) -> Matches:
        fit = self._stages.problem(self._state, self._chart, plan, self._robust)
        state, summary = minimize(fit, self._state, self._stages.solver(), self._damping)
        copy_into(self._state.people, state.people)
        copy_into(self._state.images, state.images)
        self._damping.copy_(summary.damping.clamp(max=MAX_CARRIED_DAMPING))
        self._steps.add_(summary.steps)
        self._status.copy_(summary.status)
        return fit.matches

    def _kept(self) -> tuple[FitState, Tensor, Tensor]:
        state = FitState(self._state.people.map(torch.clone), self._state.images.map(torch.clone))
        return state, self._damping.clone(), self._steps.clone()

    def _restore(self, kept: tuple[FitState, Tensor, Tensor]) -> None:
        state, damping, steps = kept
        copy_into(self._state.people, state.people)
        copy_into(self._state.images, state.images)
        self._damping.copy_(damping)
        self._steps.copy_(steps)


def _padded(batch: Batch, size: int) -> Batch:
    """``size`` people in ``size`` images."""
    n = len(batch.group)
    people = repeat_last(batch.replace(image_prior=None), size)
    spare = torch.arange(size, device=batch.group.device) >= n
    group = people.group.masked_fill(spare, size - 1)
    return people.replace(group=group, image_prior=repeat_last(batch.image_prior, size))


def _struct(space: PoseSpace) -> TensorStruct:
    assert isinstance(space, TensorStruct)
    return space


def _shapes(item: Any) -> tuple[Hashable, ...]:
    """Shapes of a row of each tensor."""
    shapes: list[Hashable] = []

    def note(tensor: Tensor) -> Tensor:
        shapes.append((*tensor.shape[1:], tensor.dtype))
        return tensor

    item.map(note)
    return tuple(shapes)
