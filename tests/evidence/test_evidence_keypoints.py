from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest

from depthfit.errors import InputError
from depthfit.evidence import keypoints as kp
from depthfit.joints import COCO17, FEET, KEYPOINT_FORMATS, KEYPOINTS, OKS_SIGMA
from tests.evidence.scene_files import flat_points, write_json


def openpose(path: Path, *people: list[float]) -> Path:
    return write_json(path, {"version": 1.3, "people": [{"pose_keypoints_2d": p} for p in people]})


@pytest.mark.parametrize("keypoint_format", list(KEYPOINT_FORMATS))
def test_openpose_points_go_to_their_names(tmp_path, keypoint_format):
    names = KEYPOINT_FORMATS[keypoint_format]
    (person,) = kp.read_openpose(openpose(tmp_path / "a.json", flat_points(keypoint_format)), keypoint_format)
    for k, name in enumerate(KEYPOINTS):
        if name in names:
            i = names.index(name)
            assert person.xy[k].tolist() == [10 + i, 5 + 2 * i]
            assert person.confidence[k] == pytest.approx(0.5 + i / 100)
        else:
            assert person.confidence[k] == 0


def test_body25_and_body25b_read_the_same_numbers_as_different_points(tmp_path):
    path = openpose(tmp_path / "a.json", flat_points("body25"))
    a, b = (kp.read_openpose(path, f)[0] for f in ("body25", "body25b"))
    elbow = KEYPOINTS.index("left_elbow")
    assert a.xy[elbow].tolist() == [16, 17]  # BODY_25 point 6
    assert b.xy[elbow].tolist() == [17, 19]  # BODY_25B point 7


def test_zeros_are_missing_and_empty_people_are_left_out(tmp_path):
    points = flat_points("coco17")
    points[:3] = [0, 0, 0]
    people = kp.read_openpose(openpose(tmp_path / "a.json", [0.0] * 51, points), "coco17")
    assert len(people) == 1
    assert people[0].found.sum() == 16
    assert not people[0].found[KEYPOINTS.index("nose")]


def test_scores_above_one_count_as_one(tmp_path):
    points = flat_points("coco17")
    points[2] = 2.7
    assert kp.read_openpose(openpose(tmp_path / "a.json", points), "coco17")[0].confidence[0] == 1


def test_box_spans_the_found_points(tmp_path):
    points = flat_points("coco17")
    points[:3] = [0, 0, 0]
    (person,) = kp.read_openpose(openpose(tmp_path / "a.json", points), "coco17")
    assert person.box().tolist() == [11, 7, 26, 37]


def spoiled(index: int, value: object) -> list[object]:
    points: list[object] = list(flat_points("body25"))
    points[index] = value
    return points


@pytest.mark.parametrize(
    ("content", "field", "found", "fix"),
    [
        ("{", "file", "not valid JSON", "cut short|again"),
        ("", "file", "empty", "again"),
        ("[]", "people", "a list", "people"),
        ('{"persons": []}', "people", "no list of that name", "people"),
        ({"people": [{}]}, "people[0].pose_keypoints_2d", "missing", "x, y, confidence"),
        ({"people": [{"pose_keypoints_2d": [[1, 2, 3]]}]}, "people[0]", "not a flat list", "x, y"),
        (
            {"people": [{"pose_keypoints_2d": flat_points("coco17")}]},
            "people[0].pose_keypoints_2d",
            "51 numbers, but 25 points of body25 make 75",
            "keypoints.format=coco17",
        ),
        (
            {"people": [{"pose_keypoints_2d": [9.0] * 50}]},
            "people[0]",
            "50 numbers, but 25",
            "x, y, confidence",
        ),
        ({"people": [{"pose_keypoints_2d": spoiled(3, float("nan"))}]}, "people[0]", "point 1 is", "finite"),
        ({"people": [{"pose_keypoints_2d": spoiled(4, float("inf"))}]}, "people[0]", "point 1 is", "finite"),
        ({"people": [{"pose_keypoints_2d": spoiled(5, -0.5)}]}, "people[0]", "-0.5", "confidences >= 0"),
        ({"people": [{"pose_keypoints_2d": spoiled(5, None)}]}, "people[0]", "not a flat list", "x, y"),
        (
            {"people": [{"pose_keypoints_2d": [0.5, 0.25, 0.9] * 25}]},
            "people[0].pose_keypoints_2d",
            "fractions",
            "keypoint_scale 0",
        ),
    ],
)
def test_bad_openpose_files_are_explained(tmp_path, content, field, found, fix):
    path = tmp_path / "x_keypoints.json"
    if isinstance(content, str):
        path.write_text(content)
    else:
        write_json(path, content)
    with pytest.raises(InputError) as error:
        kp.read_openpose(path, "body25")
    assert error.value.source == str(path)
    assert error.value.field.startswith(field)
    assert found in error.value.found
    assert any(word in error.value.fix for word in fix.split("|"))


