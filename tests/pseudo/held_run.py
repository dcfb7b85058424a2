"""A program of the tests: ``depthfit``, whose process stops itself once it has noted so many chunks.

What is to be done to a run at work is done while it stands still (SIGSTOP), so that it depends on no
machine's speed whether the run is still at work by then.
"""

from __future__ import annotations

import os
import signal
import sys

from depthfit.cli.main import main
from depthfit.pseudo.observe import Monitor
from depthfit.pseudo.records import Chunk


def hold_after(count: int) -> None:
    """Stop this process at the end of the call that notes the ``count``-th chunk."""
    note = Monitor.note
    noted = 0

    def held(monitor: Monitor, chunk: Chunk, state: str) -> None:
        nonlocal noted
        note(monitor, chunk, state)
        noted += 1
        if noted == count:
            os.kill(os.getpid(), signal.SIGSTOP)

    Monitor.note = held  # type: ignore[method-assign]


if __name__ == "__main__":
    hold_after(int(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
