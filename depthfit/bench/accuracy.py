"""``depthfit bench accuracy``: make synthetic people, fit them in several ways, score, tabulate."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from depthfit.atomic import atomic_path
from depthfit.bench.cells import LOG_ERRORS, log_cell
from depthfit.bench.fitting import Row, Workbench
from depthfit.bench.saved_fits import SavedFit
from depthfit.bench.scenes import ensure_scene
from depthfit.bench.variants import TABLES, variants
from depthfit.errors import check_choice
from depthfit.evaluation.errors import Scoring
from depthfit.evaluation.score import Scores, score
from depthfit.evidence.scene import Scene, read_scene
from depthfit.fit.config import FitConfig
from depthfit.report.score_report import jsonable, overlays_beside, stamp_of, write_report
from depthfit.report.score_tables import Stamp, rows_text
from depthfit.run.device import choose_device
from depthfit.synth import NoiseConfig, SynthConfig

QUICK_IMAGES = 8
HARD = ("hard", "random")
COLUMNS = ("mpjpe_mm", "pa_mpjpe_mm", "mve_mm", "focal_log", "distance_log")
Figures = dict[str, Any]


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
        quick: Make 8 images only, and no overlays.
        table: ``fits`` (2D only, joint, with and without masks and depth), ``tokens`` (token space
            against pose space), ``rivals``, ``ablations``, ``priors`` (of the pose) or ``tals``.
        fits: Names of fits in place of the table's.
        batch: People fitted together.
        overlays: Draw a picture of every person under every fit.
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
    overlays: bool = True
    device: str = "cpu"
    scene: SynthConfig = field(default_factory=bench_scene)
    fit: FitConfig = field(default_factory=FitConfig)


def run_accuracy(config: AccuracyConfig) -> str:
    """Make, fit, score and report; returns the Markdown table.

    ``out`` gets TABLE.md, TABLE.csv and TABLE.json, and of every fit the folder that a run leaves with the
    report of ``depthfit eval``. Fits that are there already are taken as they are.

    Raises:
        InputError: A table or a fit is unknown, or ``out`` holds a scene or fits of other settings.
    """
    check_choice("command line", "table", config.table, TABLES)
    chosen = variants(config.fits or TABLES[config.table])
    out, images = Path(config.out), QUICK_IMAGES if config.quick else config.images
    made = replace(config.scene, images=images, seed=config.seed, people_weights=(1.0,))
    folder = ensure_scene(made, out / f"scene_{config.seed}_{images}")
    scene, truth = read_scene(folder, made.keypoint_format), folder / "ground_truth.npz"
    bench = Workbench(config.fit, choose_device(config.device), config.seed)
    place = out / f"fits_{config.seed}_{images}"
    saved = {key: SavedFit.of(variant, place / key, bench, made) for key, variant in chosen.items()}
    _fit_missing([fit for fit in saved.values() if not fit.done()], scene, bench, config.batch)
    scores, stamps = dict[str, Scores](), dict[str, Stamp]()
    for fit in saved.values():
        if config.overlays and not config.quick:
            fit.draw(scene, bench)
        name = fit.variant.name
        scores[name], stamps[name] = _report(fit, truth)
    figures = accuracy_figures(scores, _kinds(truth))
    table = accuracy_table(figures)
    links = [f"- {fit.variant.name}: {(fit.folder / 'eval').relative_to(out)}" for fit in saved.values()]
    content = {name: {**s.summary, "stamp": asdict(stamps[name])} for name, s in scores.items()}
    texts = {
        ".md": "\n".join([table, "", *_shared(list(stamps.values())), "", "Reports:", "", *links]),
        ".csv": _csv(figures, stamps),
        ".json": json.dumps(jsonable(content), indent=2),
    }
    for suffix, text in texts.items():
        with atomic_path(out / f"{config.table}{suffix}") as temporary:
            temporary.write_text(text + "\n")
    return table


def _fit_missing(missing: Sequence[SavedFit], scene: Scene, bench: Workbench, batch: int) -> None:
    """Fit a scene in all ways that are missing; what is read once serves all of them."""
    if not missing:
        return
    rows: list[list[Row]] = [[] for _ in missing]
    seconds = [0.0] * len(missing)
    names = list(scene.names)
    for first in track(range(0, len(names), batch), description="Fitting"):
        images = bench.read(scene, names[first : first + batch])
        for n, fit in enumerate(missing):
            found, took = bench.fit(fit.variant, images, vertices=True)
            rows[n] += found
            seconds[n] += took
    for fit, own, took in zip(missing, rows, seconds, strict=True):
        fit.write(own, took, bench)


def _report(fit: SavedFit, truth: Path) -> tuple[Scores, Stamp]:
    """Score one fit and write what ``depthfit eval`` writes."""
    scoring = Scoring()
    scores = score(fit.fits, truth, scoring)
    scores.summary["seconds_per_person"] = fit.seconds_per_person()
    stamp = stamp_of(
        fit.fits,
        str(truth),
        scoring.protocol.name,
        true_body="as stored",
        camera="true focal" if fit.variant.knows_focal else "synthetic, with errors",
        keypoints="synthetic, with errors",
        matching=scoring.matching,
    )
    write_report(fit.folder / "eval", scores, stamp, overlays_beside(fit.fits))
    return scores, stamp


def _shared(stamps: Sequence[Stamp]) -> list[str]:
    """What all fits of the table have in common."""
    first = asdict(stamps[0])
    same = {k: v for k, v in first.items() if all(asdict(stamp)[k] == v for stamp in stamps)}
    return [f"- {name.replace('_', ' ')}: {value}" for name, value in same.items()]


def _csv(figures: Sequence[Figures], stamps: Mapping[str, Stamp]) -> str:
    """A row for the prediction and each fit; the prediction's stamp is that of the fit it was read from."""
    first = next(iter(stamps.values()))
    return rows_text([{**row, **asdict(stamps.get(str(row["fit"]), first))} for row in figures]).rstrip("\n")


