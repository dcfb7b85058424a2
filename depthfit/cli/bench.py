"""``depthfit bench``: the measurements of the README."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from depthfit.bench.accuracy import AccuracyConfig, run_accuracy
from depthfit.bench.camera_bias import CameraBiasConfig, run_camera_bias
from depthfit.bench.gate import GateBenchConfig, run_gate
from depthfit.bench.masks import MaskBenchConfig, run_masks
from depthfit.bench.perception import STAGES, run_perception
from depthfit.bench.pseudo import PseudoBenchConfig, run_pseudo
from depthfit.bench.speed import SpeedConfig, run_speed
from depthfit.bench.stage import PerceptionConfig
from depthfit.cli.help import settings, wants_help
from depthfit.run import load_config

USAGE = """usage: depthfit bench accuracy [table=fits|tokens] [quick=true] [key=value ...]
       depthfit bench camera scene=FOLDER fits=OUT/fits.npz [key=value ...]
       depthfit bench speed [key=value ...]
       depthfit bench gate [quick=true] [key=value ...]
       depthfit bench masks [key=value ...]
       depthfit bench pseudo [key=value ...]
       depthfit bench perception [stages=[NAME,...]] [key=value ...]
"""


def run(arguments: Sequence[str]) -> int:
    """Measure."""
    if wants_help(arguments) or not arguments:
        schemas = {
            "accuracy": AccuracyConfig,
            "camera": CameraBiasConfig,
            "speed": SpeedConfig,
            "gate": GateBenchConfig,
            "pseudo": PseudoBenchConfig,
            "masks": MaskBenchConfig,
            "perception": PerceptionConfig,
        }
        print("\n".join([USAGE, *(f"{name}:\n{settings(schema)}\n" for name, schema in schemas.items())]))
        print(f"stages of perception: {', '.join(STAGES)}")
        return 0
    if arguments[0] == "accuracy":
        print(run_accuracy(load_config(arguments[1:], AccuracyConfig)))
        return 0
    if arguments[0] == "camera":
        print(run_camera_bias(load_config(arguments[1:], CameraBiasConfig)))
        return 0
    if arguments[0] == "speed":
        print(run_speed(load_config(arguments[1:], SpeedConfig)))
        return 0
    if arguments[0] == "gate":
        print(run_gate(load_config(arguments[1:], GateBenchConfig)))
        return 0
    if arguments[0] == "masks":
        print(run_masks(load_config(arguments[1:], MaskBenchConfig)))
        return 0
    if arguments[0] == "pseudo":
        print(run_pseudo(load_config(arguments[1:], PseudoBenchConfig)))
        return 0
    if arguments[0] == "perception":
        print(run_perception(load_config(arguments[1:], PerceptionConfig)))
        return 0
    print(f"depthfit bench: no measurement {arguments[0]!r}.\n{USAGE}", file=sys.stderr)
    return 2
