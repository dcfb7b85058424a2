"""Fit every person of a scene folder, in batches, losing nothing that is done."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from baselines import REGRESSORS, InitContext, foreign_betas, initialiser
from depthfit import __version__
from depthfit.atomic import atomic_path
from depthfit.body.load import load_body
from depthfit.body.model import Body
from depthfit.errors import InputError
from depthfit.evidence.cameras import CameraPrior
from depthfit.evidence.scene import ImageEvidence, read_scene
from depthfit.fit.adapter import Prediction, image_camera, image_input
from depthfit.fit.fitter import Fitter
from depthfit.fit.inputs import ImageInput
from depthfit.fit.result import PersonFit
from depthfit.report.processes import Drawers
from depthfit.run.ahead import batches_ahead
from depthfit.run.config import RunConfig, load_yaml
from depthfit.run.device import choose_device, cores_here
from depthfit.run.halving import HalvingFitter
from depthfit.run.output import (
    EVIDENCE,
    UNUSED,
    VERSION,
    evidence_of,
    fit_of_row,
    person_row,
    read_rows,
    rows_at,
    unused_detections,
    versions_of,
    write_rows,
)
from depthfit.run.pictures import meshes_of, overlay_job, overlay_path, write_meshes
from depthfit.run.predictions import PREDICTIONS, check_tokenizer, scene_with_predictions
from depthfit.run.summary import RunSummary, figures
from depthfit.run.unfitted import without_evidence
from depthfit.tokens.load import load_tokenizer

_log = logging.getLogger(__name__)
BATCH_ON_CPU, BATCH_ON_GPU = 16, 256
"""People fitted together where nobody says how many."""
PIXELS_A_PERSON = 1 << 22
"""An image takes the place of one person for each so many pixels at least: its maps, some ten bytes a pixel,
are held from when it is read until it is fitted."""
MOST_READERS = 8
MOST_DRAWERS = 16
"""Processes, of half a GiB each."""
NOT_SETTINGS = ("overwrite", "device", "batch", "output.dir", "regressor.batch")
"""Settings that change neither a person's numbers nor what is written of them."""
OTHER_RESULTS = "Give another output.dir, or overwrite=true."


@dataclass
class _Job:
    """An image on its way: its people, its camera before a fit, and what a fit takes, if there is anybody."""

    evidence: ImageEvidence
    predictions: list[Prediction]
    camera: CameraPrior | None
    input: ImageInput | None


@dataclass
class _LeftOut:
    """An image that cannot be used, and why."""

    name: str
    reason: str


_Read = _Job | ImageEvidence | _LeftOut


def _has_evidence(prediction: Prediction) -> bool:
    return prediction.detection is not None and bool(prediction.detection.found.any())


def fit_scene(config: RunConfig) -> RunSummary:
    """Fit the scene folder ``config.scene`` and write ``config.output.dir``.

    Images that cannot be read are reported and left out; the others finish.

    Raises:
        InputError: The scene as a whole, a model file or a setting cannot be used.
    """
    if config.scene is None:
        raise InputError("command line", "scene", "not given", "Name a scene folder: scene=FOLDER.")
    run = _SceneRun(config)
    return run.run()


