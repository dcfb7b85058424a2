"""Pools of Ray tasks and actors that chunks pass. What flows between them stays in Ray's object store."""

from __future__ import annotations

import logging
import pickle
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from depthfit.errors import DepthfitError
from depthfit.pseudo.config import PerceiveConfig, PseudoConfig
from depthfit.pseudo.records import Chunk, ChunkRef
from depthfit.pseudo.stages import GateStage, Job, ReadStage, WriteStage
from depthfit.run.halving import DeviceError

_log = logging.getLogger(__name__)
Stage = Callable[[Chunk], Chunk]
IN_FLIGHT = 2
"""Chunks that an actor is given at a time: the second is fetched while it works on the first."""
MOST_STARTS_IN_VAIN = 3


class Pool(Protocol):
    """Where chunks wait for a stage and pass it.

    Attributes:
        name: Of the stage; queue: (chunk, its contents) that wait; running: those at work, by what tells of
            their end.
    """

    name: str
    queue: deque[tuple[ChunkRef, Any]]
    running: dict[Any, tuple[ChunkRef, Any, Any]]

    def start(self) -> None:
        """Begin with as many as there is room for."""

    def finished(self) -> tuple[list[tuple[ChunkRef, Any]], list[ChunkRef]]:
        """Chunks that have passed, with their new contents, and chunks whose process died."""

    def watched(self) -> list[Any]:
        """References of which one that is there means that there is something to do."""

    def close(self) -> None:
        """End the processes."""


class Tasks:
    """A stage without a state, in whatever worker is free. It asks for no cores: it has to run also where
    the actors have them all. Never more are at work than the cluster has cores: Ray starts a process for
    each, which takes seconds of a core.

    Args:
        ray: The module.
        function: From a job and a pickled chunk to (a mark, the pickled chunk).
        job: Reference of the job.
    """

    def __init__(self, ray: Any, function: Callable[[Job, bytes], tuple[bool, bytes]], job: Any) -> None:
        self.ray, self.job, self.name = ray, job, function.__name__.partition("_")[0]
        self._task = ray.remote(num_cpus=0, num_returns=2, max_retries=-1)(function)
        self.queue: deque[tuple[ChunkRef, Any]] = deque()
        self.running: dict[Any, tuple[ChunkRef, Any, Any]] = {}

    def start(self) -> None:
        room = cores(self.ray) - len(self.running) if self.queue else 0
        for _ in range(min(room, len(self.queue))):
            chunk, contents = self.queue.popleft()
            mark, result = self._task.remote(self.job, contents)
            self.running[mark] = (chunk, result, None)

    def finished(self) -> tuple[list[tuple[ChunkRef, Any]], list[ChunkRef]]:
        passed, lost, _ = take(self.ray, self.running)
        return passed, lost

    def watched(self) -> list[Any]:
        return list(self.running)

    def close(self) -> None:
        self.queue.clear()


