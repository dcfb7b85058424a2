"""``depthfit synth``: make a scene folder with ground truth."""

from __future__ import annotations

from collections.abc import Sequence

from depthfit.cli.help import lacks_names, settings, wants_help
from depthfit.run import load_config
from depthfit.synth import SynthConfig, make_scene

USAGE = """usage: depthfit synth OUT [config.yaml] [key=value ...]

Makes the scene folder OUT: images, keypoints, depth, masks, predictions.npz, and ground_truth.npz.

settings and their defaults:
"""


def run(arguments: Sequence[str]) -> int:
    """Make a scene."""
    if wants_help(arguments):
        print(USAGE + settings(SynthConfig))
        return 0
    if lacks_names(arguments, "synth", ("OUT",)):
        return 2
    config: SynthConfig = load_config(arguments[1:], SynthConfig)
    print(make_scene(config, arguments[0]))
    return 0
