"""Fit every person of a scene folder, in batches, losing nothing that is done."""

from __future__ import annotations

import json
import logging
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from baselines import REGRESSORS, InitContext, initialiser
from depthfit import __version__
from depthfit.atomic import atomic_path
from depthfit.body.load import load_body
from depthfit.body.model import Body
from depthfit.errors import InputError
from depthfit.evidence.scene import ImageEvidence, read_scene
from depthfit.fit.adapter import Prediction, image_input
from depthfit.fit.fitter import Fitter
from depthfit.fit.result import PersonFit
from depthfit.fit.verdict import FitStatus
from depthfit.run.config import RunConfig
from depthfit.run.device import choose_device
from depthfit.run.output import person_row, read_rows, unfitted, write_rows
from depthfit.run.pictures import write_meshes, write_overlay
from depthfit.run.predictions import check_tokenizer, scene_with_predictions
from depthfit.tokens.load import load_tokenizer

_log = logging.getLogger(__name__)
NOT_SETTINGS = ("overwrite", "device", "batch", "output.dir", "regressor.batch")
"""Settings that change neither a person's numbers nor what is written of them."""


@dataclass(frozen=True)
class RunSummary:
    """What a run did.

    Attributes:
        rows: Rows of fits.npz, also those of an earlier run.
        skipped: Images that could not be used, with the reason.
        summary: What summary.json holds.
    """

    rows: list[dict[str, Any]]
    skipped: dict[str, str]
    summary: dict[str, Any]


@dataclass
class _Job:
    """An image on its way: its people split into those that can be fitted and those that cannot."""

    evidence: ImageEvidence
    predictions: list[Prediction]

    @property
    def fittable(self) -> list[Prediction]:
        return [p for p in self.predictions if _has_evidence(p)]


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
        self.scene = scene_with_predictions(scene, name, config) if name in REGRESSORS else scene
        if name != "keypoints":
            check_tokenizer(self.scene, config)
        self.config = replace(config, init=name, scene=str(Path(config.scene).resolve()))
        self.initialise = initialiser(name)
        device = choose_device(config.device)
        self.body: Body = load_body(config.models.body, config.models.gender)
        tokenizer = load_tokenizer(config.models.tokenizer)
        self.fitter = Fitter(self.body, tokenizer, config, device)
        self.context = InitContext(self.body, tokenizer, config, device, config.seed)
        self.skipped: dict[str, str] = {}
        _check_free(self.out, self.config)

    def run(self) -> RunSummary:
        names = list(self.scene.names)
        todo = [n for n in names if self.config.overwrite or not self._part(n).is_file()]
        self.out.mkdir(parents=True, exist_ok=True)
        if self.config.overwrite:
            self._clear(names)
        with atomic_path(self.out / "config.yaml") as temporary:
            temporary.write_text(OmegaConf.to_yaml(OmegaConf.structured(self.config)))
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("images"))
        with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn()) as progress:
            task = progress.add_task("Fitting", total=len(names), completed=len(names) - len(todo))
            batch: list[_Job] = []
            for name in todo:
                job = self._prepare(name)
                if job is None:
                    progress.advance(task)
                    continue
                batch.append(job)
                if sum(len(j.predictions) for j in batch) >= self.config.batch:
                    self._fit(batch)
                    progress.advance(task, len(batch))
                    batch = []
            if batch:
                self._fit(batch)
                progress.advance(task, len(batch))
        return self._finish(names)

    def _clear(self, names: list[str]) -> None:
        """Take old results away first: a run that is stopped must not leave them beside the new settings."""
        for path in (self.out / "fits.npz", self.out / "summary.json", *map(self._part, names)):
            path.unlink(missing_ok=True)

    def _part(self, name: str) -> Path:
        return self.out / "parts" / f"{name}.npz"

    def _prepare(self, name: str) -> _Job | None:
        try:
            evidence = self.scene.read(name)
            return _Job(evidence, self.initialise(evidence, self.context))
        except InputError as error:
            # One bad image must not stop the others: it is reported here and in summary.json.
            _log.error("left out %s: %s", name, error)
            self.skipped[name] = str(error)
            return None

    def _fit(self, jobs: list[_Job]) -> None:
        live = [job for job in jobs if job.fittable]
        inputs = [image_input(job.evidence, job.fittable, self.config) for job in live]
        results = self.fitter.fit(inputs) if inputs else []
        for job, result in zip(live, results, strict=True):
            self._write(job, result)
        for job in jobs:
            if not job.fittable:
                self._write(job, [])

    def _write(self, job: _Job, result: list[PersonFit]) -> None:
        fitted = iter(result)
        fits = []
        for prediction in job.predictions:
            if _has_evidence(prediction):
                fits.append(next(fitted))
            else:
                body = self.fitter.describe(prediction, job.evidence.size)
                fits.append(unfitted(body, FitStatus.NO_EVIDENCE))
        name = job.evidence.path.name
        rows = [person_row(name, p, f) for p, f in zip(job.predictions, fits, strict=True)]
        if self.config.output.vertices:
            for row, fit in zip(rows, fits, strict=True):
                row["vertices"] = self.fitter.vertices(fit.refined)
        if self.config.output.overlays and fits:
            write_overlay(self.out, job.evidence, self.fitter, job.predictions, fits)
        if self.config.output.mesh:
            write_meshes(self.out, job.evidence.name, self.fitter, job.predictions, fits)
        # Last, for this file is what says that the image is done.
        write_rows(self._part(job.evidence.name), rows, {})

    def _finish(self, names: list[str]) -> RunSummary:
        rows = [row for n in names if self._part(n).is_file() for row in read_rows(self._part(n))]
        rows.sort(key=lambda row: int(row["row"]))
        extra = {"faces": self.body.faces.numpy()} if self.config.output.vertices else {}
        write_rows(self.out / "fits.npz", rows, extra)
        summary = {
            "depthfit": __version__,
            "body": self.body.name,
            "tokenizer": self.config.models.tokenizer,
            "init": self.config.init,
            "images": len(names),
            "people": len(rows),
            "accepted": sum(bool(row["accepted"]) for row in rows),
            "status": dict(Counter(str(row["status"]) for row in rows)),
            "left_out": self.skipped,
            "matching_no_image": list(self.scene.strangers),
            "median": {
                key: _median(rows, key)
                for key in ("reprojection", "initial_reprojection", "depth_residual", "focal", "distance")
            },
        }
        with atomic_path(self.out / "summary.json") as temporary:
            temporary.write_text(json.dumps(summary, indent=2) + "\n")
        return RunSummary(rows, self.skipped, summary)


def _median(rows: list[dict[str, Any]], key: str) -> float | None:
    values = np.array([row[key] for row in rows], dtype=float)
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else None


def _check_free(out: Path, config: RunConfig) -> None:
    """Results of other settings are not mixed with these."""
    saved = out / "config.yaml"
    if config.overwrite or not saved.is_file():
        return
    before, now = _leaves(OmegaConf.load(saved)), _leaves(OmegaConf.structured(config))
    keys = sorted((before.keys() | now.keys()) - set(NOT_SETTINGS))
    differs = [key for key in keys if before.get(key) != now.get(key)]
    if differs:
        raise InputError(
            saved,
            ", ".join(differs),
            "the folder holds results of other settings",
            "Give another output.dir, or overwrite=true.",
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
