"""``depthfit bench speed``: how fast fits are by size of batch, and against the solvers of others."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.progress import track

from depthfit.atomic import atomic_path
from depthfit.bench.speed_fit import Case, FitSpeed, measure_fit, now
from depthfit.bench.speed_plots import write_speed_plots
from depthfit.bench.speed_race import ENTRIES, Course, Race, draw_course, run_race
from depthfit.bench.speed_report import Costs, speed_report
from depthfit.bench.speed_scenes import (
    SPACES,
    RepeatedFitter,
    read_inputs,
    repeat,
    scene_folders,
    speed_fitter,
)
from depthfit.body.load import load_body
from depthfit.errors import check_choice
from depthfit.fit import FitConfig, Fitter
from depthfit.fit.config import DepthConfig
from depthfit.fit.stages import Scheduler
from depthfit.kernels import triton_kernels
from depthfit.report.score_plots import has_matplotlib
from depthfit.run.device import choose_device

QUICK_IMAGES = 2
COSTED = 4
"""Images by which the costs beside the fit are measured."""


@dataclass
class SpeedConfig:
    """Settings of ``depthfit bench speed``. Lists that are null take what suits the device.

    Attributes:
        out: Folder of scenes, tables, plots and ``speed.json``.
        images: Different images, one person each; batches repeat them.
        seed: Of the scenes.
        quick: 2 images, one batch, no repeats.
        repeats: Timed runs, of which the median is given.
        device: ``auto``, ``cpu`` or ``cuda``.
        batches: Images a batch, for whole fits.
        spaces: rotations, tokens-open, tokens-full (a tokenizer of the official shape).
        depth: With the depth map, without it.
        mixed_batches: Images a batch, of three sizes with one to three people each.
        reference_batches: Images a batch, for whole fits by plain torch alone, where there are kernels.
        solvers: lm, reference (lm in plain torch, where there are kernels), jacfwd, lbfgs, adam, adam-free.
        race_batches: Images a batch, for the comparison of solvers.
        patience: s after which a solver is stopped, and after which a fit is not repeated.
        fit: Settings of the fit; 1,000 depth pixels a person unless given.
    """

    out: str = "output/bench"
    images: int = 16
    seed: int = 1
    quick: bool = False
    repeats: int = 3
    device: str = "cpu"
    batches: list[int] | None = None
    spaces: list[str] | None = None
    depth: list[bool] = field(default_factory=lambda: [True, False])
    mixed_batches: list[int] | None = None
    reference_batches: list[int] | None = None
    solvers: list[str] | None = None
    race_batches: list[int] | None = None
    patience: float = 60.0
    fit: FitConfig = field(default_factory=lambda: FitConfig(depth=DepthConfig(samples=1000)))


def run_speed(config: SpeedConfig) -> str:
    """Make the scenes where they are not there yet, measure, and return the Markdown report.

    It is also written to ``out/speed.md``, the figures to ``out/speed.json`` and, with matplotlib, plots
    beside them; tables and figures anew after every measurement. Seconds are those of the wall clock.

    Raises:
        InputError: There is no such space, solver or device.
    """
    device = choose_device(config.device)
    plan = _plan(config, device)
    _check("spaces", plan.spaces, list(SPACES))
    _check("solvers", plan.solvers, list(ENTRIES))
    with triton_kernels(device.type == "cuda" and config.fit.solver.kernels):
        bench = _Bench(config, plan, device)
        for measure in track(list(bench.jobs()), description="Measuring"):
            measure()
            bench.save()
    if has_matplotlib():
        write_speed_plots(Path(config.out), bench.fits, bench.races, _place(device))
    return bench.report()


@dataclass(frozen=True)
class _Plan:
    """What to measure: see :class:`SpeedConfig`."""

    spaces: list[str]
    batches: list[int]
    mixed: list[int]
    reference: list[int]
    races: list[int]
    solvers: list[str]


NO_KERNELS = [name for name in ENTRIES if name != "reference"]
PLANS = {
    # The full-size tokenizer takes minutes on a CPU, which has no kernels either.
    "cpu": _Plan(["rotations", "tokens-open"], [1, 4, 16], [8], [], [1, 16], NO_KERNELS),
    "cuda": _Plan(list(SPACES), [1, 4, 16, 64, 256, 1024, 4096], [512], [1, 256], [1, 1024], list(ENTRIES)),
    "quick": _Plan(["rotations"], [QUICK_IMAGES], [], [], [QUICK_IMAGES], NO_KERNELS),
}
"""What suits a device, and what ``quick`` takes."""


def _plan(config: SpeedConfig, device: torch.device) -> _Plan:
    plan = PLANS["quick" if config.quick else device.type]

    def known(wanted: list[Any] | None, usual: list[Any]) -> list[Any]:
        return usual if wanted is None else wanted

    return _Plan(
        known(config.spaces, plan.spaces),
        known(config.batches, plan.batches),
        known(config.mixed_batches, plan.mixed),
        known(config.reference_batches, plan.reference),
        known(config.race_batches, plan.races),
        known(config.solvers, plan.solvers),
    )


def _check(setting: str, names: list[str], known: list[str]) -> None:
    for name in names:
        check_choice("command line", setting, name, known)


class _Bench:
    """The measurements of one call and what they have given so far."""

    def __init__(self, config: SpeedConfig, plan: _Plan, device: torch.device) -> None:
        self.config, self.plan, self.device, self.body = config, plan, device, load_body()
        self.images, self.repeats = (QUICK_IMAGES, 1) if config.quick else (config.images, config.repeats)
        self.fits, self.races = list[FitSpeed](), list[Race]()
        folders = scene_folders(Path(config.out), config.seed, self.images, mixed=False)
        began = now(device)
        self.inputs = read_inputs(folders, config.fit, config.seed)
        reading = (now(device) - began) / len(self.inputs)
        self.costs = self._outside(reading)
        self.case, self.chosen = Case("rotations"), self.inputs
        self.engine: RepeatedFitter | None = None
        self.once: Scheduler | None = None
        self.course: Course | None = None

    def jobs(self) -> Iterator[Callable[[], None]]:
        """Every measurement, to be made in order."""
        plan = self.plan
        cases = [(Case(name, depth), plan.batches) for name in plan.spaces for depth in self.config.depth]
        cases.append((Case("rotations", plain=True), plan.reference))
        cases.append((Case("rotations", mixed=True), plan.mixed))
        for case, batches in cases:
            if batches:
                yield partial(self._open, case)
            for images in batches:
                yield partial(self._fit, images)
        for images in plan.races if plan.solvers else []:
            yield partial(self._draw, images)
            for solver in plan.solvers:
                yield partial(self._race, solver)

    def _open(self, case: Case) -> None:
        """Make ready what the next measurements fit."""
        config, inputs = self.config, self.inputs
        if case.mixed:
            folders = scene_folders(Path(config.out), config.seed, self.images, mixed=True)
            inputs = read_inputs(folders, config.fit, config.seed)
        fit = replace(config.fit, depth=replace(config.fit.depth, use=case.depth))
        # The batch before goes before this one comes.
        self.engine = self.once = self.course = None
        self.case, self.chosen = case, inputs
        self.engine, self.once = speed_fitter(inputs, SPACES[case.space], fit, self.device, self.body)

    def _fit(self, images: int) -> None:
        assert self.engine is not None
        assert self.once is not None
        how = self.repeats, self.config.patience, self.case
        self.fits.append(measure_fit(self.engine, self.once, self.chosen, images, *how))

    def _draw(self, images: int) -> None:
        """Make the problem of the next races: one batch, joint rotations with depth."""
        self._open(Case("rotations"))
        assert self.once is not None
        self.course = draw_course(repeat(self.once, images))

    def _race(self, solver: str) -> None:
        assert self.course is not None
        self.races.append(run_race(self.course, solver, self.repeats, self.config.patience))

    def _outside(self, reading: float) -> Costs:
        """What a person costs beside the fit itself."""
        inputs = self.inputs[:COSTED]
        engine, once = speed_fitter(inputs, SPACES["rotations"], self.config.fit, self.device, self.body)
        people = len(once.batch.group)
        began = now(self.device)
        with torch.no_grad():
            engine.ready = Fitter.scheduler(engine, inputs)
        prepared = now(self.device) - began
        engine.done = engine.solve(inputs)
        engine.fit(inputs)
        began = now(self.device)
        engine.fit(inputs)
        return Costs(reading, prepared / people, (now(self.device) - began) / people)

    def report(self) -> str:
        place = _place(self.device)
        gpu = self.device.type == "cuda"
        return speed_report(self.fits, self.races, self.costs, self.images, self.repeats, place, gpu)

    def save(self) -> None:
        """Write what is known so far."""
        out = Path(self.config.out)
        figures = {
            "place": _place(self.device),
            "fits": [asdict(fit) for fit in self.fits],
            "races": [asdict(race) for race in self.races],
            "costs": asdict(self.costs),
        }
        with atomic_path(out / "speed.md") as temporary:
            temporary.write_text(self.report() + "\n")
        with atomic_path(out / "speed.json") as temporary:
            temporary.write_text(json.dumps(figures, indent=1) + "\n")


def _place(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    threads = torch.get_num_threads()
    number = "1 thread" if threads == 1 else f"{threads} threads"
    return f"{platform.machine()} CPU, {number}, torch {torch.__version__}"
