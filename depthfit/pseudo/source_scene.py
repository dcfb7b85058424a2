"""Scene folders, as ``depthfit fit`` reads them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from depthfit.errors import InputError
from depthfit.evidence.files import read_rgb
from depthfit.evidence.scene import Scene, read_scene
from depthfit.pseudo.records import Item, ItemRef, Subject, Unit, UnitPlan, cut_chunks, cut_units
from depthfit.pseudo.source import failed_item, guarded, reason


@dataclass(frozen=True)
class SceneSource:
    """A scene folder.

    Attributes:
        path: The folder.
        keypoint_format: Of its keypoint files, or ``None``.
        chunk, shard_images: People in a chunk and images in a unit.
    """

    path: str
    keypoint_format: str | None
    chunk: int
    shard_images: int
    kind: str = "scene"

    def regressor(self) -> str | None:
        predictions = _scene(self.path, self.keypoint_format).predictions
        return None if predictions is None else predictions.regressor

    def units(self) -> list[Unit]:
        count = len(_scene(self.path, self.keypoint_format).names)
        return cut_units(self.path, count, self.shard_images)

    def plan(self, unit: Unit) -> UnitPlan:
        scene = _scene(self.path, self.keypoint_format)
        items = [self._item(scene, name) for name in scene.names[unit.first : unit.last]]
        return UnitPlan(unit, tuple(items), cut_chunks(items, self.chunk))

    def _item(self, scene: Scene, name: str) -> ItemRef:
        file = scene.images[name].name
        if scene.predictions is not None:
            return ItemRef(file, len(scene.rows_of(name)), name)
        try:
            return ItemRef(file, len(scene.read(name).people), name)
        except InputError as error:
            return ItemRef(file, 1, name, reason("evidence_unusable", error))

    def read(self, plan: UnitPlan, chunk: int) -> tuple[list[Item], int]:
        first, last = plan.chunks[chunk]
        scene = _scene(self.path, self.keypoint_format)
        items, size = [], 0
        for ref in plan.items[first:last]:
            items.append(guarded(ref, partial(_read, scene, ref)))
            size += scene.images[ref.where].stat().st_size
        return items, size

    def pixels(self, plan: UnitPlan, key: str) -> np.ndarray:
        scene = _scene(self.path, self.keypoint_format)
        return read_rgb(scene.images[Path(key).stem])


def _read(scene: Scene, ref: ItemRef) -> Item:
    if ref.error:
        return failed_item(ref.key, ref.people, ref.error)
    try:
        evidence = scene.read(ref.where)
    except InputError as error:
        return failed_item(ref.key, ref.people, reason("evidence_unusable", error))
    if evidence.predictions is not None:
        # Which detection is whose is found where the body is, in the fit.
        people = [Subject(int(n), None, None) for n in evidence.predictions.person]
    else:
        people = [Subject(k + 1, person, None) for k, person in enumerate(evidence.people)]
    return Item(ref.key, people, evidence)


@lru_cache(maxsize=1)
def _scene(path: str, keypoint_format: str | None) -> Scene:
    try:
        return read_scene(Path(path), keypoint_format)
    except InputError as error:
        # The setting has another name here than in a fit.
        name, fix = (text.replace("keypoints.format", "keypoint_format") for text in (error.field, error.fix))
        raise InputError(error.source, name, error.found, fix) from error
