"""True bodies under a regressor's camera: misses and thresholds that follow from its crop camera."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from depthfit.bench.camera_bias import CameraBiasConfig, measure, run_camera_bias
from depthfit.camera import regressor_focal
from depthfit.cli.main import main
from depthfit.errors import InputError
from depthfit.evidence.predictions import Predictions, write_predictions
from depthfit.joints import KEYPOINTS
from tests.datasets import formats

BOX, SCALE, PEOPLE = 80.0, 0.9, 3


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A scene whose truth is exactly what the regressor says, camera and all; and fits that agree.

    Keypoints are flat, so that a shifted camera moves all of a person's points by the same number of pixels.
    """
    rng = np.random.default_rng(0)
    focal = float(regressor_focal(*formats.SIZE))
    depth = 2 * focal / (BOX * SCALE)
    middle = (np.array(formats.SIZE) - 1) / 2
    K = np.tile(np.array([[focal, 0, middle[0]], [0, focal, middle[1]], [0, 0, 1]]), (PEOPLE, 1, 1))
    points = np.concatenate([rng.uniform(-0.8, 0.8, (PEOPLE, 27, 2)), np.zeros((PEOPLE, 27, 1))], -1)
    names = np.array([f"{k}.png" for k in range(PEOPLE)])
    turns = rng.normal(0, 0.4, (PEOPLE, 24, 3))
    pelvis = np.tile([0, 0, depth], (PEOPLE, 1))
    joints = np.tile(pelvis[:, None], (1, 24, 1))
    truth = {
        "imgname": names, "person": np.ones(PEOPLE, int), "joints": joints, "focal": np.full(PEOPLE, focal),
        "K": K, "keypoints_3d": points + pelvis[:, None], "keypoint_names": np.array(KEYPOINTS),
        "betas": np.zeros((PEOPLE, 10)), "global_orient": turns[:, 0],
        "body_pose": turns[:, 1:].reshape(-1, 69),
    }  # fmt: skip
    xy = truth["keypoints_3d"] @ K.transpose(0, 2, 1)
    xy = xy[..., :2] / xy[..., 2:]
    fits = {name: truth[name] for name in ("imgname", "person", "joints", "focal", "K", "keypoint_names")}
    fits |= {"initial_joints": joints, "initial_focal": truth["focal"], "initial_keypoints_2d": xy}
    for name in names:
        formats.write_image(tmp_path / "scene" / "images" / str(name))
    np.savez(tmp_path / "scene" / "ground_truth.npz", **truth)
    np.savez(tmp_path / "fits.npz", **fits)
    return tmp_path / "scene", tmp_path / "fits.npz"


def predict(scene: Path, shift: float, turn: np.ndarray) -> None:
    """Predictions whose camera is ``shift`` off in tx, and whose joints are turned by ``turn`` (24,) rad."""
    with np.load(scene / "ground_truth.npz") as truth:
        vectors = np.concatenate([truth["global_orient"], truth["body_pose"]], 1).reshape(-1, 3)
        names = truth["imgname"]
    axes = np.tile([0.0, 0.6, 0.8], (len(vectors), 1)) * np.tile(turn, PEOPLE)[:, None]
    turned = Rotation.from_rotvec(vectors) * Rotation.from_rotvec(axes)
    rotations = turned.as_matrix().reshape(PEOPLE, 24, 3, 3).astype(np.float32)
    middle = (np.array(formats.SIZE, np.float32) - 1) / 2
    write_predictions(scene / "predictions.npz", Predictions(
        imgname=names, person=np.ones(PEOPLE, int), box_center=np.tile(middle, (PEOPLE, 1)),
        box_size=np.full(PEOPLE, BOX, np.float32),
        pred_cam=np.tile(np.array([SCALE, shift, 0], np.float32), (PEOPLE, 1)),
        root=rotations[:, 0], pose=rotations[:, 1:], betas=np.zeros((PEOPLE, 10), np.float32),
    ))  # fmt: skip


def test_thresholds_are_the_errors_that_were_put_in(files):
    """tx off by d moves the crop by d s / 2 of its side; joint k is turned by k / 100 rad."""
    scene, fits = files
    predict(scene, 0.1, np.arange(24) / 100)
    found = measure(scene, fits, CameraBiasConfig())
    np.testing.assert_allclose(found.keypoint_thresholds, 0.1 * SCALE / 2, rtol=1e-2)
    np.testing.assert_allclose(found.pose_thresholds, np.arange(24) / 100, atol=1e-4)


def test_alignment_under_each_camera(files):
    scene, fits = files
    predict(scene, 0.0, np.zeros(24))
    exact = measure(scene, fits, CameraBiasConfig()).alignment
    assert all(share[0] == 1.0 for shares in exact.values() for share in shares)
    predict(scene, 50.0, np.zeros(24))
    own, under_regressor, refined = measure(scene, fits, CameraBiasConfig()).alignment.values()
    assert [share[0] for share in under_regressor] == [0.0, 0.0]
    assert [share[0] for share in own] == [share[0] for share in refined] == [1.0, 1.0]


def test_the_command_writes_its_table(files, tmp_path, capsys):
    scene, fits = files
    predict(scene, 0.1, np.zeros(24))
    assert main(["bench", "camera", f"scene={scene}", f"fits={fits}", f"out={tmp_path / 'out'}"]) == 0
    assert "| nose | 11.5 |" in capsys.readouterr().out
    assert "| pelvis | 0.0 | 26.4 |" in (tmp_path / "out" / "camera.md").read_text()
    with pytest.raises(InputError, match="scene=FOLDER"):
        run_camera_bias(CameraBiasConfig())
