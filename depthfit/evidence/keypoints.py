"""2D keypoints of detected people: OpenPose and COCO files, brought into one order of points.

All pixels are those of the upright image; (0, 0) is the centre of its top-left pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from depthfit.errors import InputError
from depthfit.evidence.coco import coco_entries
from depthfit.evidence.files import read_json, suggest
from depthfit.joints import FEET, KEYPOINT_FORMATS, KEYPOINTS, OKS_SIGMA

OCCLUDED_CONFIDENCE = 0.5
"""Confidence of a COCO annotation with v = 1: labelled, but not visible."""
NOISE_FACTOR = 0.35
"""Error of a good detector in units of COCO's annotation spread."""
AREA_PER_BOX = 0.8
"""Area of a person per area of the box around the found keypoints. A person fills about 0.53 of the own
box (the factor that evaluation code uses where COCO gives no area), and that box is about 1.5 times the
box of the keypoints, which lacks the top of the head, the toes and the hands."""
SLIMMEST = 0.4
"""Square root of a person's area per length of the longer side of that box, at least: a person seen from
the side, or lying along the image's rows, has a box that is far too thin."""
BEYOND_IMAGE = 0.5
"""A person's box ends so far outside the image, in sides of the image: there is nothing to see farther out,
and one stray point would stretch the box until the person is a speck in it."""
FARTHEST = 3.0
"""A point farther outside the image than this, in its longer sides, is no point of a person in it."""

_INDEX = {name: i for i, name in enumerate(KEYPOINTS)}
_SIGMA = np.array([OKS_SIGMA[name] for name in KEYPOINTS])
_SCENE_RULE = "Give the detector's numbers in pixels of the image, with (0, 0, 0) for a missing point."


@dataclass(frozen=True)
class KeypointPerson:
    """One detected person. The points are those of ``joints.KEYPOINTS``, K = 27.

    Attributes:
        xy: (K, 2) px, zeros where missing.
        confidence: (K,) in [0, 1]; 0 = missing.
        field: Where in their file the points stand; empty for those of no file.
    """

    xy: np.ndarray
    confidence: np.ndarray
    field: str = ""

    @property
    def found(self) -> np.ndarray:
        """(K,) bool, which points the detector gave."""
        return self.confidence > 0

    def trusted(self, least: float) -> KeypointPerson:
        """The person without points below confidence ``least``; with all of them where none reaches it."""
        kept = self.confidence >= least
        if not kept.any():
            return self
        return replace(self, xy=self.xy * kept[:, None], confidence=self.confidence * kept)

    def box(self, image: tuple[int, int] | None = None) -> np.ndarray:
        """(4,) px, x0, y0, x1, y1 of the found points.

        With ``image``, its (width, height) px, the box ends ``BEYOND_IMAGE`` outside of it.
        """
        points = self.xy[self.found]
        if image is not None:
            beyond = BEYOND_IMAGE * np.array(image)
            points = points.clip(-beyond, image + beyond)
        return np.concatenate([points.min(0), points.max(0)])


def format_points(keypoint_format: str) -> tuple[str, ...]:
    """Names of a format's points in the order of its files.

    Raises:
        InputError: no such format.
    """
    if keypoint_format not in KEYPOINT_FORMATS:
        known = ", ".join(KEYPOINT_FORMATS)
        fix = suggest(keypoint_format.lower().replace("_", ""), KEYPOINT_FORMATS, f"Use one of {known}.")
        raise InputError("config", "keypoints.format", f"{keypoint_format!r} is not one of {known}", fix)
    return KEYPOINT_FORMATS[keypoint_format]


