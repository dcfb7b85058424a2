"""Silhouettes and depth order against cases with known answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau

from depthfit.evaluation import image_metrics


def test_iou_of_shifted_rectangles():
    a, b = np.zeros((40, 60), bool), np.zeros((40, 60), bool)
    a[5:25, 10:30], b[5:25, 20:40] = True, True
    assert image_metrics.mask_iou(a, b) == pytest.approx(200 / 600)
    assert image_metrics.mask_iou(a, a) == 1
    assert np.isnan(image_metrics.mask_iou(a & b & ~a, np.zeros_like(a)))
    with pytest.raises(ValueError, match=r"\(40, 60\).*\(3, 3\)"):
        image_metrics.mask_iou(a, np.zeros((3, 3)))


def _square(left: float, z: float) -> torch.Tensor:
    """A unit square facing the camera."""
    x = [left, left + 1, left + 1, left]
    return torch.tensor([[x[0], 0, z], [x[1], 0, z], [x[2], 1, z], [x[3], 1, z]], dtype=torch.float32)


FACES = torch.tensor([[0, 1, 2], [0, 2, 3]])
K = torch.tensor([[40.0, 0, 39.5], [0, 40, 29.5], [0, 0, 1]]).expand(2, 3, 3)


def test_the_nearer_person_hides_the_other():
    """At 1 m a unit square is 40 px wide; the one at 2 m, 20 px wide, starts in its middle."""
    vertices = torch.stack([_square(0.0, 1.0), _square(1.0, 2.0)])
    labels = image_metrics.silhouette_labels(vertices, FACES, K, (60, 80))
    assert (labels == 1).sum() == pytest.approx(40 * 30, abs=71)  # the frame ends 30 px below its top
    assert (labels == 2).sum() == 0
    apart = torch.stack([_square(0.0, 1.0), _square(-1.0, 2.0)])
    labels = image_metrics.silhouette_labels(apart, FACES, K, (60, 80))
    assert (labels == 2).sum() == pytest.approx(20 * 20, abs=41)


def test_silhouette_iou_of_a_known_shift():
    """Half of the square's width off: a third of the union."""
    vertices = torch.stack([_square(-0.5, 2.0), _square(-1.5, 2.0)])
    truth = np.zeros((60, 80), np.uint8)
    truth[30:50, 40:60] = 7
    iou = image_metrics.silhouette_ious(vertices[:1], FACES, K[:1], truth, [7], 80)
    assert iou == pytest.approx([1 / 3], abs=0.04)
    both = image_metrics.silhouette_ious(vertices, FACES, K, truth, [7, 8], 80)
    assert both[0] == iou[0]
    assert np.isnan(both[1])


def test_silhouette_iou_hardly_depends_on_the_resolution():
    vertices = torch.stack([_square(-0.5, 2.0), _square(-1.5, 2.0)])[:1]
    truth = np.zeros((600, 800), np.uint8)
    truth[300:500, 350:550] = 1
    large = K[:1] * torch.tensor([10.0, 10.0, 1.0])[:, None]
    large[:, :2, 2] += 4.5
    values = [image_metrics.silhouette_ious(vertices, FACES, large, truth, [1], s)[0] for s in (800, 200)]
    expected = (150 * 200) / (2 * 200 * 200 - 150 * 200)
    assert values == pytest.approx([expected, expected], abs=0.02)


def test_depth_order_of_pairs():
    truth = [2.0, 4.0, 4.1, 3.0, 5.0]
    images = ["a", "a", "a", "b", "c"]
    # Pairs of a: (2, 4) right, (2, 4.1) right, (4, 4.1) equal but 0.5 apart: wrong.
    share, pairs = image_metrics.depth_order([1.0, 4.0, 4.5, 9.0, 9.0], truth, images)
    assert (share, pairs) == (pytest.approx(2 / 3), 3)
    share, pairs = image_metrics.depth_order([1.0, 2.0], [1.0, 2.0], ["a", "b"])
    assert np.isnan(share)
    assert pairs == 0


def test_depth_order_without_ties_is_kendall_s_tau():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(1, 100, 12), rng.uniform(1, 100, 12)
    share, pairs = image_metrics.depth_order(a, b, np.zeros(12), tolerance=0.0)
    assert pairs == 66
    assert 2 * share - 1 == pytest.approx(kendalltau(a, b).statistic)


def test_unknown_distances_make_no_pairs():
    share, pairs = image_metrics.depth_order([1.0, np.nan, 3.0], [1.0, 2.0, 3.0], [0, 0, 0])
    assert (share, pairs) == (1.0, 1)
