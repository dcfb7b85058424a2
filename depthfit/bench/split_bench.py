"""``depthfit bench splits``: all fits on all kinds of people, levels of noise, and sweeps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from depthfit.atomic import atomic_path
from depthfit.bench import split_tables as report
from depthfit.bench.pool import Job, fit_parts, make_parts
from depthfit.bench.split_plots import plot_sweeps
from depthfit.bench.split_scores import Figures, figures, floor, plain
from depthfit.bench.splits import LEVELS, SPLITS, SWEEPS, TOTAL, Part, split_parts, sweep_parts
from depthfit.bench.variants import TABLES, variants
from depthfit.body.load import load_body
from depthfit.errors import InputError
from depthfit.fit.config import FitConfig
from depthfit.report.score_plots import has_matplotlib

ALL = "all"
USUAL = "one"


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
        workers: Processes that make scenes; fit_workers: Processes that fit, each on ``device``.
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

    Raises:
        InputError: A split, fit, level or sweep is unknown.
    """
    _check(config)
    job = Job(str(Path(config.out) / f"seed_{config.seed}"), config.fit, config.device, config.seed)
    parts = {
        level: split_parts(
            config.splits, config.people if level == USUAL else config.level_people, config.seed, level
        )
        for level in (USUAL, *config.levels)
    }
    swept = sweep_parts(config.sweeps, config.sweep_people, config.seed)
    chosen = (
        split_parts(config.splits, config.ablation_people, config.seed, USUAL) if config.ablations else []
    )
    jobs = [(part, config.fits) for part in parts[USUAL]]
    jobs += [(part, config.level_fits) for level in config.levels for part in parts[level]]
    jobs += [(part, config.sweep_fits) for values in swept.values() for ps in values.values() for part in ps]
    jobs += [(part, config.ablations) for part in chosen]
    work = merged(jobs)
    _claim(job)
    make_parts([part for part, _ in work], job, config.workers)
    fit_parts(work, job, config.fit_workers, config.batch)
    return _report(config, job, parts, swept, chosen)


def _check(config: SplitsConfig) -> None:
    variants([*config.fits, *config.level_fits, *config.sweep_fits, *config.ablations])
    wrong = [level for level in config.levels if level not in LEVELS or level == USUAL]
    if wrong:
        raise InputError("command line", "levels", ", ".join(wrong), "Known: half, double.")


def _claim(job: Job) -> None:
    """Results of other settings are not mixed with these."""
    path, settings = Path(job.out) / "fit.yaml", OmegaConf.to_yaml(OmegaConf.structured(job.fit))
    if path.is_file() and path.read_text() != settings:
        raise InputError(path, "fit", "the folder holds results of other settings", "Give another out=.")
    with atomic_path(path) as temporary:
        temporary.write_text(settings)


def merged(jobs: Sequence[tuple[Part, Sequence[str]]]) -> list[tuple[Part, list[str]]]:
    """Each part once, with all fits that are asked of it, in the order asked."""
    found: dict[str, tuple[Part, list[str]]] = {}
    for part, keys in jobs:
        known = found.setdefault(part.name, (part, []))[1]
        known += [key for key in keys if key not in known]
    return list(found.values())


def _report(
    config: SplitsConfig,
    job: Job,
    parts: dict[str, list[Part]],
    swept: dict[str, dict[float, list[Part]]],
    chosen: list[Part],
) -> str:
    by_fit = {key: by_split(parts[USUAL], key, job) for key in config.fits}
    by_level = {
        level: {key: by_split(parts[level], key, job) for key in config.level_fits} for level in config.levels
    }
    curves = {
        name: {
            key: {value: figures(people, key, job) for value, people in values.items()}
            for key in config.sweep_fits
        }
        for name, values in swept.items()
    }
    body = load_body()
    floors = {
        name: floor([part for part in parts[USUAL] if part.group == name], config.fits[0], job, body)
        for name in config.splits
    }
    floors[ALL] = floor(parts[USUAL], config.fits[0], job, body)
    ablated = {key: by_split(chosen, key, job) for key in config.ablations}
    text = report.markdown(by_fit, by_level, curves, floors, ablated)
    out = Path(job.out)
    content = {
        "fits": _plain(by_fit),
        "levels": _plain(by_level),
        "sweeps": _plain(curves),
        "ablations": _plain(ablated),
        "distance_floor": floors,
    }
    for name, written in (("splits.md", text), ("splits.json", json.dumps(content, indent=2))):
        with atomic_path(out / name) as temporary:
            temporary.write_text(written + "\n")
    if curves and has_matplotlib():
        with atomic_path(out / "sweeps.png") as temporary:
            plot_sweeps(curves, temporary)
    return text


def by_split(parts: Sequence[Part], key: str, job: Job) -> dict[str, Figures]:
    """Figures of each split in ``parts``, and of all together."""
    names = list(dict.fromkeys(part.group for part in parts))
    found = {name: figures([part for part in parts if part.group == name], key, job) for name in names}
    return {**found, ALL: figures(parts, key, job)}


def _plain(value: Any) -> Any:
    if isinstance(value, Figures):
        return plain(value)
    return {str(name): _plain(inner) for name, inner in value.items()}
