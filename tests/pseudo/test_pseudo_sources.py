"""COCO files, label files of BEDLAM and CameraHMR, and scene folders, there and back."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from depthfit.body.load import load_body
from depthfit.errors import InputError
from depthfit.evidence.keypoints import KeypointPerson
from depthfit.evidence.scene import read_scene
from depthfit.joints import BODY25, COCO17, KEYPOINTS
from depthfit.pseudo.labels import to_44
from depthfit.pseudo.npz_columns import read_column
from depthfit.pseudo.part import read_index
from depthfit.pseudo.source_coco import CocoSource
from tests.evidence.scene_files import mark_predictions
from tests.pseudo.conftest import refine
from tests.pseudo.official_reader import label_file_people


@pytest.fixture(scope="module")
def images(scene: Path) -> Path:
    return scene / "images"


def people_of(scene: Path) -> Iterator[tuple[str, Any]]:
    read = read_scene(scene, "coco17")
    for name in read.names[:3]:
        yield name, read.read(name)


def truth_of(scene: Path, image: str, person: KeypointPerson) -> list[float]:
    """The true pose (72,) of a detected person: of the one whose keypoints are nearest."""
    with np.load(scene / "ground_truth.npz") as truth:
        rows = np.flatnonzero(truth["imgname"] == f"{image}.png")
        points = truth["keypoints_3d"][rows] @ truth["K"][rows].transpose(0, 2, 1)
        distance = np.linalg.norm(points[..., :2] / points[..., 2:] - person.xy, axis=-1)
        row = rows[np.median(distance[:, person.found], axis=1).argmin()]
        return [*truth["global_orient"][row].tolist(), *truth["body_pose"][row].tolist()]


def coco_file(scene: Path, path: Path) -> dict[str, Any]:
    """Annotations of three images: a crowd, somebody without points, and a polygon among them."""
    entries: list[dict[str, Any]] = []
    pictures = []
    for k, (name, evidence) in enumerate(people_of(scene)):
        pictures.append({"id": 7 * k + 1, "file_name": f"{name}.png", "width": 256, "height": 192})
        for person in evidence.people:
            index = [KEYPOINTS.index(point) for point in COCO17]
            points = np.concatenate([person.xy[index], 2.0 * person.found[index, None]], 1)
            box = person.box()
            ring = [[*box[:2], box[2], box[1], *box[2:], box[0], box[3]]]
            entries.append(
                {"image_id": 7 * k + 1, "category_id": 1, "iscrowd": 0, "keypoints": points.ravel().tolist(),
                 "segmentation": [[float(v) for v in ring[0]]], "bbox": box.tolist()}
            )  # fmt: skip
            # One starts from the keypoints alone, which takes its time; the others from what is there.
            if len(entries) > 1:
                entries[-1]["smpl"] = {"pose": truth_of(scene, name, person), "betas": [0.0] * 10}
    entries.append({"image_id": 1, "category_id": 1, "iscrowd": 1, "segmentation": {"counts": "x"}})
    entries.append({"image_id": 8, "category_id": 1, "iscrowd": 0, "keypoints": [0] * 51})
    for number, entry in enumerate(entries):
        entry["id"] = number
    content = {"images": pictures, "annotations": entries, "info": {"year": 2014}, "licenses": ["x"]}
    path.write_text(json.dumps(content))
    return content


def test_coco_gets_an_extension_and_keeps_the_rest(scene: Path, images: Path, tmp_path: Path) -> None:
    before = coco_file(scene, tmp_path / "in.json")
    summary = refine(tmp_path / "in.json", tmp_path / "out", f"images={images}", f"depth={scene / 'depth'}")
    after = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert summary["people"] == len(before["annotations"]) - 1, "a crowd is nobody"
    assert summary["outcomes"]["failed"] == 1
    assert summary["outcomes"]["refined"] == 6
    stripped, wanted = (
        [{k: v for k, v in a.items() if k != "smpl"} for a in content["annotations"]]
        for content in (after, before)
    )
    assert stripped == wanted
    assert {k: v for k, v in after.items() if k not in ("annotations", "info")} == {
        k: v for k, v in before.items() if k not in ("annotations", "info")
    }
    bodies = [a["smpl"] for a in after["annotations"] if "smpl" in a]
    assert len(bodies) == 6
    assert all(np.shape(b["pose"]) == (72,) and np.shape(b["betas"]) == (10,) for b in bodies)
    assert all(b["focal"] > 0 and np.isfinite(b["transl"]).all() for b in bodies)
    evidence = {r["evidence"] for p in (tmp_path / "out" / "index").glob("*") for r in read_index(p)}
    assert "keypoints+depth+mask" in evidence, "the polygons and the folder of depth maps were used"


def test_a_coco_run_starts_from_the_extension_of_an_earlier_one(
    scene: Path, images: Path, tmp_path: Path
) -> None:
    content = coco_file(scene, tmp_path / "in.json")
    pose = np.linspace(-0.5, 0.5, 72)
    content["annotations"][0]["smpl"] = {"pose": pose.tolist(), "betas": [0.5] * 10}
    del content["annotations"][1]["smpl"]
    (tmp_path / "in.json").write_text(json.dumps(content))
    source = CocoSource(str(tmp_path / "in.json"), str(images), None, 16, 2)
    assert [(u.first, u.last) for u in source.units()] == [(0, 2), (2, 3)]
    plan = source.plan(source.units()[0])
    items, _ = source.read(plan, 0)
    label = items[0].subjects[0].label
    assert label is not None
    np.testing.assert_allclose(label.pose, pose)
    assert items[0].subjects[1].label is None
    assert items[0].evidence is not None
    labels = items[0].evidence.labels
    assert labels is not None
    assert set(np.unique(labels)) == {0, 1, 2}


def label_file(scene: Path, path: Path, **more: np.ndarray) -> dict[str, np.ndarray]:
    """CameraHMR's layout: six people of three images, SMPL's own translation, cam_ext that adds to it."""
    with np.load(scene / "ground_truth.npz") as truth:
        table = {name: truth[name] for name in truth.files}
    keep = np.isin(table["imgname"], [f"{name}.png" for name, _ in people_of(scene)])
    count = int(keep.sum())
    found = {name: e.people for name, e in people_of(scene)}
    points = []
    for name, joints, K in zip(
        table["imgname"][keep], table["keypoints_3d"][keep], table["K"][keep], strict=True
    ):
        xy = (joints @ K.T)[:, :2] / joints[:, 2:]
        near = min(found[Path(name).stem], key=lambda p: np.median(np.abs(p.xy - xy)[p.found]))
        points.append(to_44(near))
    body = load_body()
    rest = torch.einsum("cb,nb->nc", body.joint_shapedirs[0], torch.from_numpy(table["betas"][keep]).float())
    pelvis = (rest + body.joint_template[0]).numpy()
    extrinsics = np.tile(np.eye(4), (count, 1, 1))
    extrinsics[:, :3, 3] = [0.1, -0.2, 0.3]
    columns = {
        "imgname": table["imgname"][keep],
        "center": np.zeros((count, 2)),
        "scale": np.ones(count),
        "pose_cam": np.concatenate([table["global_orient"], table["body_pose"]], 1)[keep].astype(np.float64),
        "shape": np.pad(table["betas"][keep], ((0, 0), (0, 1))),
        "cam_int": table["K"][keep].astype(np.float32),
        "cam_ext": extrinsics,
        "trans_cam": table["transl"][keep] - pelvis - extrinsics[:, :3, 3],
        "gtkps": np.array(points, np.float32),
        "proj_verts": np.zeros((count, 5, 2), np.float32),
        **more,
    }
    np.savez(path, **columns)
    return columns


def projection_errors(path: Path) -> list[float]:
    """Median distance of each body's projection to its 2D keypoints, in the person's sizes: by smplx's rule
    for the translation, and by the file's own camera."""
    body, errors = load_body(), []
    for person in label_file_people(path):
        turns = Rotation.from_rotvec(person["pose"]).as_matrix().astype(np.float32)
        betas = torch.from_numpy(person["betas"]).float()[None]
        skeleton, vertices = body.forward(*(torch.from_numpy(t)[None] for t in (turns[0], turns[1:])), betas)
        placed = body.keypoints(skeleton, vertices)[0] + skeleton.rest[0, 0]
        points = (placed.numpy() + person["transl"]) @ person["cam_int"].T
        points = (points[:, :2] / points[:, 2:])[[KEYPOINTS.index(name) for name in BODY25]]
        given = person["keypoints_2d"][:25]
        seen = given[:, 2] > 0
        distance = np.linalg.norm(points - given[:, :2], axis=1)[seen]
        errors.append(float(np.median(distance) / np.ptp(given[seen, :2], axis=0).max()))
    return errors


