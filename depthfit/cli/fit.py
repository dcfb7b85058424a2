"""``depthfit fit``: refine a scene folder, or the embedded demo."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console

from depthfit.cli.help import settings, wants_help
from depthfit.demo import run_demo
from depthfit.report.table import before_after_table
from depthfit.run import RunConfig, fit_scene, load_config
from depthfit.run.summary import RunSummary
from depthfit.run.tables import summaries

USAGE = """usage: depthfit fit [config.yaml] scene=SCENE [output.dir=OUT] [key=value ...]
       depthfit fit                      (the embedded demo)

Reads a scene folder (images/, keypoints/, depth/, masks/, cameras.json, predictions.npz; what is missing is
simply not evidence) and writes OUT/fits.npz, summary.json, config.yaml and overlays/.

settings and their defaults:
"""


def run(arguments: Sequence[str]) -> int:
    """Fit; exit status 1 if an image was left out."""
    if wants_help(arguments):
        print(USAGE + settings(RunConfig))
        return 0
    # Where nobody tells a width (a log, a pipe), the table needs this much.
    console = Console(width=None if sys.stdout.isatty() else 140)
    if not arguments:
        return run_demo(console)
    config: RunConfig = load_config(arguments)
    result = fit_scene(config)
    report(console, result, config)
    return 1 if result.skipped else 0


def report(console: Console, result: RunSummary, config: RunConfig) -> None:
    """Print the table and where the results are."""
    console.print(before_after_table(summaries(result.rows)))
    for name, reason in result.skipped.items():
        console.print(f"left out {name}: {reason}", style="red", markup=False)
    for stranger in result.summary["matching_no_image"]:
        console.print(f"belongs to no image: {stranger}", style="yellow", markup=False)
    empty, unused = result.summary["images_without_people"], result.summary["detections_not_fitted"]
    if empty:
        seen = "detected" if result.summary["init"] == "keypoints" else "predicted"
        console.print(f"nobody was {seen} in: {', '.join(empty)}", style="yellow", markup=False)
    if unused:
        people = ", ".join(f"{name} ({count})" for name, count in unused.items())
        console.print(f"detected people without a fit: {people}", style="yellow", markup=False)
    console.print(f"body {result.summary['body']}, tokenizer {result.summary['tokenizer']}", markup=False)
    where = f"{config.output.dir}/fits.npz"
    if config.output.overlays:
        where += f", overlays in {config.output.dir}/overlays"
    console.print(f"results: {where}", markup=False)
