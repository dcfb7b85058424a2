"""Ray Data: the stages as a streaming dataset of chunks over a cluster.

A row is a chunk of images, pickled. It is the batch that is fitted together, formed across images, and the
same in every engine, so that labels do not depend on where they were made. Ray moves, queues and retries
chunks; that none is lost or doubled does not rest on Ray but on the files: a chunk's part is renamed into a
name that follows from the plan, so doing it twice leaves one, and not doing it leaves a gap that is seen.
"""

from __future__ import annotations

import logging
import math
import os
import pickle
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from depthfit.errors import DepthfitError, InputError
from depthfit.pseudo.config import PerceiveConfig, PseudoConfig
from depthfit.pseudo.perceive import PerceiveStage
from depthfit.pseudo.records import Chunk, ChunkRef
from depthfit.pseudo.stages import FitStage, GateStage, Job, ReadStage, WriteStage

if TYPE_CHECKING:
    import ray

Row = dict[str, bytes]
LIGHT_CPUS = 0.25
"""Share of a core that reading, gating, writing and putting together ask for."""
OWN_CPUS = 1.0
"""Cores, beside those of the workers, that a cluster of our own has for them."""


class RayEngine:
    """A Ray cluster: one that is joined, or one of this machine alone.

    Raises:
        InputError: Ray is not installed, or there is no cluster at ``address``.
    """

    def __init__(self, config: PseudoConfig) -> None:
        self.config = config
        # A run tells nobody that it runs.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        self.ray = _module()
        own = config.address is None
        cores = None
        if own:
            cores = config.workers * config.cpus_per_worker + OWN_CPUS
            if config.perceive.depth != "none":
                cores += config.perceive.workers * config.perceive.cpus_per_worker
        try:
            self.ray.init(
                address="local" if own else config.address,
                num_cpus=None if cores is None else math.ceil(cores),
                log_to_driver=False,
                logging_level=logging.ERROR,
                **({"include_dashboard": False} if own else {}),
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            fix = "Start one (`ray start --head`), or leave address out to use this machine alone."
            raise InputError("command line", "address", f"{config.address}: {error}", fix) from error
        context = self.ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        self._pending: list[Any] = []

    def each(self, function: Callable[[Job, Any], Any], job: Job, items: Iterable[Any]) -> Iterator[Any]:
        task = self.ray.remote(num_cpus=LIGHT_CPUS, max_retries=-1)(function)
        limit = max(2, int(self.ray.cluster_resources().get("CPU", 1) / LIGHT_CPUS))
        waiting: list[Any] = []
        for item in items:
            waiting.append(task.remote(job, item))
            if len(waiting) >= limit:
                done, waiting = self.ray.wait(waiting)
                yield from self.ray.get(done)
        yield from self.ray.get(waiting)

    def stream(self, job: Job, chunks: list[ChunkRef]) -> Iterator[Chunk]:
        if not chunks:
            return
        config = self.config
        rows = [{"chunk": pickle.dumps(Chunk(ref))} for ref in chunks]
        # One chunk a block: a block is what goes to a worker, and what is done again when one dies.
        data = self.ray.data.from_items(rows, override_num_blocks=len(rows))
        light = {"num_cpus": LIGHT_CPUS, "fn_args": (job,)}
        data = data.map(_read, **light)
        if config.perceive.depth != "none":
            data = data.map(_Perceive, **self._pool(job, config.perceive))
        data = data.map(_Fit, **self._pool(job, config))
        data = data.map(_gate_and_write, **light)
        try:
            for row in data.iter_rows():
                yield pickle.loads(row["chunk"])
        except self.ray.exceptions.RayError as error:
            fix = "What is finished is kept: run the same command again."
            raise DepthfitError(f"ray: {str(error).strip().splitlines()[-1]}. {fix}") from error

    def _pool(self, job: Job, share: PseudoConfig | PerceiveConfig) -> dict[str, Any]:
        """Arguments of a pool of actors. A joined cluster may have fewer places than are asked for."""
        return {
            "fn_constructor_args": (job,),
            "concurrency": share.workers if self.config.address is None else (1, share.workers),
            "num_cpus": share.cpus_per_worker,
            "num_gpus": share.gpus_per_worker,
        }

    def submit(self, function: Callable[..., Any], *arguments: Any) -> None:
        task = self.ray.remote(num_cpus=LIGHT_CPUS, max_retries=-1)(function)
        self._pending.append(task.remote(*arguments))

    def collect(self, wait: bool) -> list[Any]:
        if not self._pending:
            return []
        count, timeout = len(self._pending), None if wait else 0
        done, self._pending = self.ray.wait(self._pending, num_returns=count, timeout=timeout)
        return list(self.ray.get(done))

    def close(self) -> None:
        self.ray.shutdown()


def _read(row: Row, job: Job) -> Row:
    return _through(row, ReadStage(job))


class _Perceive:
    def __init__(self, job: Job) -> None:
        self.stage = PerceiveStage(job)

    def __call__(self, row: Row) -> Row:
        return _through(row, self.stage)


class _Fit:
    def __init__(self, job: Job) -> None:
        self.stage = FitStage(job)

    def __call__(self, row: Row) -> Row:
        return _through(row, self.stage)


def _gate_and_write(row: Row, job: Job) -> Row:
    return _through(row, GateStage(job), WriteStage(job))


def _through(row: Row, *stages: Callable[[Chunk], Chunk]) -> Row:
    chunk: Chunk = pickle.loads(row["chunk"])
    chunk.bytes_moved += len(row["chunk"])
    for stage in stages:
        chunk = stage(chunk)
    return {"chunk": pickle.dumps(chunk)}


def _module() -> ray:
    try:
        import ray
        import ray.data
    except ImportError as error:
        fix = 'Install it: pip install "depthfit[ray]".'
        raise InputError("engine", "ray", f"not installed ({error})", fix) from error
    return ray