def test_a_label_file_keeps_its_layout(scene: Path, images: Path, tmp_path: Path) -> None:
    before = label_file(scene, tmp_path / "in.npz", gender=np.array(["neutral"] * 6, dtype=object))
    summary = refine(tmp_path / "in.npz", tmp_path / "out", f"images={images}", f"depth={scene / 'depth'}")
    assert summary["outcomes"]["refined"] == 6
    with np.load(tmp_path / "out" / "labels.npz", allow_pickle=True) as data:
        after = {name: data[name] for name in data.files}
    assert set(after) == {*before, "depthfit_provenance"}
    for name in ("imgname", "center", "scale", "cam_ext", "gtkps", "gender"):
        np.testing.assert_array_equal(after[name], before[name])
    for name in ("pose_cam", "shape", "trans_cam", "cam_int"):
        assert after[name].shape == before[name].shape
        assert after[name].dtype == before[name].dtype
    np.testing.assert_array_equal(after["shape"][:, 10], before["shape"][:, 10])
    assert np.isnan(after["proj_verts"]).all(), "what followed from the old label is not left standing"
    # The start was the truth, so the refined camera-space body, read by the loaders' rule, is near it.
    for name in ("pose_cam", "trans_cam"):
        assert np.abs(after[name] - before[name]).max() > 0
    distance = (after["trans_cam"] + after["cam_ext"][:, :3, 3])[:, 2] / after["cam_int"][:, 0, 0]
    wanted = (before["trans_cam"] + before["cam_ext"][:, :3, 3])[:, 2] / before["cam_int"][:, 0, 0]
    np.testing.assert_allclose(distance, wanted, rtol=0.1)
    errors = projection_errors(tmp_path / "out" / "labels.npz")
    assert len(errors) == 6
    assert np.median(errors) < 0.05


