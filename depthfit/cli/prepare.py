"""``depthfit prepare``: a folder of photographs becomes a scene folder."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from depthfit.cli.help import lacks_names, settings, wants_help
from depthfit.run import load_config
from depthfit.run.prepare import PrepareConfig, PrepareSummary, prepare_scene
from depthfit.run.prepare.state import StageReport

USAGE = """usage: depthfit prepare IMAGES SCENE [init=keypoints|tokenhmr|hmr2] [config.yaml] [key=value ...]

Makes SCENE from the jpg and png files of IMAGES: people (RT-DETR), keypoints (ViTPose), depth (Depth Pro),
masks (SAM, where it is here), and with init=tokenhmr or init=hmr2 predictions. The stages run one after
another, each network loaded once. What an earlier run finished is not done again, and what somebody else put
into SCENE (keypoints/, boxes.json, depth/, masks/, cameras.json, predictions.npz) is used and kept.

Networks are looked for in models/NAME (see depthfit check), then in the hub's cache, then on the hub.

settings and their defaults:
"""


def run(arguments: Sequence[str]) -> int:
    """Prepare; exit status 1 if a photograph was left out."""
    if wants_help(arguments) or not arguments:
        print(USAGE + settings(PrepareConfig))
        return 0
    if lacks_names(arguments, "prepare", ("IMAGES", "SCENE")):
        return 2
    config: PrepareConfig = load_config(arguments[2:], PrepareConfig)
    summary = prepare_scene(arguments[0], arguments[1], config)
    print_summary(summary)
    hint = f" keypoints.format={summary.keypoint_format}" if summary.keypoint_format else ""
    print(f"next: depthfit fit scene={summary.scene} output.dir=OUT{hint}")
    return 1 if summary.left_out else 0


def print_summary(summary: PrepareSummary) -> None:
    """What was made, what is missing and what was left out."""
    for stage in summary.stages:
        print(stage_line(stage))
    for name, notes in summary.notes.items():
        for note in notes:
            print(f"{name}: {note}")
    for name, reason in summary.left_out.items():
        print(f"left out {name}: {reason}", file=sys.stderr)
    people = sum(summary.people.values())
    print(f"{summary.scene}: {people} people in {len(summary.images)} images")


def stage_line(stage: StageReport) -> str:
    """What a stage did, in one line."""
    kept = f", {stage.kept} done before" if stage.kept else ""
    peak = "" if stage.peak is None else f"  {stage.peak / 2**30:6.2f} GiB"
    return f"{stage.stage:12} {stage.done:4} images{kept}  {stage.seconds:7.1f} s{peak}  {stage.source}"
