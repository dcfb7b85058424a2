from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch

from depthfit import camera

F64 = torch.float64


def test_project_agrees_with_opencv():
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (2, 3, 7, 3)) + np.array([0, 0, 3])
    focal, center = rng.uniform(500, 900, (2, 3)), rng.uniform(200, 400, (2, 3, 2))
    K = camera.intrinsics(torch.tensor(focal), torch.tensor(center))
    ours = camera.project(torch.tensor(points), K)
    for i in np.ndindex(2, 3):
        theirs, _ = cv2.projectPoints(points[i], np.zeros(3), np.zeros(3), K[i].numpy(), None)
        np.testing.assert_allclose(ours[i].numpy(), theirs[:, 0], atol=1e-9)


def test_intrinsics_broadcast_one_focal_over_centers():
    K = camera.intrinsics(torch.tensor(2.0), torch.zeros(5, 2))
    assert K.shape == (5, 3, 3)
    assert torch.equal(K[3], torch.tensor([[2.0, 0, 0], [0, 2, 0], [0, 0, 1]]))


def test_image_center_is_between_the_corner_pixels():
    assert camera.image_center(640, 480).tolist() == [319.5, 239.5]
    assert camera.image_center(torch.tensor([1, 3]), torch.tensor([5, 7])).tolist() == [[0, 2], [1, 3]]


def test_regressor_focal_is_the_papers_figure():
    assert float(camera.regressor_focal(1280, 960)) == 25000
    assert camera.regressor_focal(torch.tensor([256, 100]), torch.tensor([10, 512])).tolist() == [5000, 10000]


def test_crop_and_whole_image_cameras_see_the_same_pixels():
    """The crop's camera looks from its own axis, so the two agree up to perspective: a flat person."""
    f = torch.tensor(5000.0, dtype=F64)
    pred_cam = torch.tensor([0.9, 0.05, -0.1], dtype=F64)
    box_center, box_size = torch.tensor([700.0, 300.0], dtype=F64), torch.tensor(320.0, dtype=F64)
    size = torch.tensor([1280.0, 960.0], dtype=F64)
    focal = camera.regressor_focal(size[0], size[1])
    points = torch.tensor([[0.3, 0.2, 0.0], [-0.4, 0.9, 0.0], [0.0, 0.0, 0.0]], dtype=F64)
    crop_t = torch.stack([pred_cam[1], pred_cam[2], 2 * f / (256 * pred_cam[0])])
    in_crop = camera.project(points + crop_t, camera.intrinsics(f / 256, torch.zeros(2, dtype=F64)))
    translation = camera.full_image_translation(pred_cam, box_center, box_size, size, focal)
    K = camera.intrinsics(focal, camera.image_center(size[0], size[1]))
    in_image = camera.project(points + translation, K)
    torch.testing.assert_close(in_image, box_center + in_crop * box_size, atol=1e-9, rtol=0)


def test_full_image_translation_is_the_official_one_for_boxes_that_count_pixel_edges():
    pred_cam, size = torch.tensor([0.8, 0.1, 0.2]), torch.tensor([1000.0, 500.0])
    edge_center, b, f = torch.tensor([300.0, 200.0]), 256.0, 20000.0
    bs = b * 0.8
    official = torch.tensor([0.1 + 2 * (300 - 500) / bs, 0.2 + 2 * (200 - 250) / bs, 2 * f / bs])
    args = (torch.tensor(b), size, torch.tensor(f))
    torch.testing.assert_close(camera.full_image_translation(pred_cam, edge_center - 0.5, *args), official)


def test_full_image_translation_is_batched():
    rng = torch.Generator().manual_seed(0)
    pred = torch.rand(4, 3, generator=rng) + 0.1
    center, side = torch.rand(4, 2, generator=rng) * 100, torch.rand(4, generator=rng) * 100 + 10
    size, focal = torch.tensor([[100.0, 80.0]]).expand(4, 2), torch.rand(4, generator=rng) * 1000
    whole = camera.full_image_translation(pred, center, side, size, focal)
    for i in range(4):
        one = camera.full_image_translation(pred[i], center[i], side[i], size[i], focal[i])
        torch.testing.assert_close(whole[i], one)


def test_fov_to_focal_sees_its_angle():
    f = camera.fov_to_focal(torch.tensor([40.0, 90.0], dtype=F64), torch.tensor([100.0, 100.0]))
    angles = [2 * math.degrees(math.atan(50 / x)) for x in f.tolist()]
    assert angles == pytest.approx([40, 90])


def test_focal_from_35mm_by_the_diagonals():
    assert float(camera.focal_from_35mm(50.0, 3600, 2400)) == pytest.approx(5000)
    assert float(camera.focal_from_35mm(26.0, 3024, 4032)) == pytest.approx(
        float(camera.focal_from_35mm(26.0, 4032, 3024))
    )
    assert float(camera.focal_from_35mm(26.0, 4032, 3024)) == pytest.approx(26 * 5040 / 43.26661530556787)


def test_a_box_camera_and_a_translation_are_each_others_inverse() -> None:
    """Any focal length: the body keeps its place and its size in the image."""
    box_center, box_size = torch.tensor([[300.0, 200.0]]), torch.tensor([250.0])
    size, focal = torch.tensor([[1280.0, 960.0]]), torch.tensor([1600.0])
    translation = torch.tensor([[-0.7, -0.4, 4.2]])
    pred_cam = camera.box_camera(translation, box_center, box_size, size, focal)
    back = camera.full_image_translation(pred_cam, box_center, box_size, size, focal)
    torch.testing.assert_close(back, translation)
    assert pred_cam[0, 0] == pytest.approx(2 * 1600 / (250 * 4.2))
    regressors = camera.regressor_focal(1280, 960)
    longer = camera.full_image_translation(pred_cam, box_center, box_size, size, regressors[None])
    assert longer[0, 2] / regressors == pytest.approx(4.2 / 1600)