def read_openpose(path: Path, keypoint_format: str) -> list[KeypointPerson]:
    """People of an OpenPose JSON file. People without a single point are left out.

    Raises:
        InputError: the file or one of its people cannot be used.
    """
    names = format_points(keypoint_format)
    content = read_json(path)
    people = content.get("people") if isinstance(content, dict) else None
    if not isinstance(people, list):
        found = "no list of that name" if isinstance(content, dict) else f"a {type(content).__name__}"
        raise InputError(path, "people", found, 'OpenPose files read {"people": [...]}.')
    result = []
    for i, person in enumerate(people):
        field = f"people[{i}].pose_keypoints_2d"
        values = person.get("pose_keypoints_2d") if isinstance(person, dict) else None
        triples = check_triples(path, field, values, len(names), keypoint_format)
        _check_pixels(path, field, triples)
        result.append(keypoint_person(names, triples, field))
    return [person for person in result if person.found.any()]


def read_coco(
    path: Path, keypoint_format: str, match_image: Callable[[int | str], str | None]
) -> tuple[dict[str, list[KeypointPerson]], list[str], dict[str, InputError]]:
    """People of a COCO annotations file (with ``images``) or results file (a list), by image.

    Annotations of crowds (``iscrowd``) and of other categories are left out, and so are people without
    a labelled point. ``foot_kpts`` of COCO-WholeBody are read where they are valid.

    Args:
        path: The JSON file.
        keypoint_format: Points of an entry's ``keypoints``, ``coco17`` in COCO's own files.
        match_image: From a file name (annotations) or an image id (results) to the name of one of the
            scene's images; ``None`` for no such image.

    Returns:
        The people of each image, the file names or ids that match no image of the scene, and the images
        of which an entry cannot be used, each with its first error: without that person they are not whole.

    Raises:
        InputError: the file as a whole cannot be used, or an entry does not tell its image.
    """
    names = format_points(keypoint_format)
    found = coco_entries(path, match_image)
    people: dict[str, list[KeypointPerson]] = {}
    bad: dict[str, InputError] = {}
    for field, entry, name in found.entries:
        try:
            person = _coco_person(path, field, entry, names, keypoint_format, found.annotated)
        except InputError as error:
            bad.setdefault(name, error)
            continue
        if person.found.any():
            people.setdefault(name, []).append(person)
    return people, found.strangers, bad


def keypoint_sigma_px(
    person: KeypointPerson,
    area_px: float | None = None,
    noise_factor: float = NOISE_FACTOR,
    image: tuple[int, int] | None = None,
) -> np.ndarray:
    """Standard deviation (K,) px of each keypoint; infinite where the point is missing.

    sigma = OKS sigma x sqrt(area) x ``noise_factor`` / confidence: a point that the detector half
    believes gets twice the sigma.

    Args:
        person: The detected person, with at least one point.
        area_px: The person's area in the image, from a mask. Without it, the keypoints' box tells:
            see ``AREA_PER_BOX`` and ``SLIMMEST``.
        noise_factor: The detector's error in units of COCO's annotation spread.
        image: (width, height) px of the image, where it should bound the box.
    """
    if area_px is None:
        x0, y0, x1, y1 = person.box(image)
        width, height = x1 - x0, y1 - y0
        # One point alone has no extent; a person is no smaller than a pixel.
        area_px = max(AREA_PER_BOX * width * height, (SLIMMEST * max(width, height)) ** 2, 1.0)
    sigma = _SIGMA * float(np.sqrt(area_px)) * noise_factor
    return np.where(person.found, sigma / np.where(person.found, person.confidence, 1.0), np.inf)


def keypoint_person(names: Sequence[str], triples: np.ndarray, field: str = "") -> KeypointPerson:
    """A person from (len(names), 3) triples of x, y px and confidence of the points ``names``.

    Points that are not in ``names`` are missing. Scores above 1 (pose NMS sums) count as 1.
    """
    index = [_INDEX[name] for name in names]
    confidence = np.zeros(len(KEYPOINTS))
    confidence[index] = np.minimum(triples[:, 2], 1.0)
    xy = np.zeros((len(KEYPOINTS), 2))
    xy[index] = triples[:, :2]
    xy[confidence == 0] = 0
    return KeypointPerson(xy, confidence, field)


