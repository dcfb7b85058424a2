"""Rounds recorded as CUDA graphs: a round is hundreds of small kernels, which Python would launch too slowly.

A graph replays on fixed memory (the cached tables are part of it: those caches never let go). So people are
copied into buffers for a certain number of them, padded with copies of the last one (in an image that nobody
else has), and every kind of round is recorded once for each such number. What was recorded serves all later
batches of that size.
"""

from __future__ import annotations

import bisect
import weakref
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from depthfit.fit.problem import Batch
from depthfit.fit.space import PoseSpace
from depthfit.fit.stages import MAX_CARRIED_DAMPING, Costs, Plan, Round, Scheduler, Solved
from depthfit.fit.system import Matches, RobustScales
from depthfit.solver import minimize
from depthfit.state import FitState
from depthfit.struct import TensorStruct, copy_into

SIZES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
"""Numbers of people for which rounds are recorded; more than the last are padded to its multiples."""

_Price = tuple[dict[str, Tensor], Tensor]
"""Costs of people by term, and of images."""
Out = TypeVar("Out")
Struct = TypeVar("Struct", bound=TensorStruct)


class RoundGraphs:
    """Recordings of one :class:`depthfit.fit.fitter.Fitter`: one body, tokenizer and set of settings."""

    def __init__(self) -> None:
        self._stages: dict[Hashable, _Recorded] = {}
        self._recorder = Recorder()

    def run(self, stages: Scheduler, state: FitState, rounds: list[Round]) -> Solved:
        """The rounds one after another, from ``state``."""
        try:
            return self._run(stages, state, rounds)
        except torch.cuda.OutOfMemoryError:
            # Whoever tries again with fewer people needs the memory that the recordings hold.
            self._stages.clear()
            self._recorder = Recorder()
            raise

    def _run(self, stages: Scheduler, state: FitState, rounds: list[Round]) -> Solved:
        size = padded_size(len(stages.batch.group))
        key = (size, *_shapes(stages.batch), *_shapes(stages.space), *_shapes(state.people))
        recorded = self._stages.get(key)
        if recorded is None:
            recorded = self._stages[key] = _Recorded(stages, state, size, self._recorder)
        recorded.load(stages.batch, stages.space, state)
        for item in rounds:
            recorded.play(item, stages.robust(item.widen))
        return recorded.solved(stages, rounds[-1])


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
        batch, space = _rows(stages.batch, size), _rows(_struct(stages.space), size)
        self._stages = replace(stages, batch=batch, space=cast(PoseSpace, space), graphs=None)
        self._state = FitState(_rows(state.people, size), _rows(state.images, size))
        chart = stages.space.empty_chart(state.people)
        self._chart = _rows(chart, size)
        copy_into(self._chart, chart)
        self._flat = chart.basis[:1]
        like = self._state.images.log_focal
        self._damping = torch.empty_like(like)
        self._steps = torch.zeros(size, dtype=torch.int64, device=like.device)
        self._status = torch.zeros_like(self._steps)
        self._scales: RobustScales | None = None
        self._robust = RobustScales(*(like.new_zeros(()) for _ in range(3)))
        self._rounds: dict[tuple[Plan, bool], tuple[Callable[[], None], Matches]] = {}
        self._costs: dict[tuple[Plan, bool], tuple[Callable[[], None], _Price]] = {}
        self._charts: Callable[[], None] | None = None
        self._batch: Callable[[], Batch | None] = _nothing
        self._space: Callable[[], PoseSpace | None] = _nothing

    def load(self, batch: Batch, space: PoseSpace, state: FitState) -> None:
        """Begin with people."""
        self._people, self._images = len(batch.group), batch.num_images
        # A batch is tried again and again while it is searched.
        if self._batch() is not batch or self._space() is not space:
            self._batch = self._space = _nothing
            copy_into(self._stages.batch, batch)
            # Nobody else is in the image of those who fill up.
            self._stages.batch.group[self._people :] = self._size - 1
            copy_into(_struct(self._stages.space), _struct(space))
            self._batch, self._space = weakref.ref(batch), weakref.ref(space)
        copy_into(self._state.people, state.people)
        copy_into(self._state.images, state.images)

    def play(self, item: Round, robust: RobustScales) -> None:
        """One round."""
        if item.begins:
            self._chart.basis.copy_(self._flat)
            self._damping.fill_(self._stages.solver().initial_damping)
            self._steps.zero_()
        if item.new_chart:
            self._make_chart()
        if robust != self._scales:
            for name in ("keypoints", "depth", "contour"):
                getattr(self._robust, name).fill_(getattr(robust, name))
            self._scales = robust
        key = item.plan, item.solves
        if key not in self._rounds:
            kept = self._kept()
            self._rounds[key] = self._recorder.record(lambda: self._work(*key))
            self._restore(kept)
        self._rounds[key][0]()

    def _make_chart(self) -> None:
        """A new chart at the present state."""
        if self._charts is None:
            space = self._stages.space
            self._charts = (
                self._recorder.record(self._chart_work)[0] if space.recordable else self._chart_work
            )
        self._charts()

    def _chart_work(self) -> None:
        copy_into(self._chart, self._stages.space.chart(self._state.people))

    def solved(self, stages: Scheduler, last: Round) -> Solved:
        """What the ``last`` round left, of the people and images that were loaded."""
        key = last.plan, last.solves
        matches = self._rounds[key][1]
        if key not in self._costs:
            self._costs[key] = self._recorder.record(lambda: self._price(last.plan, matches))
        replay, (costs, cost) = self._costs[key]
        replay()

        def people(item: Any) -> Any:
            return item.map(lambda t: t[: self._people].clone())

        images = self._state.images.map(lambda t: t[: self._images].clone())
        fit = stages.assemble(people(matches), people(self._chart), last.plan, stages.robust(last.widen))
        state = FitState(people(self._state.people), images)
        known = Costs(
            {name: term[: self._people].clone() for name, term in costs.items()}, cost[: self._images].clone()
        )
        steps, status = self._steps[: self._images].clone(), self._status[: self._images].clone()
        return Solved(state, fit, steps, status, known)

    def _work(self, plan: Plan, solves: bool) -> Matches:
        fit = self._stages.problem(self._state, self._chart, plan, self._robust)
        if solves:
            state, summary = minimize(fit, self._state, self._stages.solver(), self._damping)
            copy_into(self._state.people, state.people)
            copy_into(self._state.images, state.images)
            self._damping.copy_(summary.damping.clamp(max=MAX_CARRIED_DAMPING))
            self._steps.add_(summary.steps)
            self._status.copy_(summary.status)
        return fit.matches

    def _price(self, plan: Plan, matches: Matches) -> _Price:
        fit = self._stages.assemble(matches, self._chart, plan, self._robust)
        return fit.person_costs(self._state), fit.cost(self._state)

    def _kept(self) -> tuple[FitState, Tensor, Tensor]:
        state = FitState(self._state.people.map(torch.clone), self._state.images.map(torch.clone))
        return state, self._damping.clone(), self._steps.clone()

    def _restore(self, kept: tuple[FitState, Tensor, Tensor]) -> None:
        state, damping, steps = kept
        copy_into(self._state.people, state.people)
        copy_into(self._state.images, state.images)
        self._damping.copy_(damping)
        self._steps.copy_(steps)


def _nothing() -> None:
    """What nothing refers to."""


def _rows(item: Struct, size: int) -> Struct:
    """Memory for ``size`` rows like those of ``item``."""
    return item.map(lambda t: t.new_empty(size, *t.shape[1:]))


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
