"""Data sets of one label file: TokenHMR's 3DPW, BEDLAM, HumanData, COCO."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import smplx
import torch

from depthfit.datasets import DatasetSource, open_dataset
from depthfit.datasets.label_files import _thinned
from depthfit.datasets.labels import projected, true_keypoints, truth_columns
from depthfit.datasets.npz import LabelArchive
from depthfit.datasets.write import SceneOptions, is_written, write_scene
from depthfit.errors import InputError
from depthfit.evidence.scene import read_scene
from depthfit.joints import COCO17, KEYPOINTS
from tests.datasets import formats
from tests.datasets.test_datasets_world import Harmful


def pelvis_of(folder: Path, gender: str, betas: np.ndarray, transl: np.ndarray) -> np.ndarray:
    """Pelvis (N, 3) that smplx gives; it does not depend on the pose."""
    layer = smplx.SMPLLayer(str(folder / f"SMPL_{gender.upper()}.pkl"), num_betas=10)
    n = len(betas)
    eye = torch.eye(3)
    out = layer(
        betas=torch.from_numpy(betas).float(), transl=torch.from_numpy(transl).float(),
        global_orient=eye.expand(n, 1, 3, 3), body_pose=eye.expand(n, 23, 3, 3),
    )  # fmt: skip
    return out.joints[:, 0].numpy()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def tokenhmr_columns(rng: np.random.Generator, count: int = 3) -> dict[str, np.ndarray]:
    names = ["imageFiles/a_00/image_00000.jpg", "imageFiles/a_00/image_00000.jpg", "imageFiles/b_01/x.jpg"]
    return {
        "imgname": np.array([n.encode() for n in names[:count]]),
        "center": rng.uniform(40, 80, (count, 2)),
        "scale": np.array([100.0, 80.0, 60.0])[:count],
        "body_pose": rng.normal(0, 0.3, (count, 72)),
        "has_body_pose": np.ones(count),
        "betas": rng.normal(size=(count, 10)),
        "has_betas": np.ones(count),
        "gender": formats.objects(["m", "female", "f"])[:count],
        "body_keypoints_2d": rng.uniform(1, 100, (count, 25, 3)),
        "extra_keypoints_2d": rng.uniform(1, 100, (count, 19, 3)),
        "body_keypoints_3d": rng.normal(size=(count, 25, 4)),
        "extra_keypoints_3d": rng.normal(size=(count, 19, 4)),
    }


def open_labels(name: str, root: Path, labels: Path, body_set, **more):
    return open_dataset(DatasetSource(name, root, labels, **more), body_set.get)


def test_tokenhmr_labels(rng, tmp_path, body_set):
    columns = tokenhmr_columns(rng)
    path = formats.write_npz(tmp_path / "3dpw_test.npz", columns)
    reader = open_labels("3dpw-tokenhmr", tmp_path / "3DPW", path, body_set)
    assert reader.names() == ["imageFiles_a_00", "imageFiles_b_01"]
    scene = reader.read("imageFiles_a_00")
    people = scene.people
    assert people.gender == ["male", "female"]
    assert people.person.tolist() == [1, 2]
    np.testing.assert_allclose(people.root, columns["body_pose"][:2, :3])
    assert people.label_joints.shape == (2, 44, 4)
    np.testing.assert_allclose(people.label_joints[:, 25:], columns["extra_keypoints_3d"][:2])
    np.testing.assert_allclose(
        scene.detections["imageFiles_a_00_image_00000.jpg"], columns["body_keypoints_2d"][:2]
    )
    nose = people.keypoints[:, KEYPOINTS.index("nose")]
    np.testing.assert_allclose(nose, columns["body_keypoints_2d"][:2, 0])
    truth = truth_columns(people, body_set.get)
    assert np.isnan(truth["joints"]).all()
    assert np.isnan(truth["focal"]).all()
    assert np.isfinite(truth["joints_local"]).all()
    np.testing.assert_allclose(truth["box_size"], [100, 80])
    np.testing.assert_allclose((truth["boxes"][:, :2] + truth["boxes"][:, 2:]) / 2, columns["center"][:2])


def test_a_label_file_that_would_run_code_is_refused(rng, tmp_path, body_set):
    columns = tokenhmr_columns(rng)
    columns["gender"] = formats.objects([Harmful(), "f", "f"])
    path = formats.write_npz(tmp_path / "3dpw_test.npz", columns)
    with pytest.raises(InputError, match="not plain data"):
        open_labels("3dpw-tokenhmr", tmp_path, path, body_set).read("imageFiles_a_00")


def test_object_columns_of_rows_become_numbers(tmp_path):
    path = formats.write_npz(tmp_path / "x.npz", {
        "rows": formats.objects([np.arange(3), np.arange(3) + 5]), "ragged": formats.objects([[1], [1, 2]]),
        "held": np.array({"a": np.ones(2)}, dtype=object), "cube": np.ones((2, 3)),
    })  # fmt: skip
    archive = LabelArchive(path)
    assert archive.numbers("rows", 3).tolist() == [[0, 1, 2], [5, 6, 7]]
    assert archive.read("held")["a"].tolist() == [1, 1]
    for field, match in (("ragged", "no numbers"), ("cube", r"shape \(2, 3\)"), ("nothing", "missing")):
        with pytest.raises(InputError, match=match):
            archive.numbers(field, 4)


def bedlam_columns(rng: np.random.Generator, width: int = 72) -> dict[str, np.ndarray]:
    ext = np.tile(np.eye(4), (2, 1, 1))
    ext[:, :3, 3] = rng.normal(0, 1, (2, 3))
    return {
        "imgname": np.array(["seq_000000/seq_000000_0000.png", "seq_000001/seq_000001_0000.png"]),
        "center": rng.uniform(40, 80, (2, 2)), "scale": np.array([0.5, 0.25]),
        "pose_cam": rng.normal(0, 0.3, (2, width)), "shape": rng.normal(size=(2, 11)),
        "trans_cam": rng.normal(0, 1, (2, 3)) + np.array([0, 0, 5]), "cam_ext": ext,
        "cam_int": np.tile(formats.K, (2, 1, 1)), "gender": np.array(["m", "f"]),
        "gtkps": rng.uniform(0, 100, (2, 127, 3)),
    }  # fmt: skip


def test_bedlam(rng, tmp_path, body_set, smpl_folder):
    """The neutral body whatever the subject's gender; the two translations add up."""
    columns = bedlam_columns(rng)
    path = formats.write_npz(tmp_path / "labels" / "20221010_3_6fps.npz", columns)
    scene = open_labels("bedlam", tmp_path, path.parent, body_set).read("20221010_3_6fps")
    total = columns["trans_cam"] + columns["cam_ext"][:, :3, 3]
    expected = pelvis_of(smpl_folder, "neutral", columns["shape"][:, :10], total)
    np.testing.assert_allclose(scene.people.pelvis, expected, atol=1e-6)
    assert scene.people.gender == ["neutral"] * 2
    assert scene.people.group == ["20221010_3_6fps_seq_000000", "20221010_3_6fps_seq_000001"]
    assert truth_columns(scene.people, body_set.get)["box_size"] == pytest.approx([100, 50])
    wide = formats.write_npz(tmp_path / "x" / "s.npz", bedlam_columns(rng, 165))
    with pytest.raises(InputError, match="SMPL-X"):
        open_labels("bedlam", tmp_path, wide, body_set).read("s")