class Actors:
    """A stage that holds models, in processes of its own.

    Args:
        ray: The module.
        kind: The stage.
        job: Reference of the job.
        share: How many, and what each asks for.
    """

    def __init__(
        self, ray: Any, kind: Callable[[Job], Stage], job: Any, share: PseudoConfig | PerceiveConfig
    ) -> None:
        self.ray, self.kind, self.job, self.share = ray, kind, job, share
        self.name: str = kind.name  # type: ignore[attr-defined]
        self._class = ray.remote(
            num_cpus=share.cpus_per_worker, num_gpus=share.gpus_per_worker, max_restarts=0
        )(StageActor)
        self.queue: deque[tuple[ChunkRef, Any]] = deque()
        self.running: dict[Any, tuple[ChunkRef, Any, Any]] = {}
        self._coming: dict[Any, Any] = {}
        self._here: dict[Any, int] = {}
        self._in_vain = 0
        for _ in range(share.workers):
            self._spawn()

    @property
    def places(self) -> int:
        """Actors that are ready."""
        return len(self._here)

    def start(self) -> None:
        while self.queue and self._here:
            actor = min(self._here, key=lambda a: self._here[a])
            if self._here[actor] >= IN_FLIGHT:
                break
            chunk, contents = self.queue.popleft()
            mark, result = actor.run.options(num_returns=2).remote(contents)
            self.running[mark] = (chunk, result, actor)
            self._here[actor] += 1

    def finished(self) -> tuple[list[tuple[ChunkRef, Any]], list[ChunkRef]]:
        self._welcome()
        passed, lost, actors = take(self.ray, self.running)
        for actor, alive in actors:
            if alive and actor in self._here:
                self._here[actor] -= 1
            elif actor in self._here:
                _log.warning("a process of %s died; another one takes its place", self.name)
                self.ray.kill(actor)
                del self._here[actor]
                self._spawn()
        return passed, lost

    def watched(self) -> list[Any]:
        return [*self.running, *self._coming]

    def close(self) -> None:
        self.queue.clear()
        for actor in (*self._here, *self._coming.values()):
            self.ray.kill(actor)

    def _spawn(self) -> None:
        actor = self._class.remote(self.kind, self.job)
        self._coming[actor.ready.remote()] = actor

    def _welcome(self) -> None:
        """Take in the actors that have started."""
        if not self._coming:
            return
        there, _ = self.ray.wait(list(self._coming), num_returns=len(self._coming), timeout=0)
        for mark in there:
            actor = self._coming.pop(mark)
            try:
                self.ray.get(mark)
            except self.ray.exceptions.RayError as error:
                self._in_vain += 1
                if self._in_vain >= MOST_STARTS_IN_VAIN:
                    last = str(error).strip().splitlines()[-1]
                    raise DepthfitError(f"no process of {self.name} can start: {last}") from error
                self._spawn()
            else:
                self._in_vain = 0
                self._here[actor] = 0


class StageActor:
    """One process of a stage.

    Args:
        kind: The stage.
        job: What it is made from.
    """

    def __init__(self, kind: Callable[[Job], Stage], job: Job) -> None:
        self.stage = kind(job)

    def ready(self) -> bool:
        """The models are loaded."""
        return True

    def run(self, data: bytes) -> tuple[bool, bytes]:
        """Put a pickled chunk through the stage."""
        return True, through(data, self.stage)


def cores(ray: Any) -> int:
    """Of the cluster as it is now."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def read_chunk(job: Job, data: bytes) -> tuple[bool, bytes]:
    """The first stage."""
    return True, through(data, ReadStage(job))


def finish_chunk(job: Job, data: bytes) -> tuple[bool, bytes]:
    """The last two stages; what is left is a receipt."""
    return True, through(data, GateStage(job), WriteStage(job))


def through(data: bytes, *stages: Stage) -> bytes:
    """Put a pickled chunk through stages."""
    chunk: Chunk = pickle.loads(data)
    chunk.bytes_moved += len(data)
    for stage in stages:
        chunk = stage(chunk)
    return pickle.dumps(chunk)


def take(
    ray: Any, running: dict[Any, tuple[ChunkRef, Any, Any]]
) -> tuple[list[tuple[ChunkRef, Any]], list[ChunkRef], list[tuple[Any, bool]]]:
    """Take what has ended out of ``running``: what passed, what was lost, and (process, whether it lives).

    Raises:
        DepthfitError: A stage raised an error of its own, which no other process would be spared.
    """
    passed, lost, processes = [], [], []
    ended = list(running)
    if ended:
        ended, _ = ray.wait(ended, num_returns=len(ended), timeout=0, fetch_local=False)
    for mark in ended:
        chunk, result, process = running.pop(mark)
        try:
            ray.get(mark)
        except ray.exceptions.RayError as error:
            inner = getattr(error, "cause", None)
            raised = isinstance(error, ray.exceptions.RayTaskError)
            # An error of Ray inside one of a task: what it was given is lost, the process lives. One whose
            # device has failed does not live on.
            broken = isinstance(inner, DeviceError)
            if raised and not broken and not isinstance(inner, ray.exceptions.RayError):
                last = str(error).strip().splitlines()[-1]
                raise DepthfitError(f"{chunk.name}: {last}") from error
            _log.warning("%s is handed out again: %s", chunk.name, str(error).strip().splitlines()[0])
            lost.append(chunk)
            alive = (raised and not broken) or isinstance(error, ray.exceptions.ObjectLostError)
            processes.append((process, alive))
        else:
            passed.append((chunk, result))
            processes.append((process, True))
    return passed, lost, processes
