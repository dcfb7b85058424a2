"""A program of the tests: a chunk of people fitted by the stages of the engine, with and without a limit.

Writes the rows of both as npz. The limit is one of the address space, which the system enforces: allocations
beyond it fail in whatever library asks for them. Each fit is in a forked process of its own, as a process
that has fitted once keeps some of the memory.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from depthfit.pseudo.layout import write_plan
from depthfit.pseudo.records import Chunk, ChunkRef
from depthfit.pseudo.source_tars import TarSource
from depthfit.pseudo.stages import FitStage, Job, ReadStage
from tests.pseudo.conftest import settings

COPIES = 5
"""Of the images of a tar, in one chunk."""
ALL, SOME = 3 * COPIES, 4
"""Images of the chunk; as many as the limit has to leave room for."""
ROOM = 0.25
"""Of the way from what some images need to what all need. Freed memory of before can be used again, so that
less than all of it has to come from the system."""


def address_space(name: str) -> int:
    """Bytes of this process's address space: ``VmPeak`` or ``VmSize``."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


def in_a_fork(work: Callable[[], None]) -> None:
    """Run in a process of its own, which has to end well."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


def fitted(job: Job, stage: FitStage, images: int, target: Path, room: int | None = None) -> int:
    """Fit so many images with so much more memory; returns the bytes that it took at most."""

    def work() -> None:
        before = address_space("VmSize")
        if room is not None:
            resource.setrlimit(resource.RLIMIT_AS, (before + room, resource.RLIM_INFINITY))
        chunk = ReadStage(job)(Chunk(ChunkRef("000000", 0)))
        chunk.items = (chunk.items * COPIES)[:images]
        stage(chunk)
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        rows: dict[str, Any] = {k: [row[k] for row in chunk.rows] for k in ("status", "reason", "pose")}
        grown = address_space("VmPeak") - before
        np.savez(target, **rows, halvings=chunk.halvings, grown=grown)

    in_a_fork(work)
    return int(np.load(target)["grown"])


def main(tar: str, out: str) -> None:
    folder = Path(out)
    source = TarSource(tar, None, 100)
    job = Job(source, settings(), str(folder / "job"))
    write_plan(job.layout.plan("000000"), source.plan(source.units()[0]))
    stage = FitStage(job)
    # What is loaded at the first use is not to be counted, nor to fail.
    stage(ReadStage(job)(Chunk(ChunkRef("000000", 0))))
    some = fitted(job, stage, SOME, folder / "some.npz")
    whole = fitted(job, stage, ALL, folder / "whole.npz")
    room = int(some + ROOM * (whole - some))
    print(json.dumps({"some": some, "whole": whole, "room": room}))
    fitted(job, stage, ALL, folder / "squeezed.npz", room)


if __name__ == "__main__":
    main(*sys.argv[1:])
