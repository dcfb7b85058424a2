"""Which detected person is which predicted one: by overlap in the image, never by order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from depthfit.evidence.keypoints import KeypointPerson

DISTANCE_GATE = 0.25
"""Mean distance of a person's keypoints to the prediction's, per side of the crop box, beyond which they
are different people. A regressor's own points are off by less than 0.1 in 9 of 10 cases."""
DISTANCE_CAP = 0.5
"""The same unit: a swapped or invented keypoint costs no more than this."""
MIN_COMMON = 3
"""Fewer points than this do not tell people apart."""
IOU_GATE = 0.1
INSIDE_GATE = 0.5
"""Least share of a person's keypoints that lie in the mask of the same person."""
KEYPOINT_BOX_MARGIN = 1.2
"""Side of a person's box per side of the box around the keypoints, which end at eyes and ankles."""


@dataclass(frozen=True)
class Matching:
    """Pairs of predictions and detections.

    Attributes:
        detection: (N,) int, index of each prediction's detected person; -1 = none.
        cost: (N,) the pair's cost, of 0 = perfect to 1; inf where there is none.
        unmatched: Indices of detected people that belong to no prediction.
    """

    detection: np.ndarray
    cost: np.ndarray
    unmatched: tuple[int, ...]


def match_people(
    people: Sequence[KeypointPerson],
    box_center: np.ndarray,
    box_size: np.ndarray,
    predicted_xy: np.ndarray | None = None,
) -> Matching:
    """Match the detected people of an image to its N predictions, at the least total cost.

    With ``predicted_xy`` the cost of a pair is the mean distance of the found keypoints, weighted by their
    confidence, as a share of the prediction's box. Without, it is 1 - IoU of the prediction's box and the
    square around the keypoints. Pairs beyond a gate are no pairs.

    Args:
        people: D detected people.
        box_center: (N, 2) px of the predictions.
        box_size: (N,) px, side of their square boxes.
        predicted_xy: (N, K, 2) px, the predicted ``joints.KEYPOINTS`` in the image; NaN = not in front
            of the camera.
    """
    if predicted_xy is None:
        cost = np.array([_box_costs(person, box_center, box_size) for person in people])
        gate = 1 - IOU_GATE
    else:
        cost = np.array([_point_costs(person, predicted_xy, box_size) for person in people])
        gate = DISTANCE_GATE
    return _assign(cost.reshape(len(people), len(box_size)).T, gate)


def match_masks(people: Sequence[KeypointPerson], labels: np.ndarray) -> np.ndarray:
    """Label (D,) int of the mask that holds each detected person's keypoints; 0 = none.

    For scenes without predictions, where nothing else says whose mask is whose.

    Args:
        people: D detected people.
        labels: (H, W) uint8, 0 = background, k = k-th person.
    """
    known = np.unique(labels[labels > 0])
    cost = np.array([1 - _shares_inside(person, labels, known) for person in people])
    matching = _assign(cost.reshape(len(people), len(known)), 1 - INSIDE_GATE)
    return np.where(matching.detection >= 0, np.append(known, 0)[matching.detection], 0).astype(np.int64)


def _assign(cost: np.ndarray, gate: float) -> Matching:
    """Pair rows and columns of ``cost`` (N, D) at the least sum, a pair left out costing the gate."""
    possible = cost <= gate
    row, column = linear_sum_assignment(np.where(possible, cost, gate))
    paired = possible[row, column]
    detection, price = np.full(len(cost), -1), np.full(len(cost), np.inf)
    detection[row[paired]] = column[paired]
    price[row[paired]] = cost[row[paired], column[paired]]
    unmatched = tuple(int(d) for d in range(cost.shape[1]) if d not in detection)
    return Matching(detection, price, unmatched)


def _point_costs(person: KeypointPerson, predicted_xy: np.ndarray, box_size: np.ndarray) -> np.ndarray:
    """(N,) mean capped distance of one detected person's points to each prediction's; inf = unknown.

    Points count by their confidence: for what lies beyond the image a detector makes up a place in it.
    """
    distance = np.linalg.norm(predicted_xy - person.xy, axis=-1) / box_size[:, None]
    common = person.found & np.isfinite(distance)
    number = common.sum(1)
    trust = common * person.confidence
    total = (trust * np.where(common, np.minimum(distance, DISTANCE_CAP), 0)).sum(1)
    return np.where(number >= MIN_COMMON, total / np.maximum(trust.sum(1), 1e-9), np.inf)


def _box_costs(person: KeypointPerson, box_center: np.ndarray, box_size: np.ndarray) -> np.ndarray:
    """(N,) 1 - IoU of the square around one detected person's points and each prediction's box."""
    x0, y0, x1, y1 = person.box()
    side = KEYPOINT_BOX_MARGIN * max(x1 - x0, y1 - y0)
    center = np.array([x0 + x1, y0 + y1]) / 2
    low = np.maximum(center - side / 2, box_center - box_size[:, None] / 2)
    high = np.minimum(center + side / 2, box_center + box_size[:, None] / 2)
    shared = np.maximum(high - low, 0).prod(-1)
    return 1 - shared / (side**2 + box_size**2 - shared)


def _shares_inside(person: KeypointPerson, labels: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(len(known),) share of the person's found points in each label's mask."""
    points = np.rint(person.xy[person.found]).astype(np.int64)
    height, width = labels.shape
    inside = ((points >= 0) & (points < [width, height])).all(-1)
    column, row = points[inside].T
    return (labels[row, column] == known[:, None]).sum(1) / len(points)
