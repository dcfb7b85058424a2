from __future__ import annotations

import json
import logging
import shutil

import cv2
import numpy as np
import pytest

from depthfit.errors import InputError
from depthfit.evidence.scene import read_scene
from tests.evidence.scene_files import HEIGHT, WIDTH, flat_points, prediction_columns, write_json
from tests.evidence.test_evidence_cameras import PHONE, jpeg, tiff


def test_everything_that_is_known_of_an_image(scene):
    whole = read_scene(scene, "body25")
    assert whole.names == ("a", "b")
    assert whole.strangers == ()
    a = whole.read("a")
    assert (a.name, a.size) == ("a", (WIDTH, HEIGHT))
    assert len(a.people) == 1
    assert a.depth is not None
    assert a.depth.focal_px == 50
    assert a.labels is not None
    assert np.unique(a.labels).tolist() == [0, 1, 2]
    assert (a.camera.source, a.camera.focal_px, a.camera.sigma_log_focal) == ("cameras.json", 70, 0.02)
    assert a.rows.tolist() == [0, 1]
    assert a.predictions is not None
    assert a.predictions.person.tolist() == [1, 2]
    assert a.notes == ()
    assert a.pixels().shape == (HEIGHT, WIDTH, 3)


def test_what_is_missing_is_not_evidence(scene):
    b = read_scene(scene, "body25").read("b")
    assert (b.people, b.depth, b.labels, b.camera.source) == ((), None, None, "prior")
    assert b.predictions is not None
    assert len(b.predictions) == 0
    shutil.rmtree(scene / "keypoints")
    for file in ("predictions.npz", "cameras.json"):
        (scene / file).unlink()
    bare = read_scene(scene)
    assert (bare.keypoint_format, bare.predictions, bare.read("b").predictions) == (None, None, None)


def test_pixels_are_rgb(scene):
    red = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    red[..., 2] = 255
    cv2.imwrite(str(scene / "images" / "b.png"), red)
    assert read_scene(scene, "body25").read("b").pixels()[0, 0].tolist() == [255, 0, 0]


def test_the_focal_length_comes_from_the_first_that_knows(scene):
    def source() -> tuple[str, float]:
        camera = read_scene(scene, "body25").read("a").camera
        return camera.source, camera.focal_px

    assert source() == ("cameras.json", 70)
    (scene / "cameras.json").unlink()
    assert source() == ("depth", 50)
    photo = jpeg(tiff(PHONE), (WIDTH, HEIGHT))
    (scene / "images" / "a.jpg").write_bytes(photo)
    assert source() == ("exif", pytest.approx(26 * 80 / 43.2666153))
    (scene / "images" / "a.jpg").write_bytes(jpeg(b"garbage", (WIDTH, HEIGHT)))
    assert source() == ("depth", 50)
    assert "malformed" in read_scene(scene, "body25").read("a").notes[0]
    (scene / "depth" / "a.npz").unlink()
    assert source()[0] == "prior"


def test_images_are_turned_upright_as_their_keypoints_are(scene):
    """EXIF orientation 6: stored on its side."""
    block = b"II*\0" + (8).to_bytes(4, "little") + b"\1\0" + b"\x12\1\3\0\1\0\0\0\6\0\0\0" + b"\0" * 4
    (scene / "images" / "b.jpg").write_bytes(jpeg(block, (HEIGHT, WIDTH)))
    (scene / "images" / "b.png").unlink()
    b = read_scene(scene, "body25").read("b")
    assert b.size == (WIDTH, HEIGHT)
    assert b.pixels().shape[:2] == (HEIGHT, WIDTH)


def test_names_may_be_stems_file_names_or_paths(scene):
    columns = prediction_columns(["images/a.jpg", "a", "b.png"], [1, 2, 1])
    np.savez(scene / "predictions.npz", **columns)
    write_json(scene / "cameras.json", {"a.jpg": {"focal_px": 71}})
    whole = read_scene(scene, "body25")
    assert whole.rows_of("a").tolist() == [0, 1]
    assert whole.read("a.jpg").camera.focal_px == 71
    assert whole.read("b").rows.tolist() == [2]


