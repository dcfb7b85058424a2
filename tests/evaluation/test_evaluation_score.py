"""Scores of saved files: cases whose errors are known by construction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from depthfit.errors import InputError
from depthfit.evaluation.errors import image_points
from depthfit.evaluation.score import score


def _project(points: np.ndarray, k: np.ndarray) -> np.ndarray:
    homogeneous = points @ k.transpose(0, 2, 1)
    return homogeneous[..., :2] / homogeneous[..., 2:]


@pytest.fixture
def tables() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    n = 6
    joints = rng.normal(size=(n, 24, 3)) * 0.3 + [0, 0, 4]
    keypoints = rng.normal(size=(n, 3, 3)) * 0.3 + [0, 0, 4]
    focal = np.full(n, 1000.0)
    k = np.zeros((n, 3, 3))
    k[:, 0, 0] = k[:, 1, 1] = 1000
    k[:, :, 2] = [320, 240, 1]
    truth = {
        "imgname": np.array(["a.png", "a.png", "b.png", "c.png", "c.png", "c.png"]),
        "person": np.array([1, 2, 1, 1, 2, 3]), "joints": joints, "focal": focal, "K": k,
        "keypoints_3d": keypoints, "keypoint_names": np.array(["nose", "neck", "mid_hip"]),
        "vertices": joints,
    }  # fmt: skip
    worse = joints.copy()
    worse[:, 1:] += [0.03, 0.0, 0.04]
    fits = {
        "imgname": np.char.replace(truth["imgname"], ".png", ""), "person": truth["person"],
        "status": np.full(n, "converged"), "accepted": np.ones(n, bool), "joints": joints,
        "focal": focal * 1.1, "vertices": joints,
        "initial_joints": worse, "initial_focal": focal * 20, "initial_vertices": worse,
        "keypoints_2d": _project(keypoints, k)[:, ::-1],
        "keypoint_names": np.array(["mid_hip", "neck", "nose"]),
        "focal_std_log": np.full(n, 0.2), "joints_std": np.full((n, 24), 0.01),
    }  # fmt: skip
    return fits, truth


def _score(folder: Path, fits: dict[str, np.ndarray], truth: dict[str, np.ndarray]):
    np.savez(folder / "fits.npz", **fits)
    np.savez(folder / "truth.npz", **truth)
    return score(folder / "fits.npz", folder / "truth.npz")


def test_known_errors(tmp_path, tables):
    result = _score(tmp_path, *tables)
    assert len(result.rows) == 6
    row = result.rows[0]
    assert row["mpjpe_mm"] == pytest.approx(0, abs=1e-9)
    assert row["initial_mpjpe_mm"] == pytest.approx(50 * 23 / 24)
    assert row["initial_mve_mm"] == pytest.approx(50 * 23 / 24)
    assert row["initial_pelvis_mm"] == pytest.approx(0)
    assert row["focal_log"] == pytest.approx(np.log(1.1))
    assert row["initial_focal_percent"] == pytest.approx(1900)
    assert row["reprojection"] == pytest.approx(0, abs=1e-9)
    assert np.isnan(row["initial_reprojection"])
    assert result.summary["worse"] == 0
    assert result.summary["images"] == 3
    assert result.summary["coverage"] == {
        "focal": {"68%": 1.0, "95%": 1.0}, "joints": {"68%": 1.0, "95%": 1.0}
    }  # fmt: skip


def test_a_joints_deviation_is_compared_with_that_joints_error(tmp_path, tables):
    """Joint 5 is 3 cm off and says so; the pelvis, about which all is measured, says nothing."""
    fits, truth = tables
    fits["joints"] = truth["joints"].copy()
    fits["joints"][:, 5] += 0.03
    fits["joints_std"] = np.full((6, 24), 0.01)
    fits["joints_std"][:, 5] = 0.05
    fits["joints_std"][:, 0] = np.nan
    assert _score(tmp_path, fits, truth).summary["coverage"]["joints"]["68%"] == 1.0


def test_people_are_matched_by_name_not_by_order(tmp_path, tables):
    fits, truth = tables
    order = np.array([3, 0, 5, 1, 4])
    shuffled = {name: v[order] if len(v) == 6 else v for name, v in fits.items()}
    result = _score(tmp_path, shuffled, truth)
    assert result.summary["missing"] == 1
    assert result.summary["missing_people"] == ["b #1"]
    assert all(row["mpjpe_mm"] < 1e-9 for row in result.rows)
    assert result.summary["without_truth"] == 0


def test_fits_of_people_whom_the_truth_does_not_have_are_counted(tmp_path, tables):
    fits, truth = tables
    kept = np.array([3, 0, 5, 4])
    fewer = {name: v[kept] if len(v) == 6 else v for name, v in truth.items()}
    result = _score(tmp_path, fits, fewer)
    assert [len(result.rows), result.summary["without_truth"], result.summary["missing"]] == [4, 2, 0]


def test_worse_people_are_counted(tmp_path, tables):
    fits, truth = tables
    fits["joints"], fits["initial_joints"] = fits["initial_joints"], fits["joints"].copy()
    fits["initial_joints"][:2] = fits["joints"][:2]
    assert _score(tmp_path, fits, truth).summary["worse"] == pytest.approx(4 / 6)


def test_worse_is_told_in_each_column_s_unit(tmp_path, tables):
    """Half a thousandth of the person's size is 0.3 px of 600: worse, while 0.0005 mm is rounding."""
    fits, truth = tables
    points = fits["keypoints_2d"]
    size = np.ptp(points, axis=1).max(1)[:, None]
    fits["initial_keypoints_2d"] = points.copy()
    fits["keypoints_2d"] = points.copy()
    fits["keypoints_2d"][:3, :, 0] += 5e-4 * size[:3]
    fits["joints"] = fits["initial_joints"] + np.eye(24)[1][:, None] * [0, 0, 24 * 5e-7]
    worse = {n: c["worse"] for n, c in _score(tmp_path, fits, truth).summary["difference"].items()}
    assert worse["reprojection"] == 0.5
    assert worse["mpjpe_mm"] == 0


