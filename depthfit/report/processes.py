"""Overlays drawn by processes of their own, beside the fit."""

from __future__ import annotations

import os
import pickle
import queue
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from depthfit.errors import DepthfitError
from depthfit.report.drawing import OverlayJob

_ROOT = Path(__file__).parents[2]
_WAITING = 2
"""Pictures that wait for each process at most: each holds a depth map."""


class Drawers:
    """Processes that draw overlays, to be used as a context.

    They are programs of their own, not forks, which a GPU and threads would not bear, and they do not import
    the program that asks for them. Ctrl-C does not reach them: they end with the context.

    Args:
        processes: How many; 0 draws at once, in this process.
    """

    def __init__(self, processes: int) -> None:
        self._number = processes
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        self._all: list[subprocess.Popen[bytes]] = []
        self._pending: deque[Future[None]] = deque()
        self._pool = ThreadPoolExecutor(max(processes, 1))

    def __enter__(self) -> Drawers:
        path = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        # One thread each, also before they can say so; and no use of the GPU.
        alone = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        for _ in range(self._number):
            process = subprocess.Popen(
                [sys.executable, "-m", "depthfit.report.drawing"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, **alone},
                start_new_session=True,
            )
            self._all.append(process)
            self._idle.put(process)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            for process in self._all:
                process.terminate()
            self._pool.shutdown(cancel_futures=True)
            for process in self._all:
                process.communicate()

    def draw(self, job: OverlayJob, then: Callable[[], None]) -> None:
        """Draw, and then call ``then`` in a thread of this process. Waits where too much is to be drawn.

        Raises:
            Exception: What an earlier job or its ``then`` raised.
        """
        if not self._number:
            job.draw()
            then()
            return
        while len(self._pending) >= (1 + _WAITING) * self._number:
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(self._pass_on, job, then))

    def finish(self) -> None:
        """Wait for all that was asked for.

        Raises:
            Exception: What a job or its ``then`` raised.
        """
        while self._pending:
            self._pending.popleft().result()

    def _pass_on(self, job: OverlayJob, then: Callable[[], None]) -> None:
        process = self._idle.get()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            # Whole or not at all: of half a job the process would wait for the rest.
            process.stdin.write(pickle.dumps(job))
            process.stdin.flush()
            answer = pickle.load(process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            if isinstance(error, pickle.UnpicklingError):
                # It still runs, but its answers can no longer be told apart.
                process.kill()
            found = f"the process that drew it ended with status {process.wait()}"
            raise DepthfitError(f"{job.path}: {found}; what is finished is kept") from error
        finally:
            self._idle.put(process)
        if answer is not None:
            raised, where = answer
            raise raised from DepthfitError(f"in a process that draws:\n{where}")
        then()
