"""``depthfit eval``: errors of saved fits, without fitting again."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from depthfit.cli.help import wants_help
from depthfit.evaluation.score import score

USAGE = """usage: depthfit eval OUT/fits.npz SCENE/ground_truth.npz

Prints the summary as JSON: errors of the prediction (initial_...) and of the fit, the share of people made
worse, and the coverage of the stated intervals."""


def run(arguments: Sequence[str]) -> int:
    """Score."""
    if wants_help(arguments):
        print(USAGE)
        return 0
    if len(arguments) != 2:
        print(USAGE, file=sys.stderr)
        return 2
    print(json.dumps(score(*arguments).summary, indent=2))
    return 0
