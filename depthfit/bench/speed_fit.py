"""How fast whole fits are, by size of batch: people a second, steps, memory, and where the time goes."""

from __future__ import annotations

import gc
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from statistics import median

import torch
from torch import Tensor

from depthfit.bench.clock import StageClock
from depthfit.bench.speed_scenes import RepeatedFitter
from depthfit.fit import ImageInput, stages
from depthfit.fit.graphs import RoundGraphs
from depthfit.fit.space import RotationSpace, TokenSpace
from depthfit.fit.stages import Scheduler
from depthfit.fit.system import BodyFit
from depthfit.kernels import plain_torch
from depthfit.solver import ArrowSystem

ASSOCIATE, CHART, LINEARIZE = "association", "chart", "linearise"
SOLVE, STEP, COST, REST = "solve", "step", "cost", "rest"
STAGES = (ASSOCIATE, CHART, LINEARIZE, SOLVE, STEP, COST, REST)
WATCHED = (
    (stages, "associate", ASSOCIATE),
    (TokenSpace, "chart", CHART),
    (RotationSpace, "chart", CHART),
    (BodyFit, "linearize", LINEARIZE),
    (ArrowSystem, "damped", SOLVE),
    (ArrowSystem, "solve", SOLVE),
    (BodyFit, "retract", STEP),
    (BodyFit, "cost", COST),
)
"""(module or class, function, stage)."""
OUT_OF_MEMORY = "out of memory"


@dataclass(frozen=True)
class Case:
    """One line of figures.

    Attributes:
        space: Name of the pose space.
        depth: Whether the depth map counts.
        mixed: Images of several sizes with one to three people.
        plain: By the reference path, plain torch, where there are kernels.
    """

    space: str
    depth: bool = True
    mixed: bool = False
    plain: bool = False

    @property
    def label(self) -> str:
        """In words."""
        extra = (
            "" if self.depth else ", without depth",
            ", mixed sizes" if self.mixed else "",
            ", plain torch" if self.plain else "",
        )
        return self.space + "".join(extra)


@dataclass
class FitSpeed:
    """Whole fits of one batch.

    Attributes:
        case: What is fitted, and how.
        images, people: In the batch.
        seconds: Of each timed run; the batch lies ready on the device.
        first: s of the first run, compilation and allocation included.
        steps: Accepted steps of an image, median, all ways in together.
        peak_gib: Peak memory of the device over the timed runs; of the process on a CPU.
        shares: Share of the time by stage. On a GPU, of one more run that waits for the device at every stage
            and launches every kernel from Python: recorded rounds have no stages. Empty where that run was
            out of memory.
        failed: Why there are no figures, or empty.
    """

    case: Case
    images: int
    people: int
    seconds: list[float] = field(default_factory=list)
    first: float = 0.0
    steps: float = 0.0
    peak_gib: float = 0.0
    shares: dict[str, float] = field(default_factory=dict)
    failed: str = ""

    @property
    def rate(self) -> float:
        """People a second."""
        return self.people / median(self.seconds)


def measure_fit(
    engine: RepeatedFitter,
    once: Scheduler,
    inputs: list[ImageInput],
    images: int,
    repeats: int,
    patience: float,
    case: Case,
) -> FitSpeed:
    """Fit ``images`` images, ``inputs`` over and over, ``repeats`` times after one run to warm up.

    Args:
        once: The stages over ``inputs``.
        patience: s of timed runs after which no further one is begun.
    """
    release(engine.device)
    out = FitSpeed(case, images, 0)
    # Recordings of other batches would count as this one's memory, and leave it no compilation.
    graphs = None if case.plain or once.graphs is None else RoundGraphs()
    try:
        engine.load(replace(once, graphs=graphs), inputs, images)
        out.people = sum(len(part.batch.group) for part in engine.parts)
        with plain_torch() if case.plain else nullcontext():
            _measure(out, engine, repeats, patience)
    except torch.cuda.OutOfMemoryError:
        out.failed = OUT_OF_MEMORY
    engine.parts, engine.ready = (), replace(once, graphs=None)
    release(engine.device)
    return out


def _measure(out: FitSpeed, engine: RepeatedFitter, repeats: int, patience: float) -> None:
    # From before the first run on: what a recording needs is taken while it is made.
    reset_peak(engine.device)
    out.first, steps = timed_fit(engine)
    out.steps = float(steps.float().median())
    # Where nothing runs beside Python, watching costs nothing: the first timed run is split as well.
    split_first = engine.device.type == "cpu"
    while len(out.seconds) < repeats and sum(out.seconds) < patience:
        if split_first and not out.seconds:
            out.seconds.append(_split(out, engine))
        else:
            out.seconds.append(timed_fit(engine)[0])
    out.peak_gib = peak_gib(engine.device)
    if not split_first:
        # A recorded round has no stages to watch.
        engine.parts = [replace(part, graphs=None) for part in engine.parts]
        try:
            _split(out, engine)
        except torch.cuda.OutOfMemoryError:
            # It needs more memory than the recorded runs, whose times stand.
            out.shares = {}


def _split(out: FitSpeed, engine: RepeatedFitter) -> float:
    """Shares by stage of one run; returns its seconds."""
    clock = StageClock(engine.device)
    with clock.watching(WATCHED), clock.stage(REST):
        engine.solve_parts()
    total = sum(clock.seconds.values())
    out.shares = {name: clock.seconds.get(name, 0.0) / total for name in STAGES}
    return total


def timed_fit(engine: RepeatedFitter) -> tuple[float, Tensor]:
    """Seconds of one fit, and its steps."""
    began = now(engine.device)
    steps = engine.solve_parts()
    return now(engine.device) - began, steps


def now(device: torch.device) -> float:
    """s; what is queued on the device is waited for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def release(device: torch.device) -> None:
    """Give unused memory back, so that one measurement does not weigh on the next."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def reset_peak(device: torch.device) -> None:
    """Begin to count the peak anew, where the device can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_gib(device: torch.device) -> float:
    """GiB: of the device's allocations since :func:`reset_peak`, or of the process since its start."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    # Imported here: Windows does not have it, and nothing else needs it.
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
