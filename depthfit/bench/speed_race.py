"""The fit's solver and those of others on one problem: how long each takes to the same cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import median

import torch
from torch import Tensor

from depthfit.bench.speed_fit import OUT_OF_MEMORY, now, peak_gib, release, reset_peak
from depthfit.bench.speed_rivals import (
    BODY,
    CAMSMPLIFY,
    CAMSMPLIFY_RATE,
    SHARED,
    Phase,
    Problem,
    RecordedLM,
    Trace,
    forward_mode,
    solve_adam,
    solve_lbfgs,
    solve_lm,
)
from depthfit.fit.graphs import Recorder
from depthfit.fit.search import DIRECT
from depthfit.fit.stages import Scheduler
from depthfit.kernels import plain_torch, use_triton

EQUAL, NEAR = 1e-4, 1e-2
"""A mean cost is equal to LM's if it is at most this part above it, and near at this."""
FREE_RATE, FREE_STEPS = 0.05, 4000
"""Step size in prior sigmas and limit of the Adam that steps everything at once. Of 0.02, 0.05 and 0.1, it
came lowest in 700 steps for four people of seed 100."""
WARM_UP = 3
CURVE_POINTS = 60

Solver = Callable[[Problem, Trace], object]


@dataclass(frozen=True)
class Entry:
    """One way to solve.

    Attributes:
        label: What the tables call it.
        run: The whole schedule.
        warm: A few steps of it.
        grad: It asks for gradients.
        kernels: It is the fit's own: with Triton's kernels, which have no derivatives, and recorded where
            they are used; else it runs on plain torch.
    """

    label: str
    run: Solver
    warm: Solver
    grad: bool = False
    kernels: bool = False


LM_STEPS = 24
ALL = (*BODY, SHARED)


def _lm(problem: Problem, trace: Trace, steps: int = LM_STEPS) -> None:
    solve_lm(problem, trace, steps)


def _forward(problem: Problem, trace: Trace, steps: int = LM_STEPS) -> None:
    solve_lm(problem, trace, steps, forward_mode(problem.fit))


def _lbfgs_warm(problem: Problem, trace: Trace) -> None:
    trace.stop = lambda _: True
    solve_lbfgs(problem, trace)


_few = (Phase(ALL, WARM_UP),)
ENTRIES = {
    "lm": Entry("LM of the fit", _lm, partial(_lm, steps=2), kernels=True),
    "reference": Entry("the same in plain torch", _lm, partial(_lm, steps=2)),
    "jacfwd": Entry("LM, torch.func.jacfwd", _forward, partial(_forward, steps=2)),
    "lbfgs": Entry("L-BFGS, SMPLify-X's schedule", solve_lbfgs, _lbfgs_warm, grad=True),
    "adam": Entry(
        "Adam, CamSMPLify's schedule",
        partial(solve_adam, phases=CAMSMPLIFY, rate=CAMSMPLIFY_RATE, prior_units=False),
        partial(solve_adam, phases=_few, rate=CAMSMPLIFY_RATE, prior_units=False),
        grad=True,
    ),
    "adam-free": Entry(
        "Adam, everything at once, prior units",
        partial(solve_adam, phases=(Phase(ALL, FREE_STEPS),), rate=FREE_RATE, prior_units=True),
        partial(solve_adam, phases=_few, rate=FREE_RATE, prior_units=True),
        grad=True,
    ),
}
"""The first sets the cost that the others must reach."""


@dataclass
class Race:
    """One solver on one batch.

    Attributes:
        solver: Key of :data:`ENTRIES`; people: in the batch.
        first: s of the first steps, compilation, allocation and recording included.
        recorded: As a CUDA graph.
        seconds: s until it ended: at equal cost, at the end of its schedule, or out of patience.
        steps: Costs noted until then.
        excess: Least mean cost over LM's, less one.
        share: Of the images that came to at most LM's cost (within ``EQUAL``).
        near, equal: s until the mean cost was within ``NEAR`` and ``EQUAL`` of LM's, medians over repeats;
            ``None`` if never.
        peak_gib: Peak memory.
        curve: (s, excess of the mean cost) on the way.
        failed: Why there are no figures, or empty.
    """

    solver: str
    people: int
    first: float = 0.0
    seconds: float = 0.0
    steps: int = 0
    excess: float = 0.0
    share: float = 0.0
    near: float | None = None
    equal: float | None = None
    peak_gib: float = 0.0
    curve: list[tuple[float, float]] = field(default_factory=list)
    recorded: bool = False
    failed: str = ""


