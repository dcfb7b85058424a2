"""Ray: the stages as pools of processes over a cluster, and a driver that hands out chunks.

Ray Data was tried first. When a node is lost and the others have no free place, what it had handed to the
node's actors waits for their restart, and the run stands still for good. Here an actor that is gone is gone:
its chunks are handed out anew, and a replacement takes part once it has found a place. A chunk is the batch
that is fitted together, formed across images, and the same in every engine, so that labels do not depend on
where they were made. That none is lost or doubled does not rest on Ray but on the files: a chunk's part is
renamed into a name that follows from the plan, so doing it twice leaves one, and not doing it leaves a gap.
"""

from __future__ import annotations

import logging
import math
import os
import pickle
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from depthfit.errors import DepthfitError, InputError
from depthfit.pseudo.config import PseudoConfig
from depthfit.pseudo.perceive import PerceiveStage
from depthfit.pseudo.ray_pools import Actors, Pool, Tasks, cores, finish_chunk, read_chunk
from depthfit.pseudo.records import Chunk, ChunkRef
from depthfit.pseudo.stages import FitStage, Job
from depthfit.run.device import cores_here

_log = logging.getLogger(__name__)
AHEAD = 3
"""Chunks on their way, for each process that fits: the others are not read yet (back-pressure)."""
MOST_TRIES = 5
"""A chunk that took so many processes with it is what kills them."""
PATIENCE = 60.0
"""s without any process that fits, before it is said."""


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
        wanted, actors = config.workers * config.cpus_per_worker, config.workers
        if config.perceive.depth != "none":
            wanted += config.perceive.workers * config.perceive.cpus_per_worker
            actors += config.perceive.workers
        # Else Ray ends the processes of light tasks after every second without one, as the actors have taken
        # their places, and each new one spends seconds on its imports.
        processes = {"num_workers_soft_limit": actors + cores_here()}
        try:
            self.ray.init(
                address="local" if own else config.address,
                num_cpus=max(math.ceil(wanted), cores_here()) if own else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
                **({"include_dashboard": False, "_system_config": processes} if own else {}),
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            fix = "Start one (`ray start --head`), or leave address out to use this machine alone."
            raise InputError("command line", "address", f"{config.address}: {error}", fix) from error
        self._pending: list[Any] = []
        self._pools: list[Pool] = []

    def each(self, function: Callable[[Job, Any], Any], job: Job, items: Iterable[Any]) -> Iterator[Any]:
        task = self.ray.remote(num_cpus=0, max_retries=-1)(function)
        waiting: list[Any] = []
        for item in items:
            waiting.append(task.remote(job, item))
            if len(waiting) >= cores(self.ray):
                done, waiting = self.ray.wait(waiting)
                yield from self._get(done)
        yield from self._get(waiting)

    def stream(self, job: Job, chunks: list[ChunkRef]) -> Iterator[Chunk]:
        if not chunks:
            return
        config, held = self.config, self.ray.put(job)
        fit = Actors(self.ray, FitStage, held, config)
        perceive = [Actors(self.ray, PerceiveStage, held, config.perceive)]
        self._pools = [
            Tasks(self.ray, read_chunk, held),
            *(perceive if config.perceive.depth != "none" else []),
            fit,
            Tasks(self.ray, finish_chunk, held),
        ]
        todo, tries, left, seen = deque(chunks), Counter[str](), len(chunks), time.monotonic()
        while left:
            on_their_way = sum(len(pool.queue) + len(pool.running) for pool in self._pools)
            while todo and on_their_way < AHEAD * max(fit.places, 1):
                chunk = todo.popleft()
                self._pools[0].queue.append((chunk, self.ray.put(pickle.dumps(Chunk(chunk)))))
                on_their_way += 1
            for pool in reversed(self._pools):
                pool.start()
            for n, pool in enumerate(self._pools):
                finished, lost = pool.finished()
                for chunk in lost:
                    tries[chunk.name] += 1
                    if tries[chunk.name] >= MOST_TRIES:
                        raise DepthfitError(f"{chunk.name}: {MOST_TRIES} processes died of this chunk")
                    todo.appendleft(chunk)
                if pool is not self._pools[-1]:
                    self._pools[n + 1].queue.extend(finished)
                    continue
                for _, receipt in finished:
                    left -= 1
                    yield pickle.loads(self._get([receipt])[0])
            seen = self._complain(fit, seen)
            self._wait()
        for pool in self._pools:
            pool.close()
        self._pools = []

    def state(self) -> str:
        return " ".join(f"{pool.name} {len(pool.running)}+{len(pool.queue)}" for pool in self._pools)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> None:
        task = self.ray.remote(num_cpus=0, max_retries=-1)(function)
        self._pending.append(task.remote(*arguments))

    def collect(self, wait: bool) -> list[Any]:
        if not self._pending:
            return []
        count, timeout = len(self._pending), None if wait else 0
        done, self._pending = self.ray.wait(self._pending, num_returns=count, timeout=timeout)
        return self._get(done)

    def close(self) -> None:
        self.ray.shutdown()

    def _wait(self) -> None:
        """Until something happens."""
        watched = [ref for pool in self._pools for ref in pool.watched()]
        if watched:
            self.ray.wait(watched, num_returns=1, timeout=1.0, fetch_local=False)

    def _complain(self, fit: Actors, seen: float) -> float:
        now = time.monotonic()
        if fit.places:
            return now
        if now - seen > PATIENCE:
            _log.warning("no process that fits for %.0f s: the cluster has no place for one", PATIENCE)
            return now
        return seen

    def _get(self, refs: list[Any]) -> list[Any]:
        try:
            return list(self.ray.get(refs))
        except self.ray.exceptions.RayError as error:
            raise cluster_error(error) from error


def cluster_error(error: Exception) -> DepthfitError:
    """What Ray says in a sentence."""
    last = str(error).strip().splitlines()[-1]
    return DepthfitError(f"ray: {last}. What is finished is kept: run the same command again.")


def _module() -> Any:
    try:
        import ray
    except ImportError as error:
        fix = 'Install it: pip install "depthfit[ray]".'
        raise InputError("engine", "ray", f"not installed ({error})", fix) from error
    return ray
