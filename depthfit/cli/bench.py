"""``depthfit bench``: the measurements of the README."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from depthfit.bench.accuracy import AccuracyConfig, run_accuracy
from depthfit.bench.camera_bias import CameraBiasConfig, run_camera_bias
from depthfit.bench.gate import GateBenchConfig, run_gate
from depthfit.bench.masks import MaskBenchConfig, run_masks
from depthfit.bench.numerics import NumericsConfig, run_numerics
from depthfit.bench.paradox import ParadoxConfig, run_paradox
from depthfit.bench.perception import STAGES, run_perception
from depthfit.bench.pseudo import PseudoBenchConfig, run_pseudo
from depthfit.bench.speed import SpeedConfig, run_speed
from depthfit.bench.split_bench import SplitsConfig, run_splits
from depthfit.bench.stage import PerceptionConfig
from depthfit.bench.variants import FITS
from depthfit.cli.help import settings, wants_help
from depthfit.run import load_config

USAGE = """usage: depthfit bench accuracy [table=fits|rivals|ablations|priors|tokens|tals] [quick=true] [...]
       depthfit bench splits [people=1024] [workers=N] [device=cuda] [key=value ...]
       depthfit bench paradox [quick=true] [key=value ...]
       depthfit bench camera scene=FOLDER fits=OUT/fits.npz [key=value ...]
       depthfit bench speed [key=value ...]
       depthfit bench numerics [images=64] [device=cuda] [key=value ...]
       depthfit bench gate [quick=true] [key=value ...]
       depthfit bench masks [key=value ...]
       depthfit bench pseudo [key=value ...]
       depthfit bench perception [stages=[NAME,...]] [key=value ...]
"""


MEASUREMENTS: dict[str, tuple[type, Callable[[Any], str]]] = {
    "accuracy": (AccuracyConfig, run_accuracy),
    "splits": (SplitsConfig, run_splits),
    "paradox": (ParadoxConfig, run_paradox),
    "camera": (CameraBiasConfig, run_camera_bias),
    "speed": (SpeedConfig, run_speed),
    "numerics": (NumericsConfig, run_numerics),
    "gate": (GateBenchConfig, run_gate),
    "masks": (MaskBenchConfig, run_masks),
    "pseudo": (PseudoBenchConfig, run_pseudo),
    "perception": (PerceptionConfig, run_perception),
}


def run(arguments: Sequence[str]) -> int:
    """Measure."""
    if wants_help(arguments) or not arguments:
        # Together they have more than a thousand lines: what is named is what is asked for.
        asked = [name for name in arguments[:1] if name in MEASUREMENTS] or list(MEASUREMENTS)
        texts = (f"{name}:\n{settings(MEASUREMENTS[name][0])}\n" for name in asked)
        print("\n".join([USAGE, *texts]))
        print(f"stages of perception: {', '.join(STAGES)}")
        print(f"fits: {', '.join(FITS)}")
        return 0
    if arguments[0] not in MEASUREMENTS:
        print(f"depthfit bench: no measurement {arguments[0]!r}.\n{USAGE}", file=sys.stderr)
        return 2
    schema, measure = MEASUREMENTS[arguments[0]]
    print(measure(load_config(arguments[1:], schema)))
    return 0
