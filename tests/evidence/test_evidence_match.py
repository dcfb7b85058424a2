from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from depthfit.evidence import match
from depthfit.evidence.keypoints import KeypointPerson


def people_at(xy: np.ndarray) -> list[KeypointPerson]:
    return [KeypointPerson(points, np.ones(27)) for points in xy]


def brute_force(cost: np.ndarray, gate: float) -> float:
    """Least total over all pairings, a row left out costing the gate."""
    rows, columns = cost.shape
    slots = [*range(columns), *[-1] * rows]
    return min(
        sum(gate if d < 0 or cost[n, d] > gate else cost[n, d] for n, d in enumerate(choice))
        for choice in set(permutations(slots, rows))
    )


@pytest.mark.parametrize(("predicted", "detected"), [(3, 3), (2, 4), (4, 2), (1, 1)])
def test_assignment_is_optimal(predicted, detected):
    rng = np.random.default_rng(predicted * 10 + detected)
    for _ in range(20):
        cost = rng.uniform(0, 0.5, (predicted, detected))
        cost[rng.uniform(size=cost.shape) < 0.2] = np.inf
        result = match._assign(cost, 0.25)
        paired = result.detection >= 0
        total = result.cost[paired].sum() + 0.25 * (~paired).sum()
        assert total == pytest.approx(brute_force(cost, 0.25))
        assert len(set(result.detection[paired])) == paired.sum()
        assert sorted([*result.detection[paired], *result.unmatched]) == list(range(detected))


def test_people_are_matched_by_overlap_not_by_order():
    rng = np.random.default_rng(1)
    predicted = rng.uniform(0, 60, (3, 27, 2)) + np.array([[0, 0], [200, 0], [80, 40]])[:, None]
    box_size = np.full(3, 80.0)
    centers = predicted.mean(1)
    order = [2, 0, 1]
    detected = people_at(predicted[order] + rng.normal(0, 3, (3, 27, 2)))
    by_points = match.match_people(detected, centers, box_size, predicted)
    by_boxes = match.match_people(detected, centers, box_size)
    assert by_points.detection.tolist() == by_boxes.detection.tolist() == [1, 2, 0]
    assert by_points.unmatched == ()
    assert by_points.cost.max() < 0.1


def test_a_bystander_is_reported_and_an_unseen_prediction_gets_nobody():
    xy = np.random.default_rng(2).uniform(0, 50, (27, 2))
    detected = people_at(np.stack([xy + 300, xy]))
    predicted = np.stack([xy, xy + np.array([0, 900])])
    result = match.match_people(detected, predicted.mean(1), np.full(2, 60.0), predicted)
    assert result.detection.tolist() == [1, -1]
    assert result.cost[1] == np.inf
    assert result.unmatched == (0,)


def test_overlapping_people_are_told_apart_by_points_where_boxes_cannot():
    xy = np.random.default_rng(3).uniform(0, 100, (27, 2))
    mirrored = xy * [-1, 1] + [100, 0]  # the same box
    predicted = np.stack([xy, mirrored])
    result = match.match_people(
        people_at(np.stack([mirrored, xy])), predicted.mean(1), np.full(2, 100.0), predicted
    )
    assert result.detection.tolist() == [1, 0]


def test_missing_and_invented_points_do_not_break_a_match():
    xy = np.random.default_rng(4).uniform(0, 100, (27, 2))
    seen = xy.copy()
    seen[0] = [5000, 5000]
    confidence = np.ones(27)
    confidence[10:] = 0
    predicted = xy.copy()
    predicted[1] = np.nan  # behind the camera
    result = match.match_people(
        [KeypointPerson(seen, confidence)], np.array([[50.0, 50]]), np.array([120.0]), predicted[None]
    )
    assert result.detection.tolist() == [0]
    assert result.cost[0] == pytest.approx(match.DISTANCE_CAP / 9)


def test_too_few_common_points_are_no_match():
    confidence = np.zeros(27)
    confidence[:2] = 1
    xy = np.zeros((27, 2))
    result = match.match_people([KeypointPerson(xy, confidence)], np.zeros((1, 2)), np.ones(1), xy[None])
    assert result.detection.tolist() == [-1]
    assert result.unmatched == (0,)


def test_nobody_detected_and_nobody_predicted():
    none = match.match_people([], np.zeros((2, 2)), np.ones(2))
    assert none.detection.tolist() == [-1, -1]
    alone = match.match_people(people_at(np.ones((1, 27, 2))), np.zeros((0, 2)), np.ones(0))
    assert alone.unmatched == (0,)


def test_masks_are_given_to_the_people_inside_them():
    labels = np.zeros((100, 100), np.uint8)
    labels[:, :30], labels[:, 60:] = 2, 1
    rng = np.random.default_rng(5)
    xy = rng.uniform(0, 25, (3, 27, 2)) + np.array([[65, 5], [2, 2], [32, 0]])[:, None]
    xy[2, :, 0] = 45  # between the masks
    xy[0, 0] = [-50, 400]  # outside the image
    assert match.match_masks(people_at(xy), labels).tolist() == [1, 2, 0]
    assert match.match_masks(people_at(xy), np.zeros_like(labels)).tolist() == [0, 0, 0]
    assert match.match_masks([], labels).tolist() == []


def test_points_made_up_for_what_is_out_of_sight_do_not_part_a_person():
    """Cut at the waist: 16 of 27 points lie beyond the image, where the detector answers at its border."""
    xy = np.random.default_rng(5).uniform(0, 80, (27, 2))
    seen = np.arange(27) < 11
    invented = np.where(seen[:, None], xy, xy + np.array([0, -60]))
    confidence = np.where(seen, 0.9, 0.03)
    found = {
        name: match.match_people(
            [KeypointPerson(invented, weights)], xy.mean(0)[None], np.array([80.0]), xy[None]
        ).detection.tolist()
        for name, weights in (("sure of all", np.ones(27)), ("sure of some", confidence))
    }
    assert found == {"sure of all": [-1], "sure of some": [0]}