def accuracy_figures(scores: Mapping[str, Scores], kinds: Mapping[tuple[str, int], str]) -> list[Figures]:
    """A row for the prediction and one for each fit; errors in mm, of focal and distance medians of |log|."""
    first = next(iter(scores.values()))
    rows = [_figures("prediction", first.rows, kinds, "initial_")]
    for name, result in scores.items():
        summary = result.summary
        coverage = {
            f"{what}_68": levels["68%"] for what, levels in summary["coverage"].items() if what != "joints"
        }
        own = {"worse": summary["worse"], "accepted": summary["accepted"], **coverage}
        rows.append({**_figures(name, result.rows, kinds, ""), **own})
    return rows


def _figures(
    name: str, rows: Sequence[Mapping[str, Any]], kinds: Mapping[tuple[str, int], str], prefix: str
) -> Figures:
    hard = np.array([kinds[(Path(str(row["imgname"])).stem, int(row["person"]))] in HARD for row in rows])
    columns = {c: np.array([abs(float(row[prefix + c])) for row in rows]) for c in COLUMNS}
    mpjpe = columns["mpjpe_mm"]
    return {
        "fit": name,
        "people": len(rows),
        "mpjpe_mm": float(mpjpe.mean()),
        "mpjpe_everyday_mm": float(mpjpe[~hard].mean()) if (~hard).any() else math.nan,
        "mpjpe_hard_mm": float(mpjpe[hard].mean()) if hard.any() else math.nan,
        "pa_mpjpe_mm": float(columns["pa_mpjpe_mm"].mean()),
        "mve_mm": float(columns["mve_mm"].mean()),
        "focal_log": float(np.median(columns["focal_log"])),
        "distance_log": float(np.median(columns["distance_log"])),
    }


def accuracy_table(figures: Sequence[Figures]) -> str:
    """Markdown: one row for the prediction, one for each fit; focal and distance as in :func:`log_cell`."""
    head = (
        "fit", "MPJPE mm (everyday / hard)", "PA-MPJPE", "MVE", *LOG_ERRORS,
        "worse than prediction", "accepted", "68 % of focal / distance",
    )  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for f in figures:
        cells = [
            f["fit"],
            f"{f['mpjpe_mm']:.1f} ({f['mpjpe_everyday_mm']:.1f} / {f['mpjpe_hard_mm']:.1f})",
            *(f"{f[column]:.1f}" for column in ("pa_mpjpe_mm", "mve_mm")),
            *(log_cell(f[column]) for column in ("focal_log", "distance_log")),
        ]
        if "worse" in f:
            cells += [
                f"{f['worse']:.1%}",
                f"{f['accepted']:.0%}",
                f"{f['focal_68']:.0%} / {f['distance_68']:.0%}",
            ]
        else:
            cells += ["", "", ""]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _kinds(truth: Path) -> dict[tuple[str, int], str]:
    with np.load(truth) as data:
        triples = zip(data["imgname"], data["person"], data["pose_kind"], strict=True)
        return {(Path(str(n)).stem, int(p)): str(k) for n, p, k in triples}
