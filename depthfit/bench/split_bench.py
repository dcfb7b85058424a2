"""``depthfit bench splits``: all fits on all kinds of people, levels of noise, and sweeps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from depthfit.atomic import atomic_path
from depthfit.bench import split_tables as report
from depthfit.bench.pool import Job, run_parts
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
        workers: Processes; each fits on ``device``.
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
    workers: int = 1
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
    run_parts(_work(config, parts, swept), job, config.workers)
    return _report(config, job, parts, swept)


def _check(config: SplitsConfig) -> None:
    variants([*config.fits, *config.level_fits, *config.sweep_fits])
    wrong = [level for level in config.levels if level not in LEVELS or level == USUAL]
    if wrong:
        raise InputError("command line", "levels", ", ".join(wrong), "Known: half, double.")


def _work(
    config: SplitsConfig,
    parts: dict[str, list[Part]],
    swept: dict[str, dict[float, list[Part]]],
) -> list[tuple[Part, Sequence[str]]]:
    work: dict[str, tuple[Part, Sequence[str]]] = {}
    for level, people in parts.items():
        for part in people:
            work[part.name] = part, config.fits if level == USUAL else config.level_fits
    for values in swept.values():
        for people in values.values():
            for part in people:
                work[part.name] = part, config.sweep_fits
    return list(work.values())


def _report(
    config: SplitsConfig,
    job: Job,
    parts: dict[str, list[Part]],
    swept: dict[str, dict[float, list[Part]]],
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
    text = report.markdown(by_fit, by_level, curves, floors)
    out = Path(job.out)
    content = {
        "fits": _plain(by_fit),
        "levels": _plain(by_level),
        "sweeps": _plain(curves),
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
