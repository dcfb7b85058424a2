"""What an engine does, and the one that needs nothing: this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from depthfit.pseudo.perceive import PerceiveStage
from depthfit.pseudo.records import Chunk, ChunkRef
from depthfit.pseudo.stages import FitStage, GateStage, Job, ReadStage, WriteStage


class Engine(Protocol):
    """Runs work somewhere. Results come in any order; nothing that matters depends on which engine it is."""

    def each(self, function: Callable[[Job, Any], Any], job: Job, items: Iterable[Any]) -> Iterator[Any]:
        """Results of ``function(job, item)``, which is of some module's top level."""

    def stream(self, job: Job, chunks: list[ChunkRef]) -> Iterator[Chunk]:
        """Receipts of chunks that have passed all stages."""

    def state(self) -> str:
        """Chunks at work + chunks that wait, by stage, for the progress bar."""

    def submit(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Begin a call beside the stream; ``collect`` gives its result."""

    def collect(self, wait: bool) -> list[Any]:
        """Results of submitted calls that are there, or all if ``wait``."""

    def close(self) -> None:
        """Give back what the engine holds."""


class LocalEngine:
    """Everything in this process, one chunk after the other."""

    def __init__(self) -> None:
        self._done: list[Any] = []

    def each(self, function: Callable[[Job, Any], Any], job: Job, items: Iterable[Any]) -> Iterator[Any]:
        return (function(job, item) for item in items)

    def stream(self, job: Job, chunks: list[ChunkRef]) -> Iterator[Chunk]:
        perceive = [PerceiveStage] if job.config.perceive.depth != "none" else []
        kinds: list[Callable[[Job], Callable[[Chunk], Chunk]]]
        kinds = [ReadStage, *perceive, FitStage, GateStage, WriteStage]
        stages = [kind(job) for kind in kinds] if chunks else []
        for ref in chunks:
            chunk = Chunk(ref)
            for stage in stages:
                chunk = stage(chunk)
            yield chunk

    def state(self) -> str:
        return ""

    def submit(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._done.append(function(*arguments))

    def collect(self, wait: bool) -> list[Any]:
        done, self._done = self._done, []
        return done

    def close(self) -> None:
        self._done = []
