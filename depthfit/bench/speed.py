"""``depthfit bench speed``: how fast fits are by size of batch, and against the solvers of others."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from rich.progress import track

from depthfit.atomic import atomic_path
from depthfit.bench.speed_fit import FitSpeed, measure_fit, now, timed_fit
from depthfit.bench.speed_plots import write_speed_plots
from depthfit.bench.speed_race import ENTRIES, Race, draw_course, run_race
from depthfit.bench.speed_report import Costs, speed_report
from depthfit.bench.speed_scenes import (
    SPACES,
    RepeatedFitter,
    Space,
    read_inputs,
    repeat,
    scene_folders,
    speed_fitter,
)
from depthfit.body.load import load_body
from depthfit.errors import InputError
from depthfit.fit import FitConfig, Fitter, ImageInput
from depthfit.fit.config import DepthConfig
from depthfit.fit.stages import Scheduler
from depthfit.report.score_plots import has_matplotlib
from depthfit.run.device import choose_device

QUICK_IMAGES = 2
COSTED = 4
"""Images by which the costs beside the fit are measured."""
BATCHES = {"cpu": [1, 4, 16], "cuda": [1, 4, 16, 64, 256, 1024, 4096]}
RACE_BATCHES = {"cpu": [1, 16], "cuda": [1, 1024]}
DEVICE_SPACES = {"cpu": ["rotations", "tokens-open"], "cuda": list(SPACES)}
"""The full-size tokenizer takes minutes on a CPU."""


@dataclass
class SpeedConfig:
    """Settings of ``depthfit bench speed``. Empty lists take what suits the device.

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
        mixed: Also a batch with images of three sizes and one to three people each: its images, or zero.
        solvers: lm, jacfwd, lbfgs, adam, adam-free; [none] for no comparison of solvers.
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
    batches: list[int] = field(default_factory=list)
    spaces: list[str] = field(default_factory=list)
    depth: list[bool] = field(default_factory=lambda: [True, False])
    mixed: int = 0
    solvers: list[str] = field(default_factory=lambda: list(ENTRIES))
    race_batches: list[int] = field(default_factory=list)
    patience: float = 60.0
    fit: FitConfig = field(default_factory=lambda: FitConfig(depth=DepthConfig(samples=1000)))


def run_speed(config: SpeedConfig) -> str:
    """Make the scenes where they are not there yet, measure, and return the Markdown report.

    It is also written to ``out/speed.md``, the figures to ``out/speed.json`` and, with matplotlib, plots
    beside them, anew after every measurement. Seconds are those of the wall clock.

    Raises:
        InputError: There is no such space, solver or device.
    """
    device = choose_device(config.device)
    config = _settle(config, device)
    _check("spaces", config.spaces, list(SPACES))
    solvers = [name for name in config.solvers if name != "none"]
    _check("solvers", solvers, list(ENTRIES))
    bench = _Bench(replace(config, solvers=solvers), device)
    for measure in track(list(bench.jobs()), description="Measuring"):
        measure()
        bench.save()
    return bench.report()


def _settle(config: SpeedConfig, device: torch.device) -> SpeedConfig:
    """The settings with the device's lists, and with the short ones of ``quick``."""
    kind = device.type
    config = replace(
        config,
        batches=config.batches or BATCHES[kind],
        race_batches=config.race_batches or RACE_BATCHES[kind],
        spaces=config.spaces or DEVICE_SPACES[kind],
    )
    if not config.quick:
        return config
    short = [QUICK_IMAGES]
    return replace(config, images=QUICK_IMAGES, repeats=1, batches=short, race_batches=short)


def _check(setting: str, names: list[str], known: list[str]) -> None:
    for name in names:
        if name not in known:
            raise InputError("command line", setting, repr(name), f"Use one of: {', '.join(known)}.")


class _Bench:
    """The measurements of one call and what they have given so far."""

    def __init__(self, config: SpeedConfig, device: torch.device) -> None:
        self.config, self.device, self.body = config, device, load_body()
        self.fits, self.races = list[FitSpeed](), list[Race]()
        folders = scene_folders(Path(config.out), config.seed, config.images, mixed=False)
        began = now(device)
        self.inputs = read_inputs(folders, config.fit, config.seed)
        reading = (now(device) - began) / len(self.inputs)
        self.costs = self._costs(self.inputs[:COSTED], reading)

    def jobs(self) -> Iterator[Callable[[], None]]:
        """Every measurement, to be made in order."""
        config = self.config
        for name in config.spaces:
            for depth in config.depth:
                yield partial(self._fits, SPACES[name], depth)
        if config.mixed:
            yield self._mixed
        if config.solvers:
            for images in config.race_batches:
                yield partial(self._draw, images)
                for solver in config.solvers:
                    yield partial(self._race, solver)

    def _open(self, inputs: list[ImageInput], space: Space, depth: bool) -> tuple[RepeatedFitter, Scheduler]:
        fit = self.config.fit
        fit = replace(fit, depth=replace(fit.depth, use=depth))
        return speed_fitter(inputs, space, fit, self.device, self.body)

    def _costs(self, inputs: list[ImageInput], reading: float) -> Costs:
        """What a person costs beside the fit itself."""
        engine, once = self._open(inputs, SPACES["rotations"], depth=True)
        people = len(once.batch.group)
        began = now(self.device)
        with torch.no_grad():
            engine.ready = Fitter.scheduler(engine, inputs)
        prepared = now(self.device) - began
        _, engine.done = timed_fit(engine)
        engine.fit(inputs)
        began = now(self.device)
        engine.fit(inputs)
        return Costs(reading, prepared / people, (now(self.device) - began) / people)

    def _fits(self, space: Space, depth: bool) -> None:
        engine, once = self._open(self.inputs, space, depth)
        labels = (space.name, depth, False)
        for images in self.config.batches:
            found = measure_fit(engine, once, images, self.config.repeats, self.config.patience, labels)
            self.fits.append(found)

    def _mixed(self) -> None:
        config = self.config
        folders = scene_folders(Path(config.out), config.seed, config.images, mixed=True)
        inputs = read_inputs(folders, config.fit, config.seed)
        engine, once = self._open(inputs, SPACES["rotations"], depth=True)
        labels = ("rotations", True, True)
        found = measure_fit(engine, once, config.mixed, config.repeats, config.patience, labels)
        self.fits.append(found)

    def _draw(self, images: int) -> None:
        """Make the problem of the next races: one batch, joint rotations with depth."""
        _, once = self._open(self.inputs, SPACES["rotations"], depth=True)
        self.course = draw_course(repeat(once, images))

    def _race(self, solver: str) -> None:
        self.races.append(run_race(self.course, solver, self.config.repeats, self.config.patience))

    def report(self) -> str:
        config, place = self.config, _place(self.device)
        return speed_report(self.fits, self.races, self.costs, config.images, config.repeats, place)

    def save(self) -> None:
        """Write what is known so far."""
        out, place = Path(self.config.out), _place(self.device)
        figures = {
            "place": place,
            "fits": [asdict(fit) for fit in self.fits],
            "races": [asdict(race) for race in self.races],
            "costs": asdict(self.costs),
        }
        with atomic_path(out / "speed.md") as temporary:
            temporary.write_text(self.report() + "\n")
        with atomic_path(out / "speed.json") as temporary:
            temporary.write_text(json.dumps(figures, indent=1) + "\n")
        if has_matplotlib():
            write_speed_plots(out, self.fits, self.races, place)


def _place(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads, torch {torch.__version__}"
