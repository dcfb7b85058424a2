"""The embedded demo: scenes made from what is shipped, fitted and scored, in one command."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from rich.console import Console

from depthfit.evaluation.score import score
from depthfit.report.table import before_after_table
from depthfit.run import RunConfig, fit_scene
from depthfit.run.config import OutputConfig
from depthfit.run.tables import summaries
from depthfit.synth import SynthConfig, make_scene

DEMO_SCENE, DEMO_OUT = Path("output/demo/scene"), Path("output/demo/fit")
DEMO_CONFIG = SynthConfig(seed=7, images=4, people_weights=(0.5, 0.5), width=640, height=480)


def run_demo(console: Console) -> int:
    """Make the demo scene where it is not there yet, fit it anew and print the table; exit status 0."""
    began = time.perf_counter()
    if not DEMO_SCENE.is_dir():
        make_scene(DEMO_CONFIG, DEMO_SCENE)
    output = OutputConfig(dir=str(DEMO_OUT))
    result = fit_scene(RunConfig(scene=str(DEMO_SCENE), overwrite=True, output=output))
    scores = score(DEMO_OUT / "fits.npz", DEMO_SCENE / "ground_truth.npz")
    mpjpe = {
        (Path(str(row["imgname"])).stem, int(row["person"])): (row["initial_mpjpe_mm"], row["mpjpe_mm"])
        for row in scores.rows
    }
    console.print(before_after_table(summaries(result.rows, mpjpe)))
    before, after = np.array(list(mpjpe.values())).mean(0)
    console.print(
        f"synthetic scene, open body, open tokenizer: MPJPE {before:.1f} -> {after:.1f} mm"
        f" ({1 - after / before:.0%} less) in {time.perf_counter() - began:.0f} s"
    )
    console.print(f"overlays (open them): {DEMO_OUT / 'overlays'}    results: {DEMO_OUT / 'fits.npz'}")
    console.print("next: depthfit fit --help, or the README for your own images")
    return 0
