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
    """All people in one chunk, many times, and the most bytes that were in use and that torch held for it."""
    chunk = ReadStage(job)(Chunk(ChunkRef("000000", 0)))
    chunk.items *= COPIES
    used, held = _clean()
    torch.cuda.reset_peak_memory_stats()
    done = stage(chunk)
    return done, torch.cuda.max_memory_allocated() - used, torch.cuda.max_memory_reserved() - held


def _clean() -> tuple[int, int]:
    """Bytes in use and held once everything is let go that nobody has."""
    gc.collect()
    torch.cuda.empty_cache()
    return torch.cuda.memory_allocated(), torch.cuda.memory_reserved()


def test_a_gpu_out_of_memory_halves_the_batch(tars: Path, tmp_path: Path) -> None:
    source = TarSource(str(tars / "000000.tar"), None, 100)
    job = Job(source, settings("device=cuda"), str(tmp_path))
    write_plan(job.layout.plan("000000"), source.plan(source.units()[0]))
    whole, needed, _ = fitted(job, FitStage(job))
    assert whole.halvings == 0
    # Of a stage of its own: what the first recorded for the whole batch would stay in memory.
    part = FitStage(job)
    part.halving.limit = SOME
    _, _, held = fitted(job, part)
    del part
    stage = FitStage(job)
    _, left = _clean()
    # Less than the whole batch needs, however well its memory is packed; enough for a part of it.
    assert held < needed
    allowed = left + (held + needed) / 2
    torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.get_device_properties(0).total_memory)
    try:
        squeezed, _, _ = fitted(job, stage)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert squeezed.halvings > 0
    assert [row["status"] for row in squeezed.rows] == [row["status"] for row in whole.rows]
    for a, b in zip(squeezed.rows, whole.rows, strict=True):
        np.testing.assert_allclose(a["pose"], b["pose"], atol=1e-2)
