"""``depthfit bench splits``: all fits on all kinds of people, levels of noise, and sweeps."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path

from omegaconf import OmegaConf

from depthfit import __version__
from depthfit.atomic import atomic_path
from depthfit.bench.pool import Job, Pipeline, Work, one_thread
from depthfit.bench.split_report import Plan, write_report
from depthfit.bench.splits import LEVELS, SPLITS, SWEEPS, TOTAL, USUAL, split_parts, sweep_parts
from depthfit.bench.variants import CONFIGS, TABLES, variants
from depthfit.errors import DepthfitError, InputError
from depthfit.fit.config import FitConfig
from depthfit.lock import lock
from depthfit.run.device import choose_device


@dataclass
class SplitsConfig:
    """Settings of ``depthfit bench splits``.

    Attributes:
        out: Folder of scenes, fits, tables and plots; what is there is not done again.
        people: In all splits together; 1,024 is the whole benchmark.
        seed: Of the scenes; the figures of the README are of seed 1.
        splits: Which of everyday, hard, close, far, several and truncated.
        fits: Names of the fits of every split.
        levels: Of noise beside the usual one: half, double.
        level_people: People of each level, over all splits; level_fits: Their fits.
        sweeps: Which of depth_scale, focal, keypoints, prediction and distance.
        sweep_people: People at each value; sweep_fits: Their fits.
        ablations: Fits of a part of the people: what the joint fit owes to what.
        ablation_people: How many, over all splits.
        workers: Processes that make scenes and prepare them; fit_workers: Processes that fit meanwhile, each
            on ``device``. With one of each, all is done in one process.
        batch: People fitted together.
        device: ``auto``, ``cpu`` or ``cuda``.
        fit: Settings of all fits.
    """

    out: str = "output/splits"
    people: int = TOTAL
    seed: int = 1
    splits: list[str] = field(default_factory=lambda: list(SPLITS))
    fits: list[str] = field(default_factory=lambda: [*TABLES["rivals"], "joint_true_focal"])
    levels: list[str] = field(default_factory=lambda: ["half", "double"])
    level_people: int = 256
    level_fits: list[str] = field(default_factory=lambda: ["true_focal", "no_masks", "joint"])
    sweeps: list[str] = field(default_factory=lambda: list(SWEEPS))
    sweep_people: int = 32
    sweep_fits: list[str] = field(default_factory=lambda: ["camsmplify", "true_focal", "no_masks", "joint"])
    ablations: list[str] = field(
        default_factory=lambda: list(
            dict.fromkeys([*TABLES["ablations"], *TABLES["priors"], *TABLES["tals"]])
        )
    )
    ablation_people: int = 256
    workers: int = 1
    fit_workers: int = 1
    batch: int = 32
    device: str = "auto"
    fit: FitConfig = field(default_factory=FitConfig)


def run_splits(config: SplitsConfig) -> str:
    """Make, fit, score and plot; returns the Markdown tables, also written to ``out``.

    What matters most is done first, and the report is written again whenever people were fitted: who is
    stopped has a report of what was done until then, and the same command goes on there.

    Raises:
        InputError: A split, fit, level or sweep is unknown, there is to be no process or batch, ``out``
            holds results of other settings, or another run is at work in it.
        DepthfitError: Some fits failed. The report is of all others.
    """
    _check(config)
    job = Job(str(Path(config.out) / f"seed_{config.seed}"), config.fit, config.device, config.seed)
    plan = plan_of(config)
    pipeline = Pipeline(job, config.workers, config.fit_workers, config.batch)
    reporter = _Reporter(plan, job, apart=max(config.workers, config.fit_workers) > 1)
    with lock(Path(job.out)), reporter:
        _claim(job)
        pipeline.run(phases(plan), lambda: reporter.begin(pipeline.troubles))
        text = reporter.last(pipeline.troubles)
    if pipeline.troubles:
        raise DepthfitError(f"{len(pipeline.troubles)} tasks failed, see {job.out}/splits.md")
    return text


def plan_of(config: SplitsConfig) -> Plan:
    """The parts of all tables."""
    seed, ablations = config.seed, config.ablations
    return Plan(
        usual=split_parts(config.splits, config.people, seed, USUAL),
        fits=config.fits,
        levels={
            level: split_parts(config.splits, config.level_people, seed, level) for level in config.levels
        },
        level_fits=config.level_fits,
        sweeps=sweep_parts(config.sweeps, config.sweep_people, seed),
        sweep_fits=config.sweep_fits,
        chosen=split_parts(config.splits, config.ablation_people, seed, USUAL) if ablations else [],
        ablations=ablations,
    )


def phases(plan: Plan) -> list[Work]:
    """The work, most important first: splits, ablations, levels, sweeps. Nothing is in two phases."""
    swept = [part for values in plan.sweeps.values() for parts in values.values() for part in parts]
    asked = [
        [(part, plan.fits) for part in plan.usual],
        [(part, plan.ablations) for part in plan.chosen],
        [(part, plan.level_fits) for parts in plan.levels.values() for part in parts],
        [(part, plan.sweep_fits) for part in swept],
    ]
    known: set[tuple[str, str]] = set()
    found: list[Work] = []
    for work in asked:
        phase = []
        for part, keys in work:
            new = [key for key in dict.fromkeys(keys) if (part.name, key) not in known]
            known |= {(part.name, key) for key in new}
            phase += [(part, new)] if new else []
        found.append(phase)
    return found


def _check(config: SplitsConfig) -> None:
    for name in ("workers", "fit_workers", "batch"):
        if getattr(config, name) < 1:
            raise InputError("command line", name, str(getattr(config, name)), "Use a number above zero.")
    variants([*config.fits, *config.level_fits, *config.sweep_fits, *config.ablations])
    wrong = [level for level in config.levels if level not in LEVELS or level == USUAL]
    if wrong:
        raise InputError("command line", "levels", ", ".join(wrong), "Known: half, double.")


def _claim(job: Job) -> None:
    """Results of other settings, configuration files, versions or kinds of device are not mixed with these.

    Scenes carry their own settings, which are compared when they are read. Changes of the code within one
    version are not noticed.
    """
    files = {path: path.relative_to(CONFIGS).as_posix() for path in sorted(CONFIGS.rglob("*.yaml"))}
    settings = {
        "depthfit_version": __version__,
        "device": choose_device(job.device).type,
        # What they say, not how it is written.
        "configs": {name: OmegaConf.to_container(OmegaConf.load(path)) for path, name in files.items()},
        "fit": asdict(job.fit),
    }
    path, text = Path(job.out) / "settings.yaml", OmegaConf.to_yaml(OmegaConf.create(settings))
    if path.is_file() and path.read_text() != text:
        found = "the folder holds results of other settings, or of another version or device"
        raise InputError(path, "settings", found, "Give another out=.")
    with atomic_path(path) as temporary:
        temporary.write_text(text)


class _Reporter:
    """Writes reports, one at a time; ``apart``: in a process of its own, while fits go on."""

    def __init__(self, plan: Plan, job: Job, apart: bool) -> None:
        self._plan, self._job, self._apart = plan, job, apart
        self._under_way: Future[str] | None = None

    def __enter__(self) -> _Reporter:
        if self._apart:
            self._process = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=one_thread)
            # It starts now, not when the first fits are there.
            self._process.submit(one_thread)
        return self

    def __exit__(self, *_: object) -> None:
        if self._apart:
            self._process.shutdown(cancel_futures=True)

    def begin(self, troubles: Sequence[str]) -> None:
        """A report of what is there now, unless one is being written. If it fails, so will the last one."""
        if not self._apart:
            write_report(self._plan, self._job, troubles)
        elif self._under_way is None or self._under_way.done():
            self._under_way = self._process.submit(write_report, self._plan, self._job, list(troubles))

    def last(self, troubles: Sequence[str]) -> str:
        """The report of all."""
        if not self._apart:
            return write_report(self._plan, self._job, troubles)
        return self._process.submit(write_report, self._plan, self._job, list(troubles)).result()
