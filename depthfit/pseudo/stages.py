"""The stages that a chunk passes, the same in every engine: read, (perceive,) fit, gate, write.

A stage is made once a process from a :class:`Job` and then called with chunks. What fails of one person or
one image becomes a reason in that person's row; what fails of the storage stops the run.
"""

from __future__ import annotations

import logging
import os
import resource
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baselines import InitContext
from depthfit.body.load import load_body
from depthfit.body.points import landmark_table
from depthfit.errors import InputError
from depthfit.evidence.scene import ImageEvidence
from depthfit.fit.adapter import Prediction, image_camera, image_input
from depthfit.fit.fitter import Fitter
from depthfit.fit.inputs import ImageInput
from depthfit.fit.result import PersonFit
from depthfit.pseudo.config import PseudoConfig
from depthfit.pseudo.gate import decide
from depthfit.pseudo.layout import Layout, cached_plan
from depthfit.pseudo.outcome import failed_row, fitted_row, is_finite
from depthfit.pseudo.part import write_part
from depthfit.pseudo.records import DROPPED, FAILED, REFINED, Chunk, Item
from depthfit.pseudo.source import Source, reason
from depthfit.pseudo.start import Start, starts
from depthfit.run.device import choose_device
from depthfit.run.halving import HalvingFitter, check_device
from depthfit.tokens.load import load_tokenizer

_log = logging.getLogger(__name__)
LiveImage = tuple[ImageEvidence, list[Prediction]]
Fitted = tuple[ImageInput, list[PersonFit]]


@dataclass(frozen=True)
class Job:
    """What every stage is made from; picklable.

    Attributes:
        source: The dataset.
        config: The settings.
        out: The output folder.
    """

    source: Source
    config: PseudoConfig
    out: str

    @property
    def layout(self) -> Layout:
        return Layout(Path(self.out))


NATURAL_TARGET = {"tars": "tars", "coco": "coco", "npz": "npz", "scene": "npz"}


def target_kind(source: Source, config: PseudoConfig) -> str:
    """What a run writes.

    Raises:
        InputError: The source has no such form.
    """
    kind = NATURAL_TARGET[source.kind] if config.target == "auto" else config.target
    if kind in ("tars", "coco") and source.kind != kind:
        fix = "Tars and COCO files are rewritten, so the source has to be one. Use target=npz."
        raise InputError("command line", "target", f"{kind} from a source of {source.kind}", fix)
    return kind


class ReadStage:
    """Labels and evidence of a chunk's images."""

    name = "read"

    def __init__(self, job: Job) -> None:
        self.job = job

    def __call__(self, chunk: Chunk) -> Chunk:
        return timed(self.name, self._read, chunk)

    def _read(self, chunk: Chunk) -> None:
        plan = cached_plan(self.job.layout.plan(chunk.ref.unit))
        try:
            chunk.items, chunk.bytes_in = self.job.source.read(plan, chunk.ref.index)
        except OSError as error:
            # The source's disk, or a full temporary folder: no fault of a person, so the run stops.
            chunk.storage_error = f"{error.filename or plan.unit.path}: {error.strerror or error}"