def test_bedlam_closeups_are_turned_upright(rng, tmp_path, body_set):
    path = formats.write_npz(tmp_path / "a_closeup.npz", bedlam_columns(rng))
    for video in ("seq_000000", "seq_000001"):
        formats.write_image(tmp_path / "a_closeup" / "png" / video / f"{video}_0000.png")
    scene = open_labels("bedlam", tmp_path, path, body_set).read("a_closeup")
    folder = write_scene(scene, tmp_path / "scene", body_set.get, SceneOptions("truth"), {})
    image, _ = sorted((folder / "images").iterdir())
    pixels = cv2.imread(str(image))
    assert pixels.shape == (160, 120, 3)
    assert pixels[0, -1].tolist() == [255] * 3  # the marked corner was the top left


def human_data(rng: np.random.Generator) -> dict[str, np.ndarray]:
    smpl = {
        "global_orient": rng.normal(0, 0.3, (2, 3)), "body_pose": rng.normal(0, 0.3, (2, 23, 3)),
        "betas": rng.normal(size=(2, 10)), "transl": rng.normal(0, 0.2, (2, 3)) + np.array([0, 0, 1.2]),
    }  # fmt: skip
    return {
        "image_path": np.array(["spec_mtp/a/1.png", "spec_mtp/b/1.png"]),
        "smpl": np.array(smpl, dtype=object), "meta": np.array({"gender": ["m", "f"]}, dtype=object),
        "K": np.tile(formats.K, (2, 1, 1)), "bbox_xywh": np.array([[10.0, 20, 30, 60, 1], [0, 0, 50, 40, 1]]),
    }  # fmt: skip


def test_human_data(rng, tmp_path, body_set, smpl_folder):
    columns = human_data(rng)
    path = formats.write_npz(tmp_path / "spec_mtp.npz", columns)
    scene = open_labels("humandata", tmp_path, path, body_set).read("spec_mtp")
    smpl = columns["smpl"].item()
    for row, gender in enumerate(("male", "female")):
        expected = pelvis_of(smpl_folder, gender, smpl["betas"][row : row + 1], smpl["transl"][row : row + 1])
        np.testing.assert_allclose(scene.people.pelvis[row], expected[0], atol=1e-6)
    assert scene.people.pose.shape == (2, 69)
    assert set(scene.images) == {"spec_mtp_a_1.png", "spec_mtp_b_1.png"}
    assert scene.people.group == scene.people.imgname  # photographs, each a draw of its own
    assert scene.people.boxes.tolist() == [[10, 20, 40, 80], [0, 0, 50, 40]]


