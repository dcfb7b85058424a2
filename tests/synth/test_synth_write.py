"""Scene folders: complete, reproducible, and read back as they were made."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from depthfit import __version__, so3
from depthfit.errors import InputError
from depthfit.evidence.predictions import SIMULATED
from depthfit.evidence.scene import read_scene
from depthfit.joints import COCO17, KEYPOINTS
from depthfit.synth import SynthConfig
from depthfit.synth import write as writer
from depthfit.synth.generate import sample
from depthfit.synth.write import make_scene

CONFIG = SynthConfig(seed=4, images=3, token_probs=False, people_weights=(0, 1, 1), width=320, height=240)


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    return make_scene(CONFIG, tmp_path_factory.mktemp("synth") / "scene", progress=False)


@pytest.fixture(scope="module")
def truth(scene) -> dict[str, np.ndarray]:
    with np.load(scene / "ground_truth.npz") as data:
        return dict(data)


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_same_config_same_bytes(scene, tmp_path):
    again = make_scene(CONFIG, tmp_path / "again", progress=False)
    assert _digests(again) == _digests(scene)
    assert len(_digests(scene)) == 4 * 3 + 3


def test_evidence_is_read_back_as_it_was_made(scene, studio):
    reader = read_scene(scene, "coco17")
    assert reader.names == ("00000", "00001", "00002")
    assert reader.strangers == ()
    assert reader.predictions.regressor == SIMULATED
    rows = [KEYPOINTS.index(name) for name in COCO17]
    for made in sample(CONFIG, studio):
        read = reader.read(made.name)
        assert read.notes == ()
        assert read.size == (320, 240)
        np.testing.assert_array_equal(read.pixels(), made.picture.image)
        np.testing.assert_array_equal(read.labels, made.masks)
        np.testing.assert_allclose(read.depth.metres, made.depth, rtol=1e-3)
        assert read.depth.focal_px == pytest.approx(made.focal, rel=1e-6)
        assert read.camera.focal_px == pytest.approx(made.focal, rel=1e-6)
        found = np.array([np.c_[p.xy, p.confidence][rows] for p in read.people])
        order = [np.abs(found - k).max((1, 2)).argmin() for k in made.keypoints]
        assert sorted(order) == list(range(len(found)))
        np.testing.assert_allclose(found[order], made.keypoints, atol=1e-3)
        np.testing.assert_allclose(read.predictions.root, made.predictions.root, atol=1e-5)
        np.testing.assert_allclose(read.predictions.pose, made.predictions.pose, atol=1e-5)
        np.testing.assert_allclose(read.predictions.pred_cam, made.predictions.pred_cam, rtol=1e-5)


def test_the_focal_length_is_not_given_away(scene):
    assert not (scene / "cameras.json").exists()


def test_ground_truth_makes_its_own_joints(truth, studio):
    """Pose and place give the joints, up to shape that the fitted body does not know."""
    root = so3.exp(torch.as_tensor(truth["global_orient"]))
    pose = so3.exp(torch.as_tensor(truth["body_pose"]).unflatten(-1, (23, 3)))
    skeleton = studio.body.skeleton(root, pose, torch.as_tensor(truth["betas"]))
    joints = skeleton.position + torch.as_tensor(truth["transl"])[:, None]
    error = np.linalg.norm(joints.numpy() - truth["joints"], axis=-1)
    assert error.mean() < 0.03
    np.testing.assert_allclose(truth["joints"][:, 0], truth["transl"], atol=1e-6)


def test_ground_truth_columns(truth):
    n = len(truth["imgname"])
    shapes = {
        "person": (n,), "focal": (n,), "K": (n, 3, 3), "transl": (n, 3), "global_orient": (n, 3),
        "body_pose": (n, 69), "betas": (n, 10), "joints": (n, 24, 3), "keypoints_3d": (n, 27, 3),
        "keypoint_names": (27,), "height_m": (n,), "clothes_m": (n,), "unhidden": (n,), "pose_kind": (n,),
    }  # fmt: skip
    for name, shape in shapes.items():
        assert truth[name].shape == shape, name
    assert truth["vertices"].shape[::2] == (n, 3)
    assert set(truth["person"]) <= {1, 2, 3}
    np.testing.assert_allclose(truth["K"][:, 0, 0], truth["focal"])


def test_settings_are_kept(scene):
    saved = OmegaConf.load(scene / "synth.yaml")
    assert saved.depthfit_version == __version__
    assert OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(SynthConfig), saved.config)) == CONFIG


def test_a_folder_in_use_is_left_alone(scene):
    before = _digests(scene)
    with pytest.raises(InputError, match="exists already"):
        make_scene(CONFIG, scene, progress=False)
    assert _digests(scene) == before


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def full_disk(*_args):
        raise OSError("no space left")

    monkeypatch.setattr(writer, "write_predictions", full_disk)
    with pytest.raises(OSError, match="no space left"):
        make_scene(CONFIG, tmp_path / "scene", progress=False)
    assert list(tmp_path.iterdir()) == []
