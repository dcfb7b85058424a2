"""Who is who, and the parts of a summary that look at whole images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from depthfit.errors import InputError
from depthfit.evaluation.errors import Scoring
from depthfit.evaluation.image_metrics import silhouette_labels
from depthfit.evaluation.matching import match_by_number, match_by_overlap
from depthfit.evaluation.score import score_tables
from depthfit.joints import KEYPOINTS

IMAGES = np.array(["a.png", "a.png", "b.png", "b.png", "c.png"])


@pytest.fixture
def points() -> np.ndarray:
    """(5, 6, 2) px: people 100 px tall, 300 px apart."""
    rng = np.random.default_rng(0)
    return rng.uniform(0, 100, (5, 6, 2)) + 300 * np.arange(5)[:, None, None]


def test_overlap_finds_shuffled_people_and_numbers_do_not(points):
    order = np.array([3, 1, 4, 0, 2])
    truth = {"imgname": IMAGES, "person": np.array([1, 2, 1, 2, 1])}
    fits = {"imgname": IMAGES[order], "person": np.array([1, 1, 1, 2, 2])}
    seen = np.ones((5, 6), bool)
    f, t = match_by_overlap(fits, truth, points[order] + 5, points, seen)
    assert t.tolist() == [0, 1, 2, 3, 4]
    assert order[f].tolist() == [0, 1, 2, 3, 4]
    f, t = match_by_number(fits, truth)
    assert order[f].tolist() == [1, 0, 3, 2, 4]


def test_people_far_from_everybody_match_nobody(points):
    truth = {"imgname": IMAGES, "person": np.arange(5)}
    moved = points.copy()
    moved[0] += 90  # nearly a whole person away
    seen = np.ones((5, 6), bool)
    seen[1] = False
    _, t = match_by_overlap(truth, truth, moved, points, seen)
    assert t.tolist() == [2, 3, 4]


def test_each_fit_is_used_once_at_the_least_total(points):
    """Two true people near one another: the nearest fit of both is the same one."""
    images = np.array(["a", "a"])
    truth = {"imgname": images, "person": np.array([1, 2])}
    true_xy = np.stack([points[0], points[0] + 10])
    fit_xy = np.stack([points[0] + 8, points[0] + 25])
    f, t = match_by_overlap(truth, truth, fit_xy, true_xy, np.ones((2, 6), bool))
    assert dict(zip(t.tolist(), f.tolist(), strict=True)) == {0: 0, 1: 1}


def _box(x: float, z: float) -> np.ndarray:
    """A closed box 1 m wide, 1.6 m tall and 0.3 m deep, its middle at (x, 0, z)."""
    corners = np.array([[i, j, k] for i in (-0.5, 0.5) for j in (-0.8, 0.8) for k in (-0.15, 0.15)])
    return corners + np.array([x, 0, z])


FACES = np.array([
    [0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
    [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3],
])  # fmt: skip


@pytest.fixture
def two_people() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray]:
    """One before the other; the prediction has them the wrong way round. And their mask."""
    K = np.tile(np.array([[100.0, 0, 79.5], [0, 100, 59.5], [0, 0, 1]]), (2, 1, 1))
    vertices = np.stack([_box(0.0, 3.0), _box(0.4, 4.0)])
    wrong = np.stack([_box(0.0, 4.0), _box(0.4, 3.0)])

    def joints(boxes: np.ndarray) -> np.ndarray:
        return np.tile(boxes.mean(1, keepdims=True), (1, 24, 1))

    truth = {
        "imgname": np.array(["a.png"] * 2), "person": np.array([1, 2]), "joints": joints(vertices),
        "focal": np.full(2, 100.0), "K": K, "vertices": vertices,
        "keypoints_3d": np.zeros((2, 27, 3)), "keypoint_names": np.array(KEYPOINTS),
    }  # fmt: skip
    fits = {
        "imgname": truth["imgname"], "person": truth["person"], "joints": joints(vertices), "K": K,
        "focal": truth["focal"], "vertices": vertices, "initial_joints": joints(wrong), "initial_K": K,
        "initial_focal": truth["focal"], "initial_vertices": wrong, "faces": FACES,
        "keypoint_names": truth["keypoint_names"], "distance_std_log": np.full(2, 0.1),
    }  # fmt: skip
    drawn = silhouette_labels(
        torch.from_numpy(vertices).float(), torch.from_numpy(FACES), torch.from_numpy(K).float(), (120, 160)
    )
    return fits, truth, drawn.astype(np.uint8)


def test_iou_of_the_truth_is_one_and_of_the_wrong_order_less(two_people):
    fits, truth, mask = two_people
    assert set(np.unique(mask)) == {0, 1, 2}
    found = score_tables(fits, truth, Scoring(masks=lambda name: mask if name == "a.png" else None), "x")
    assert [row["iou"] for row in found.rows] == [1.0, 1.0]
    assert all(row["initial_iou"] < 0.7 for row in found.rows)
    assert found.summary["difference"]["iou"]["mean"] > 0.3
    assert found.summary["difference"]["iou"]["worse"] == 0
    assert "own_iou" not in found.summary


def test_true_masks_number_people_as_the_truth_and_own_masks_as_the_fit(two_people):
    """Matched by place, a fit's person 1 is the truth's person 2."""
    fits, truth, mask = two_people
    xy = np.tile(np.array([[[50.0, 60]], [[110.0, 60]]]), (1, 27, 1)) + np.arange(27)[:, None]
    truth |= {"keypoints_2d": xy, "keypoints_visible": np.ones((2, 27))}
    fits |= {"keypoints_2d": xy, "initial_keypoints_2d": xy, "person": np.array([2, 1])}
    swapped = np.array([0, 2, 1], np.uint8)[mask]
    scoring = Scoring(matching="overlap", masks=lambda name: mask, own_masks=lambda name: swapped)
    rows = score_tables(fits, truth, scoring, "x").rows
    assert [(row["iou"], row["own_iou"]) for row in rows] == [(1.0, 1.0)] * 2


def test_masks_that_cannot_be_compared_are_an_error(two_people):
    fits, truth, mask = two_people
    with pytest.raises(InputError, match="no true mask of anybody"):
        score_tables(fits, truth, Scoring(masks=lambda name: None), "x")
    own = score_tables(fits, truth, Scoring(own_masks=lambda name: None), "x")
    assert "own_iou" not in own.summary
    bare = {name: v for name, v in fits.items() if name not in ("faces", "vertices", "initial_vertices")}
    for scoring in (Scoring(masks=lambda name: mask), Scoring(own_masks=lambda name: mask)):
        with pytest.raises(InputError, match="no meshes"):
            score_tables(bare, truth, scoring, "x")


def test_depth_order_and_intervals_stand_in_the_summary(two_people):
    fits, truth, _ = two_people
    summary = score_tables(fits, truth, Scoring(), "x").summary
    assert summary["depth_order"] == {"pairs": 1, "refined": 1.0, "initial": 0.0}
    assert summary["coverage"]["distance"] == {"68%": 1.0, "95%": 1.0}
    fits["joints"] = fits["joints"] * 1.15  # 0.14 in the log: outside one sigma of 0.1, inside two
    summary = score_tables(fits, truth, Scoring(), "x").summary
    assert summary["coverage"]["distance"] == {"68%": 0.0, "95%": 1.0}


def test_frames_of_one_video_are_one_draw(two_people):
    """Errors that differ between videos alone: without the groups the interval is far too narrow."""
    fits, truth, _ = two_people
    count, videos = 200, 4
    rows = {n: np.repeat(v[:1], count, 0) for n, v in truth.items() if n != "keypoint_names"}
    many = {**rows, "keypoint_names": truth["keypoint_names"]}
    many["imgname"] = np.array([f"{k}.png" for k in range(count)])
    group = np.arange(count) % videos
    fit = {n: np.repeat(v[:1], count, 0) for n, v in fits.items() if n not in ("keypoint_names", "faces")}
    fit |= {"imgname": many["imgname"], "keypoint_names": truth["keypoint_names"]}
    fit["joints"] = fit["joints"].copy()
    fit["joints"][:, 0, 0] += group * 0.1
    loose = score_tables(fit, many, Scoring(), "x").summary["mpjpe_mm"]
    tight = score_tables(fit, {**many, "group": group.astype(str)}, Scoring(), "x").summary["mpjpe_mm"]
    assert tight["mean"] == loose["mean"]
    assert tight["high"] - tight["low"] > 4 * (loose["high"] - loose["low"])
