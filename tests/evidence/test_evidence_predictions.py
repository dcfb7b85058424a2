from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from depthfit.errors import InputError
from depthfit.evidence.predictions import read_predictions, write_predictions
from tests.evidence.scene_files import make_predictions, prediction_columns

NAMES, PEOPLE = ["a.jpg", "a.jpg", "b.png"], [1, 2, 1]


def softmax_rows(count: int) -> np.ndarray:
    logits = np.random.default_rng(0).normal(0, 3, (count, 160, 2048)).astype(np.float32)
    p = np.exp(logits)
    return (p / p.sum(-1, keepdims=True)).astype(np.float16)


def test_what_is_written_is_read(tmp_path):
    written = make_predictions(NAMES, PEOPLE)
    write_predictions(tmp_path / "predictions.npz", written)
    read, bad = read_predictions(tmp_path / "predictions.npz")
    assert bad == {}
    for field in dataclasses.fields(written):
        ours, theirs = getattr(written, field.name), getattr(read, field.name)
        if field.name in ("root", "pose"):
            np.testing.assert_allclose(theirs, ours, atol=1e-6)
        elif ours is not None:
            np.testing.assert_array_equal(theirs, ours)


def test_axis_angle_and_matrices_say_the_same(tmp_path):
    columns = prediction_columns(NAMES, PEOPLE)
    np.savez(tmp_path / "m.npz", **columns)
    vectors = columns | {
        "global_orient": Rotation.from_matrix(columns["global_orient"][:, 0]).as_rotvec(),
        "body_pose": Rotation.from_matrix(columns["body_pose"].reshape(-1, 3, 3)).as_rotvec().reshape(3, 69),
    }
    np.savez(tmp_path / "v.npz", **vectors)
    m, v = (read_predictions(tmp_path / f"{n}.npz")[0] for n in "mv")
    np.testing.assert_allclose(m.root, v.root, atol=1e-6)
    np.testing.assert_allclose(m.pose, v.pose, atol=1e-6)
    assert (m.root.shape, m.pose.shape, m.root.dtype) == ((3, 3, 3), (3, 23, 3, 3), np.float32)


def test_a_root_may_be_one_matrix_a_row(tmp_path):
    columns = prediction_columns(NAMES, PEOPLE)
    np.savez(tmp_path / "with_axis.npz", **columns)
    np.savez(tmp_path / "without.npz", **columns | {"global_orient": columns["global_orient"][:, 0]})
    expected, (read, bad) = (
        read_predictions(tmp_path / "with_axis.npz")[0],
        read_predictions(tmp_path / "without.npz"),
    )
    assert bad == {}
    np.testing.assert_array_equal(read.root, expected.root)
    mirrored = -columns["global_orient"][:, 0]
    np.savez(tmp_path / "mirrored.npz", **columns | {"global_orient": mirrored})
    _, bad = read_predictions(tmp_path / "mirrored.npz")
    assert [error.found for error in bad.values()] == ["not rotation matrices"] * 3


def test_matrices_in_half_precision_come_out_orthonormal(tmp_path):
    columns = prediction_columns(NAMES, PEOPLE)
    columns["body_pose"] = columns["body_pose"].astype(np.float16)
    np.savez(tmp_path / "p.npz", **columns)
    read, bad = read_predictions(tmp_path / "p.npz")
    assert bad == {}
    np.testing.assert_allclose(read.pose @ read.pose.swapaxes(-1, -2), np.eye(3) + 0 * read.pose, atol=1e-6)
    np.testing.assert_allclose(read.pose, columns["body_pose"].astype(np.float32), atol=2e-3)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_token_probabilities_are_read_by_row(tmp_path, save):
    probs = softmax_rows(3)
    save(tmp_path / "p.npz", **prediction_columns(NAMES, PEOPLE), token_probs=probs)
    read, _ = read_predictions(tmp_path / "p.npz")
    assert read.token_probs is not None
    assert len(read.token_probs) == 3
    np.testing.assert_array_equal(read.token_probs[np.array([2, 0])], probs[[2, 0]])
    np.testing.assert_array_equal(read.rows(np.array([1])).token_probs, probs[1:2])
    np.testing.assert_array_equal(read.token_probs[np.array([0])], probs[:1])  # and back again
    chosen = read.rows(np.array([1, 2]))
    assert chosen.imgname.tolist() == ["a.jpg", "b.png"]
    assert isinstance(chosen.token_probs, np.ndarray)


def test_written_tokens_come_back(tmp_path):
    probs = softmax_rows(2)
    written = dataclasses.replace(make_predictions(["a", "a"], [1, 2]), token_probs=probs)
    write_predictions(tmp_path / "p.npz", written)
    read, _ = read_predictions(tmp_path / "p.npz")
    assert read.token_probs is not None
    np.testing.assert_array_equal(read.token_probs[np.arange(2)], probs)


