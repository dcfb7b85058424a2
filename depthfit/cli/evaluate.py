"""``depthfit eval``: errors of saved fits, without fitting again; or a public data set from end to end."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from depthfit.bench.dataset import DatasetConfig, run_dataset
from depthfit.bench.scoring import EvalConfig, run_eval
from depthfit.cli.help import settings, wants_help
from depthfit.datasets import PROTOCOLS
from depthfit.report.score_report import jsonable
from depthfit.run import load_config

USAGE = f"""usage: depthfit eval OUT/fits.npz SCENE/ground_truth.npz [key=value ...]
       depthfit eval DATASET root=FOLDER output.dir=OUT [config.yaml] [key=value ...]

The first scores saved fits: errors of the prediction (initial_...) and of the fit with bootstrap intervals,
their paired difference, the share of people made worse, and the coverage of the stated intervals. It prints
the summary as JSON and writes tables (Markdown, CSV, JSON), plots, a row for each person with a link to the
overlay, and a page of the worst 20. Nothing is fitted again.

The second makes scene folders of a data set, fits them and scores them; a second call goes on where the first
stopped. Data sets: {", ".join(PROTOCOLS)}.
"""


def run(arguments: Sequence[str]) -> int:
    """Score; exit status 1 if a scene or an image was left out."""
    if wants_help(arguments):
        print(f"{USAGE}\nof saved fits:\n{settings(EvalConfig)}\n\nof a data set:\n{settings(DatasetConfig)}")
        return 0
    if arguments and arguments[0] in PROTOCOLS:
        return _dataset(arguments[0], arguments[1:])
    if len(arguments) < 2 or "=" in arguments[1]:
        print(USAGE, file=sys.stderr)
        return 2
    summary = run_eval(arguments[0], arguments[1], load_config(arguments[2:], EvalConfig))
    print(json.dumps(jsonable(summary), indent=2))
    return 0


def _dataset(name: str, arguments: Sequence[str]) -> int:
    result = run_dataset(name, load_config(arguments, DatasetConfig))
    for path in result.tables.values():
        print(path.read_text())
    for what, reason in {**result.failed, **result.left_out}.items():
        print(f"left out {what}: {reason}", file=sys.stderr)
    print("\n".join(f"results: {path.parent}" for path in result.tables.values()))
    return 1 if result.failed or result.left_out else 0
