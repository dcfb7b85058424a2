"""``depthfit check``: the models of others."""

from __future__ import annotations

from collections.abc import Sequence

from depthfit.cli.help import settings, wants_help
from depthfit.run import load_config
from depthfit.run.check import CheckConfig, check_assets, report

USAGE = """usage: depthfit check [folder=DIR] [key=value ...]

Says of each model of others what it is for, where it is looked for, whether it is there and can be used,
which page of its owners gives it, under which licence, and what works without it. The demo and everything
that is shipped need none of them.

settings and their defaults:
"""


def run(arguments: Sequence[str]) -> int:
    """Check; exit status 1 if a model that is there cannot be used."""
    if wants_help(arguments):
        print(USAGE + settings(CheckConfig))
        return 0
    config: CheckConfig = load_config(arguments, CheckConfig)
    states = check_assets(config)
    print(report(states, config))
    return 1 if any(state.fault is not None for state in states) else 0
