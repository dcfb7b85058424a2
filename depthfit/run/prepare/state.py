"""What the stages of ``depthfit prepare`` share: the scene, its records, and what is to be reported."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.progress import track

from depthfit.errors import InputError
from depthfit.evidence.scene import Scene, read_scene
from depthfit.perception.batches import free_memory, in_batches
from depthfit.run.device import choose_device, peak_memory, start_peak
from depthfit.run.prepare.config import PrepareConfig
from depthfit.run.prepare.folder import Found, Records

_log = logging.getLogger(__name__)
Result = TypeVar("Result")
Network = TypeVar("Network")
KEYPOINTS_FILE, KEYPOINTS_FOLDER = "keypoints.json", "keypoints"
DETECTED = "boxes"
POINTED = "keypoints"
"""Stages whose records hold the people: with boxes, and with their keypoints too."""


@dataclass(frozen=True)
class StageReport:
    """What a stage did.

    Attributes:
        stage: Its name; source: where its results come from, in words.
        done: Images done now; kept: found done.
        seconds: Of all, loading included.
        peak: Bytes of a GPU that torch held at most, or ``None`` on a CPU.
    """

    stage: str
    source: str
    done: int
    kept: int
    seconds: float
    peak: int | None = None


@dataclass
class PrepareSummary:
    """What a run did.

    Attributes:
        scene: The scene folder.
        images: Names of the images in it that were prepared.
        people: Number of people by image.
        left_out: Photographs, and files that are none, with the reason. A photograph that failed in a later
            stage is in the scene all the same.
        notes: What is missing of an image's evidence, and why.
        stages: In their order.
        keypoint_format: Of the scene's keypoint files, which a fit must be told; ``None`` where they tell.
    """

    scene: Path
    images: list[str] = field(default_factory=list)
    people: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    stages: list[StageReport] = field(default_factory=list)
    keypoint_format: str | None = None


class Preparation:
    """A run of ``depthfit prepare``.

    Raises:
        InputError: The device is not here.
    """

    def __init__(self, root: Path, config: PrepareConfig) -> None:
        self.root, self.config = root, config
        self.device: torch.device = choose_device(config.device)
        self.models = Path(config.folder)
        self.records = Records(root)
        self.summary = PrepareSummary(root)

    @property
    def names(self) -> list[str]:
        """Images that nothing was wrong with so far."""
        return [name for name in self.summary.images if name not in self.summary.left_out]

    def scene(self) -> Scene:
        """The scene as its files are now."""
        return read_scene(self.root, self.keypoint_format, with_predictions=False)

    @property
    def keypoint_format(self) -> str | None:
        """Of the scene's keypoint files; the file that prepare writes tells its own."""
        ours = (self.root / KEYPOINTS_FILE).is_file() and self.records.ours(POINTED)
        return None if ours else self.config.keypoints.format

    def found(self, name: str) -> Found:
        """The people of an image, as far as they are known."""
        stage = POINTED if self.records.has(POINTED, name) else DETECTED
        return Found.read(self.records.read(stage, name))

    @contextmanager
    def reporting(self, name: str) -> Iterator[None]:
        """An image that cannot be used is reported, and does not stop the others."""
        try:
            yield
        except InputError as error:
            _log.error("left out %s: %s", name, error)
            self.summary.left_out[name] = str(error)

    def note(self, name: str, text: str) -> None:
        """Say what an image lacks."""
        _log.warning("%s: %s", name, text)
        self.summary.notes.setdefault(name, []).append(text)

    def stage(
        self, name: str, source: str, settings: dict[str, Any], run: Callable[[list[str]], None]
    ) -> None:
        """Run a stage on the images that have no record of it; ``run`` writes the records."""
        self.records.begin(name, {"source": source, **settings})
        began = time.perf_counter()
        todo = [image for image in self.names if not self.records.has(name, image)]
        kept = len(self.names) - len(todo)
        peak = None
        if todo:
            start_peak(self.device)
            run(todo)
            peak = peak_memory(self.device)
            free_memory(self.device)
        done = sum(self.records.has(name, image) for image in todo)
        seconds = time.perf_counter() - began
        self.summary.stages.append(StageReport(name, source, done, kept, seconds, peak))

    def batches(
        self, todo: Sequence[str], compute: Callable[[list[str]], list[Result]], title: str
    ) -> Iterator[tuple[str, Result]]:
        """Results of images in batches, with a progress bar."""
        results = in_batches(todo, compute, self.device, self.config.batch)
        yield from track(results, description=title, total=len(todo))
