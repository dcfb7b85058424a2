"""What a user's SMPL file may lack, and what depthfit then says."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

from depthfit.body.load import load_body, smpl_keypoints
from depthfit.errors import InputError
from depthfit.joints import KEYPOINTS, NUM_JOINTS
from tests.body import smpl_files
from tests.body.test_body_unpickle import Call

SMALL = 800


def small_fields(**changes: Any) -> dict[str, Any]:
    """A small body that carries its own keypoints, so that it is complete."""
    fields = smpl_files.smpl_fields(SMALL)
    keypoints = np.zeros((len(KEYPOINTS), SMALL))
    keypoints[:, 3] = 1.0
    fields["keypoint_regressor"] = sparse.csc_matrix(keypoints)
    fields["keypoint_joint"] = np.zeros((len(KEYPOINTS), NUM_JOINTS))
    return {**fields, **changes}


def test_a_file_with_its_own_keypoints_may_have_any_mesh(tmp_path: Path) -> None:
    body = load_body(smpl_files.write_pickle(tmp_path / "own.pkl", small_fields()))
    assert body.num_vertices == SMALL
    assert torch.equal(body.keypoint_regressor[:, 3], torch.ones(len(KEYPOINTS)))


def test_npz_and_pkl_give_the_same_body(tmp_path: Path) -> None:
    fields = small_fields()
    dense = {k: v.toarray() if sparse.issparse(v) else v for k, v in fields.items()}
    np.savez(tmp_path / "SMPL_FEMALE.npz", **dense)
    one = load_body(tmp_path, "female")
    two = load_body(smpl_files.write_pickle(tmp_path / "b.pkl", fields))
    for field in ("v_template", "shapedirs", "posedirs", "weights", "joint_regressor", "faces"):
        assert torch.equal(getattr(one, field), getattr(two, field)), field


def test_of_300_shape_directions_the_first_ten_are_kept(tmp_path: Path) -> None:
    wide = np.random.default_rng(0).normal(size=(SMALL, 3, 300))
    body = load_body(smpl_files.write_pickle(tmp_path / "a.pkl", small_fields(shapedirs=wide)))
    torch.testing.assert_close(body.shapedirs, torch.from_numpy(wide[..., :10]).float())


def test_zero_pose_blend_shapes_are_dropped(tmp_path: Path) -> None:
    zeros = np.zeros((SMALL, 3, 207), np.float32)
    assert (
        load_body(smpl_files.write_pickle(tmp_path / "a.pkl", small_fields(posedirs=zeros))).posedirs is None
    )


def test_root_parent_may_be_signed_and_joints_may_be_renumbered(tmp_path: Path) -> None:
    kintree = small_fields()["kintree_table"].astype(np.int64) + 100
    kintree[0, 0] = -1
    fields = small_fields(kintree_table=kintree)
    assert load_body(smpl_files.write_pickle(tmp_path / "a.pkl", fields)).num_betas == 10


def other_tree() -> np.ndarray:
    kintree = small_fields()["kintree_table"].copy()
    kintree[0, 4] = 2
    return kintree


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("v_template", np.zeros((SMALL, 2)), r"shape \(800, 2\)"),
        ("v_template", np.full((SMALL, 3), np.nan), "not finite"),
        ("shapedirs", np.zeros((SMALL - 1, 3, 10)), r"shape \(799, 3, 10\)"),
        ("shapedirs", np.zeros((SMALL, 3, 0)), r"shape \(800, 3, 0\)"),
        ("shapedirs", np.zeros((SMALL, 3, 5)), "5 shape directions"),
        ("posedirs", np.zeros((SMALL, 3, 459)), r"shape \(800, 3, 459\)"),
        ("J_regressor", sparse.csc_matrix(np.zeros((24, 6890))), r"shape \(24, 6890\)"),
        ("weights", np.zeros((SMALL, 24)), "sum to one only within 1"),
        ("kintree_table", np.zeros((2, 52), np.uint32), r"shape \(2, 52\)"),
        ("kintree_table", other_tree(), "other parents"),
        ("f", np.full((5, 3), SMALL), "vertex indices 800..800"),
        ("keypoint_joint", np.zeros((17, 24)), r"shape \(17, 24\)"),
        ("keypoint_joint", np.ones((len(KEYPOINTS), 24)), "do not sum to one"),
        ("weights", "text", "not numbers"),
    ],
)
def test_wrong_fields_are_named(tmp_path: Path, key: str, value: Any, found: str) -> None:
    path = smpl_files.write_pickle(tmp_path / "SMPL_NEUTRAL.pkl", small_fields(**{key: value}))
    with pytest.raises(InputError, match=found) as caught:
        load_body(path)
    assert key in caught.value.field or key.startswith("keypoint")
    assert str(path) in str(caught.value)
    assert caught.value.fix


@pytest.mark.parametrize("suffix", [".pkl", ".npz"])
def test_missing_keys_are_named(tmp_path: Path, suffix: str) -> None:
    fields = small_fields()
    del fields["posedirs"], fields["weights"]
    path = tmp_path / f"body{suffix}"
    if suffix == ".pkl":
        smpl_files.write_pickle(path, fields)
    else:
        np.savez(path, **{k: v.toarray() if sparse.issparse(v) else v for k, v in fields.items()})
    with pytest.raises(InputError, match="posedirs, weights: missing"):
        load_body(path)


@pytest.mark.parametrize("drop", [("keypoint_joint",), ("keypoint_joint", "keypoint_regressor")])
def test_unknown_meshes_must_carry_keypoints(tmp_path: Path, drop: tuple[str, ...]) -> None:
    fields = small_fields()
    for key in drop:
        del fields[key]
    with pytest.raises(InputError, match="mesh of 800 vertices"):
        load_body(smpl_files.write_pickle(tmp_path / "a.pkl", fields))


def test_object_arrays_in_npz_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **small_fields())  # the sparse matrices become pickled objects
    with pytest.raises(InputError, match="plain numeric arrays"):
        load_body(tmp_path / "a.npz")


def test_a_hostile_body_file_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    fields = small_fields(J=Call(os.system, f"touch {marker}"))
    smpl_files.write_pickle(tmp_path / "SMPL_NEUTRAL.pkl", fields)
    with pytest.raises(InputError, match="system"):
        load_body(tmp_path)
    assert not marker.exists()


def no_folder(root: Path) -> Path:
    return root / "nothing"


def empty_folder(root: Path) -> Path:
    return root


def wrong_suffix(root: Path) -> Path:
    (root / "body.obj").write_text("v 0 0 0")
    return root / "body.obj"


def not_a_dict(root: Path) -> Path:
    return smpl_files.write_pickle(root / "list.pkl", [1, 2])


def not_an_npz(root: Path) -> Path:
    (root / "a.npz").write_bytes(b"text")
    return root / "a.npz"


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (no_folder, "no such file"),
        (empty_folder, "SMPL_MALE.pkl"),
        (wrong_suffix, ".obj"),
        (not_a_dict, "holds a list"),
        (not_an_npz, "cannot be read"),
    ],
)
def test_wrong_paths_say_what_to_give(tmp_path: Path, make: Callable[[Path], Path], found: str) -> None:
    with pytest.raises(InputError, match=found):
        load_body(make(tmp_path), "male")


def test_unknown_gender_is_an_error() -> None:
    with pytest.raises(InputError, match="'other'"):
        load_body("open", "other")


def test_every_smpl_keypoint_has_one_place() -> None:
    template = np.zeros((6890, 3))
    template[4321, 1] = 0.6
    from_vertices, from_joints = smpl_keypoints(template)
    np.testing.assert_allclose(from_vertices.sum(1) + from_joints.sum(1), 1.0)
    assert from_vertices[KEYPOINTS.index("head_top"), 4321] == 1.0
