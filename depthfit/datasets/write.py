"""A labelled part of a data set as a scene folder with ground truth."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from depthfit.datasets.labels import (
    Bodies,
    LabelledScene,
    body_boxes,
    by_image,
    to_body25,
    true_keypoints,
    truth_columns,
)
from depthfit.errors import InputError, check_choice

KEYPOINT_SOURCES = ("dataset", "truth", "evidence")
CAMERAS = ("known", "estimated")
KEYPOINT_FORMAT = "body25"
"""Of the keypoint files that this writes."""
EVIDENCE_PARTS = ("keypoints", "depth", "masks")
SETTINGS = "dataset.json"
BODY_BOX_MARGIN = 1.2
"""Side of a box for a regressor per side of the box around the keypoints, where the labels have no box."""


@dataclass(frozen=True)
class SceneOptions:
    """What a scene tells the fit beside its images.

    Attributes:
        keypoints: ``dataset`` (detections that come with it), ``truth`` (labelled or projected keypoints: for
            upper bounds; say so) or ``evidence`` (the folder below).
        camera: ``known`` writes the true intrinsics into cameras.json; ``estimated`` leaves them to be found.
        evidence: A folder with ``SCENE/keypoints``, ``depth``, ``masks`` and ``predictions.npz``, named as
            the scenes' images; ``None`` = none.
        copy: Copy images instead of linking them.
    """

    keypoints: str = "dataset"
    camera: str = "estimated"
    evidence: str | None = None
    copy: bool = False


def is_written(folder: Path, origin: Mapping[str, Any], options: SceneOptions) -> bool:
    """Whether ``folder`` is already the scene that these settings make.

    Raises:
        InputError: It was made with other settings.
    """
    if not folder.exists():
        return False
    path = folder / SETTINGS
    saved = json.loads(path.read_text()) if path.is_file() else None
    if saved != _settings(origin, options):
        fix = "Give another output.dir, or delete the folder."
        raise InputError(folder, SETTINGS, "the scene was made with other settings", fix)
    return True


def write_scene(
    scene: LabelledScene, folder: Path, bodies: Bodies, options: SceneOptions, origin: Mapping[str, Any]
) -> Path:
    """Write ``folder``, which appears under its name only when it is complete.

    Args:
        origin: Where the scene comes from, kept with it in dataset.json.

    Raises:
        InputError: An image is missing, nobody has valid labels, or an option cannot be had from this data
            set.
    """
    _check_options(scene, options)
    if not len(scene.people):
        raise InputError(scene.name, "people", "nobody with valid labels", "Leave this part out.")
    partial = folder.parent / f".{folder.name}.{uuid.uuid4().hex}"
    partial.mkdir(parents=True)
    try:
        _write(scene, partial, bodies, options)
        (partial / SETTINGS).write_text(json.dumps(_settings(origin, options), indent=2) + "\n")
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial)
        raise
    return folder


def _settings(origin: Mapping[str, Any], options: SceneOptions) -> dict[str, Any]:
    return {"origin": dict(origin), "options": asdict(options)}


def _check_options(scene: LabelledScene, options: SceneOptions) -> None:
    for field, value, known in (
        ("keypoints2d", options.keypoints, KEYPOINT_SOURCES),
        ("intrinsics", options.camera, CAMERAS),
    ):
        check_choice("command line", field, value, known)
    if options.keypoints == "dataset" and not scene.detections:
        fix = "Bring detections (keypoints2d=evidence evidence=FOLDER), or keypoints2d=truth."
        raise InputError(scene.name, "keypoints2d", "no 2D detections come with this data set", fix)
    if options.keypoints == "evidence" and options.evidence is None:
        raise InputError("command line", "evidence", "not given", "Name the folder of your detections.")
    if options.camera == "known" and not np.isfinite(scene.people.K).all():
        fix = "This data set does not tell intrinsics: use intrinsics=estimated."
        raise InputError(scene.name, "intrinsics", "not told", fix)


def _write(scene: LabelledScene, folder: Path, bodies: Bodies, options: SceneOptions) -> None:
    (folder / "images").mkdir()
    for name, source in scene.images.items():
        _place_image(source.path, folder / "images" / name, source.turn, options.copy)
    columns = truth_columns(scene.people, bodies)
    np.savez_compressed(folder / "ground_truth.npz", **columns)  # type: ignore[arg-type]
    boxes = body_boxes(columns, BODY_BOX_MARGIN) if scene.people.boxes is None else scene.people.boxes
    entries = {Path(n).stem: boxes[rows].tolist() for n, rows in by_image(scene.people)}
    # An image with a person of unknown place has no entry: boxes are told apart by their order.
    known = {name: held for name, held in entries.items() if np.isfinite(held).all()}
    (folder / "boxes.json").write_text(json.dumps(known) + "\n")
    if options.keypoints == "dataset":
        _write_keypoints(folder, {k: np.array(v) for k, v in scene.detections.items()})
    elif options.keypoints == "truth":
        points = to_body25(true_keypoints(columns))
        _write_keypoints(folder, {name: points[rows] for name, rows in by_image(scene.people)})
    if options.camera == "known":
        entries = {name: {"K": scene.people.K[rows[0]].tolist()} for name, rows in by_image(scene.people)}
        (folder / "cameras.json").write_text(json.dumps(entries) + "\n")
    if options.evidence is not None:
        _link_evidence(Path(options.evidence) / scene.name, folder, options)


def _place_image(source: Path, target: Path, turn: bool, copy: bool) -> None:
    if not source.is_file():
        raise InputError(source, "image", "no such file", "root must be the folder that the labels refer to.")
    if turn:
        pixels = cv2.imread(str(source), cv2.IMREAD_COLOR)
        if pixels is None or not cv2.imwrite(str(target), cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE)):
            raise InputError(source, "image", "cannot be turned", "Write or copy the file again.")
    elif copy:
        shutil.copyfile(source, target)
    else:
        target.symlink_to(source.resolve())


def _write_keypoints(folder: Path, people: dict[str, np.ndarray]) -> None:
    (folder / "keypoints").mkdir()
    for name, points in people.items():
        content = {"people": [{"pose_keypoints_2d": np.round(p, 3).ravel().tolist()} for p in points]}
        (folder / "keypoints" / f"{Path(name).stem}_keypoints.json").write_text(json.dumps(content))


def _link_evidence(source: Path, folder: Path, options: SceneOptions) -> None:
    if not source.is_dir():
        fix = "Make EVIDENCE/SCENE/ with keypoints/, depth/, masks/ or predictions.npz inside."
        raise InputError(source, "evidence", "no such folder", fix)
    parts = [p for p in EVIDENCE_PARTS if p != "keypoints" or options.keypoints == "evidence"]
    for part in (*parts, "predictions.npz"):
        if (source / part).exists():
            (folder / part).symlink_to((source / part).resolve())
