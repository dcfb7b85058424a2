"""``depthfit pseudo-gt``: refine the labels of a dataset; check a finished one; model a big one."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from rich.console import Console

from depthfit.cli.help import lacks_names, settings, wants_help
from depthfit.pseudo import PseudoConfig, run_pseudo_gt
from depthfit.pseudo.check import check
from depthfit.pseudo.cost import ModelConfig, model_table
from depthfit.run import load_config

USAGE = """usage: depthfit pseudo-gt SOURCE OUT [config.yaml] [key=value ...]
       depthfit pseudo-gt check OUT [SOURCE]      counts and checksums of a finished run
       depthfit pseudo-gt model [key=value ...]   time, storage and network of a big run, from a small one

SOURCE is a folder of training tars (4D-Humans, TokenHMR), one .tar, a COCO .json or an .npz of labels
(BEDLAM, CameraHMR) with images=FOLDER, or a scene folder. Run the same command again to go on after a stop.
"""


def run(arguments: Sequence[str]) -> int:
    """Refine, check or model; exit status 1 if something is wrong with the output."""
    if wants_help(arguments) or not arguments:
        print(f"{USAGE}\nsettings and their defaults:\n{settings(PseudoConfig)}")
        print(f"\nsettings of model and their defaults:\n{settings(ModelConfig)}")
        return 0
    if arguments[0] == "model":
        print(model_table(load_config(arguments[1:], ModelConfig)))
        return 0
    plain = [a for a in arguments if "=" not in a]
    if arguments[0] == "check":
        if len(plain) not in (2, 3) or len(plain) != len(arguments):
            print(USAGE, file=sys.stderr)
            return 2
        return _check(*plain[1:])
    if lacks_names(arguments, "pseudo-gt", ("SOURCE", "OUT")):
        return 2
    config: PseudoConfig = load_config(arguments[2:], PseudoConfig)
    summary = run_pseudo_gt(arguments[0], arguments[1], config, Console(stderr=True))
    print(
        json.dumps({k: summary[k] for k in ("people", "outcomes", "reasons", "faults", "shards")}, indent=2)
    )
    print(f"results: {arguments[1]}/ (README.md, report.html, summary.json)")
    return 0


def _check(out: str, source: str | None = None) -> int:
    problems = check(out, source)
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{out}: {len(problems)} problems" if problems else f"{out}: whole")
    return 1 if problems else 0
