"""3DPW and EMDB: world to camera against smplx, genders, valid frames, detections."""

from __future__ import annotations

import logging
import os
import pickle

import numpy as np
import pytest
import smplx
import torch
from scipy.spatial.transform import Rotation

from depthfit.datasets.emdb import EMDB
from depthfit.datasets.labels import truth_columns
from depthfit.datasets.threedpw import COCO18, ThreeDPW
from depthfit.errors import InputError
from depthfit.joints import BODY25, COCO17
from tests.datasets import formats

FRAMES = 4


def smplx_joints(folder, person: formats.Motion) -> torch.Tensor:
    """(F, 24, 3) world-frame joints that smplx gives for the parameters."""
    layer = smplx.SMPLLayer(str(folder / f"SMPL_{person.gender.upper()}.pkl"), num_betas=10)
    rotations = torch.from_numpy(Rotation.from_rotvec(person.poses.reshape(-1, 3)).as_matrix()).float()
    rotations = rotations.reshape(-1, 24, 3, 3)
    out = layer(
        betas=torch.from_numpy(person.betas).float().expand(len(rotations), 10),
        global_orient=rotations[:, :1], body_pose=rotations[:, 1:],
        transl=torch.from_numpy(person.trans).float(),
    )  # fmt: skip
    return out.joints[:, :24]


def in_camera(points: np.ndarray, T_camera_world: np.ndarray) -> np.ndarray:
    return points @ T_camera_world[:, :3, :3].transpose(0, 2, 1) + T_camera_world[:, None, :3, 3]


@pytest.fixture(scope="module")
def people() -> list[formats.Motion]:
    return [formats.motion(1, FRAMES, "male"), formats.motion(2, FRAMES, "female", (0.5, 0.1, 0.7))]


@pytest.fixture(scope="module")
def threedpw(tmp_path_factory, smpl_folder, people):
    """The reader of a sequence, smplx's joints in the camera (people, F, 24, 3), valid, 2D."""
    root = tmp_path_factory.mktemp("3dpw")
    cameras = formats.extrinsics(3, FRAMES)
    world = [smplx_joints(smpl_folder, p).numpy() for p in people]
    valid = np.array([[1, 1, 0, 1], [0, 1, 1, 1]])
    rng = np.random.default_rng(4)
    points = rng.uniform(1, 100, (2, FRAMES, 3, 18))
    points[:, :, 2] = rng.uniform(0.1, 1, (2, FRAMES, 18))
    points[1, 3] = 0
    flat = np.array([w.reshape(FRAMES, 72) for w in world])
    formats.write_3dpw(root, "street_00", people, cameras, valid, points, flat)
    return root, np.array([in_camera(w, cameras) for w in world]), valid, points


def test_labels_equal_smplx_moved_by_the_camera(threedpw, body_set):
    """Every joint, the pelvis among them, to 1e-5 m: a pelvis rotated about the origin is 0.2 m off."""
    root, truth, _, _ = threedpw
    reader = ThreeDPW(root, body_set.get)
    assert reader.names() == ["street_00"]
    scene = reader.read("street_00")
    columns = truth_columns(scene.people, body_set.get)
    frames = [int(n[-9:-4]) for n in scene.people.imgname]
    actors = [0, 0, 1, 1, 0, 1]
    assert frames == [0, 1, 1, 2, 3, 3]
    assert scene.people.person.tolist() == [1, 1, 2, 1, 1, 2]
    expected = np.array([truth[a, f] for a, f in zip(actors, frames, strict=True)])
    np.testing.assert_allclose(columns["joints"], expected, atol=1e-5)
    np.testing.assert_allclose(columns["transl"], expected[:, 0], atol=1e-5)
    assert scene.people.gender == ["male", "male", "female", "female", "male", "female"]
    assert columns["focal"].tolist() == [150.0] * 6


