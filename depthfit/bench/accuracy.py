"""``depthfit bench accuracy``: make synthetic people, fit them in several ways, score, tabulate."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from baselines import InitContext, initialiser
from depthfit.atomic import atomic_path
from depthfit.bench.variants import ACCURACY, TOKENS, Variant
from depthfit.body.load import load_body
from depthfit.evaluation.score import Scores, score
from depthfit.evidence.scene import Scene, read_scene
from depthfit.fit.adapter import image_input
from depthfit.fit.config import FitConfig
from depthfit.fit.fitter import Fitter
from depthfit.run.device import choose_device
from depthfit.run.output import person_row, write_rows
from depthfit.synth import NoiseConfig, SynthConfig, make_scene
from depthfit.tokens.load import load_tokenizer

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
        table: ``fits`` (2D only, joint, with and without masks and depth) or ``tokens`` (token space
            against pose space).
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
    batch: int = 16
    device: str = "cpu"
    scene: SynthConfig = field(default_factory=bench_scene)
    fit: FitConfig = field(default_factory=FitConfig)


def run_accuracy(config: AccuracyConfig) -> str:
    """Make, fit, score; returns the Markdown table, also written to ``out``."""
    out = Path(config.out)
    config.scene.images = QUICK_IMAGES if config.quick else config.images
    config.scene.seed, config.scene.people_weights = config.seed, (1.0,)
    folder = out / f"scene_{config.seed}_{config.scene.images}"
    if not folder.is_dir():
        make_scene(config.scene, folder)
    scene = read_scene(folder, config.scene.keypoint_format)
    variants = {"fits": ACCURACY, "tokens": TOKENS}[config.table]
    scores: dict[str, Scores] = {}
    for variant in variants:
        path = out / "fits" / f"{config.table}_{_slug(variant.name)}.npz"
        seconds = fit_variant(scene, variant, config, path)
        scores[variant.name] = score(path, folder / "ground_truth.npz")
        scores[variant.name].summary["seconds_per_person"] = seconds
    kinds = _kinds(folder / "ground_truth.npz")
    table = accuracy_table(scores, kinds)
    with atomic_path(out / f"{config.table}.md") as temporary:
        temporary.write_text(table + "\n")
    with atomic_path(out / f"{config.table}.json") as temporary:
        temporary.write_text(json.dumps({k: s.summary for k, s in scores.items()}, indent=2) + "\n")
    return table


def fit_variant(scene: Scene, variant: Variant, config: AccuracyConfig, path: Path) -> float:
    """Fit a scene in one way and save it; returns seconds a person, reading of files apart."""
    settings = variant.change(config.fit)
    body, tokenizer = load_body(), load_tokenizer()
    device = choose_device(config.device)
    fitter = Fitter(body, tokenizer, settings, device)
    context = InitContext(body, tokenizer, settings, device, config.seed)
    with np.load(scene.root / "ground_truth.npz") as data:
        focals = {Path(n).stem: float(f) for n, f in zip(data["imgname"], data["focal"], strict=True)}
    start = initialiser("predictions")
    rows, seconds, names = [], 0.0, list(scene.names)
    for first in track(range(0, len(names), config.batch), description=variant.name):
        chosen = names[first : first + config.batch]
        evidence = [variant.evidence(scene.read(n), focals[n]) for n in chosen]
        people = [[p for p in start(e, context) if p.detection is not None] for e in evidence]
        live = [(e, p) for e, p in zip(evidence, people, strict=True) if p]
        inputs = [image_input(e, p, settings) for e, p in live]
        began = time.perf_counter()
        fits = fitter.fit(inputs)
        seconds += time.perf_counter() - began
        for (e, predictions), result in zip(live, fits, strict=True):
            rows += [person_row(e.path.name, p, f) for p, f in zip(predictions, result, strict=True)]
            for row, f in zip(rows[-len(result) :], result, strict=True):
                row["vertices"] = fitter.vertices(f.refined)
                row["initial_vertices"] = fitter.vertices(f.initial)
    write_rows(path, rows, {})
    return seconds / max(len(rows), 1)


def accuracy_table(scores: dict[str, Scores], kinds: dict[tuple[str, int], str]) -> str:
    """Markdown: one row for the prediction, one for each fit."""
    head = (
        "fit", "MPJPE mm (everyday / hard)", "PA-MPJPE", "MVE", "focal error, median",
        "distance error, median", "worse than prediction", "accepted", "68 % of focal / distance",
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
        return f"{np.median([abs(float(row[prefix + column])) for row in rows]):.1%}"

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


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)