@dataclass(frozen=True)
class Course:
    """A problem with its cost at the start and where LM leaves it, (I,) each."""

    problem: Problem
    began: Tensor
    target: Tensor


@torch.no_grad()
def draw_course(stages: Scheduler) -> Course:
    """The problem in which a fit frees all unknowns, after camera and root; associations are held."""
    stages = replace(stages, graphs=None)
    start, schedule = stages.start(), DIRECT
    state = stages.root(stages.camera(start, schedule).state, schedule).state
    problem = Problem(stages.full_problem(state), state)
    settled = Trace(problem.fit.center.device)
    settled.begin()
    solve_lm(problem, settled, LM_STEPS)
    return Course(problem, problem.fit.cost(state), settled.costs[-1])


def run_race(course: Course, solver: str, repeats: int, patience: float) -> Race:
    """Let ``solver`` minimise the problem.

    Args:
        repeats: Timed runs, of which the median is given; one for what takes longer than a tenth of
            ``patience``.
        patience: s after which a solver that has not come to LM's cost is stopped.
    """
    problem, entry = course.problem, ENTRIES[solver]
    device = problem.fit.center.device
    out = Race(solver, len(problem.fit.group))
    release(device)
    try:
        with torch.set_grad_enabled(entry.grad), nullcontext() if entry.kernels else plain_torch():
            # What a recording needs is taken while it is made.
            reset_peak(device)
            before = now(device)
            run, out.recorded = _made_ready(problem, entry)
            out.first = now(device) - before
            traces = [_timed(problem, run, course.target, patience)]
            while len(traces) < repeats and traces[0].seconds()[-1] < patience / 10:
                traces.append(_timed(problem, run, course.target, patience))
        out.peak_gib = peak_gib(device)
        _fill(out, traces, course)
    except torch.cuda.OutOfMemoryError:
        out.failed = OUT_OF_MEMORY
    release(device)
    return out


def _made_ready(problem: Problem, entry: Entry) -> tuple[Solver, bool]:
    """How to run the whole schedule, after first steps; and whether it is recorded."""
    if entry.kernels and use_triton(problem.fit.center) and problem.fit.space.recordable:
        recorded = RecordedLM(problem, Recorder())
        return lambda _, trace: recorded.solve(trace, LM_STEPS), True
    warm = Trace(problem.fit.center.device)
    warm.begin()
    entry.warm(problem, warm)
    return entry.run, False


def _timed(problem: Problem, run: Solver, target: Tensor, patience: float) -> Trace:
    limit, level = time.perf_counter() + patience, float(target.mean()) * (1 + EQUAL)

    def stop(trace: Trace) -> bool:
        return time.perf_counter() > limit or float(trace.costs[-1].mean()) <= level

    trace = Trace(target.device, stop)
    trace.begin()
    run(problem, trace)
    return trace


def _fill(out: Race, traces: list[Trace], course: Course) -> None:
    goal = float(course.target.mean())

    def until(trace: Trace, part: float) -> float | None:
        for seconds, cost in zip(trace.seconds(), trace.costs, strict=True):
            if float(cost.mean()) <= goal * (1 + part):
                return seconds
        return None

    def middle(part: float) -> float | None:
        found = [until(trace, part) for trace in traces]
        reached = [seconds for seconds in found if seconds is not None]
        return median(reached) if len(reached) == len(found) else None

    lowest = traces[0].lowest()
    out.near, out.equal = middle(NEAR), middle(EQUAL)
    out.seconds = median(trace.seconds()[-1] for trace in traces)
    out.steps = len(traces[0].costs)
    out.excess = float(lowest.mean()) / goal - 1
    out.share = float((lowest <= course.target * (1 + EQUAL)).float().mean())
    marks = [(0.0, course.began), *zip(traces[0].seconds(), traces[0].costs, strict=True)]
    stride = max(1, len(marks) // CURVE_POINTS)
    picked = [*marks[:-1:stride], marks[-1]]
    out.curve = [(seconds, float(cost.mean()) / goal - 1) for seconds, cost in picked]