def test_the_wrong_gender_would_be_noticed(threedpw, body_set, caplog):
    root, truth, _, _ = threedpw
    other = {"male": "female", "female": "male"}
    with caplog.at_level(logging.WARNING):
        scene = ThreeDPW(root, lambda g: body_set.get(other[g])).read("street_00")
    wrong = truth_columns(scene.people, lambda g: body_set.get(other[g]))["joints"]
    assert np.linalg.norm(wrong[0] - truth[0, 0], axis=-1).max() > 0.01
    assert "jointPositions[0]" in caplog.text


def test_detections_are_brought_to_body25_by_name(threedpw, body_set):
    root, _, _, points = threedpw
    scene = ThreeDPW(root, body_set.get).read("street_00")
    assert len(scene.detections["street_00_00001.jpg"]) == 2
    assert len(scene.detections["street_00_00003.jpg"]) == 1  # zeros are nobody
    found = scene.detections["street_00_00001.jpg"][1]
    for name in BODY25:
        row = found[BODY25.index(name)]
        expected = points[1, 1, :, COCO18.index(name)] if name in COCO18 else np.zeros(3)
        np.testing.assert_allclose(row, expected)
    assert set(COCO17) < set(COCO18)


def test_frames_can_be_thinned(threedpw, body_set):
    root = threedpw[0]
    scene = ThreeDPW(root, body_set.get, every=2).read("street_00")
    assert scene.people.imgname == ["street_00_00000.jpg", "street_00_00002.jpg"]


@pytest.mark.parametrize(("field", "change"), [
    ("cam_poses", lambda c: c["cam_poses"][:-1]),
    ("trans[1]", lambda c: c["trans"][:1]),
    ("genders", lambda c: ["x", "m"]),
    ("poses2d[0]", lambda c: [p.transpose(0, 2, 1) for p in c["poses2d"]]),
])  # fmt: skip
def test_a_spoilt_field_is_named(threedpw, body_set, tmp_path, field, change):
    path = threedpw[0] / "sequenceFiles" / "test" / "street_00.pkl"
    content = pickle.loads(path.read_bytes(), encoding="latin1")
    content[field.partition("[")[0]] = change(content)
    copy = tmp_path / "sequenceFiles" / "test" / "street_00.pkl"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match=field.replace("genders", "gender").replace("[", r"\[")):
        ThreeDPW(tmp_path, body_set.get).read("street_00")


class Harmful:
    def __reduce__(self):
        return os.system, ("true",)


def test_a_sequence_that_would_run_code_is_refused(body_set, tmp_path):
    path = tmp_path / "sequenceFiles" / "test" / "bad.pkl"
    path.parent.mkdir(parents=True)
    path.write_bytes(pickle.dumps({"poses": Harmful()}))
    with pytest.raises(InputError, match="not plain data"):
        ThreeDPW(tmp_path, body_set.get).read("bad")


def test_an_empty_or_unknown_split_is_named(body_set, tmp_path):
    with pytest.raises(InputError, match="no pkl"):
        ThreeDPW(tmp_path, body_set.get).names()
    with pytest.raises(InputError, match="validation"):
        ThreeDPW(tmp_path, body_set.get, split="val").names()


def test_emdb(body_set, smpl_folder, people, tmp_path):
    cameras = formats.extrinsics(5, FRAMES)
    good = np.array([True, False, True, True])
    formats.write_emdb(tmp_path, "P1", "02_walk", people[1], cameras, good)
    formats.write_emdb(tmp_path, "P0", "11_run", people[0], cameras, good, emdb1=False)
    reader = EMDB(tmp_path, body_set.get)
    assert reader.names() == ["P1_02_walk"]
    assert EMDB(tmp_path, body_set.get, "emdb2").names() == ["P0_11_run"]
    scene = reader.read("P1_02_walk")
    columns = truth_columns(scene.people, body_set.get)
    expected = in_camera(smplx_joints(smpl_folder, people[1]).numpy(), cameras)[good]
    np.testing.assert_allclose(columns["joints"], expected, atol=1e-5)
    assert scene.people.gender == ["female"] * 3
    assert columns["boxes"].tolist() == [[10, 20, 70, 100]] * 3
    assert scene.images["P1_02_walk_00002.jpg"].path == tmp_path / "P1/02_walk/images/00002.jpg"
    assert scene.detections == {}
