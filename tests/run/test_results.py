"""What a run writes: every field, in agreement with the others, also where parts of the scene are bad."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from scipy.spatial.transform import Rotation

from depthfit import so3
from depthfit.body.load import load_body
from depthfit.evidence.cameras import CameraPrior
from depthfit.fit import FitConfig, Fitter
from depthfit.fit.adapter import Prediction
from depthfit.joints import KEYPOINTS
from depthfit.run.output import fit_of_row, person_row, versions_of, write_rows
from depthfit.run.scene_fit import RunSummary
from depthfit.run.summary import MEDIANS, figures
from depthfit.run.unfitted import without_evidence
from depthfit.tokens.load import load_tokenizer
from tests.run.conftest import CORRUPT, LONELY, fit, rows

K = len(KEYPOINTS)
BODY_FIELDS = {
    "focal": (), "K": (3, 3), "transl": (3,), "distance": (), "global_orient": (3,), "body_pose": (69,),
    "betas": (10,), "joints": (24, 3), "keypoints_3d": (K, 3), "keypoints_2d": (K, 2),
}  # fmt: skip
DEVIATIONS = {"focal_std_log": (), "distance_std_log": (), "joints_std": (24,)}
TERMS = ("keypoints", "depth", "contour", "pose_prior", "population", "other_priors")

Run = tuple[Path, RunSummary]


@pytest.fixture(scope="module")
def table(flawed_run: Run) -> dict[str, np.ndarray]:
    return rows(flawed_run[0])


def lonely(table: dict[str, np.ndarray]) -> np.ndarray:
    return (table["imgname"] == f"{LONELY[0]}.png") & (table["person"] == LONELY[1])


def test_every_field_has_its_shape_and_type(table: dict[str, np.ndarray]) -> None:
    count = len(table["imgname"])
    real = {**BODY_FIELDS, **{f"initial_{name}": shape for name, shape in BODY_FIELDS.items()}}
    real |= {
        **DEVIATIONS,
        "depth_log_scale": (),
        "token_entropy": (),
        "vertices": (load_body().num_vertices, 3),
    }
    real |= {f"cost_{term}_{when}": () for term in TERMS for when in ("before", "after")}
    for name, shape in real.items():
        assert table[name].shape == (count, *shape), name
        assert table[name].dtype == np.float32, name
    kinds = {
        "imgname": "U",
        "status": "U",
        "depthfit_version": "U",
        "person": "i",
        "accepted": "b",
        "betas_predicted": "b",
        "iterations": "i",
    }
    for name, kind in kinds.items():
        assert (table[name].shape, table[name].dtype.kind) == ((count,), kind), name
    assert (table["tokens"].shape, table["tokens"].dtype) == ((count, 160), np.int16)
    assert tuple(table["keypoint_names"]) == KEYPOINTS
    assert np.array_equal(table["faces"], load_body().faces.numpy())


def test_rows_are_the_people_in_the_order_of_the_predictions(
    table: dict[str, np.ndarray], flawed: Path
) -> None:
    with np.load(flawed / "predictions.npz") as data:
        kept = data["imgname"] != f"{CORRUPT}.png"
        for name in ("imgname", "person"):
            assert np.array_equal(table[name], data[name][kept]), name
        pose = data["body_pose"][kept].reshape(len(table["person"]), -1)
        expected = pose if pose.shape[1] == 69 else Rotation.from_matrix(pose.reshape(-1, 3, 3)).as_rotvec()
        given = Rotation.from_rotvec(np.reshape(expected, (-1, 3)))
        found = Rotation.from_rotvec(table["initial_body_pose"].reshape(-1, 3))
        assert (given * found.inv()).magnitude().max() < 1e-3
        assert np.allclose(table["initial_betas"], data["betas"][kept], atol=1e-3)


@pytest.mark.parametrize("prefix", ["", "initial_"])
def test_fields_agree_with_each_other(table: dict[str, np.ndarray], prefix: str) -> None:
    body = {name: table[prefix + name] for name in BODY_FIELDS}
    assert np.array_equal(body["distance"], body["transl"][:, 2])
    assert np.array_equal(body["K"][:, 0, 0], body["focal"])
    np.testing.assert_allclose(body["joints"][:, 0], body["transl"], atol=1e-5)
    flat = np.einsum("nij,nkj->nki", body["K"], body["keypoints_3d"])
    np.testing.assert_allclose(flat[..., :2] / flat[..., 2:], body["keypoints_2d"], atol=0.05)
    count = len(body["focal"])
    turns = np.concatenate([body["global_orient"], body["body_pose"]], 1).reshape(-1, 3)
    matrices = torch.from_numpy(Rotation.from_rotvec(turns).as_matrix()).float().reshape(count, 24, 3, 3)
    model = load_body()
    skeleton, vertices = model.forward(matrices[:, 0], matrices[:, 1:], torch.from_numpy(body["betas"]))
    transl = body["transl"][:, None]
    np.testing.assert_allclose(skeleton.position.numpy() + transl, body["joints"], atol=1e-4)
    if not prefix:
        np.testing.assert_allclose(vertices.numpy() + transl, table["vertices"], atol=1e-4)


def test_a_corrupt_image_is_reported_and_the_others_finish(
    flawed_run: Run, table: dict[str, np.ndarray]
) -> None:
    out, summary = flawed_run
    assert list(summary.skipped) == [CORRUPT]
    # Of two people one was detected, who is fitted.
    assert summary.summary["detections_not_fitted"] == {}
    assert f"{CORRUPT}.png" in summary.skipped[CORRUPT]
    assert json.loads((out / "summary.json").read_text())["left_out"] == summary.skipped
    assert set(table["imgname"]) == {"00000.png", "00001.png"}
    assert (table["iterations"][~lonely(table)] > 0).all()


def test_a_person_without_keypoints_is_kept_as_predicted(table: dict[str, np.ndarray]) -> None:
    row = lonely(table)
    assert table["status"][row].tolist() == ["no_evidence"]
    assert not table["accepted"][row].any()
    for name in BODY_FIELDS:
        assert np.isfinite(table[name][row]).all(), name
    for name in ("global_orient", "body_pose", "betas"):
        assert np.array_equal(table[name][row], table[f"initial_{name}"][row]), name
    assert (table["tokens"][row] == -1).all()
    assert ((table["tokens"][~row] >= 0) & (table["tokens"][~row] < 2048)).all()
    for name in DEVIATIONS:
        assert np.isfinite(table[name][~row]).all(), name


def test_a_person_without_keypoints_stands_in_the_camera_of_the_others(table: dict[str, np.ndarray]) -> None:
    """In the same pixels, as far off as that camera says: the regressor's own is some 20 times too far."""
    row = lonely(table)
    beside = ~row & (table["imgname"] == table["imgname"][row])
    assert table["focal"][row] == table["focal"][beside] != table["initial_focal"][row]
    for name in ("K", "depth_log_scale", "focal_std_log"):
        np.testing.assert_array_equal(table[name][row], table[name][beside])
    ratio = table["focal"][row] / table["initial_focal"][row]
    np.testing.assert_allclose(table["distance"][row], ratio * table["initial_distance"][row], rtol=1e-4)
    pelvis = [
        np.einsum("nij,nj->ni", table[f"{p}K"], table[f"{p}transl"] / table[f"{p}distance"][:, None])[row]
        for p in ("", "initial_")
    ]
    np.testing.assert_allclose(*pelvis, atol=0.1)
    deviation = table["distance_std_log"][row]
    assert table["focal_std_log"][row] < deviation < table["focal_std_log"][row] + 0.1


