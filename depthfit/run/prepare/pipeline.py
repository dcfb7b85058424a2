"""``depthfit prepare``: its stages, one after another. Each network is loaded once and freed after."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path

from rich.progress import track

from baselines import REGRESSORS
from baselines.hmr.people import BOXES_FILE
from baselines.hmr.release import RegressorFiles, find_files
from depthfit.atomic import atomic_path
from depthfit.errors import InputError
from depthfit.evidence.files import read_bytes
from depthfit.run.config import RegressorConfig
from depthfit.run.predictions import PREDICTIONS, ExportConfig, KeypointSource, export_predictions
from depthfit.run.prepare.config import PrepareConfig
from depthfit.run.prepare.people import find_people
from depthfit.run.prepare.photos import copy_photo, list_photos
from depthfit.run.prepare.state import (
    DETECTED,
    KEYPOINTS_FILE,
    POINTED,
    Preparation,
    PrepareSummary,
    StageReport,
)
from depthfit.run.prepare.surfaces import DEPTH, MASKS, estimate_depths, segment_people

PREDICTED = "predictions"


def prepare_scene(images: str | Path, scene: str | Path, config: PrepareConfig) -> PrepareSummary:
    """Make a scene folder from a folder of photographs. What an earlier run finished is not done again.

    Photographs that cannot be used are reported and left out; the others finish.

    Raises:
        InputError: The folder, a setting or a model cannot be used.
    """
    config.validate()
    run = Preparation(Path(scene), config)
    if config.init in REGRESSORS and (config.overwrite or not (run.root / PREDICTIONS).is_file()):
        # It comes last: that its files are missing is better known before hours of other work.
        find_files(REGRESSORS[config.init], _regressor_files(config))
    if config.overwrite:
        _forget(run)
    _photographs(run, Path(images))
    find_people(run)
    estimate_depths(run)
    segment_people(run)
    if config.init in REGRESSORS:
        _predict(run)
    run.summary.keypoint_format = run.keypoint_format
    return run.summary


def _forget(run: Preparation) -> None:
    """Take away what an earlier run made, and nothing else."""
    records, root = run.records, run.root
    for stage, file in ((DETECTED, BOXES_FILE), (POINTED, KEYPOINTS_FILE)):
        if records.ours(stage):
            (root / file).unlink(missing_ok=True)
    if any(records.read(PREDICTED, name)["made"] for name in records.names(PREDICTED)):
        (root / PREDICTIONS).unlink(missing_ok=True)
    for stage, suffix in ((DEPTH, ".npz"), (MASKS, ".png")):
        made = [name for name in records.names(stage) if records.read(stage, name)["made"]]
        for name in made:
            (root / stage / f"{name}{suffix}").unlink(missing_ok=True)
    for stage in (DETECTED, POINTED, DEPTH, MASKS, PREDICTED):
        records.forget(stage)


def _photographs(run: Preparation, folder: Path) -> None:
    began = time.perf_counter()
    photos, others = list_photos(folder)
    run.summary.left_out.update(others)
    for name, path in track(photos.items(), description="Photographs"):
        with run.reporting(name):
            copy_photo(path, run.root / "images" / path.name, run.config.overwrite)
    run.summary.images = [name for name in photos if name not in run.summary.left_out]
    if not run.summary.images:
        first = next(iter(run.summary.left_out.values()))
        raise InputError(folder, "images", "not one of them can be used", f"The first: {first}")
    if run.config.cameras is not None:
        with atomic_path(run.root / "cameras.json") as temporary:
            temporary.write_bytes(read_bytes(Path(run.config.cameras)))
    count, seconds = len(run.summary.images), time.perf_counter() - began
    run.summary.stages.append(StageReport("photographs", str(folder), count, 0, seconds))


def _regressor_files(config: PrepareConfig) -> RegressorConfig:
    """The regressor's settings, with the models folder unless they name one of their own."""
    if config.regressor.folder != RegressorFiles.folder:
        return config.regressor
    return replace(config.regressor, folder=config.folder)


def _predict(run: Preparation) -> None:
    """predictions.npz by a regressor, for the whole scene at once."""
    config, path = run.config, run.root / PREDICTIONS
    files = _regressor_files(config)

    def work(todo: list[str]) -> None:
        theirs = path.is_file() and not any(run.records.has(PREDICTED, name) for name in run.names)
        if not theirs:
            settings = ExportConfig(
                **asdict(files),
                init=config.init,
                device=config.device,
                keypoints=KeypointSource(run.keypoint_format),
                overwrite=True,
            )
            result = export_predictions(run.root, settings)
            for name, reason in result.left_out.items():
                if run.summary.people.get(name):
                    run.note(name, f"no prediction: {reason}")
        for name in run.names:
            run.records.write(PREDICTED, name, {"made": not theirs})

    run.stage(PREDICTED, config.init, asdict(files) | {"device": None, "batch": None}, work)