class FitStage:
    """Rows of a chunk's people; holds the models."""

    name = "fit"

    def __init__(self, job: Job) -> None:
        self.config = job.config
        device = choose_device(self.config.device)
        body = load_body(self.config.models.body, self.config.models.gender)
        tokenizer = load_tokenizer(self.config.models.tokenizer)
        self.fitter = Fitter(body, tokenizer, self.config.fit, device)
        self.context = InitContext(body, tokenizer, self.config.fit, device, self.config.seed)
        self.table = landmark_table(body)
        self.halving: HalvingFitter[LiveImage, Fitted] = HalvingFitter(self._fit_images)

    def __call__(self, chunk: Chunk) -> Chunk:
        return timed(self.name, self._fit, chunk)

    def _fit(self, chunk: Chunk) -> None:
        begun = [self._starts(item) for item in chunk.items]
        live: dict[int, LiveImage] = {}
        for n, (item, found) in enumerate(zip(chunk.items, begun, strict=True)):
            people = [p for p in found if isinstance(p, Prediction)]
            if item.evidence is not None and people:
                live[n] = (item.evidence, people)
        results = dict(zip(live, self.halving(list(live.values())), strict=True))
        for n, (item, found) in enumerate(zip(chunk.items, begun, strict=True)):
            chunk.rows += self._rows(item, found, results.get(n, ""))
        chunk.memory = peak_memory()
        chunk.halvings = self.halving.halvings

    def _starts(self, item: Item) -> list[Start]:
        try:
            if item.evidence is not None:
                image_camera(item.evidence, self.config.fit)
        except InputError as error:
            unusable = reason("evidence_unusable", error)
            return [subject.failure or unusable for subject in item.subjects]
        try:
            return starts(item, self.context, self.table, self.config.init)
        # As in a fit: whatever one image makes it raise, the others must finish.
        except Exception as error:
            check_device(error)
            _log.warning("%s: no start: %s", item.key, error, exc_info=True)
            return [f"start_error: {type(error).__name__}: {error}"] * len(item.subjects)

    def _fit_images(self, images: list[LiveImage]) -> list[Fitted]:
        inputs = [image_input(evidence, people, self.config.fit) for evidence, people in images]
        return list(zip(inputs, self.fitter.fit(inputs), strict=True))

    def _rows(self, item: Item, found: list[Start], result: Fitted | str) -> list[dict[str, Any]]:
        rows, done = [], 0
        for subject, start in zip(item.subjects, found, strict=True):
            if isinstance(start, str) or isinstance(result, str):
                why = start if isinstance(start, str) else str(result)
                rows.append(failed_row(item, subject.person, why))
                continue
            image, fits = result
            fit = fits[done]
            pelvis = self.fitter.body.joint_template[0] + (
                self.fitter.body.joint_shapedirs[0]
                @ self.fitter.body.v_template.new_tensor(fit.refined.betas)
            )
            given = (image, image.people[done])
            row = fitted_row(item, start, given, fit, pelvis.cpu().numpy(), self.config.fit)
            rows.append(
                row if is_finite(row) else failed_row(item, subject.person, f"fit_not_finite: {fit.status}")
            )
            done += 1
        return rows


class GateStage:
    """Each person's outcome."""

    name = "gate"

    def __init__(self, job: Job) -> None:
        self.config = job.config
        # A file that is made anew holds refined people only: a label file has no place for a lacking camera.
        self.anew = target_kind(job.source, job.config) != job.source.kind

    def __call__(self, chunk: Chunk) -> Chunk:
        return timed(self.name, self._gate, chunk)

    def _gate(self, chunk: Chunk) -> None:
        people = iter(chunk.rows)
        for item in chunk.items:
            for subject in item.subjects:
                row = next(people)
                if row["outcome"] != FAILED:
                    row["outcome"], reasons = decide(row, self.config.gate, self.config.policy)
                    row["reason"] = "; ".join(reasons)
                    kept = row["outcome"] == REFINED if self.anew else row["outcome"] != DROPPED
                    row["written"] = kept and item.readable
                else:
                    kept = self.config.policy.failed == "original" and not self.anew
                    row["written"] = kept and item.readable and subject.finite


class WriteStage:
    """The chunk's part on disk; what goes on is a receipt."""

    name = "write"

    def __init__(self, job: Job) -> None:
        self.layout = job.layout

    def __call__(self, chunk: Chunk) -> Chunk:
        return timed(self.name, self._write, chunk).receipt()

    def _write(self, chunk: Chunk) -> None:
        try:
            chunk.bytes_out = write_part(self.layout.part(chunk.ref), chunk.rows)
        except OSError as error:
            # A full or read-only disk is no fault of a person: the run stops, and can go on later.
            chunk.storage_error = f"{self.layout.part(chunk.ref)}: {error.strerror or error}"


STAGE_NAMES = ("read", "perceive", "fit", "gate", "write")
"""In order; a run that estimates nothing from images does without ``perceive``."""


def timed(name: str, work: Callable[[Chunk], None], chunk: Chunk) -> Chunk:
    """Do a stage's work, if nothing stopped the chunk before, and note when and where."""
    began = time.time()
    if not chunk.storage_error:
        work(chunk)
    chunk.times[name] = (began, time.time(), f"{socket.gethostname()}:{os.getpid()}")
    return chunk


def peak_memory() -> int:
    """Most bytes that this process has had in memory."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts bytes, Linux kB.
    return peak if sys.platform == "darwin" else peak * 1024