def test_members_that_do_not_change_are_copied_as_they_are(scene: Path, images: Path, tmp_path: Path) -> None:
    label_file(scene, tmp_path / "in.npz")
    refine(tmp_path / "in.npz", tmp_path / "out", f"images={images}")
    with zipfile.ZipFile(tmp_path / "in.npz") as a, zipfile.ZipFile(tmp_path / "out" / "labels.npz") as b:
        for name in ("imgname.npy", "gtkps.npy", "cam_ext.npy"):
            assert a.read(name) == b.read(name)
    refine(tmp_path / "in.npz", tmp_path / "same", f"images={images}", "gate.min_keypoints=99")
    assert (tmp_path / "same" / "labels.npz").read_bytes() == (tmp_path / "in.npz").read_bytes()


def test_a_label_file_with_a_hostile_column_is_refused(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (print, ("ran",))

    np.savez(tmp_path / "in.npz", imgname=np.array([Trap()], dtype=object))
    with pytest.raises(InputError, match="print"):
        read_column(tmp_path / "in.npz", "imgname")
    text = np.array(["a", "b"], dtype=object)
    np.savez(tmp_path / "text.npz", imgname=text)
    np.testing.assert_array_equal(read_column(tmp_path / "text.npz", "imgname"), text)
    assert pickle.loads(pickle.dumps(text)).tolist() == ["a", "b"]


def test_a_scene_becomes_a_label_file(scene: Path, tmp_path: Path) -> None:
    image = scene / "images" / "00000.png"
    assert cv2.imread(str(image)) is not None
    summary = refine(scene, tmp_path / "out", "keypoint_format=coco17", "shard_images=4", "chunk=4")
    assert summary["shards"] == 2
    assert summary["outcomes"]["refined"] == summary["written"] > 0
    # The file is made anew: who is not refined is not in it, and the card does not say otherwise.
    card = (tmp_path / "out" / "README.md").read_text()
    assert "none could be made: left out" in card
    assert "none: only the source has it" in card
    with np.load(tmp_path / "out" / "labels.npz") as data:
        assert len(data["imgname"]) == summary["written"]
        assert data["pose_cam"].shape[1:] == (72,)
        assert data["gtkps"].shape[1:] == (44, 3)
        depth = data["trans_cam"][:, 2]
    assert np.median(projection_errors(tmp_path / "out" / "labels.npz")) < 0.08, "the fit is coarse"
    with np.load(scene / "ground_truth.npz") as truth:
        assert np.median(depth) == pytest.approx(np.median(truth["transl"][:, 2]), rel=0.5)


def test_labels_made_of_smpls_shapes_say_that_those_were_not_used(
    scene: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    marked = Path(shutil.copytree(scene, tmp_path / "scene"))
    mark_predictions(marked, "hmr2")
    fast = ("keypoint_format=coco17", "shard_images=6")
    summary = refine(marked, tmp_path / "out", *fast)
    why = summary["betas_left_out"]
    assert "HMR2.0's predictions are SMPL's" in why
    assert [r.message for r in caplog.records if why in r.message] == [f"{marked}: {why}"]
    assert why in (tmp_path / "out" / "README.md").read_text()
    assert json.loads((tmp_path / "out" / "provenance.json").read_text())["betas_left_out"] == why
    index = read_index(next((tmp_path / "out" / "index").glob("*.parquet")))
    betas = np.array([row["initial_betas"] for row in index if row["outcome"] == "refined"])
    assert len(betas)
    assert not betas.any()
    shutil.rmtree(marked / "depth")
    alone = refine(marked, tmp_path / "alone", *fast, "init=keypoints", "fit.camera.freeze_focal=true")
    assert alone["betas_left_out"] is None


@pytest.mark.parametrize(
    ("settings", "word"),
    [(("target=tars",), "target"), (("engine=slurm",), "engine"), (("policy.failed=hide",), "policy.failed")],
)
def test_settings_that_cannot_be_are_refused(
    scene: Path, tmp_path: Path, settings: tuple[str, ...], word: str
) -> None:
    with pytest.raises(InputError, match=word):
        refine(scene, tmp_path / "out", "keypoint_format=coco17", *settings)
    assert not (tmp_path / "out").exists()


def test_a_source_that_is_not_there_is_told_from_one_of_no_known_kind(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        refine(tmp_path / "nothing", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="not known"):
        refine(tmp_path / "empty", tmp_path / "out")


def test_depth_is_perceived_where_there_is_none(scene: Path, tmp_path: Path) -> None:
    pytest.importorskip(
        "transformers", reason="perception needs transformers: pip install depthfit[perception]"
    )
    from depthfit.pseudo.synthetic import write_tars
    from tests.perception.networks import FOLDERS, write_tiny

    write_tiny(tmp_path / "models", "depth")
    (tar, *_) = write_tars(scene, tmp_path / "tars", "coco17", images_a_tar=2, depth=False)
    model = f"perceive.model={tmp_path / 'models' / FOLDERS['depth']}"
    plain = refine(tar, tmp_path / "plain")
    seen = refine(tar, tmp_path / "seen", "perceive.depth=depth_pro", model)
    assert "perceive" in seen["stages"]
    assert "perceive" not in plain["stages"]
    evidence = [
        {row["evidence"] for row in read_index(tmp_path / out / "index" / "000000.parquet")}
        for out in ("plain", "seen")
    ]
    assert evidence == [{"keypoints+mask"}, {"keypoints+depth+mask"}]
    provenance = json.loads((tmp_path / "seen" / "provenance.json").read_text())
    assert "perceived: depth_pro" in provenance["evidence_allowed"]
    assert any("safetensors" in name and "tokenizer" not in name for name in provenance["model_files"])
