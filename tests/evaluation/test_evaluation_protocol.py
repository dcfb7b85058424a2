"""Protocols against errors known by construction, bodies posed again against bodies that were stored."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.spatial.transform import Rotation

from depthfit.body.load import load_body
from depthfit.errors import InputError
from depthfit.evaluation.errors import Scoring
from depthfit.evaluation.people import BodySet, pose_body
from depthfit.evaluation.protocol import protocol, read_regressor
from depthfit.evaluation.score import score_tables
from depthfit.joints import KEYPOINTS

PEOPLE, VERTICES = 4, 60


def regressor(rows: int, seed: int, vertices: int = VERTICES) -> np.ndarray:
    """Each row rests on three vertices of its own."""
    matrix = np.zeros((rows, vertices))
    for row in range(rows):
        matrix[row, 3 * row : 3 * row + 3] = np.random.default_rng(seed + row).dirichlet(np.ones(3))
    return matrix


@pytest.fixture
def tables() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A fit that is the truth, with meshes stored."""
    rng = np.random.default_rng(0)
    joints = rng.normal(size=(PEOPLE, 24, 3)) * 0.3 + [0, 0, 4]
    vertices = rng.normal(size=(PEOPLE, VERTICES, 3)) * 0.3 + joints[:, :1]
    K = np.tile(np.diag([1000.0, 1000, 1]), (PEOPLE, 1, 1))
    truth = {
        "imgname": np.array(["a", "b", "c", "d"]), "person": np.ones(PEOPLE, int), "joints": joints,
        "focal": np.full(PEOPLE, 1000.0), "K": K, "vertices": vertices,
        "keypoints_3d": np.full((PEOPLE, 27, 3), np.nan), "keypoint_names": np.array(KEYPOINTS),
    }  # fmt: skip
    fits = {
        name: truth[name] for name in ("imgname", "person", "joints", "focal", "vertices", "keypoint_names")
    }
    for name in ("joints", "focal", "vertices"):
        fits[f"initial_{name}"] = fits[name].copy()
    return fits, truth


def moved(vertices: np.ndarray, matrix: np.ndarray, root: tuple[int, ...], offset: np.ndarray) -> np.ndarray:
    """All vertices moved, but for those that the root joints are regressed from."""
    still = (matrix[list(root)] != 0).any(0)
    return np.where(still[None, :, None], vertices, vertices + offset)


@pytest.mark.parametrize(("name", "rows"), [("tokenhmr14", 19), ("h36m14", 17)])
def test_50_mm_scores_50_mm(tables, name, rows):
    """Every joint but the root moved by 50 mm; without the protocol's root the error would not be 50."""
    fits, truth = tables
    wanted, matrix = protocol(name), regressor(rows, 1)
    fits["initial_vertices"] = moved(fits["vertices"], matrix, wanted.root, np.array([0.03, 0.0, 0.04]))
    row = score_tables(fits, truth, Scoring(wanted, regressor=matrix), "x").rows[0]
    assert row["initial_mpjpe_mm"] == pytest.approx(50)
    assert row["mpjpe_mm"] == pytest.approx(0, abs=1e-9)
    still = (matrix[list(wanted.root)] != 0).any(0).sum()
    assert row["initial_mve_mm"] == pytest.approx(50 * (VERTICES - still) / VERTICES)
    assert row["initial_camera_mpjpe_mm"] == pytest.approx(50)
    assert len(wanted.joints) == 14


def test_a_body_moved_as_a_whole_has_camera_errors_alone(tables):
    fits, truth = tables
    shift = np.array([0.3, 0.0, 0.4])
    for name in ("joints", "vertices"):
        fits[f"initial_{name}"] = fits[name] + shift
    for name, rows in (("smpl24", 0), ("h36m14", 17), ("emdb24", 0)):
        matrix = regressor(rows, 2) if rows else None
        row = score_tables(fits, truth, Scoring(protocol(name), regressor=matrix), "x").rows[0]
        assert row["initial_mpjpe_mm"] == pytest.approx(0, abs=1e-9)
        assert row["initial_mve_mm"] == pytest.approx(0, abs=1e-9)
        assert row["initial_camera_mpjpe_mm"] == pytest.approx(500)
        assert row["initial_pelvis_mm"] == pytest.approx(500)
        assert row["initial_distance_mm"] == pytest.approx(400)


def test_joints_that_do_not_count_do_not(tables):
    """Rows of tokenhmr14: LSP's limbs and neck and Human3.6M's head, not head top, thorax, spine or jaw."""
    fits, truth = tables
    matrix = regressor(19, 3)
    for row, counts in ((13, False), (15, False), (16, False), (17, False), (12, True), (18, True)):
        spoilt = dict(fits)
        own = matrix[row] != 0
        spoilt["vertices"] = np.where(own[None, :, None], fits["vertices"] + 1.0, fits["vertices"])
        error = score_tables(spoilt, truth, Scoring(protocol("tokenhmr14"), regressor=matrix), "x").rows[0]
        expected = 1000 * np.sqrt(3) / 14 if counts else 0
        assert error["mpjpe_mm"] == pytest.approx(expected, abs=1e-6)