@pytest.mark.parametrize(
    ("word", "meant"), [("coco", "coco17"), ("BODY_25", "body25"), ("openpose", "one of coco17, body25")]
)
def test_unknown_formats_are_answered_with_the_known_ones(word, meant):
    with pytest.raises(InputError, match=r"keypoints\.format") as error:
        kp.format_points(word)
    assert meant in error.value.fix


# --- COCO ---------------------------------------------------------------------------------------

VISIBILITIES = [2, 1, 0, *[2] * 14]
ANNOTATIONS = {
    "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "other.jpg"}],
    "annotations": [
        {
            "id": 1,
            "image_id": 7,
            "category_id": 1,
            "iscrowd": 0,
            "keypoints": [v for i, s in enumerate(VISIBILITIES) for v in (10 + i, 20 + i, s)],
        },
        {"id": 2, "image_id": 7, "category_id": 1, "iscrowd": 1, "keypoints": []},
        {"id": 3, "image_id": 7, "category_id": 18, "bbox": [0, 0, 1, 1]},
        {"id": 4, "image_id": 7, "category_id": 1, "keypoints": [0] * 51, "num_keypoints": 0},
        {"id": 5, "image_id": 8, "category_id": 1, "keypoints": [9, 9, 2] * 17},
    ],
}


def match_a(image: int | str) -> str | None:
    return "a" if image in (7, "a.jpg") else None


def test_coco_annotations(tmp_path):
    people, unknown, bad = kp.read_coco(write_json(tmp_path / "k.json", ANNOTATIONS), "coco17", match_a)
    assert (unknown, bad) == (["other.jpg"], {})
    assert list(people) == ["a"]
    (person,) = people["a"]  # the crowd, the dog and the unlabelled person are left out
    assert person.xy[0].tolist() == [10, 20]
    assert person.confidence[:3].tolist() == [1, kp.OCCLUDED_CONFIDENCE, 0]
    assert 0 < kp.OCCLUDED_CONFIDENCE < 1
    assert not person.found[len(COCO17) :].any()


def test_wholebody_feet_are_read_where_valid(tmp_path):
    content = copy.deepcopy(ANNOTATIONS)
    content["annotations"][0]["foot_kpts"] = [v for i in range(6) for v in (40.5 + i, 50, 2)]
    path = write_json(tmp_path / "k.json", content)
    (person,) = kp.read_coco(path, "coco17", match_a)[0]["a"]
    for i, name in enumerate(FEET):
        assert person.xy[KEYPOINTS.index(name)].tolist() == [40.5 + i, 50]
    content["annotations"][0]["foot_valid"] = False
    (person,) = kp.read_coco(write_json(path, content), "coco17", match_a)[0]["a"]
    assert person.found.sum() == 16


def test_coco_results_keep_scores(tmp_path):
    points = flat_points("coco17")
    entries = [{"image_id": 7, "category_id": 1, "keypoints": points, "score": 3.2}]
    people, unknown, bad = kp.read_coco(write_json(tmp_path / "k.json", entries), "coco17", match_a)
    assert (unknown, bad) == ([], {})
    assert people["a"][0].confidence[4] == pytest.approx(0.54)


def entry(**changes: object) -> dict[str, object]:
    return {"image_id": 7, "category_id": 1, "keypoints": flat_points("coco17")} | changes


@pytest.mark.parametrize(
    ("content", "field", "found", "fix"),
    [
        ("text", "annotations", "a str", "annotations"),
        ({"images": []}, "annotations", "NoneType", "results"),
        ({"annotations": []}, "images", "missing", "file_name"),
        ({"images": [{"id": 1}], "annotations": []}, "images", "without id and file_name", "file_name"),
        (
            {"images": [], "annotations": [entry()]},
            "annotations[0].image_id",
            "7 is not in images",
            "List the image",
        ),
        ([entry(image_id=None)], "[0].image_id", "None", "id"),
        ([3], "[0]", "a int", "object"),
    ],
)
def test_bad_coco_files_are_explained(tmp_path, content, field, found, fix):
    path = write_json(tmp_path / "keypoints.json", content)
    with pytest.raises(InputError) as error:
        kp.read_coco(path, "coco17", match_a)
    assert (error.value.source, error.value.field) == (str(path), field)
    assert found in error.value.found
    assert fix in error.value.fix


