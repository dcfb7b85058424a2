"""Which people of an image a regressor is shown, and the boxes around them.

Boxes are those of detectors: (x0, y0, x1, y1) px in pixel edges, so that the whole image is (0, 0, W, H).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from baselines.keypoints import MIN_POINTS, person_numbers
from depthfit.errors import InputError
from depthfit.evidence.files import read_json
from depthfit.evidence.mask import remove_specks
from depthfit.evidence.match import KEYPOINT_BOX_MARGIN
from depthfit.evidence.scene import ImageEvidence

BOXES_FILE = "boxes.json"


def read_boxes(path: Path) -> dict[str, list[np.ndarray]]:
    """Boxes (4,) of each image's people, in the order of their numbers: {"NAME": [[x0, y0, x1, y1], ...]}.

    Raises:
        InputError: The file cannot be used.
    """
    content = read_json(path)
    fix = (
        'Write {"NAME": [[x0, y0, x1, y1], ...]} in px, x0 < x1 and y0 < y1: person 1, 2, ... of each image.'
    )
    if not isinstance(content, dict):
        raise InputError(path, "file", f"a {type(content).__name__}", fix)
    return {name: _boxes(path, name, entry, fix) for name, entry in content.items()}


def _boxes(path: Path, name: str, entry: Any, fix: str) -> list[np.ndarray]:
    try:
        boxes = np.array(entry, dtype=np.float64).reshape(-1, 4)
    except (TypeError, ValueError) as error:
        raise InputError(path, name, f"not boxes ({error})", fix) from error
    wrong = ~(np.isfinite(boxes).all(1) & (boxes[:, 2:] > boxes[:, :2]).all(1))
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise InputError(path, f"{name}[{first}]", str(boxes[first].tolist()), fix)
    return list(boxes)


def people_of(evidence: ImageEvidence, boxes: list[np.ndarray] | None) -> list[tuple[int, np.ndarray]]:
    """Number and box (4,) of each person of an image.

    They come from ``boxes`` where those are given; else from the mask, and from the keypoints of people who
    are not in the mask, whose box is that of their points with a margin for head and feet. People of fewer
    than ``MIN_POINTS`` points, or of points all in one place, are left out.
    """
    if boxes is not None:
        return list(enumerate(boxes, 1))
    people = {} if evidence.labels is None else _mask_boxes(evidence.labels)
    detected = [p for p in evidence.people if int(p.found.sum()) >= MIN_POINTS]
    for number, person in zip(person_numbers(detected, evidence.labels), detected, strict=True):
        if number not in people and np.ptp(person.xy[person.found], axis=0).any():
            low, high = person.box().reshape(2, 2) + 0.5
            reach = (high - low) * KEYPOINT_BOX_MARGIN / 2
            people[number] = np.concatenate([(low + high) / 2 - reach, (low + high) / 2 + reach])
    return sorted(people.items(), key=lambda item: item[0])


def _mask_boxes(labels: np.ndarray) -> dict[int, np.ndarray]:
    boxes = {}
    for number in np.unique(labels[labels > 0]).tolist():
        x, y, width, height = cv2.boundingRect(remove_specks(labels == number).astype(np.uint8))
        boxes[number] = np.array([x, y, x + width, y + height], dtype=np.float64)
    return boxes
