from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from depthfit.errors import InputError
from depthfit.evidence.coco import read_coco_boxes, write_people
from depthfit.evidence.keypoints import KeypointPerson, read_coco
from depthfit.joints import COCO17, FEET, KEYPOINTS
from tests.evidence.scene_files import write_json


def match(image: int | str) -> str | None:
    return str(image).removesuffix(".jpg") if str(image).startswith("a") else None


def test_written_people_are_read_again(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    xy, confidence = rng.uniform(1, 90, (len(KEYPOINTS), 2)), rng.uniform(0.2, 1, len(KEYPOINTS))
    confidence[KEYPOINTS.index("left_knee")] = 0
    xy[confidence == 0] = 0
    write_people(tmp_path / "k.json", {"a.jpg": [KeypointPerson(xy, confidence)], "a2.jpg": []})
    people, strangers, bad = read_coco(tmp_path / "k.json", "coco17", match)
    (found,) = people["a"]
    assert not strangers
    assert not bad
    for name in (*COCO17, *FEET):
        k = KEYPOINTS.index(name)
        np.testing.assert_allclose(found.xy[k], xy[k], atol=1e-3)
        assert found.confidence[k] == pytest.approx(confidence[k], abs=1e-3)


def test_a_person_without_feet_has_none_when_read_again(tmp_path: Path) -> None:
    confidence = np.array([0.5 if name in COCO17 else 0.0 for name in KEYPOINTS])
    xy = np.where(confidence[:, None] > 0, 7.0, 0.0) + np.zeros((1, 2))
    write_people(tmp_path / "k.json", {"a.jpg": [KeypointPerson(xy, confidence)]})
    people, _, _ = read_coco(tmp_path / "k.json", "coco17", match)
    assert not people["a"][0].found[[KEYPOINTS.index(name) for name in FEET]].any()


def test_boxes_of_results_and_of_annotations(tmp_path: Path) -> None:
    entries = [
        {"image_id": "a.jpg", "category_id": 1, "bbox": [10, 20, 30, 40], "score": 0.9},
        {"image_id": "a.jpg", "category_id": 3, "bbox": [0, 0, 1, 1], "score": 0.9},
        {"image_id": "b.jpg", "category_id": 1, "bbox": [0, 0, 1, 1], "score": 0.9},
    ]
    boxes, strangers = read_coco_boxes(write_json(tmp_path / "r.json", entries), match)
    assert {name: rows.tolist() for name, rows in boxes.items()} == {"a": [[10, 20, 40, 60]]}
    assert strangers == ["b.jpg"]
    annotated = {
        "images": [{"id": 5, "file_name": "a.jpg"}],
        "annotations": [{"image_id": 5, "category_id": 1, "bbox": [1, 2, 3, 4]}],
    }
    boxes, _ = read_coco_boxes(write_json(tmp_path / "n.json", annotated), match)
    assert boxes["a"].tolist() == [[1, 2, 4, 6]]


@pytest.mark.parametrize("box", [None, [1, 2, 3], [1, 2, 0, 4], [1, 2, float("nan"), 4], "box"])
def test_boxes_that_are_none(box: object, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps([{"image_id": "a.jpg", "bbox": box}]))
    with pytest.raises(InputError, match=r"\[0\]\.bbox"):
        read_coco_boxes(path, match)