def test_one_coco_file_for_all_images(scene):
    shutil.rmtree(scene / "keypoints")
    (scene / "images" / "a.jpg").rename(scene / "images" / "val_000012.jpg")
    (scene / "predictions.npz").unlink()
    points = flat_points("coco17")
    entries = [
        {"image_id": 12, "category_id": 1, "keypoints": points},
        {"image_id": 99, "category_id": 1, "keypoints": points},
        {"image_id": "b.png", "category_id": 1, "keypoints": points},
    ]
    write_json(scene / "keypoints.json", entries)
    whole = read_scene(scene)
    assert whole.keypoint_format == "coco17"
    assert len(whole.read("val_000012").people) == len(whole.read("b").people) == 1
    assert "keypoints.json: 99" in whole.strangers


def test_what_belongs_to_no_image_is_reported(scene, caplog):
    (scene / "keypoints" / "aa_keypoints.json").write_text("{}")
    (scene / "keypoints" / "b.json").write_text("{}")
    (scene / "depth" / "a.tiff").write_text("")
    shutil.copy(scene / "masks" / "a.png", scene / "masks" / "A.png")
    write_json(scene / "cameras.json", {"a": {"focal_px": 70}, "c": {"focal_px": 70}})
    np.savez(scene / "predictions.npz", **prediction_columns(["a.jpg", "x.jpg"], [1, 1]))
    with caplog.at_level(logging.WARNING):
        whole = read_scene(scene, "body25")
    assert set(whole.strangers) == {
        "keypoints/aa_keypoints.json",
        "keypoints/b.json",
        "depth/a.tiff",
        "masks/A.png",
        "cameras.json: c",
        "predictions.npz: x.jpg",
    }
    assert all(any(stranger in line for line in caplog.messages) for stranger in whole.strangers)
    # An image b there is: what its keypoints lack is their ending.
    assert "keypoints/b.json: OpenPose's files are named b_keypoints.json; not used" in caplog.messages
    with pytest.raises(InputError, match="no image of that name"):
        whole.read("x.jpg")


def test_photographs_that_are_not_read_are_named(scene, caplog):
    (scene / "images" / "c.WEBP").write_bytes(b"RIFF")
    (scene / "images" / "more").mkdir()
    (scene / "images" / "Thumbs.db").write_bytes(b"x")
    with caplog.at_level(logging.WARNING):
        assert read_scene(scene, "body25").names == ("a", "b")
    named = [line for line in caplog.messages if "neither jpg nor png" in line]
    assert ["more/" in named[0], "c.WEBP" in named[1], len(named)] == [True, True, 2]


def test_a_mask_of_somebody_unpredicted_is_noted(scene):
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[:9], labels[20:30] = 1, 5
    cv2.imwrite(str(scene / "masks" / "a.png"), labels)
    assert read_scene(scene, "body25").read("a").notes == (
        "its mask has person 5, whom the predictions do not have",
    )


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_a_truncated_photo_is_an_error_and_the_others_are_read(scene, keep):
    path = scene / "images" / "a.jpg"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    whole = read_scene(scene, "body25")
    with pytest.raises(InputError, match=r"a\.jpg: pixels: .*cut short"):
        whole.read("a")
    assert whole.read("b").size == (WIDTH, HEIGHT)


def test_a_truncated_photo_is_noticed_where_the_decoder_fills_it_with_grey(scene, monkeypatch):
    """As OpenCV 4 does."""
    path = scene / "images" / "a.jpg"
    grey = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    monkeypatch.setattr(cv2, "imdecode", lambda data, flags: grey)
    monkeypatch.setattr("depthfit.evidence.scene.read_mask", lambda path, size: None)
    assert read_scene(scene, "body25").read("a").size == (WIDTH, HEIGHT)
    thumbnail = jpeg(tiff(PHONE) + path.read_bytes(), (WIDTH, HEIGHT))  # whose end is not the photo's
    path.write_bytes(thumbnail)
    assert read_scene(scene, "body25").read("a").size == (WIDTH, HEIGHT)
    path.write_bytes(thumbnail[:-20])
    with pytest.raises(InputError, match="the image data end too early"):
        read_scene(scene, "body25").read("a")


def test_a_bad_row_stops_its_own_image_alone(scene):
    columns = prediction_columns(["a.jpg", "b.png"], [1, 1])
    columns["betas"][0, 0] = np.nan
    np.savez(scene / "predictions.npz", **columns)
    whole = read_scene(scene, "body25")
    with pytest.raises(InputError, match=r"betas\[0\] \(person 1 of 'a.jpg'\)"):
        whole.read("a")
    assert whole.read("b").rows.tolist() == [1]