def test_the_hips_midpoint_is_emdb_s_origin(tables):
    """The pelvis alone moved by 240 mm: 10 mm a joint at the hips' origin, far more at the pelvis'."""
    fits, truth = tables
    fits["joints"] = fits["joints"].copy()
    fits["joints"][:, 0] += [0.24, 0, 0]
    error = {
        name: score_tables(fits, truth, Scoring(protocol(name)), "x").rows[0]["mpjpe_mm"]
        for name in ("emdb24", "smpl24")
    }
    assert error["emdb24"] == pytest.approx(10)
    assert error["smpl24"] == pytest.approx(240 * 23 / 24)


@pytest.fixture(scope="module")
def bodies() -> BodySet:
    return BodySet("open")


def parameters(count: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "global_orient": rng.normal(0, 0.5, (count, 3)), "body_pose": rng.normal(0, 0.3, (count, 69)),
        "betas": rng.normal(size=(count, 10)), "transl": rng.normal((0, 0, 4), 0.3, (count, 3)),
    }  # fmt: skip


@pytest.fixture
def posed_tables(bodies) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A neutral fit of gendered people, as parameters alone."""
    held = parameters(3, 5)
    truth = {
        "imgname": np.array(["a", "b", "c"]), "person": np.ones(3, int), "focal": np.full(3, 500.0),
        "gender": np.array(["female", "male", "neutral"]), "K": np.tile(np.diag([500.0, 500, 1]), (3, 1, 1)),
        "joints": np.full((3, 24, 3), np.nan), "keypoints_3d": np.full((3, 27, 3), np.nan),
        "keypoint_names": np.array(KEYPOINTS), **held,
    }  # fmt: skip
    fits = {name: truth[name] for name in ("imgname", "person", "joints", "focal", "keypoint_names", *held)}
    for name in ("joints", "focal", *held):
        fits[f"initial_{name}"] = fits[name].copy()
    return fits, truth


def mesh(gender: str, held: dict[str, np.ndarray], row: int) -> tuple[np.ndarray, np.ndarray]:
    (joints, _), vertices = pose_body(
        load_body("open", gender), *(held[n][row : row + 1] for n in ("global_orient", "body_pose", "betas"))
    )
    return joints[0], vertices[0]


def test_genders_are_honoured(posed_tables, bodies):
    """The neutral fit errs by the difference of the bodies, computed apart; the neutral person by nothing."""
    fits, truth = posed_tables
    rows = score_tables(fits, truth, Scoring(bodies=bodies), "x").rows
    for row, gender in enumerate(truth["gender"]):
        ours, theirs = mesh("neutral", truth, row), mesh(str(gender), truth, row)
        expected = 1000 * np.linalg.norm(ours[0] - theirs[0], axis=-1).mean()
        assert rows[row]["mpjpe_mm"] == pytest.approx(expected, abs=1e-3)
        expected = 1000 * np.linalg.norm(ours[1] - theirs[1], axis=-1).mean()
        assert rows[row]["mve_mm"] == pytest.approx(expected, abs=1e-3)
    assert rows[0]["mve_mm"] > 3
    assert rows[2]["mve_mm"] == pytest.approx(0, abs=1e-3)


def test_a_turned_root_is_seen_as_such(posed_tables, bodies):
    """Half a turn about the vertical: each joint errs by twice its distance from the axis."""
    fits, truth = posed_tables
    turn = Rotation.from_rotvec([0, np.pi, 0])
    roots = Rotation.from_rotvec(fits["global_orient"])
    fits["initial_global_orient"] = (turn * roots).as_rotvec()
    rows = score_tables(fits, truth, Scoring(bodies=bodies), "x").rows
    joints, _ = mesh("neutral", truth, 2)
    expected = 2000 * np.hypot(joints[:, 0], joints[:, 2]).mean()
    assert rows[2]["initial_mpjpe_mm"] == pytest.approx(expected, rel=1e-4)
    assert rows[2]["initial_pa_mpjpe_mm"] == pytest.approx(0, abs=1e-2)
    assert rows[2]["initial_pa_mve_mm"] == pytest.approx(0, abs=1e-2)


def test_labelled_joints_stand_in_smpl_s_frame(posed_tables):
    """tokenhmr14 compares with the labels, which keep the pelvis at its rest position: a body whose labels
    are its own regressed joints has no joint error and no vertex error."""
    fits, truth = posed_tables
    body = load_body()
    lifted = body.replace(v_template=body.v_template + torch.tensor([0.0, -0.22, 0.03]))
    held = BodySet("open")
    for gender in ("neutral", "male", "female"):
        held._loaded["open", gender] = lifted
    matrix = regressor(19, 4, body.num_vertices)
    names = ("global_orient", "body_pose", "betas")
    (_, rest), vertices = pose_body(lifted, *(truth[n] for n in names))
    in_smpl_frame = vertices + rest[:, None]
    labels = np.zeros((3, 44, 4))
    labels[:, 25:, :3] = np.einsum("rv,nvc->nrc", matrix, in_smpl_frame)
    truth["label_joints"] = labels.copy()
    scoring = Scoring(protocol("tokenhmr14"), held, matrix)
    found = score_tables(fits, truth, scoring, "x")
    row = found.rows[1]
    assert row["mpjpe_mm"] == pytest.approx(0, abs=1e-2)
    assert row["mve_mm"] == pytest.approx(0, abs=1e-2)
    assert found.summary["protocol"]["text"].endswith("true joints as labelled")
    bare = {name: values for name, values in truth.items() if name != "label_joints"}
    assert "regressed too" in score_tables(fits, bare, scoring, "x").summary["protocol"]["text"]
    # Labels 50 mm off but for the root: 50 mm, and vertices do not care.
    truth["label_joints"][:, 25:, :3] += [0.0, 0.03, 0.04]
    truth["label_joints"][:, 39, :3] = labels[:, 39, :3]
    row = score_tables(fits, truth, scoring, "x").rows[1]
    assert row["mpjpe_mm"] == pytest.approx(50, abs=1e-2)
    assert row["mve_mm"] == pytest.approx(0, abs=1e-2)


def test_a_stored_true_mesh_is_never_posed_again(posed_tables, bodies):
    """Scans and synthetic people have what no parameters say."""
    fits, truth = posed_tables
    joints, vertices = mesh("neutral", truth, 0)
    place = truth["transl"][:, None]
    truth["joints"] = np.tile(joints, (3, 1, 1)) + place
    truth["vertices"] = np.tile(vertices, (3, 1, 1)) + place + 0.05 * (np.arange(len(vertices)) % 2)[:, None]
    row = score_tables(fits, truth, Scoring(bodies=bodies), "x").rows[0]
    assert row["mpjpe_mm"] == pytest.approx(0, abs=1e-2)
    assert row["mve_mm"] == pytest.approx(25 * np.sqrt(3), abs=0.1)


def test_people_of_unknown_place_have_no_camera_error(posed_tables, bodies):
    fits, truth = posed_tables
    truth["transl"] = np.full((3, 3), np.nan)
    truth["focal"] = np.full(3, np.nan)
    result = score_tables(fits, truth, Scoring(bodies=bodies), "x")
    assert np.isnan([result.rows[0][n] for n in ("pelvis_mm", "focal_percent", "camera_mpjpe_mm")]).all()
    assert result.rows[2]["mpjpe_mm"] == pytest.approx(0, abs=1e-3)
    assert "pelvis_mm" not in result.summary
    assert "mpjpe_mm" in result.summary["difference"]


def test_another_topology_is_an_error(posed_tables, bodies):
    fits, truth = posed_tables
    truth["vertices"], truth["joints"] = np.zeros((3, 7, 3)), np.zeros((3, 24, 3))
    del truth["body_pose"]
    with pytest.raises(InputError, match="7 in the ground truth"):
        score_tables(fits, truth, Scoring(bodies=bodies), "x")


def test_more_than_a_chunk_of_people_is_the_same(posed_tables, bodies, monkeypatch):
    fits, truth = posed_tables
    whole = score_tables(fits, truth, Scoring(bodies=bodies), "x").rows
    monkeypatch.setattr("depthfit.evaluation.errors.CHUNK", 2)
    parts = score_tables(fits, truth, Scoring(bodies=bodies), "x").rows
    for one, other in zip(parts, whole, strict=True):
        assert one.pop("imgname") == other.pop("imgname")
        assert one == pytest.approx(other, abs=1e-3, nan_ok=True)


def test_regressor_files(tmp_path):
    matrix = regressor(17, 0)
    np.save(tmp_path / "h36m.npy", matrix)
    np.testing.assert_array_equal(read_regressor(tmp_path / "h36m.npy", "h36m", VERTICES), matrix)
    j19 = regressor(19, 0)
    for name, held in (("a.pkl", j19), ("b.pkl", sparse.csc_matrix(j19))):
        (tmp_path / name).write_bytes(pickle.dumps(held))
        np.testing.assert_allclose(read_regressor(tmp_path / name, "j19", VERTICES), j19)
    with pytest.raises(InputError, match=r"\(19, 60\)"):
        read_regressor(tmp_path / "h36m.npy", "j19", VERTICES)
    with pytest.raises(InputError, match="no such file"):
        read_regressor(tmp_path / "missing.npy", "h36m", VERTICES)
    with pytest.raises(InputError, match="tokenhmr14"):
        protocol("tokenhmr")