def check_reach(path: Path, people: Sequence[KeypointPerson], image: tuple[int, int]) -> None:
    """Refuse points that lie far outside an image of (width, height) px.

    Raises:
        InputError: Names the first point of them.
    """
    reach = FARTHEST * max(image)
    for person in people:
        far = person.found & ((person.xy < -reach) | (person.xy > image + np.array(reach))).any(-1)
        if far.any():
            k = int(far.argmax())
            x, y = person.xy[k].tolist()
            found = f"{KEYPOINTS[k]} at ({x:g}, {y:g}), in an image of {image[0]} x {image[1]} px"
            raise InputError(path, person.field, found, _SCENE_RULE)


def check_triples(path: Path, field: str, values: Any, points: int, keypoint_format: str) -> np.ndarray:
    """``points`` triples (points, 3) of x, y, confidence from a flat list.

    Raises:
        InputError: of another length, or with entries that are no numbers or no confidences.
    """
    if not isinstance(values, list) or not all(
        isinstance(v, (int, float)) and not isinstance(v, bool) for v in values
    ):
        found = "missing" if values is None else "not a flat list of numbers"
        raise InputError(path, field, found, "Write x, y, confidence of each point, one after another.")
    if len(values) != 3 * points:
        fits = [name for name, names in KEYPOINT_FORMATS.items() if 3 * len(names) == len(values)]
        fix = f"Set keypoints.format={' or '.join(fits)}." if fits else "Name the points' format."
        if len(values) == 2 * points:
            fix = "Write x, y, confidence of each point, one after another."
        found = f"{len(values)} numbers, but {points} points of {keypoint_format} make {3 * points}"
        raise InputError(path, field, found, fix)
    triples = np.array(values, dtype=np.float64).reshape(-1, 3)
    bad = np.flatnonzero(~np.isfinite(triples).all(1) | (triples[:, 2] < 0))
    if len(bad):
        found = f"point {bad[0]} is {triples[bad[0]].tolist()}"
        raise InputError(path, field, found, f"Numbers are finite, confidences >= 0. {_SCENE_RULE}")
    return triples


def _check_pixels(path: Path, field: str, triples: np.ndarray) -> None:
    """Refuse coordinates that OpenPose wrote as fractions of the image (its keypoint_scale 3 or 4)."""
    found = triples[triples[:, 2] > 0, :2]
    if len(found) > 1 and np.abs(found).max() <= 1:
        said = "all points lie within [-1, 1]: fractions of the image, not pixels"
        raise InputError(path, field, said, f"Run OpenPose with --keypoint_scale 0. {_SCENE_RULE}")


def _coco_person(
    path: Path, field: str, entry: dict[str, Any], names: Sequence[str], keypoint_format: str, annotated: bool
) -> KeypointPerson:
    where = f"{field}.keypoints"
    triples = check_triples(path, where, entry.get("keypoints"), len(names), keypoint_format)
    if "foot_kpts" in entry and entry.get("foot_valid", True) and not set(FEET) & set(names):
        feet = check_triples(path, f"{field}.foot_kpts", entry["foot_kpts"], len(FEET), "foot_kpts")
        triples, names = np.concatenate([triples, feet]), (*names, *FEET)
    _check_pixels(path, where, triples)
    if annotated:
        flags = triples[:, 2]
        if not np.isin(flags, (0, 1, 2)).all():
            odd = flags[~np.isin(flags, (0, 1, 2))][0]
            fix = "Annotations mark points 0, 1 or 2; save scores as a COCO results list instead."
            raise InputError(path, where, f"a visibility of {odd:g}", fix)
        triples = triples.copy()
        triples[:, 2] = np.select([flags == 0, flags == 1], [0.0, OCCLUDED_CONFIDENCE], 1.0)
    return keypoint_person(names, triples, where)
