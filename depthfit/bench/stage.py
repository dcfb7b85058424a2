"""What the stages of ``depthfit bench perception`` share: settings, a line of the table, clock, memory."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch


@dataclass
class PerceptionConfig:
    """Settings of ``depthfit bench perception``.

    Attributes:
        stages: Stages to measure, of those that are listed with this command's help; all unless named.
        batches: Batch sizes to measure each of them with.
        images: Images (or people) a measurement runs over, at least one batch.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: auto (float16 on a GPU, float32 on a CPU), float32, float16 or bfloat16.
        seed: Of the random weights.
        out: Folder of the table.
    """

    stages: list[str] = field(default_factory=list)
    batches: list[int] = field(default_factory=lambda: [1, 16])
    images: int = 64
    device: str = "auto"
    precision: str = "auto"
    seed: int = 0
    out: str = "output/bench"


@dataclass(frozen=True)
class StageRow:
    """One line of the table.

    Attributes:
        stage: Its name; model: which network.
        parameters: Number of its weights; precision: of its matrices.
        batch: Images in a batch; images: in all.
        seconds: Of all of them, without loading.
        peak: Bytes: of the GPU, that torch reserved, the network's own among them; of a CPU, of the process.
    """

    stage: str
    model: str
    parameters: int
    precision: str
    batch: int
    images: int
    seconds: float
    peak: int


Stage = Callable[[PerceptionConfig, torch.device], Iterator[StageRow]]
"""Measures one part of the pipeline; it loads its networks itself, and frees them when it ends."""


def measure(device: torch.device, batch: int, images: int, run: Callable[[], object]) -> tuple[int, float]:
    """Call ``run``, which does one batch, until ``images`` are done; once more before the clock starts.

    Returns:
        The images and the seconds.
    """
    times = -(-images // batch)
    run()
    _wait(device)
    began = time.perf_counter()
    for _ in range(times):
        run()
    _wait(device)
    return times * batch, time.perf_counter() - began


def start_memory(device: torch.device) -> None:
    """Begin a new measurement of the peak memory; what a network holds by now is part of it."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int:
    """Bytes since ``start_memory`` on a GPU; since the process began on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    # Imported here: Windows does not have it, and nothing else needs it.
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
