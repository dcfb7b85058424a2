"""The command line: ``depthfit COMMAND ...``; ``python run_fit.py`` is ``depthfit fit``."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
from collections.abc import Sequence

from depthfit import __version__
from depthfit.errors import DepthfitError

COMMANDS: dict[str, tuple[str, str]] = {
    "fit": ("fit", "refine the people of a scene folder; without arguments, the embedded demo"),
    "check": ("check", "say which models of others are here, what for, and where to get them"),
    "prepare": ("prepare", "make a scene folder from photographs: people, keypoints, depth, masks"),
    "run": ("photos", "prepare and fit in one: from photographs to fits"),
    "predictions": ("predictions", "have TokenHMR or HMR2.0 predict the people of a scene folder"),
    "synth": ("synth", "make a scene folder with ground truth and noisy evidence"),
    "eval": ("evaluate", "score saved fits, or fit and score a public data set"),
    "bench": ("bench", "the measurements of the README"),
    "pseudo-gt": ("pseudo_gt", "refine the labels of a whole dataset, on one machine or many"),
    "tokenizer": ("tokenizer", "train or evaluate a pose tokenizer"),
    "body": ("body", "export or rebuild the open body"),
}
"""Module of each command, whose ``run`` takes the arguments, and what it does. Only the one that is asked for
is loaded: together they take seconds."""


SPIN_COUNT = 10_000
"""Turns of GNU OpenMP's idle threads before they sleep. Its own 300,000 are milliseconds in which each holds
a core that another process wants: beside two of its kind on two cores a fit takes 8 times as long as alone,
with this 4 times; alone it makes no difference."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is 0 on success, 1 on a fault, 2 on a wrong call, 130 after Ctrl-C."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    args = list(sys.argv[1:] if arguments is None else arguments)
    if "OMP_WAIT_POLICY" not in os.environ:
        # Read when torch is loaded, which no module of a command has done yet.
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPIN_COUNT))
    try:
        status = _main(args)
        # What is printed is sent here, where it is known what to do if nobody reads it.
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # The reader of a pipe, such as head, has read enough. Python flushes once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _main(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if args[0] == "--version":
        print(__version__)
        return 0
    if args[0] not in COMMANDS:
        print(f"depthfit: no command {args[0]!r}. Commands: {', '.join(COMMANDS)}.", file=sys.stderr)
        return 2
    try:
        status: int = importlib.import_module(f"depthfit.cli.{COMMANDS[args[0]][0]}").run(args[1:])
        return status
    except DepthfitError as error:
        print(f"depthfit {args[0]}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        # As shells report it. Where the code stood is of no use to who stopped it.
        print(f"depthfit {args[0]}: stopped", file=sys.stderr)
        return 128 + signal.SIGINT


def _help() -> str:
    lines = [
        f"depthfit {__version__}: refine human meshes with keypoints, depth and the right camera.",
        "",
        "usage: depthfit COMMAND [config.yaml] [key=value ...]",
        "",
        *(f"  {name:11} {text}" for name, (_, text) in COMMANDS.items()),
        "",
        "`depthfit COMMAND --help` lists a command's settings.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