def both_keypoint_sources(root):
    write_json(root / "keypoints.json", [])


def two_depths(root):
    cv2.imwrite(str(root / "depth" / "a.png"), np.ones((HEIGHT, WIDTH), np.uint16))


def same_stem(root):
    shutil.copy(root / "images" / "a.jpg", root / "images" / "b.jpg")


def no_image_left(root):
    shutil.rmtree(root / "images")
    (root / "images").mkdir()


def images_in_folders(root):
    no_image_left(root)
    (root / "images" / "day1").mkdir()


def unknown_images(root):
    np.savez(root / "predictions.npz", **prediction_columns(["aa.jpg"], [1]))


def unknown_coco_images(root):
    shutil.rmtree(root / "keypoints")
    write_json(root / "keypoints.json", [{"image_id": 3, "category_id": 1, "keypoints": []}])


def camera_twice(root):
    (root / "cameras.json").write_text(json.dumps({"a": {"focal_px": 1}, "a.jpg": {"focal_px": 2}}))


@pytest.mark.parametrize(
    ("spoil", "field", "found", "fix"),
    [
        (shutil.rmtree, "images", "no such folder", "check the path"),
        (no_image_left, "images", "no jpg or png", "photographs"),
        (images_in_folders, "images", "but day1/", "folders in it are not read"),
        (same_stem, "b", "2 files are named b", "Rename"),
        (both_keypoint_sources, "keypoints", "both keypoints.json and", "Keep the one"),
        (unknown_images, "imgname", "'aa.jpg'", "Did you mean 'a.jpg'?"),
        (unknown_coco_images, "image_id", "first: 3", "number"),
    ],
)
def test_bad_scenes_are_explained(scene, spoil, field, found, fix):
    spoil(scene)
    with pytest.raises(InputError) as error:
        read_scene(scene, "body25")
    assert error.value.source.startswith(str(scene))
    assert error.value.field == field
    assert found in error.value.found
    assert fix in error.value.fix


def far_point(root):
    points = flat_points("body25")
    points[3] = 4 * WIDTH + 9.0
    people = [{"pose_keypoints_2d": [0.0] * 75}, {"pose_keypoints_2d": points}]
    write_json(root / "keypoints" / "a_keypoints.json", {"people": people})


def far_coco_point(root):
    shutil.rmtree(root / "keypoints")
    points = flat_points("coco17")
    points[1] = -1e30
    write_json(root / "keypoints.json", [{"image_id": "a.jpg", "keypoints": points}])


def bad_coco_entry(root):
    shutil.rmtree(root / "keypoints")
    points = flat_points("body25")
    people = {"b.png": points, "a.jpg": [*points[:-1], np.nan]}
    entries = [{"image_id": name, "keypoints": values} for name, values in people.items()]
    write_json(root / "keypoints.json", entries)


@pytest.mark.parametrize(
    ("spoil", "source", "field", "found"),
    [
        (far_point, "keypoints/a_keypoints.json", "people[1].pose_keypoints_2d", "neck at (265, 7)"),
        (far_coco_point, "keypoints.json", "[0].keypoints", "nose at (10, -1e+30)"),
        (bad_coco_entry, "keypoints.json", "[1].keypoints", "point 24 is"),
        (two_depths, "depth", "a", "both a.npz and a.png"),
        (camera_twice, "cameras.json", "a.jpg", "second entry"),
    ],
)
def test_what_is_wrong_with_one_image_stops_it_alone(scene, spoil, source, field, found):
    spoil(scene)
    whole = read_scene(scene, "coco17" if spoil is far_coco_point else "body25")
    assert whole.read("b").size == (WIDTH, HEIGHT)
    with pytest.raises(InputError) as error:
        whole.read("a")
    assert (error.value.source, error.value.field) == (str(scene / source), field)
    assert found in error.value.found


def test_openpose_files_need_their_format_named(scene):
    with pytest.raises(InputError, match=r"keypoints\.format") as error:
        read_scene(scene)
    assert "body25b" in error.value.fix
    with pytest.raises(InputError, match="Did you mean 'body25'"):
        read_scene(scene, "body_25")