def test_a_focal_length_alone_is_a_camera_about_the_image_s_middle(rng, tmp_path, body_set):
    """SPEC-MTP as its public converter writes it: (N, 2) focal lengths, no K."""
    columns = human_data(rng)
    wide = (320, 240)
    formats.write_image(tmp_path / "spec_mtp" / "a" / "1.png")
    formats.write_image(tmp_path / "spec_mtp" / "b" / "1.png", size=wide)
    K = np.stack([formats.K, formats.K])
    K[:, 0, 0], K[:, 1, 1] = [150, 309.5], [150, 310.5]
    K[1, :2, 2] = (np.array(wide) - 1) / 2
    told = columns | {"K": K}
    del columns["K"]
    columns["focal_length"] = np.array([[150.0, 150.0], [309.5, 310.5]])
    truths = []
    for name, content in (("focal", columns), ("matrix", told)):
        path = formats.write_npz(tmp_path / f"{name}.npz", content)
        people = open_labels("humandata", tmp_path, path, body_set).read(name).people
        truths.append(truth_columns(people, body_set.get))
    np.testing.assert_allclose(truths[0]["K"], truths[1]["K"])
    np.testing.assert_allclose(true_keypoints(truths[0]), true_keypoints(truths[1]))
    assert (true_keypoints(truths[0])[..., 2] == 1).all()
    labelled = open_labels("humandata", tmp_path, tmp_path / "focal.npz", body_set).read("focal")
    folder = write_scene(labelled, tmp_path / "scene", body_set.get, SceneOptions("truth", "known"), {})
    assert read_scene(folder, "body25").read("spec_mtp_b_1").camera.focal_px == pytest.approx(310, rel=1e-4)


@pytest.mark.parametrize("compressed", [True, False])
def test_human_data_s_own_keypoints_stand_in_where_there_is_no_camera(rng, tmp_path, body_set, compressed):
    columns = human_data(rng)
    del columns["K"]
    whole = rng.uniform(1, 100, (2, 190, 3))
    whole[..., 2] = 1
    mask = np.zeros(190)
    mask[[1, 16, 21, 55, 65, 150]] = (
        1  # left hip, left shoulder, right wrist, nose, right heel, OpenPose's own
    )
    names = ["left_hip", "left_shoulder", "right_wrist", "nose", "right_heel"]
    columns |= {"keypoints2d": whole[:, mask > 0] if compressed else whole, "keypoints2d_mask": mask}
    path = formats.write_npz(tmp_path / "eft.npz", columns)
    points = open_labels("humandata", tmp_path, path, body_set).read("eft").people.keypoints
    chosen = [KEYPOINTS.index(name) for name in names]
    np.testing.assert_allclose(points[:, chosen], whole[:, [1, 16, 21, 55, 65]])
    assert (np.delete(points, chosen, 1) == 0).all()
    columns["keypoints2d"] = whole[:, :24]
    path = formats.write_npz(tmp_path / "other.npz", columns)
    with pytest.raises(InputError, match="24 points and a mask of 190"):
        open_labels("humandata", tmp_path, path, body_set).read("other")


def test_images_of_different_takes_stay_apart(rng, tmp_path, body_set):
    """HuMMan's names differ in the first folder alone."""
    columns = human_data(rng)
    tail = "kinect_color/kinect_000/000018.png"
    files = [f"p000455_a000986/{tail}", f"p000455_a000999/{tail}"]
    path = formats.write_npz(tmp_path / "humman.npz", columns | {"image_path": np.array(files)})
    scene = open_labels("humandata", tmp_path, path, body_set).read("humman")
    assert scene.people.person.tolist() == [1, 1]
    assert [str(scene.images[n].path) for n in scene.people.imgname] == [str(tmp_path / f) for f in files]


@pytest.mark.parametrize("files", [["a/b_1.png", "a_b/1.png"], ["a/1.png", "a/1.jpg"]])
def test_two_images_of_one_name_are_refused(rng, tmp_path, body_set, files):
    path = formats.write_npz(tmp_path / "x.npz", human_data(rng) | {"image_path": np.array(files)})
    with pytest.raises(InputError, match="would be called too"):
        open_labels("humandata", tmp_path, path, body_set).read("x")


