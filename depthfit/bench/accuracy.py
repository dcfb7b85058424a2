"""``depthfit bench accuracy``: make synthetic people, fit them in several ways, score, tabulate."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from depthfit.atomic import atomic_path
from depthfit.bench.cells import LOG_ERRORS, log_cell
from depthfit.bench.fitting import Row, Workbench
from depthfit.bench.scenes import ensure_scene
from depthfit.bench.variants import TABLES, Variant, variants
from depthfit.errors import check_choice
from depthfit.evaluation.score import Scores, score
from depthfit.evidence.scene import Scene, read_scene
from depthfit.fit.config import FitConfig
from depthfit.run.device import choose_device
from depthfit.run.output import write_rows
from depthfit.synth import NoiseConfig, SynthConfig

QUICK_IMAGES = 8
HARD = ("hard", "random")


def bench_scene() -> SynthConfig:
    """Half everyday, half acrobatic or random poses; evidence noise at the levels of a good estimator: depth
    log scale 0.10, focal 0.22, smooth depth error 1.5 %, pixels 1 %, keypoints 0.35 OKS sigmas."""
    return SynthConfig(pose_mix=(0.5, 0.3, 0.2), noise=NoiseConfig(depth_warp=0.015))


@dataclass
class AccuracyConfig:
    """Settings of ``depthfit bench accuracy``.

    Attributes:
        out: Folder of scene, fits and tables.
        images: Number of images, one person each.
        seed: Of the scene; the figures of the README are of seed 1.
        quick: Make 8 images only.
        table: ``fits`` (2D only, joint, with and without masks and depth), ``tokens`` (token space
            against pose space), ``rivals``, ``ablations``, ``priors`` (of the pose) or ``tals``.
        fits: Names of fits in place of the table's.
        batch: People fitted together.
        device: ``auto``, ``cpu`` or ``cuda``.
        scene: Settings of the scene; images, seed and people are set from above.
        fit: Settings of the fit.
    """

    out: str = "output/bench"
    images: int = 64
    seed: int = 1
    quick: bool = False
    table: str = "fits"
    fits: list[str] = field(default_factory=list)
    batch: int = 16
    device: str = "cpu"
    scene: SynthConfig = field(default_factory=bench_scene)
    fit: FitConfig = field(default_factory=FitConfig)


def run_accuracy(config: AccuracyConfig) -> str:
    """Make, fit, score; returns the Markdown table, also written to ``out``.

    Raises:
        InputError: A table or a fit is unknown, or ``out`` holds a scene of other settings.
    """
    check_choice("command line", "table", config.table, TABLES)
    chosen = variants(config.fits or TABLES[config.table])
    out = Path(config.out)
    config.scene.images = QUICK_IMAGES if config.quick else config.images
    config.scene.seed, config.scene.people_weights = config.seed, (1.0,)
    folder = ensure_scene(config.scene, out / f"scene_{config.seed}_{config.scene.images}")
    scene = read_scene(folder, config.scene.keypoint_format)
    scores: dict[str, Scores] = {}
    for key, seconds in _fit_all(scene, chosen, config).items():
        scores[chosen[key].name] = score(_saved(config, key), folder / "ground_truth.npz")
        scores[chosen[key].name].summary["seconds_per_person"] = seconds
    table = accuracy_table(scores, _kinds(folder / "ground_truth.npz"))
    with atomic_path(out / f"{config.table}.md") as temporary:
        temporary.write_text(table + "\n")
    with atomic_path(out / f"{config.table}.json") as temporary:
        temporary.write_text(json.dumps({k: s.summary for k, s in scores.items()}, indent=2) + "\n")
    return table


def _saved(config: AccuracyConfig, key: str) -> Path:
    return Path(config.out) / "fits" / f"{key}.npz"


def _fit_all(scene: Scene, chosen: dict[str, Variant], config: AccuracyConfig) -> dict[str, float]:
    """Fit a scene in all ways and save each; returns seconds a person, reading of files apart."""
    bench = Workbench(config.fit, choose_device(config.device), config.seed)
    rows: dict[str, list[Row]] = {key: [] for key in chosen}
    seconds = dict.fromkeys(chosen, 0.0)
    names = list(scene.names)
    for first in track(range(0, len(names), config.batch), description="Fitting"):
        images = bench.read(scene, names[first : first + config.batch])
        for key, variant in chosen.items():
            found, took = bench.fit(variant, images, vertices=True)
            rows[key] += found
            seconds[key] += took
    for key, found in rows.items():
        write_rows(_saved(config, key), found, {})
    return {key: seconds[key] / max(len(rows[key]), 1) for key in chosen}


def accuracy_table(scores: dict[str, Scores], kinds: dict[tuple[str, int], str]) -> str:
    """Markdown: one row for the prediction, one for each fit; focal and distance as in :func:`log_cell`."""
    head = (
        "fit", "MPJPE mm (everyday / hard)", "PA-MPJPE", "MVE", *LOG_ERRORS,
        "worse than prediction", "accepted", "68 % of focal / distance",
    )  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    first = next(iter(scores.values()))
    lines.append(_line("prediction", first.rows, kinds, "initial_", {}))
    for name, result in scores.items():
        lines.append(_line(name, result.rows, kinds, "", result.summary))
    return "\n".join(lines)


def _line(
    name: str,
    rows: Sequence[dict[str, Any]],
    kinds: dict[tuple[str, int], str],
    prefix: str,
    summary: dict[str, Any],
) -> str:
    def mean(column: str, hard: bool | None = None) -> float:
        chosen = [
            float(row[prefix + column])
            for row in rows
            if hard is None or (kinds[(Path(str(row["imgname"])).stem, int(row["person"]))] in HARD) == hard
        ]
        return float(np.mean(chosen)) if chosen else float("nan")

    def median(column: str) -> str:
        return log_cell(float(np.median([abs(float(row[prefix + column])) for row in rows])))

    mpjpe = f"{mean('mpjpe_mm'):.1f} ({mean('mpjpe_mm', False):.1f} / {mean('mpjpe_mm', True):.1f})"
    cells = [name, mpjpe, f"{mean('pa_mpjpe_mm'):.1f}", f"{mean('mve_mm'):.1f}"]
    cells += [median("focal_log"), median("distance_log")]
    if summary:
        coverage = summary["coverage"]
        cells += [f"{summary['worse']:.1%}", f"{summary['accepted']:.0%}"]
        cells.append(f"{coverage['focal']['68%']:.0%} / {coverage['distance']['68%']:.0%}")
    else:
        cells += ["", "", ""]
    return "| " + " | ".join(cells) + " |"


def _kinds(truth: Path) -> dict[tuple[str, int], str]:
    with np.load(truth) as data:
        triples = zip(data["imgname"], data["person"], data["pose_kind"], strict=True)
        return {(Path(str(n)).stem, int(p)): str(k) for n, p, k in triples}