@pytest.mark.parametrize(
    ("content", "field", "found", "fix"),
    [
        ([entry(), entry(keypoints=[1, 2, 1])], "[1].keypoints", "3 numbers, but 17 points", "format"),
        ([entry(keypoints=None)], "[0].keypoints", "missing", "confidence"),
        (
            {"images": [{"id": 7, "file_name": "a.jpg"}], "annotations": [entry()]},
            "annotations[0].keypoints",
            "a visibility of 0.5",
            "results list",
        ),
        ([entry(foot_kpts=[1, 2])], "[0].foot_kpts", "2 numbers, but 6 points", "format"),
    ],
)
def test_bad_coco_entries_are_errors_of_their_image(tmp_path, content, field, found, fix):
    path = write_json(tmp_path / "keypoints.json", content)
    error = kp.read_coco(path, "coco17", match_a)[2]["a"]
    assert (error.source, error.field) == (str(path), field)
    assert found in error.found
    assert fix in error.fix


# --- noise --------------------------------------------------------------------------------------


def person_of(xy: np.ndarray, confidence: np.ndarray) -> kp.KeypointPerson:
    return kp.KeypointPerson(xy, confidence)


def test_sigma_is_that_of_oks_for_a_known_area():
    confidence = np.ones(27)
    confidence[1], confidence[2] = 0.5, 0
    sigma = kp.keypoint_sigma_px(person_of(np.ones((27, 2)), confidence), 10000.0, noise_factor=1.0)
    assert sigma[0] == pytest.approx(100 * OKS_SIGMA["nose"])
    assert sigma[1] == pytest.approx(2 * 100 * OKS_SIGMA["left_eye"])
    assert np.isinf(sigma[2])
    assert 1 / sigma[2] == 0  # as a weight, a missing point counts nothing


def test_sigma_without_area_follows_the_box_and_never_collapses():
    def nose_sigma(width: float, height: float) -> float:
        xy = np.zeros((27, 2))
        xy[5] = [width, height]
        return float(kp.keypoint_sigma_px(person_of(xy, np.ones(27)), noise_factor=1.0)[0])

    wide = nose_sigma(100, 200)
    assert wide == pytest.approx(OKS_SIGMA["nose"] * np.sqrt(0.8 * 100 * 200))
    assert nose_sigma(200, 400) == pytest.approx(2 * wide)
    assert nose_sigma(0, 200) == pytest.approx(OKS_SIGMA["nose"] * 80)  # seen exactly from the side
    assert nose_sigma(0, 0) > 0


def test_points_without_confidence_are_missing_unless_none_has_any(tmp_path):
    points = flat_points("coco17")
    points[2::3] = [0.05] * 10 + [0.6] * 7
    (person,) = kp.read_openpose(openpose(tmp_path / "a.json", points), "coco17")
    trusted = person.trusted(0.1)
    assert trusted.found.sum() == 7
    assert (trusted.xy[~trusted.found] == 0).all()
    assert person.trusted(0.9).found.sum() == 17


@pytest.mark.parametrize(
    ("xy", "inside"),
    [
        ((-1200, 0), True), ((-1201, 0), False), ((1600, 0), True), ((1601, 0), False),
        ((0, 1400), True), ((0, 1401), False), ((0, -1200), True), ((0, -1201), False),
    ],
)  # fmt: skip
def test_points_end_three_longer_sides_beyond_the_image(xy, inside):
    points = np.zeros((len(KEYPOINTS), 2))
    points[3] = xy
    person = kp.KeypointPerson(points, (np.arange(len(KEYPOINTS)) == 3) * 1.0, "people[0]")
    if inside:
        kp.check_reach(Path("a.json"), [person], (400, 200))
    else:
        with pytest.raises(InputError, match=rf"a\.json: people\[0\]: {KEYPOINTS[3]} at"):
            kp.check_reach(Path("a.json"), [person], (400, 200))
