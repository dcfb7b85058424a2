"""Have a regressor predict the people of a scene folder, and keep what it says as predictions.npz."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from rich.progress import track

from baselines import REGRESSORS
from baselines.hmr.crop import crop_person
from baselines.hmr.people import BOXES_FILE, people_of, read_boxes
from baselines.hmr.predict import Person, PredictionTable, batched
from baselines.hmr.regressor import Regressor
from baselines.hmr.release import TOKENIZER, Release, find_files, load_regressor
from depthfit.atomic import atomic_path
from depthfit.errors import InputError
from depthfit.evidence.files import suggest
from depthfit.evidence.predictions import write_predictions
from depthfit.evidence.scene import Scene, read_scene
from depthfit.run.config import RegressorConfig, RunConfig
from depthfit.run.device import choose_device
from depthfit.tokens.load import OPEN

_log = logging.getLogger(__name__)
PREDICTIONS = "predictions.npz"


@dataclass
class KeypointSource:
    """The scene's keypoint files.

    Attributes:
        format: Of the points: coco17, body25 or body25b. OpenPose's files need it.
    """

    format: str | None = None


@dataclass
class ExportConfig(RegressorConfig):
    """Settings of ``depthfit predictions export``.

    Attributes:
        init: The regressor: tokenhmr or hmr2.
        output: File to write; ``null`` is predictions.npz in the scene.
        device: ``auto``, ``cpu`` or ``cuda``.
        overwrite: Replace a predictions.npz that is there.
    """

    init: str = "tokenhmr"
    output: str | None = None
    keypoints: KeypointSource = field(default_factory=KeypointSource)
    device: str = "auto"
    overwrite: bool = False


@dataclass
class ExportSummary:
    """What an export did: the file, its rows, and why images are not in it."""

    path: Path
    people: int = 0
    images: int = 0
    left_out: dict[str, str] = field(default_factory=dict)


def release_named(name: str) -> Release:
    """The regressor of that name.

    Raises:
        InputError: There is none.
    """
    if name not in REGRESSORS:
        raise InputError("command line", "init", repr(name), f"Regressors are {', '.join(REGRESSORS)}.")
    return REGRESSORS[name]


def scene_with_predictions(scene: Scene, name: str, config: RunConfig) -> Scene:
    """The scene with a regressor's predictions, which are made and kept in it where it has none.

    Raises:
        InputError: The scene has the predictions of another program, or they cannot be made.
    """
    if scene.predictions is None:
        settings = vars(config.regressor)
        keypoints = KeypointSource(config.keypoints.format)
        export_predictions(
            scene.root, ExportConfig(**settings, init=name, keypoints=keypoints, device=config.device)
        )
        return read_scene(scene.root, config.keypoints.format)
    if scene.predictions.regressor != name:
        found = f"made by {scene.predictions.regressor or 'another program'}, not by {name}"
        fix = f"Use init=predictions, or take the file away to have {name} write it."
        raise InputError(scene.root / PREDICTIONS, "regressor", found, fix)
    return scene


def check_tokenizer(scene: Scene, config: RunConfig) -> None:
    """Token probabilities are worth nothing beside other codes than those that they are of.

    Raises:
        InputError: A fit in token space would read TokenHMR's with the open tokenizer.
    """
    release = REGRESSORS.get(scene.predictions.regressor or "") if scene.predictions is not None else None
    if release is None or not release.tokens or config.pose.space != "tokens":
        return
    if config.models.tokenizer == OPEN:
        found = f"{OPEN}, but {PREDICTIONS} has the probabilities of {release.title}'s own tokens"
        fix = f"Give {release.title}'s file, models.tokenizer={TOKENIZER}, or use pose.space=rotations."
        raise InputError("command line", "models.tokenizer", found, fix)


def export_predictions(root: str | Path, config: ExportConfig) -> ExportSummary:
    """Predict everybody in a scene folder: by boxes.json, else by its masks, else by its keypoints.

    The model is loaded once, and freed at the end. Images that cannot be read are reported and left out.

    Raises:
        InputError: A setting, the scene or a model file cannot be used, or there is nobody to predict.
    """
    root = Path(root)
    release, device = release_named(config.init), choose_device(config.device)
    summary = ExportSummary(Path(config.output) if config.output else root / PREDICTIONS)
    if config.batch < 1:
        raise InputError("command line", "batch", str(config.batch), "Use a whole number above zero.")
    if summary.path.exists() and not config.overwrite:
        fix = "Give another output, or overwrite=true to replace it."
        raise InputError(summary.path, "file", "there already", fix)
    scene = read_scene(root, config.keypoints.format, with_predictions=False)
    people = _people(scene, _boxes(scene), summary)
    regressor = load_regressor(release, find_files(release, config), device, config.precision)
    try:
        _write(people, regressor, release.name, config.batch, summary)
    finally:
        del regressor
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return summary


def _write(
    people: Iterator[Person], regressor: Regressor, name: str, batch: int, summary: ExportSummary
) -> None:
    with atomic_path(summary.path) as temporary, PredictionTable(regressor, name, temporary.parent) as table:
        for group in batched(people, batch):
            table.add(group)
        if not len(table):
            fix = f"Give masks/, keypoints/ or {BOXES_FILE}: they say where the people are."
            raise InputError(summary.path.parent, "people", "nobody to predict in any image", fix)
        summary.people = len(table)
        write_predictions(temporary, table.predictions())


def _boxes(scene: Scene) -> dict[str, list[np.ndarray]] | None:
    """boxes.json by image, or ``None`` without that file."""
    path = scene.root / BOXES_FILE
    if not path.is_file():
        return None
    by_file = {image.name: stem for stem, image in scene.images.items()}
    boxes = {}
    for name, entry in read_boxes(path).items():
        stem = name if name in scene.images else by_file.get(name)
        if stem is None:
            fix = suggest(name, by_file, "Use the name of a file in images/.")
            raise InputError(path, name, "no image of that name", fix)
        boxes[stem] = entry
    return boxes


def _people(
    scene: Scene, boxes: dict[str, list[np.ndarray]] | None, summary: ExportSummary
) -> Iterator[Person]:
    """Crops of everybody, image by image."""
    for name in track(scene.names, description="Predicting"):
        try:
            evidence = scene.read(name)
            found = people_of(evidence, None if boxes is None else boxes.get(name, []))
            pixels = evidence.pixels() if found else None
        except InputError as error:
            # One bad image must not stop the others: it is reported.
            _log.error("left out %s: %s", name, error)
            summary.left_out[name] = str(error)
            continue
        if pixels is None:
            _log.warning("%s: nobody to predict", name)
            summary.left_out[name] = "nobody to predict"
            continue
        summary.images += 1
        for number, box in found:
            yield Person(evidence.path.name, number, crop_person(pixels, box))