def test_a_point_behind_the_camera_is_not_in_the_image(tmp_path, tables):
    """Its projection is far off on the other side: it would count as missed and make the person huge."""
    fits, truth = tables
    fits["initial_keypoints_2d"] = fits["keypoints_2d"] + 3
    before = _score(tmp_path, fits, truth).rows[0]
    behind = {**truth, "keypoints_3d": np.append(truth["keypoints_3d"], np.full((6, 1, 3), [2, 2, -0.5]), 1)}
    behind["keypoint_names"] = np.append(truth["keypoint_names"], "left_wrist")
    fits["keypoint_names"] = np.append(fits["keypoint_names"], "left_wrist")
    for name in ("keypoints_2d", "initial_keypoints_2d"):
        fits[name] = np.append(fits[name], np.zeros((6, 1, 2)), 1)
    after = _score(tmp_path, fits, behind).rows[0]
    assert before["initial_reprojection"] > 0
    for name in ("reprojection", "initial_reprojection", "pck_box_005", "initial_pck_box_005"):
        assert after[name] == pytest.approx(before[name], abs=1e-12)


def test_labelled_points_count_above_one_half(tables):
    """As in HMR2.0: a confidence of one half itself does not."""
    _, truth = tables
    held = {"keypoints_2d": np.zeros((1, 3, 2)), "keypoints_visible": np.array([[0.49, 0.5, 0.51]])}
    assert image_points({**truth, **held})[1].tolist() == [[False, False, True]]


@pytest.mark.parametrize("field", ["joints", "initial_focal"])
def test_a_missing_field_is_named(tmp_path, tables, field):
    fits, truth = tables
    del fits[field]
    with pytest.raises(InputError, match=field):
        _score(tmp_path, fits, truth)


def test_another_scene_is_refused(tmp_path, tables):
    fits, truth = tables
    fits["imgname"] = np.char.add("other_", fits["imgname"])
    with pytest.raises(InputError, match="same scene"):
        _score(tmp_path, fits, truth)
