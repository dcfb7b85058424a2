"""``depthfit bench paradox``: errors in the image and in space, step by step.

Under a wrong camera a fit to keypoints gains in the image and loses in space (Dwivedi et al., "TokenHMR",
CVPR 2024, section 3). A fit with fewer steps is the beginning of one with more, so the curve is made of fits
that stop early.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.progress import track

from depthfit.atomic import atomic_path
from depthfit.bench.accuracy import bench_scene
from depthfit.bench.fitting import Row, Workbench
from depthfit.bench.scenes import ensure_scene
from depthfit.bench.split_scores import Figures, figures_of
from depthfit.bench.variants import FITS, variants
from depthfit.evaluation.score import FIT_FIELDS, TRUTH_FIELDS, load_table
from depthfit.evidence.scene import read_scene
from depthfit.fit.config import FitConfig
from depthfit.report.score_plots import has_matplotlib
from depthfit.run.device import choose_device
from depthfit.run.output import write_rows
from depthfit.synth import SynthConfig

QUICK_IMAGES = 4
COLOURS = ("tab:red", "tab:orange", "tab:blue", "tab:green")
Curves = dict[str, dict[int, Figures]]


@dataclass
class ParadoxConfig:
    """Settings of ``depthfit bench paradox``.

    Attributes:
        out: Folder of scene, table and plot.
        images: Number of images, one person each.
        seed: Of the scene.
        quick: 4 images and few steps.
        fits: Names of fits.
        steps: After which fits stop, of Levenberg-Marquardt with all unknowns free.
        batch: People fitted together.
        device: ``auto``, ``cpu`` or ``cuda``.
        scene: Settings of the scene; images, seed and people are set from above.
        fit: Settings of all fits.
    """

    out: str = "output/bench"
    images: int = 64
    seed: int = 1
    quick: bool = False
    fits: list[str] = field(default_factory=lambda: ["smplify", "default_focal", "joint"])
    steps: list[int] = field(default_factory=lambda: [1, 2, 3, 4, 6, 8, 12, 16, 24])
    batch: int = 32
    device: str = "cpu"
    scene: SynthConfig = field(default_factory=bench_scene)
    fit: FitConfig = field(default_factory=FitConfig)


def run_paradox(config: ParadoxConfig) -> str:
    """Make, fit, score and plot; returns the Markdown table, also written to ``out``."""
    if config.quick:
        config = replace(config, images=QUICK_IMAGES, steps=[1, 4, 12])
    variants(config.fits)
    out = Path(config.out)
    scene = replace(config.scene, images=config.images, seed=config.seed, people_weights=(1.0,))
    folder = ensure_scene(scene, out / f"scene_{config.seed}_{config.images}")
    curves = measure_curves(config, folder)
    text = paradox_table(curves)
    data = {key: {n: vars(f) for n, f in curve.items()} for key, curve in curves.items()}
    for name, content in (("paradox.md", text), ("paradox.json", json.dumps(data, indent=2))):
        with atomic_path(out / name) as temporary:
            temporary.write_text(content + "\n")
    if has_matplotlib():
        with atomic_path(out / "paradox.png") as temporary:
            plot_paradox(curves, temporary)
    return text


def measure_curves(config: ParadoxConfig, folder: Path) -> Curves:
    """Figures of every fit by the steps after which it stops."""
    device = choose_device(config.device)
    scene = read_scene(folder, config.scene.keypoint_format)
    truth = load_table(folder / "ground_truth.npz", TRUTH_FIELDS)
    reader, names = Workbench(config.fit, device, config.seed), list(scene.names)
    images = reader.read(scene, names)
    curves: Curves = {key: {} for key in config.fits}
    for steps in track(config.steps, description="Fitting"):
        # Neither flips nor further starts nor a verdict: they jump, and a curve is one way on.
        solver = replace(config.fit.solver, rounds=steps, polish=0, steps=1, hypotheses=False)
        verdict = replace(config.fit.verdict, use=False)
        bench = Workbench(replace(config.fit, solver=solver, verdict=verdict), device, config.seed)
        for key in config.fits:
            rows: list[Row] = []
            for first in range(0, len(images), config.batch):
                rows += bench.fit(FITS[key], images[first : first + config.batch])[0]
            path = Path(config.out) / "paradox" / f"{key}_{steps}.npz"
            write_rows(path, rows, {})
            curves[key][steps] = figures_of(load_table(path, FIT_FIELDS), truth, str(path))
    return curves


def paradox_table(curves: Mapping[str, Mapping[int, Figures]]) -> str:
    """Markdown: error in the image (median, share of the person's size) / MPJPE (mm) by steps."""
    steps = list(next(iter(curves.values())))
    first = next(iter(next(iter(curves.values())).values()))
    lines = [
        "| fit, 2D / 3D error | prediction | " + " | ".join(f"step {n}" for n in steps) + " |",
        "|" + "---|" * (len(steps) + 2),
    ]
    start = f"{first.initial_reprojection:.2%} / {first.prediction:.1f}"
    for key, curve in curves.items():
        cells = (f"{f.reprojection:.2%} / {f.mpjpe:.1f}" for f in curve.values())
        lines.append(f"| {FITS[key].name} | {start} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot_paradox(curves: Mapping[str, Mapping[int, Figures]], path: Path) -> None:
    """Errors in the image (left) and in space (right) against steps; PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for colour, (key, curve) in zip(COLOURS, curves.items(), strict=False):
        steps = [0, *curve]
        start = next(iter(curve.values()))
        in_image = [start.initial_reprojection, *(f.reprojection for f in curve.values())]
        in_space = [start.prediction, *(f.mpjpe for f in curve.values())]
        left.plot(steps, [100 * e for e in in_image], color=colour, marker=".", label=FITS[key].name)
        right.plot(steps, in_space, color=colour, marker=".")
    left.set_ylabel("2D error, median, % of the person's size")
    right.set_ylabel("MPJPE, mm")
    for axes in (left, right):
        axes.set_xlabel("steps (0: the prediction)")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    figure.legend(
        *left.get_legend_handles_labels(), loc="outside upper center", ncols=len(curves), fontsize=9
    )
    figure.savefig(path, format="png", dpi=110)
