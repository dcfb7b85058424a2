"""COCO person keypoints: an annotation file and a folder of images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from depthfit.errors import InputError
from depthfit.evidence.cameras import CameraPrior
from depthfit.evidence.files import read_json
from depthfit.evidence.keypoints import OCCLUDED_CONFIDENCE, KeypointPerson
from depthfit.joints import COCO17, FEET, KEYPOINTS
from depthfit.pseudo.labels import NUM_BETAS, NUM_POSE
from depthfit.pseudo.records import ItemRef, Label, Subject
from depthfit.pseudo.source_folder import FolderSource

MAX_PEOPLE = 255
FARTHEST = 1e6
"""px: OpenCV counts in whole numbers of 32 bits, some of them fractions."""
PERSON_CATEGORY = 1
EXTENSION = "smpl"
"""Key of an annotation under which the refined body is written, and from which a run may start."""


@dataclass(frozen=True)
class CocoSource(FolderSource):
    """Images with their annotated people; crowds and other categories are nobody."""

    kind: str = "coco"

    def count(self) -> int:
        return len(people_by_image(self.path)[0])

    def listed(self, first: int, last: int) -> list[ItemRef]:
        names, people = people_by_image(self.path)
        items = []
        for number, name in list(names.items())[first:last]:
            # The annotations travel with the plan, so that workers need not read the whole file.
            where = [{k: a.get(k) for k in _NEEDED} for a in people[number]]
            items.append(ItemRef(name, len(where), where))
        return items

    def subjects(self, ref: ItemRef) -> list[Subject]:
        return [_subject(k + 1, a) for k, a in enumerate(ref.where)]

    def masks(self, ref: ItemRef, shape: tuple[int, int]) -> np.ndarray | None:
        try:
            return _polygons([a.get("segmentation") for a in ref.where], shape)
        except (TypeError, ValueError, cv2.error) as error:
            fix = "Polygons are lists of x, y."
            raise InputError(ref.key, "segmentation", f"{type(error).__name__}: {error}", fix) from error

    def camera(self, ref: ItemRef) -> CameraPrior | None:
        return None


_NEEDED = ("id", "keypoints", "foot_kpts", "foot_valid", "segmentation", EXTENSION)


@lru_cache(maxsize=1)
def people_by_image(path: str) -> tuple[dict[int, str], dict[int, list[dict[str, Any]]]]:
    """File name and people of each image that has any, by its id, in order of ids.

    Raises:
        InputError: The file is no COCO annotation file.
    """
    content = read_json(Path(path))
    fix = "Give COCO annotations: a dict with images and annotations."
    try:
        names = {int(i["id"]): str(i["file_name"]) for i in content["images"]}
        people: dict[int, list[dict[str, Any]]] = {}
        for entry in content["annotations"]:
            if is_person(entry):
                people.setdefault(int(entry["image_id"]), []).append(entry)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        found = f"not as in COCO ({type(error).__name__}: {error})"
        raise InputError(path, "images, annotations", found, fix) from error
    missing = sorted(set(people) - set(names))
    if missing:
        raise InputError(path, "image_id", f"{missing[0]} is not in images", "List the image there.")
    chosen = {k: names[k] for k in sorted(people)}
    _check_names(path, list(chosen.values()))
    return chosen, people


def _check_names(path: str, names: Sequence[str]) -> None:
    """People are told apart by the names of their images, which end up in text files."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(path, "file_name", f"{twice[0]!r} twice", "Give each file one entry in images.")
    strange = [name for name in names if "\0" in name or name != name.encode("utf-8", "replace").decode()]
    if strange:
        raise InputError(path, "file_name", f"{strange[0]!r}", "Name files in Unicode text.")


def is_person(entry: dict[str, Any]) -> bool:
    """Whether an annotation is one person."""
    return not entry.get("iscrowd") and entry.get("category_id", PERSON_CATEGORY) == PERSON_CATEGORY


def _subject(number: int, entry: dict[str, Any]) -> Subject:
    try:
        xy, confidence = np.zeros((len(KEYPOINTS), 2)), np.zeros(len(KEYPOINTS))
        _fill(xy, confidence, entry.get("keypoints"), COCO17)
        if entry.get("foot_valid"):
            _fill(xy, confidence, entry.get("foot_kpts"), FEET)
        label = _label(entry.get(EXTENSION))
    except (TypeError, ValueError, KeyError) as error:
        return Subject(number, None, None, f"label_unusable: {error}")
    if not np.isfinite(xy).all() or not np.isfinite(confidence).all():
        return Subject(number, None, None, "evidence_not_finite: keypoints")
    found = confidence.any()
    person = KeypointPerson(xy, confidence) if found else None
    return Subject(number, person, label, "" if found else "no_keypoints")


def _fill(xy: np.ndarray, confidence: np.ndarray, values: Any, names: Sequence[str]) -> None:
    if values is None:
        return
    points = np.asarray(values, dtype=np.float64).reshape(len(names), 3)
    index = [KEYPOINTS.index(name) for name in names]
    xy[index] = points[:, :2]
    flags = points[:, 2]
    confidence[index] = np.where(flags == 1, OCCLUDED_CONFIDENCE, np.minimum(flags, 1.0))
    xy[confidence == 0] = 0


def _label(value: Any) -> Label | None:
    if not isinstance(value, dict):
        return None
    pose = np.asarray(value["pose"], dtype=np.float64).reshape(NUM_POSE)
    betas = np.asarray(value["betas"], dtype=np.float64).reshape(NUM_BETAS)
    if not (np.isfinite(pose).all() and np.isfinite(betas).all()):
        raise ValueError(f"{EXTENSION}: numbers that are not finite")
    return Label(pose, betas)


def _polygons(segmentations: list[Any], shape: tuple[int, int]) -> np.ndarray | None:
    """Label mask (H, W) of people's polygons; the one listed first is on top."""
    labels = np.zeros(shape, np.uint8)
    for number, polygons in reversed(list(enumerate(segmentations[:MAX_PEOPLE], 1))):
        # Run-length masks, which COCO uses for crowds, are no polygons.
        if isinstance(polygons, list):
            points = [np.reshape(p, (-1, 2)).astype(np.float64) for p in polygons if len(p) >= 6]
            if not all((np.abs(p) <= FARTHEST).all() for p in points):
                raise ValueError("points far outside or not finite")
            rings = [np.rint(p).astype(np.int32) for p in points]
            cv2.fillPoly(labels, rings, int(number))
    return labels if labels.any() else None
