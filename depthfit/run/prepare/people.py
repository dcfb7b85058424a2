"""Who is in the photographs: the stages that find boxes and keypoints."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from baselines.hmr.people import BOXES_FILE
from depthfit.atomic import atomic_path
from depthfit.errors import InputError
from depthfit.evidence.coco import write_people
from depthfit.evidence.files import read_rgb
from depthfit.evidence.keypoints import KeypointPerson
from depthfit.perception.batches import in_threads
from depthfit.perception.detector import PersonDetector
from depthfit.perception.hub import HubModel
from depthfit.perception.vitpose import PoseEstimator
from depthfit.run.prepare.config import VITPOSE
from depthfit.run.prepare.folder import IN_SCENE, Found
from depthfit.run.prepare.sources import (
    boxes_from_file,
    boxes_of,
    copy_openpose,
    image_matcher,
    keypoints_from_file,
    people_in_boxes,
)
from depthfit.run.prepare.state import DETECTED, KEYPOINTS_FILE, KEYPOINTS_FOLDER, POINTED, Preparation

People = dict[str, list[KeypointPerson]]


def find_people(run: Preparation) -> None:
    """Boxes and keypoints of everybody: boxes.json and keypoints.json, and the records of either.

    Raises:
        InputError: A file, a setting or a network cannot be used.
    """
    given = _given_keypoints(run)
    _box_stage(run, given)
    _keypoint_stage(run, given)
    for name in run.names:
        run.summary.people[name] = len(run.found(name).boxes)
        if not run.summary.people[name]:
            run.note(name, "no person found")


def _given_keypoints(run: Preparation) -> People | None:
    """People whose keypoints files tell: the scene's own, or those of ``keypoints.source``."""
    source = run.config.keypoints.source
    in_scene = _in_scene(run)
    if not in_scene and source != VITPOSE:
        path = Path(source)
        if not path.exists():
            found = f"no such file or folder: {source}"
            raise InputError("prepare", "keypoints.source", found, f"Use {VITPOSE}, or name a file.")
        if path.is_file():
            return keypoints_from_file(path, image_matcher(run.scene()))
        copy_openpose(path, run.scene())
        in_scene = True
    if not in_scene:
        return None
    scene, people = run.scene(), People()
    for name in run.names:
        with run.reporting(name):
            people[name] = list(scene.read(name).people)
    return people


def _in_scene(run: Preparation) -> bool:
    """Whether somebody else put keypoints into the scene."""
    file = (run.root / KEYPOINTS_FILE).is_file() and not run.records.ours(POINTED)
    return file or (run.root / KEYPOINTS_FOLDER).is_dir()


def _box_stage(run: Preparation, given: People | None) -> None:
    config, path = run.config.boxes, run.root / BOXES_FILE
    source = config.source
    if path.is_file() and not run.records.ours(DETECTED):
        source = IN_SCENE
    elif source == "auto":
        source = "detect" if given is None else "keypoints"
    if source == "keypoints" and given is None:
        fix = "Give keypoints.source=FILE, or use boxes.source=detect."
        raise InputError("prepare", "boxes.source", "keypoints, which are to be found in boxes", fix)

    def work(todo: list[str]) -> None:
        if source == "detect":
            _detect(run, todo)
            return
        if source == "keypoints":
            assert given is not None
            boxes = {name: boxes_of(people) for name, people in given.items()}
        else:
            file = path if source == IN_SCENE else Path(source)
            boxes = boxes_from_file(file, image_matcher(run.scene()))
        for name in todo:
            run.records.write(DETECTED, name, Found(boxes.get(name, np.zeros((0, 4)))).record())

    settings = {"model": config.model, "min_score": config.min_score} if source == "detect" else {}
    run.stage(DETECTED, source, settings, work)
    if source != IN_SCENE:
        files = run.scene().images
        content = {files[name].name: run.found(name).boxes.tolist() for name in run.names}
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(content))


def _detect(run: Preparation, todo: list[str]) -> None:
    files, config = run.scene().images, run.config.boxes
    detector = PersonDetector.load(HubModel(config.model).fetch(run.models), run.device)

    def compute(names: list[str]) -> list[np.ndarray]:
        found = detector(in_threads(read_rgb, [files[name] for name in names]), config.min_score)
        return [boxes.xyxy for boxes in found]

    for name, boxes in run.batches(todo, compute, "People"):
        run.records.write(DETECTED, name, Found(boxes).record())


def _keypoint_stage(run: Preparation, given: People | None) -> None:
    config = run.config.keypoints
    in_scene = _in_scene(run)

    def work(todo: list[str]) -> None:
        if given is None:
            _estimate(run, todo)
            return
        for name in todo:
            boxes = run.found(name).boxes
            people = people_in_boxes(given.get(name, []), boxes)
            run.records.write(POINTED, name, Found(boxes, people).record())

    source = IN_SCENE if in_scene else config.source
    settings: dict[str, object] = {"boxes": asdict(run.config.boxes)}
    if given is None:
        settings |= {"model": config.model, "min_score": config.min_score}
    run.stage(POINTED, source, settings, work)
    if not in_scene:
        files = run.scene().images
        people = {files[name].name: _seen(run.found(name)) for name in run.names}
        write_people(run.root / KEYPOINTS_FILE, people)


def _estimate(run: Preparation, todo: list[str]) -> None:
    files, config = run.scene().images, run.config.keypoints
    found = {name: run.found(name).boxes for name in todo}
    estimator = PoseEstimator.load(HubModel(config.model).fetch(run.models), run.device)

    def compute(names: list[str]) -> list[list[KeypointPerson]]:
        images = in_threads(read_rgb, [files[name] for name in names])
        return estimator(images, [found[name] for name in names], config.min_score)

    for name, people in run.batches(todo, compute, "Keypoints"):
        run.records.write(POINTED, name, Found(found[name], tuple(people)).record())


def _seen(found: Found) -> list[KeypointPerson]:
    """People with a point at all."""
    return [person for person in found.people or () if person.found.any()]
