"""PCK against counts by hand and each source's own normaliser."""

from __future__ import annotations

import numpy as np
import pytest

from depthfit.evaluation import pck

NAMES = ("left_shoulder", "right_hip", "upper_neck", "head_top", "nose")
TRUTH = np.array([[[0.0, 0.0], [30.0, 40.0], [10.0, -10.0], [10.0, -30.0], [20.0, 90.0]]])
ALL = np.ones((1, 5), bool)


def test_sizes_of_a_person():
    assert pck.person_size(TRUTH, ALL, NAMES, "torso") == pytest.approx([50])
    assert pck.person_size(TRUTH, ALL, NAMES, "head") == pytest.approx([20])
    assert pck.person_size(TRUTH, ALL, NAMES, "box") == pytest.approx([120])
    assert pck.person_size(TRUTH, ALL, NAMES, "box", np.array([77.0])) == pytest.approx([77])


def test_sizes_that_are_not_known_are_nan():
    hidden = ALL.copy()
    hidden[0, 3] = False
    assert np.isnan(pck.person_size(TRUTH, hidden, NAMES, "head"))
    # The box then ends at the highest point that is seen.
    assert pck.person_size(TRUTH, hidden, NAMES, "box") == pytest.approx([100])
    assert np.isnan(pck.person_size(TRUTH, ~ALL, NAMES, "box"))
    assert np.isnan(pck.person_size(TRUTH, ALL, ("nose",) * 5, "torso"))


def test_a_known_share_is_right():
    """Errors of 9, 11, 0, 30 and 4 px: a head of 20 px halves to 10."""
    error = np.array([9.0, 11.0, 0.0, 30.0, 4.0])
    predicted = TRUTH + np.stack([error * 0.6, error * 0.8], -1)
    size = pck.person_size(TRUTH, ALL, NAMES, "head")
    assert pck.pck(predicted, TRUTH, ALL, size, 0.5) == pytest.approx([3 / 5])
    assert pck.pck(predicted, TRUTH, ALL, size, 1.0) == pytest.approx([4 / 5])
    seen = np.array([[True, True, False, False, False]])
    assert pck.pck(predicted, TRUTH, seen, size, 0.5) == pytest.approx([1 / 2])
    assert np.isnan(pck.pck(predicted, TRUTH, ~ALL, size, 0.5))


def test_mean_over_keypoints_weighs_keypoints_not_people():
    """A keypoint seen once counts as much as one seen four times; one never seen does not count."""
    visible = np.array([[1, 1, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0]], bool)
    correct = np.array([[1, 0, 1], [1, 0, 1], [0, 0, 1], [0, 0, 1]], bool)
    assert pck.mean_over_keypoints(correct, visible) == pytest.approx((0.5 + 0.0) / 2)
    assert np.isnan(pck.mean_over_keypoints(correct, ~np.ones_like(visible)))


def test_equals_a_loop_over_points():
    rng = np.random.default_rng(0)
    truth, error = rng.normal(size=(40, 5, 2)) * 50, rng.normal(size=(40, 5, 2)) * 6
    visible = rng.random((40, 5)) > 0.3
    size = pck.person_size(truth, np.ones((40, 5), bool), NAMES, "torso")
    shares = pck.pck(truth + error, truth, visible, size, 0.2)
    for n in range(40):
        hits = [np.hypot(*error[n, k]) < 0.2 * size[n] for k in range(5) if visible[n, k]]
        assert shares[n] == pytest.approx(np.mean(hits)) if hits else np.isnan(shares[n])