@pytest.mark.parametrize(
    ("probs", "field", "found", "fix"),
    [
        (np.zeros((3, 160, 2047), np.float16), "token_probs", "shape (3, 160, 2047)", "(3, 160, 2048)"),
        (np.zeros((3, 160, 2048), np.int8), "token_probs", "int8", "float16"),
        (np.full((3, 160, 2048), 0.5, np.float16), "token_probs[1]", "sums from 1024", "not the logits"),
        (np.full((3, 160, 2048), np.nan, np.float16), "token_probs[1]", "nan", "softmax"),
    ],
)
def test_bad_token_probabilities_are_explained(tmp_path, probs, field, found, fix):
    np.savez_compressed(tmp_path / "p.npz", **prediction_columns(NAMES, PEOPLE), token_probs=probs)
    with pytest.raises(InputError) as error:
        read_predictions(tmp_path / "p.npz")[0].rows(np.array([1]))
    assert error.value.field == field
    assert found in error.value.found
    assert fix in error.value.fix


@pytest.mark.parametrize(
    ("changes", "field", "found", "fix"),
    [
        ({"betas": None}, "betas", "missing; the file has imgname", "name 'betas'"),
        ({"betas": np.zeros((3, 11))}, "betas", "shape (3, 11)", "(3, 10)"),
        ({"body_pose": np.zeros((3, 72))}, "body_pose", "shape (3, 72)", "(3, 69) or (3, 23, 3, 3)"),
        ({"global_orient": np.zeros((3, 9))}, "global_orient", "(3, 9)", "(3, 3, 3) or (3, 1, 3, 3)"),
        ({"pred_cam": np.zeros((2, 3))}, "pred_cam", "shape (2, 3)", "a row for each"),
        ({"box_size": np.full(3, "x")}, "box_size", "dtype <U1", "numbers"),
        ({"box_size": np.full((3, 2), 9.0)}, "box_size", "shape (3, 2)", "(3,)"),
        ({"imgname": np.arange(3)}, "imgname", "dtype int64", "str"),
        ({"imgname": np.array([["a"]] * 3)}, "imgname", "shape (3, 1)", "(N,)"),
        ({"person": np.array([1.0, 2, 1])}, "person", "float64", "whole number"),
        ({"person": np.array([1, 0, 1])}, "person", "row 1 is 0", "from 1 up"),
        ({"person": np.array([1, 1, 1])}, "person", "rows 0 and 1 are both person 1", "1, 2, 3"),
        ({"imgname": np.array(["a", None, "b"], dtype=object)}, "imgname", "cannot be read", "plain"),
    ],
)
def test_bad_files_are_explained(tmp_path, changes, field, found, fix):
    path = tmp_path / "predictions.npz"
    columns = prediction_columns(NAMES, PEOPLE) | changes
    np.savez(path, **{name: column for name, column in columns.items() if column is not None})
    with pytest.raises(InputError) as error:
        read_predictions(path)
    assert (error.value.source, error.value.field) == (str(path), field)
    assert found in error.value.found
    assert fix in error.value.fix


def test_no_rows_and_no_npz_are_explained(tmp_path):
    path = tmp_path / "predictions.npz"
    np.savez(path, **{k: v[:0] for k, v in prediction_columns(NAMES, PEOPLE).items()})
    with pytest.raises(InputError, match="nobody to fit"):
        read_predictions(path)
    np.save(tmp_path / "x.npy", np.zeros(3))
    (tmp_path / "x.npy").rename(path)
    with pytest.raises(InputError, match="not a complete npz"):
        read_predictions(path)


def spoil(column: str, index: tuple[int, ...], value: float) -> dict[str, np.ndarray]:
    columns = prediction_columns(NAMES, PEOPLE)
    columns[column][index] = value
    return columns


@pytest.mark.parametrize(
    ("columns", "field"),
    [
        (spoil("betas", (1, 4), np.nan), "betas[1]"),
        (spoil("box_center", (1, 0), np.inf), "box_center[1]"),
        (spoil("box_size", (1,), 0.0), "box_size[1]"),
        (spoil("pred_cam", (1, 0), -0.5), "pred_cam[1]"),
        (spoil("body_pose", (1, 7, 0, 0), 3.0), "body_pose[1]"),
        (spoil("body_pose", (1, 7), -np.eye(3)), "body_pose[1]"),
        (spoil("global_orient", (1, 0, 2, 2), np.nan), "global_orient[1]"),
    ],
)
def test_a_bad_row_names_itself_and_leaves_the_others_alone(tmp_path, columns, field):
    np.savez(tmp_path / "p.npz", **columns)
    read, bad = read_predictions(tmp_path / "p.npz")
    assert list(bad) == [1]
    assert bad[1].field.startswith(field)
    assert "person 2 of 'a.jpg'" in bad[1].field
    good = make_predictions(NAMES, PEOPLE)
    np.testing.assert_allclose(read.pose[[0, 2]], good.pose[[0, 2]], atol=1e-6)
    assert np.isnan(read.pose[1]).all()


def test_writing_refuses_fields_that_do_not_fit(tmp_path):
    wrong = dataclasses.replace(make_predictions(NAMES, PEOPLE), betas=np.zeros((2, 10)))
    with pytest.raises(ValueError, match=r"betas has shape \(2, 10\) for 3 people"):
        write_predictions(tmp_path / "p.npz", wrong)
