"""``depthfit predictions``: a regressor's people of a scene folder."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from depthfit.cli.help import settings, wants_help
from depthfit.run import load_config
from depthfit.run.predictions import ExportConfig, export_predictions

USAGE = """usage: depthfit predictions export SCENE [init=tokenhmr|hmr2] [config.yaml] [key=value ...]

Runs TokenHMR or HMR2.0 on the people of SCENE/images and writes SCENE/predictions.npz: pose, shape, crop
camera, and with TokenHMR the probabilities of its pose tokens. Where the people are is taken from the first
of these that the scene has:

  boxes.json     {"NAME": [[x0, y0, x1, y1], ...]} px, as a detector gives them
  masks/         the outline's box; people without an outline by their keypoints
  keypoints/     the box of the points, widened; name their format: keypoints.format=body25

Official files are expected below models/ (or folder=DIR):

  init=tokenhmr  tokenhmr_model_latest.ckpt, model_config.yaml beside it, tokenizer.pth
  init=hmr2      epoch=35-step=1000000.ckpt, model_config.yaml beside it or one folder up; 4D-Humans' own
                 folder ~/.cache/4DHumans is looked into as well

settings and their defaults:
"""


def run(arguments: Sequence[str]) -> int:
    """Export; exit status 1 if an image was left out."""
    if wants_help(arguments) or not arguments:
        print(USAGE + settings(ExportConfig))
        return 0
    if arguments[0] != "export":
        print(f"depthfit predictions: no action {arguments[0]!r}.\n{USAGE}", file=sys.stderr)
        return 2
    if len(arguments) < 2 or "=" in arguments[1]:
        print("depthfit predictions export: name the scene folder first.", file=sys.stderr)
        return 2
    summary = export_predictions(arguments[1], load_config(arguments[2:], ExportConfig))
    for name, reason in summary.left_out.items():
        print(f"left out {name}: {reason}", file=sys.stderr)
    print(f"{summary.path}: {summary.people} people in {summary.images} images")
    return 1 if summary.left_out else 0
