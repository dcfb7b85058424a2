"""A GPU that is too small for a batch: nobody is lost, and the labels are the same."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest
import torch

from depthfit.pseudo.layout import write_plan
from depthfit.pseudo.records import Chunk, ChunkRef
from depthfit.pseudo.source_tars import TarSource
from depthfit.pseudo.stages import FitStage, Job, ReadStage
from tests.pseudo.conftest import settings

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]


COPIES, SOME = 24, 6


def fitted(job: Job, stage: FitStage) -> tuple[Chunk, int, int]:
    """All people in one chunk, many times, and the most bytes that were in use and that torch held."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    chunk = ReadStage(job)(Chunk(ChunkRef("000000", 0)))
    chunk.items *= COPIES
    return stage(chunk), torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()


def test_a_gpu_out_of_memory_halves_the_batch(tars: Path, tmp_path: Path) -> None:
    source = TarSource(str(tars / "000000.tar"), None, 100)
    job = Job(source, settings("device=cuda"), str(tmp_path))
    write_plan(job.layout.plan("000000"), source.plan(source.units()[0]))
    # What earlier tests left in torch's cache would be counted as this stage's.
    gc.collect()
    torch.cuda.empty_cache()
    stage = FitStage(job)
    whole, needed, _ = fitted(job, stage)
    assert whole.halvings == 0
    # Of a stage of its own: what the first recorded for the whole batch stays in memory.
    part = FitStage(job)
    part.halving.limit = SOME
    del stage
    gc.collect()
    _, _, held = fitted(job, part)
    stage = FitStage(job)
    del part
    gc.collect()
    # Less than the whole batch needs, however well its memory is packed; enough for a part of it.
    assert held < needed
    allowed = (held + needed) / 2
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.get_device_properties(0).total_memory)
    try:
        squeezed, _, _ = fitted(job, stage)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert squeezed.halvings > 0
    assert [row["status"] for row in squeezed.rows] == [row["status"] for row in whole.rows]
    for a, b in zip(squeezed.rows, whole.rows, strict=True):
        np.testing.assert_allclose(a["pose"], b["pose"], atol=1e-2)
