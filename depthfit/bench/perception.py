"""``depthfit bench perception``: images a second and peak memory of the stages before a fit.

Networks have their full size and random weights: neither figure depends on what they have learned.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

import torch

from depthfit.atomic import atomic_path
from depthfit.bench.network_stages import depth_stage, detector_stage, keypoint_stage, mask_stage
from depthfit.bench.regressor_stage import regressor_stage
from depthfit.bench.stage import PerceptionConfig, Stage, StageRow
from depthfit.errors import InputError
from depthfit.run.device import choose_device

STAGES: dict[str, Stage] = {
    "detector": detector_stage,
    "keypoints": keypoint_stage,
    "depth": depth_stage,
    "masks": mask_stage,
    "regressor": regressor_stage,
}


def run_perception(config: PerceptionConfig) -> str:
    """Measure; returns the Markdown table, which is also written to ``out``.

    Raises:
        InputError: A stage, a batch size or a precision is not what can be measured.
    """
    device = choose_device(config.device)
    for name in config.stages:
        if name not in STAGES:
            raise InputError("command line", "stages", repr(name), f"Stages are {', '.join(STAGES)}.")
    if not config.batches or min(config.batches) < 1 or config.images < 1:
        found = f"batches={config.batches} images={config.images}"
        raise InputError("command line", "batches", found, "Use whole numbers above zero.")
    rows = [row for name in config.stages or STAGES for row in STAGES[name](config, device)]
    table = perception_table(rows, device)
    with atomic_path(Path(config.out) / "perception.md") as temporary:
        temporary.write_text(table + "\n")
    return table


def perception_table(rows: Sequence[StageRow], device: torch.device) -> str:
    """The rows as a Markdown table, and where they were measured."""
    lines = [
        "| stage | network | parameters | precision | batch | images/s | s an image | peak memory |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row.stage} | {row.model} | {row.parameters / 1e6:.0f} M | {row.precision} | {row.batch} | "
            f"{row.images / row.seconds:.3g} | {row.seconds / row.images:.3g} | {row.peak / 2**30:.2f} GiB |"
        )
    if device.type == "cuda":
        where = f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}; memory that torch reserved"
    else:
        where = f"{platform.machine()} CPU, {torch.get_num_threads()} threads; memory of the process"
    return "\n".join([*lines, "", f"{where}. Random weights, full size."])
