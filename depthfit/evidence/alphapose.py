"""AlphaPose's ``alphapose-results.json`` in its default format: a list of people with flat triples.

The number of points tells the set: COCO-17, Halpe-26, Halpe-136 or COCO-WholeBody. Faces and hands are not
used.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from depthfit.errors import InputError
from depthfit.evidence.coco import coco_entries
from depthfit.evidence.files import read_json
from depthfit.evidence.keypoints import KeypointPerson, check_triples, keypoint_person
from depthfit.joints import COCO17, FEET

# Halpe lists its feet by part, left before right; 17 is the top of the head, 18 and 19 the midpoints.
_HALPE_FEET = (
    "left_big_toe", "right_big_toe", "left_small_toe", "right_small_toe", "left_heel", "right_heel",
)  # fmt: skip
_HALPE26 = (*COCO17, "head_top", "neck", "mid_hip", *_HALPE_FEET)
POINT_SETS: dict[int, tuple[str, ...]] = {
    17: COCO17,
    26: _HALPE26,
    136: _HALPE26,
    133: (*COCO17, *FEET),
}
"""Names of the first points of a set by its number of points."""


def read_alphapose(
    path: Path, match_image: Callable[[int | str], str | None]
) -> tuple[dict[str, list[KeypointPerson]], list[str]]:
    """People by image. People without a single point are left out.

    Args:
        path: The JSON file.
        match_image: From a file name to the name of one of the scene's images; ``None`` for no such image.

    Returns:
        The people of each image, and the file names that match no image of the scene.

    Raises:
        InputError: the file or one of its people cannot be used.
    """
    if not isinstance(read_json(path), list):
        fix = "Run AlphaPose without --format, or with --format coco: it then writes one list."
        raise InputError(path, "file", "not a list of people", fix)
    found = coco_entries(path, match_image)
    people: dict[str, list[KeypointPerson]] = {}
    for field, entry, name in found.entries:
        values = entry.get("keypoints")
        points = len(values) // 3 if isinstance(values, list) else 0
        if points not in POINT_SETS:
            known = ", ".join(str(number) for number in POINT_SETS)
            fix = f"Sets of {known} points are known; write x, y, score of each."
            raise InputError(path, f"{field}.keypoints", f"{points} points", fix)
        names = POINT_SETS[points]
        triples = check_triples(path, f"{field}.keypoints", values, points, "AlphaPose")
        person = keypoint_person(names, triples[: len(names)])
        if person.found.any():
            people.setdefault(name, []).append(person)
    return people, found.strangers