def test_a_prediction_keeps_its_pixels_under_a_camera_that_looks_aside() -> None:
    fitter, eye = Fitter(load_body("open"), None, FitConfig()), torch.eye(3)
    turns, betas = eye.repeat(23, 1, 1), torch.zeros(10)
    prediction = Prediction(1, 0, eye, turns, betas, torch.tensor([9.0, -4.0, 90.0]), 12500.0, None, None)
    camera = CameraPrior(600.0, 0.1, (300.0, 260.0), "cameras.json")
    fit = without_evidence(fitter, prediction, (640, 480), camera, [])
    assert (fit.refined.focal, fit.focal_std_log) == (pytest.approx(600), 0.1)
    assert fit.refined.center.tolist() == [300.0, 260.0]
    x, y, z = fit.refined.transl.tolist()
    pixel = (600 * x / z + 300, 600 * y / z + 260)
    assert pixel == pytest.approx((12500 * 9 / 90 + 319.5, -12500 * 4 / 90 + 239.5), abs=0.01)
    flat = 600 * fit.refined.keypoints_3d[:, :2] / fit.refined.keypoints_3d[:, 2:] + fit.refined.center
    np.testing.assert_allclose(flat, fit.refined.keypoints_2d, atol=0.01)


def test_a_person_without_keypoints_is_as_sure_as_the_surest_camera_beside_them() -> None:
    config = FitConfig()
    body, eye = load_body("open"), torch.eye(3)
    fitter, turns, betas = Fitter(body, None, config), eye.repeat(23, 1, 1), torch.zeros(10)
    prediction = Prediction(
        1, 0, eye, turns, betas, torch.tensor([0.0, 0.0, 90.0]), 12500.0, None, None, betas_sigma=math.inf
    )
    camera = CameraPrior(600.0, 0.1, (319.5, 239.5), "cameras.json")
    alone = without_evidence(fitter, prediction, (640, 480), camera, [])
    # Nobody predicted the shape: a height is the population's.
    draws = torch.randn(4000, 10, generator=torch.Generator().manual_seed(0))
    heights = body.v_template[:, 1] + torch.einsum("vb,nb->nv", body.shapedirs[:, 1], draws)
    spread = float((heights.max(1).values - heights.min(1).values).log().std())
    assert alone.distance_std_log == pytest.approx(math.hypot(0.1, spread), rel=0.05)
    beside = [replace(alone, focal_std_log=sd) for sd in (0.3, 0.02)]
    beside[0] = replace(beside[0], refined=replace(alone.refined, focal=700.0), log_scale=0.25)
    found = without_evidence(fitter, prediction, (640, 480), camera, beside)
    assert (found.refined.focal, found.focal_std_log, found.log_scale) == (700.0, 0.02, 0.25)
    config.camera.shared = False
    own = without_evidence(fitter, prediction, (640, 480), camera, beside)
    assert (own.refined.focal, own.focal_std_log, own.log_scale) == (pytest.approx(600.0), 0.1, 0.0)