class _SceneRun:
    def __init__(self, config: RunConfig) -> None:
        self.out = Path(config.output.dir)
        assert config.scene is not None
        scene = read_scene(config.scene, config.keypoints.format)
        name = config.init or ("keypoints" if scene.predictions is None else "predictions")
        if name == "keypoints" and scene.keypoint_format is None:
            fix = "Add keypoints or predictions.npz, or have them made: depthfit prepare IMAGES SCENE."
            raise InputError(config.scene, "keypoints", "none, and no predictions to start from", fix)
        self.scene = scene_with_predictions(scene, name, config) if name in REGRESSORS else scene
        if name != "keypoints":
            check_tokenizer(self.scene, config)
        self.config = replace(config, init=name, scene=str(Path(config.scene).resolve()))
        self.initialise = initialiser(name)
        self.device = device = choose_device(config.device)
        self.batch = batch_size(config.batch, device)
        self.body: Body = load_body(config.models.body, config.models.gender)
        tokenizer = load_tokenizer(config.models.tokenizer)
        self.fitter = Fitter(self.body, tokenizer, config, device)
        self.fit: HalvingFitter[ImageInput, list[PersonFit]]
        self.fit = HalvingFitter(self.fitter.fit, isolate=False)
        self.context = InitContext(self.body, tokenizer, config, device, config.seed)
        self.skipped: dict[str, str] = {}
        self.marks: dict[str, str] = {}
        """Fingerprints from before images were read: of what changes meanwhile the next run knows."""
        used = None if name == "keypoints" else self.scene.predictions
        self.foreign = None if used is None else foreign_betas(used.regressor, self.body)
        if self.foreign is not None:
            _log.warning("%s: %s", PREDICTIONS, self.foreign)
        _check_free(self.out, self.config)
        self.stale = [] if config.overwrite else [n for n in self.scene.names if self._is_stale(n)]
        self.version = self._only_version()

    def run(self) -> RunSummary:
        names = list(self.scene.names)
        for name in self.stale:
            _log.warning("%s: its evidence changed since it was fitted; it is fitted again", name)
        self._discard(set(self.stale))
        todo = [n for n in names if self.config.overwrite or not self._part(n).is_file()]
        undrawn = [n for n in names if n not in set(todo) and self._lacks_overlay(n)]
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(self.out, "output.dir", f"cannot be made ({error})", "Give a folder.") from error
        if self.config.overwrite:
            self._clear(names)
        with atomic_path(self.out / "config.yaml") as temporary:
            temporary.write_text(OmegaConf.to_yaml(OmegaConf.structured(self.config)))
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("images"))
        readers = min(cores_here(), MOST_READERS) if self.scene.in_any_order else 1
        batches = batches_ahead(todo, self._read, _places, self.batch, readers)
        with (
            Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn()) as progress,
            Drawers(self._drawers(len(todo) + len(undrawn))) as drawers,
            closing(batches),
        ):
            done = len(names) - len(todo) - len(undrawn)
            task = progress.add_task("Fitting", total=len(names), completed=done)
            for name in undrawn:
                self._draw_again(name, drawers, lambda: progress.advance(task))
            for batch in batches:
                jobs = self._started(batch)
                self._fit(jobs, drawers, lambda: progress.advance(task))
                if self.device.type == "cpu":
                    # The next fit wants the cores that they draw with.
                    drawers.finish()
                progress.advance(task, len(batch) - len(jobs))
        return self._finish(names)

    def _only_version(self) -> str:
        """The version of depthfit that all results of the folder are of, once the run is done.

        Results that are whole stay those of the version that made them; they are not added to by another.
        """
        parts = [self._part(name) for name in self.scene.names]
        fitted_again = set(map(self._part, self.stale))
        done = [part for part in parts if part.is_file() and part not in fitted_again]
        done = [] if self.config.overwrite else done
        versions = set().union(*map(versions_of, done))
        if done != parts or not versions:
            versions.add(__version__)
        if len(versions) > 1:
            found = f"results of several versions of depthfit: {', '.join(sorted(versions))}"
            raise InputError(self.out / "parts", VERSION, found, OTHER_RESULTS)
        return versions.pop()

    def _drawers(self, images: int) -> int:
        """Processes that draw: a core each, but for two that serve a GPU, and worth their start; or none."""
        free = cores_here() - (2 if self.device.type == "cuda" else 0)
        number = min(free, images // 2, MOST_DRAWERS) if self.config.output.overlays else 0
        return number if number > 1 else 0

    def _clear(self, names: list[str]) -> None:
        """Take old results away first, also of images that are not in the scene now: a run that is stopped,
        or an image that comes back, must not leave them beside the new settings."""
        for path in (self.out / "fits.npz", self.out / "summary.json"):
            path.unlink(missing_ok=True)
        self._discard({*names, *(part.stem for part in (self.out / "parts").glob("*.npz"))})

    def _discard(self, names: set[str]) -> None:
        """Take the results of images away. A picture that stayed would pass for one of the next results."""
        for name in names:
            self._part(name).unlink(missing_ok=True)
            overlay_path(self.out, name).unlink(missing_ok=True)
        for mesh in meshes_of(self.out, names):
            mesh.unlink()

    def _part(self, name: str) -> Path:
        return self.out / "parts" / f"{name}.npz"

    def _is_stale(self, name: str) -> bool:
        """Whether an image's results were made from other evidence than the scene holds."""
        part = self._part(name)
        return part.is_file() and evidence_of(part) != self.scene.fingerprint(name)

    def _lacks_overlay(self, name: str) -> bool:
        """Whether a run was stopped between an image's results and its picture."""
        path = overlay_path(self.out, name)
        return self.config.output.overlays and not path.is_file() and bool(read_rows(self._part(name)))

    def _draw_again(self, name: str, drawers: Drawers, advance: Callable[[], None]) -> None:
        """Draw what an image's results show."""
        rows = {int(row["person"]): row for row in read_rows(self._part(name))}
        for job in self._started([self._read(name)]):
            if rows.keys() != {p.person for p in job.predictions}:
                found = "people whom the scene no longer has, or not all of them"
                raise InputError(self._part(name), "person", found, "Use overwrite=true.")
            fits = [fit_of_row(rows[p.person]) for p in job.predictions]
            self._draw(job, fits, drawers, advance)

    def _read(self, name: str) -> _Read:
        """What one image holds; in a thread beside the fit."""
        try:
            self.marks[name] = self.scene.fingerprint(name)
            evidence = self.scene.read(name)
            if self.config.init == "keypoints":
                # To start from them is a fit itself, which is not begun beside another.
                return evidence
            return self._job(evidence, self.initialise(evidence, self.context))
        except InputError as error:
            return _LeftOut(name, str(error))

    def _job(self, evidence: ImageEvidence, predictions: list[Prediction]) -> _Job:
        fittable = [p for p in predictions if _has_evidence(p)]
        camera = image_camera(evidence, self.config) if predictions else None
        given = image_input(evidence, fittable, self.config) if fittable else None
        return _Job(evidence, predictions, camera, given)

    def _started(self, batch: list[_Read]) -> list[_Job]:
        """The images of a batch that can be used."""
        jobs = []
        for found in batch:
            if isinstance(found, _Job):
                jobs.append(found)
            elif isinstance(found, _LeftOut):
                self._leave_out(found.name, found.reason)
            else:
                try:
                    jobs.append(self._job(found, self.initialise(found, self.context)))
                except InputError as error:
                    self._leave_out(found.name, str(error))
        return jobs

    def _leave_out(self, name: str, reason: str) -> None:
        """One bad image must not stop the others: it is reported here and in summary.json."""
        _log.error("left out %s: %s", name, reason)
        self.skipped[name] = reason

    def _fit(self, jobs: list[_Job], drawers: Drawers, advance: Callable[[], None]) -> None:
        results = iter(self.fit([job.input for job in jobs if job.input is not None]))
        fitted: list[tuple[_Job, list[PersonFit]]] = []
        for job in jobs:
            result = next(results) if job.input is not None else []
            if isinstance(result, str):
                found = f"no memory to fit its {len(job.predictions)} people, even alone"
                fix = "Use a device with more, or a smaller solver.grid and depth.samples."
                self._leave_out(job.evidence.name, str(InputError(job.evidence.path, "people", found, fix)))
                advance()
            else:
                fitted.append((job, self._write(job, result)))
        # Pictures come when all results are written: who stops the run loses none, and the next run draws
        # what is missing.
        for job, fits in fitted:
            self._draw(job, fits, drawers, advance)

    def _write(self, job: _Job, result: list[PersonFit]) -> list[PersonFit]:
        """Write an image's results; returns them, also of those who were not fitted."""
        fitted = iter(result)
        fits = []
        for prediction in job.predictions:
            if _has_evidence(prediction):
                fits.append(next(fitted))
            else:
                assert job.camera is not None
                size = job.evidence.size
                fits.append(without_evidence(self.fitter, prediction, size, job.camera, result))
        name = job.evidence.path.name
        rows = [person_row(name, p, f) for p, f in zip(job.predictions, fits, strict=True)]
        if self.config.output.vertices:
            for row, fit in zip(rows, fits, strict=True):
                row["vertices"] = self.fitter.vertices(fit.refined)
        if self.config.output.mesh:
            write_meshes(self.out, job.evidence.name, self.fitter, job.predictions, fits)
        # Last, for this file is what says that the image is fitted.
        known = sum(p.detection is not None for p in job.predictions)
        about = {
            EVIDENCE: self.marks[job.evidence.name],
            UNUSED: len(job.evidence.people) - known,
        }
        write_rows(self._part(job.evidence.name), rows, {k: np.array(v) for k, v in about.items()})
        return fits

    def _draw(self, job: _Job, fits: list[PersonFit], drawers: Drawers, advance: Callable[[], None]) -> None:
        if self.config.output.overlays and fits:
            drawers.draw(overlay_job(self.out, job.evidence, self.fitter, job.predictions, fits), advance)
        else:
            advance()

    def _rows_of(self, name: str) -> list[dict[str, Any]]:
        rows = read_rows(self._part(name))
        if self.config.init == "keypoints" or self.scene.predictions is None:
            return rows
        places = self.scene.rows_of(name)
        return rows_at(rows, self.scene.predictions.person[places], places)

    def _finish(self, names: list[str]) -> RunSummary:
        parts = {name: self._part(name) for name in names if self._part(name).is_file()}
        by_image = {name: self._rows_of(name) for name in parts}
        rows = sorted((row for own in by_image.values() for row in own), key=lambda row: int(row["row"]))
        extra = {"faces": self.body.faces.numpy()} if self.config.output.vertices else {}
        write_rows(self.out / "fits.npz", rows, extra)
        unused = {name: unused_detections(part) for name, part in parts.items()}
        summary = {
            "depthfit": self.version,
            "body": self.body.name,
            "tokenizer": self.config.models.tokenizer,
            "init": self.config.init,
            "betas_left_out": self.foreign,
            "images": len(names),
            **figures(rows),
            "left_out": self.skipped,
            "matching_no_image": list(self.scene.strangers),
            "images_without_people": [name for name, own in by_image.items() if not own],
            "detections_not_fitted": {name: count for name, count in unused.items() if count},
        }
        with atomic_path(self.out / "summary.json") as temporary:
            temporary.write_text(json.dumps(summary, indent=2) + "\n")
        return RunSummary(rows, self.skipped, summary)


def _places(found: _Read) -> int:
    """How many of a batch's people an image takes the place of."""
    if isinstance(found, _LeftOut):
        return 0
    evidence = found if isinstance(found, ImageEvidence) else found.evidence
    people = len(found.people if isinstance(found, ImageEvidence) else found.predictions)
    return max(1, people, math.prod(evidence.size) // PIXELS_A_PERSON)


def batch_size(wanted: int | None, device: torch.device) -> int:
    """People fitted together: ``wanted``, or what suits the device.

    Raises:
        InputError: It is no number of people.
    """
    if wanted is not None and wanted < 1:
        raise InputError("command line", "batch", str(wanted), "Use a whole number above zero, or null.")
    return wanted or (BATCH_ON_GPU if device.type == "cuda" else BATCH_ON_CPU)


def _check_free(out: Path, config: RunConfig) -> None:
    """Results of other settings are not mixed with these."""
    saved = out / "config.yaml"
    if config.overwrite or not saved.is_file():
        return
    before, now = _leaves(load_yaml(str(saved))), _leaves(OmegaConf.structured(config))
    keys = sorted((before.keys() | now.keys()) - set(NOT_SETTINGS))
    differs = [key for key in keys if before.get(key) != now.get(key)]
    if differs:
        raise InputError(
            saved,
            ", ".join(differs),
            "the folder holds results of other settings",
            OTHER_RESULTS,
        )


def _leaves(node: Any, prefix: str = "") -> dict[str, Any]:
    """Settings by their dotted names."""
    if not OmegaConf.is_dict(node):
        return {prefix: OmegaConf.to_container(node) if OmegaConf.is_list(node) else node}
    return {
        name: value
        for key in node
        for name, value in _leaves(node[key], f"{prefix}.{key}" if prefix else str(key)).items()
    }
