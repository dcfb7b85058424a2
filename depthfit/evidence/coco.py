"""COCO's JSON files, as far as people go: entries by image, boxes, and results as depthfit writes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from depthfit.atomic import atomic_path
from depthfit.errors import InputError
from depthfit.evidence.files import read_json
from depthfit.joints import COCO17, FEET, KEYPOINTS

if TYPE_CHECKING:
    from depthfit.evidence.keypoints import KeypointPerson

PERSON_CATEGORY = 1


@dataclass(frozen=True)
class CocoEntries:
    """The people of a COCO file.

    Attributes:
        annotated: Annotations (whose points have a visibility), not results (whose points have a score).
        entries: Where in the file an entry is, the entry, and the name of its image in the scene.
        strangers: File names or ids of images that the scene does not have.
    """

    annotated: bool
    entries: list[tuple[str, dict[str, Any], str]]
    strangers: list[str]


def coco_entries(path: Path, match_image: Callable[[int | str], str | None]) -> CocoEntries:
    """Entries of an annotations file (with ``images``) or of a results file (a list).

    Crowds (``iscrowd``) and other categories are left out.

    Args:
        path: The JSON file.
        match_image: From a file name (annotations) or an image id (results) to the name of one of the
            scene's images; ``None`` for no such image.

    Raises:
        InputError: the file or one of its entries cannot be used.
    """
    content = read_json(path)
    annotated = isinstance(content, dict)
    listed = content.get("annotations") if annotated else content
    if not isinstance(listed, list):
        fix = "Give COCO annotations (a dict with images and annotations) or results (a list)."
        raise InputError(path, "annotations", f"found a {type(listed).__name__}, not a list", fix)
    file_names = _file_names(path, content) if annotated else None
    entries, strangers = [], dict[str, None]()
    for i, entry in enumerate(listed):
        field = f"annotations[{i}]" if annotated else f"[{i}]"
        if not isinstance(entry, dict):
            raise InputError(path, field, f"a {type(entry).__name__}", "Each entry is an object.")
        if entry.get("iscrowd") or entry.get("category_id", PERSON_CATEGORY) != PERSON_CATEGORY:
            continue
        image = _image_of(path, field, entry, file_names)
        name = match_image(image)
        if name is None:
            strangers[str(image)] = None
        else:
            entries.append((field, entry, name))
    return CocoEntries(annotated, entries, list(strangers))


def read_coco_boxes(
    path: Path, match_image: Callable[[int | str], str | None]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Boxes by image, (n, 4) px of x0, y0, x1, y1 in pixel edges, from ``bbox`` [x, y, width, height].

    Returns:
        The boxes, and the images that the scene does not have.

    Raises:
        InputError: the file or one of its boxes cannot be used.
    """
    found = coco_entries(path, match_image)
    boxes: dict[str, list[np.ndarray]] = {}
    for field, entry, name in found.entries:
        values = entry.get("bbox")
        try:
            box = np.array(values, dtype=np.float64)
        except (TypeError, ValueError):
            box = np.zeros(0)
        if box.shape != (4,) or not np.isfinite(box).all() or (box[2:] <= 0).any():
            fix = "Write [x, y, width, height] in px, the last two above zero."
            raise InputError(path, f"{field}.bbox", repr(values), fix)
        boxes.setdefault(name, []).append(np.concatenate([box[:2], box[:2] + box[2:]]))
    return {name: np.stack(rows) for name, rows in boxes.items()}, found.strangers


def write_people(path: Path, people: Mapping[str, Sequence[KeypointPerson]]) -> None:
    """Write people by image file name as COCO results: COCO-17 points, feet as ``foot_kpts``, and a box."""
    entries = []
    for image, persons in people.items():
        for person in persons:
            x0, y0, x1, y1 = person.box().tolist()
            entries.append(
                {
                    "image_id": image,
                    "category_id": PERSON_CATEGORY,
                    "keypoints": _flat(person, COCO17),
                    "foot_kpts": _flat(person, FEET),
                    "foot_valid": bool(person.found[[KEYPOINTS.index(n) for n in FEET]].any()),
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "score": float(person.confidence[person.found].mean()),
                }
            )
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(entries))


def _flat(person: KeypointPerson, names: Sequence[str]) -> list[float]:
    index = [KEYPOINTS.index(name) for name in names]
    return np.column_stack([person.xy, person.confidence])[index].round(4).flatten().tolist()


def _file_names(path: Path, content: dict[str, Any]) -> dict[Any, str]:
    images = content.get("images")
    try:
        return {image["id"]: str(image["file_name"]) for image in images}  # type: ignore[union-attr]
    except (TypeError, KeyError) as error:
        fix = "COCO annotations list their images as objects with id and file_name."
        raise InputError(path, "images", "missing, or without id and file_name", fix) from error


def _image_of(path: Path, field: str, entry: dict[str, Any], file_names: dict[Any, str] | None) -> int | str:
    """An entry's file name where the file has one for its image_id, else the id itself."""
    image = entry.get("image_id")
    if not isinstance(image, (int, str)):
        raise InputError(path, f"{field}.image_id", f"{image!r}", "Give the id (or file name) of the image.")
    if file_names is None:
        return image
    if image not in file_names:
        raise InputError(path, f"{field}.image_id", f"{image!r} is not in images", "List the image there.")
    return file_names[image]