def coco_file(path: Path) -> Path:
    def entry(image: int, points: int, **more) -> dict:
        keypoints = [v for k in range(17) for v in ((10 + k, 20 + k, 1 + k % 2) if k < points else (0, 0, 0))]
        return {"image_id": image, "keypoints": keypoints, "num_keypoints": points, "iscrowd": 0,
                "bbox": [5, 6, 40, 90], "category_id": 1, "id": 1, **more}  # fmt: skip

    content = {
        "images": [{"id": 7, "file_name": "000000000007.jpg"}, {"id": 8, "file_name": "000000000008.jpg"}],
        "annotations": [entry(7, 17), entry(7, 9), entry(7, 3), entry(8, 17, iscrowd=1)],
    }
    path.write_text(json.dumps(content))
    return path


def test_coco(tmp_path, body_set):
    reader = open_labels("coco", tmp_path, coco_file(tmp_path / "val.json"), body_set)
    assert reader.names() == ["coco_000"]
    people = reader.read("coco_000").people
    assert people.imgname == people.group == ["000000000007.jpg"] * 2
    assert people.person.tolist() == [1, 2]
    for name in KEYPOINTS:
        row = people.keypoints[1, KEYPOINTS.index(name)]
        k = COCO17.index(name) if name in COCO17 else 17
        assert row.tolist() == ([10 + k, 20 + k, 1] if k < 9 else [0, 0, 0])
    truth = truth_columns(people, body_set.get)
    assert truth["box_size"].tolist() == [90, 90]
    assert np.isnan(truth["joints"]).all()


def test_a_scene_is_what_a_fit_reads(rng, tmp_path, body_set):
    path = formats.write_npz(tmp_path / "spec_mtp.npz", human_data(rng))
    for folder in "ab":
        formats.write_image(tmp_path / "spec_mtp" / folder / "1.png")
    labelled = open_labels("humandata", tmp_path, path, body_set).read("spec_mtp")
    options = SceneOptions("truth", "known")
    folder = write_scene(labelled, tmp_path / "scene", body_set.get, options, {"a": 1})
    scene = read_scene(folder, "body25")
    evidence = scene.read("spec_mtp_a_1")
    assert evidence.camera.source == "cameras.json"
    assert evidence.camera.focal_px == pytest.approx(150)
    truth = truth_columns(labelled.people, body_set.get)
    xy = true_keypoints(truth)[0]
    seen = evidence.people[0].found
    assert seen.sum() == 25
    np.testing.assert_allclose(evidence.people[0].xy[seen], xy[seen, :2], atol=1e-3)
    assert (folder / "images" / "spec_mtp_a_1.png").is_symlink()
    boxes = json.loads((folder / "boxes.json").read_text())
    assert boxes["spec_mtp_b_1"] == [[0, 0, 50, 40]]
    assert is_written(folder, {"a": 1}, options)
    assert not is_written(tmp_path / "other", {"a": 1}, options)
    with pytest.raises(InputError, match="other settings"):
        is_written(folder, {"a": 1}, SceneOptions("truth", "estimated"))


def test_what_a_data_set_cannot_give_is_an_error(rng, tmp_path, body_set):
    path = formats.write_npz(tmp_path / "3dpw_test.npz", tokenhmr_columns(rng))
    labelled = open_labels("3dpw-tokenhmr", tmp_path, path, body_set).read("imageFiles_a_00")
    scene = tmp_path / "scene"
    for options, match in (
        (SceneOptions("dataset", "known"), "intrinsics"),
        (SceneOptions("evidence"), "evidence"),
        (SceneOptions("guessed"), "guessed"),
        (SceneOptions(), "no such file"),
    ):
        with pytest.raises(InputError, match=match):
            write_scene(labelled, scene, body_set.get, options, {})
    assert [p for p in tmp_path.iterdir() if p.is_dir()] == []  # nothing half made is left
    with pytest.raises(InputError, match="labels"):
        open_dataset(DatasetSource("bedlam", tmp_path), body_set.get)
    with pytest.raises(InputError, match="3dpw-tokenhmr"):
        open_dataset(DatasetSource("3dwp", tmp_path), body_set.get)


def test_every_second_image_keeps_all_its_people():
    files = ["b.jpg", "a.jpg", "a.jpg", "c.jpg", "b.jpg"]
    assert _thinned(files, [0, 1, 2, 3, 4], 2) == [1, 2, 3]
    assert _thinned(files, [0, 3, 4], 2) == [0, 4]


def test_what_is_behind_the_camera_is_not_seen():
    points = np.array([[[0.1, 0.2, 2.0], [0.1, 0.2, -2.0], [np.nan] * 3]])
    K = np.array([[[100.0, 0, 50], [0, 100, 40], [0, 0, 1]]])
    xy, seen = projected({"keypoints_3d": points, "K": K})
    assert seen.tolist() == [[True, False, False]]
    np.testing.assert_allclose(xy[0, 0], [55, 50])