def test_a_row_is_read_back_as_the_fit_it_was_written_of() -> None:
    eye = torch.eye(3)
    prediction = Prediction(
        2, 5, eye, eye.repeat(23, 1, 1), torch.zeros(10), torch.tensor([0.1, 0.2, 90.0]), 12500.0, None, None
    )
    camera = CameraPrior(600.0, 0.1, (319.5, 239.5), "cameras.json")
    fit = without_evidence(Fitter(load_body("open"), None, FitConfig()), prediction, (640, 480), camera, [])
    fit = replace(
        fit, tokens=np.arange(160, dtype=np.int16), reprojection=(9.0, 2.0), depth_residual=(0.3, 0.1)
    )
    again = fit_of_row(person_row("a.png", prediction, fit))
    assert again.tokens.tolist() == list(range(160))
    assert (again.reprojection, again.depth_residual) == (fit.reprojection, fit.depth_residual)
    for name in ("transl", "betas", "joints", "keypoints_2d", "center"):
        np.testing.assert_allclose(getattr(again.refined, name), getattr(fit.refined, name), err_msg=name)


def test_rows_that_do_not_say_their_version_are_of_an_unknown_one(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.npz", [{"imgname": "a.png", "person": 1}], {})
    assert versions_of(tmp_path / "a.npz") == {"unknown"}
    write_rows(tmp_path / "b.npz", [], {})
    assert versions_of(tmp_path / "b.npz") == set()


def test_medians_are_of_those_of_whom_a_number_is_known() -> None:
    row = dict.fromkeys(MEDIANS, 1.0) | {"accepted": True, "status": "refined"}
    lonely = dict.fromkeys(MEDIANS, math.nan) | {"accepted": False, "status": "no_evidence"}
    found = figures([row, lonely])
    assert found["median"] == dict.fromkeys(MEDIANS, 1.0)
    assert (found["people"], found["accepted"]) == (2, 1)
    assert figures([lonely])["median"] == dict.fromkeys(MEDIANS)


def test_the_folder_holds_what_was_asked_for(flawed_run: Run, table: dict[str, np.ndarray]) -> None:
    out, summary = flawed_run
    for name in ("00000", "00001"):
        assert cv2.imread(str(out / "overlays" / f"{name}.png")) is not None
    for name, person, vertices in zip(table["imgname"], table["person"], table["vertices"], strict=True):
        stem = f"{Path(name).stem}_{person}"
        lines = (out / f"{stem}.obj").read_text().splitlines()
        points = np.array([line.split()[1:4] for line in lines if line.startswith("v ")], float)
        np.testing.assert_allclose(points, vertices, atol=1e-4)
        assert (out / f"{stem}.glb").read_bytes()[:4] == b"glTF"
    saved = OmegaConf.load(out / "config.yaml")
    assert (saved.solver.rounds, saved.init) == (2, "predictions")
    assert Path(saved.scene).is_absolute()
    assert json.loads((out / "summary.json").read_text())["people"] == len(summary.rows)
    assert not [path for path in out.rglob(".*") if path.is_file()], "temporary files are left"


def test_vertices_and_meshes_are_left_out_unless_asked_for(scene: Path, tmp_path: Path) -> None:
    fit(scene, tmp_path, "pose.space=rotations", "solver.rounds=1")
    assert not {"vertices", "faces"} & set(rows(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"fits.npz", "config.yaml", "summary.json", "parts"}


def test_tokens_of_a_rotation_fit_decode_to_its_pose(scene: Path, tmp_path: Path) -> None:
    fit(scene, tmp_path, "pose.space=rotations", "solver.rounds=1")
    table = rows(tmp_path)
    fitted = table["status"] != "no_evidence"
    assert fitted.any()
    codes = torch.from_numpy(table["tokens"][fitted].astype(np.int64))
    tokenizer = load_tokenizer("open")
    decoded = so3.from_6d(tokenizer.decode(tokenizer.lookup(codes)))
    pose = so3.exp(torch.from_numpy(table["body_pose"][fitted]).unflatten(1, (23, 3))[:, :21])
    angle = so3.log(decoded @ pose.mT).norm(dim=-1)
    assert float(angle.mean()) < 0.06
