from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from depthfit.errors import InputError
from depthfit.evidence.alphapose import read_alphapose
from depthfit.joints import COCO17, FEET, KEYPOINTS
from tests.evidence.scene_files import write_json

HALPE_TAIL = (
    "head_top", "neck", "mid_hip", "left_big_toe", "right_big_toe", "left_small_toe", "right_small_toe",
    "left_heel", "right_heel",
)  # fmt: skip
"""Points 17 to 25 as the Halpe data set lists them."""


def match(image: int | str) -> str | None:
    return str(image).removesuffix(".jpg") if str(image).startswith("a") else None


def person(points: int) -> dict[str, object]:
    """Point i lies at (i, 2 i) with the score 0.5; the person's own score is above one."""
    values = [v for i in range(points) for v in (float(i), 2.0 * i, 0.5)]
    return {"image_id": "a.jpg", "category_id": 1, "keypoints": values, "score": 2.7, "box": [0, 0, 9, 9]}


@pytest.mark.parametrize(
    ("points", "names"),
    [
        (17, COCO17),
        (26, (*COCO17, *HALPE_TAIL)),
        (136, (*COCO17, *HALPE_TAIL)),
        (133, (*COCO17, *FEET)),
    ],
)
def test_points_go_to_their_names(points: int, names: tuple[str, ...], tmp_path: Path) -> None:
    people, strangers = read_alphapose(write_json(tmp_path / "a.json", [person(points)]), match)
    (found,) = people["a"]
    assert not strangers
    # The first point lies at (0, 0), but has a score.
    assert {KEYPOINTS[k] for k in np.flatnonzero(found.found)} == set(names)
    for i, name in enumerate(names):
        assert found.xy[KEYPOINTS.index(name)].tolist() == [i, 2 * i]
    assert found.confidence.max() == 0.5


def test_other_images_are_told_apart(tmp_path: Path) -> None:
    other = {**person(17), "image_id": "b.jpg"}
    people, strangers = read_alphapose(write_json(tmp_path / "a.json", [person(17), other]), match)
    assert list(people) == ["a"]
    assert strangers == ["b.jpg"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"a.jpg": {"bodies": []}}, "not a list of people"),
        ([person(18)], "18 points"),
        ([{**person(17), "keypoints": None}], "0 points"),
        ([{**person(17), "image_id": None}], "image_id"),
    ],
)
def test_files_that_cannot_be_used(content: object, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        read_alphapose(write_json(tmp_path / "a.json", content), match)
