"""People that files tell of: boxes and keypoints by image, in the formats of other programs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from baselines.hmr.people import read_boxes
from depthfit.atomic import atomic_path
from depthfit.errors import InputError
from depthfit.evidence.alphapose import POINT_SETS, read_alphapose
from depthfit.evidence.coco import read_coco_boxes
from depthfit.evidence.files import read_bytes, read_json
from depthfit.evidence.keypoints import KeypointPerson, read_coco
from depthfit.evidence.match import KEYPOINT_BOX_MARGIN, match_people
from depthfit.evidence.scene import KEYPOINT_ENDING, Scene
from depthfit.joints import KEYPOINTS

Match = Callable[[int | str], str | None]
Entry = TypeVar("Entry")


def image_matcher(scene: Scene) -> Match:
    """From a file name, a stem or a number to the name of an image of the scene."""
    by_file = {path.name: stem for stem, path in scene.images.items()}

    def match(image: int | str) -> str | None:
        if isinstance(image, int):
            numbered = [stem for stem in scene.images if _ending(stem) == image]
            return numbered[0] if len(numbered) == 1 else None
        base = image.replace("\\", "/").rsplit("/", 1)[-1]
        return base if base in scene.images else by_file.get(base)

    return match


def boxes_from_file(path: Path, match: Match) -> dict[str, np.ndarray]:
    """Boxes (n, 4) px in pixel edges by image: {"NAME": [[x0, y0, x1, y1], ...]}, or COCO with ``bbox``.

    Raises:
        InputError: The file cannot be used, or is about other images.
    """
    content = read_json(path)
    if isinstance(content, dict) and "annotations" not in content:
        boxes, strangers = {}, []
        for image, entry in read_boxes(path).items():
            name = match(image)
            if name is None:
                strangers.append(image)
            else:
                boxes[name] = np.array(entry).reshape(-1, 4)
    else:
        boxes, strangers = read_coco_boxes(path, match)
    return _not_strangers(path, boxes, strangers)


def keypoints_from_file(path: Path, match: Match) -> dict[str, list[KeypointPerson]]:
    """People by image of a JSON file of COCO or AlphaPose.

    Raises:
        InputError: The file cannot be used, or is about other images.
    """
    content = read_json(path)
    first = content[0] if isinstance(content, list) and content else None
    values = first.get("keypoints") if isinstance(first, dict) else None
    other_points = isinstance(values, list) and len(values) // 3 in POINT_SETS and len(values) != 51
    # AlphaPose's COCO-17 file is a COCO results file with file names for ids; only its other sets differ.
    if other_points:
        people, strangers = read_alphapose(path, match)
    else:
        people, strangers, bad = read_coco(path, "coco17", match)
        if bad:
            # Known before the networks run: not left for the fit to say hours later.
            raise next(iter(bad.values()))
    return _not_strangers(path, people, strangers)


def copy_openpose(folder: Path, scene: Scene) -> int:
    """Copy OpenPose's files of the scene's images into it; the number of files.

    Raises:
        InputError: None of the folder's files belongs to an image.
    """
    copied = 0
    for name in scene.names:
        source = folder / f"{name}{KEYPOINT_ENDING}.json"
        if source.is_file():
            with atomic_path(scene.root / "keypoints" / source.name) as temporary:
                temporary.write_bytes(read_bytes(source))
            copied += 1
    if not copied:
        fix = f"OpenPose names them NAME{KEYPOINT_ENDING}.json after the image."
        raise InputError(folder, "files", "none belongs to an image", fix)
    return copied


def boxes_of(people: list[KeypointPerson]) -> np.ndarray:
    """Boxes (n, 4) px in pixel edges around keypoints, with a margin for head, hands and feet."""
    boxes = np.array([person.box() for person in people]).reshape(-1, 4)
    low, high = boxes[:, :2] + 0.5, boxes[:, 2:] + 0.5
    # Points in one place, or one point alone, still stand for a pixel.
    reach = np.maximum((high - low) * KEYPOINT_BOX_MARGIN, 1.0) / 2
    center = (low + high) / 2
    return np.concatenate([center - reach, center + reach], -1)


def people_in_boxes(people: list[KeypointPerson], boxes: np.ndarray) -> tuple[KeypointPerson, ...]:
    """The person of each box, by overlap; one without a point where no keypoints belong to a box."""
    center, size = (boxes[:, :2] + boxes[:, 2:]) / 2 - 0.5, (boxes[:, 2:] - boxes[:, :2]).max(-1)
    nobody = KeypointPerson(np.zeros((len(KEYPOINTS), 2)), np.zeros(len(KEYPOINTS)))
    found = match_people(people, center, size).detection.tolist() if len(boxes) else []
    return tuple(people[k] if k >= 0 else nobody for k in found)


def _not_strangers(path: Path, found: dict[str, Entry], strangers: list[str]) -> dict[str, Entry]:
    if strangers and not found:
        fix = "Name images as their files are named."
        raise InputError(path, "images", f"none is in the folder (first: {strangers[0]})", fix)
    return found


def _ending(stem: str) -> int | None:
    digits = stem[len(stem.rstrip("0123456789")) :]
    return int(digits) if digits else None
