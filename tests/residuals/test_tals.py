"""TALS against cases worked out by hand, scipy's rotations, and numeric gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from depthfit.errors import InputError
from depthfit.fit.problem import tals_thresholds
from depthfit.joints import KEYPOINTS
from depthfit.residuals import KeypointTargets, tals


def _rotations(angles: np.ndarray, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Pairs of rotations that are ``angles`` (any shape) rad apart."""
    rng = np.random.default_rng(seed)
    first = Rotation.random(angles.size, random_state=seed)
    axes = rng.normal(size=(angles.size, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    second = first * Rotation.from_rotvec(axes * angles.reshape(-1, 1))
    shape = (*angles.shape, 3, 3)
    return torch.from_numpy(first.as_matrix().reshape(shape)), torch.from_numpy(
        second.as_matrix().reshape(shape)
    )


def test_equation_1_keeps_what_is_above_and_scales_what_is_below():
    truth = torch.zeros(1, 3, 2, dtype=torch.float64)
    predicted = torch.tensor([[[0.3, -0.1], [0.1, 0.1], [0.0, 0.2]]], dtype=torch.float64)
    confidence = torch.tensor([[1.0, 0.5, 0.0]], dtype=torch.float64)
    threshold = torch.tensor([0.39, 0.21, 0.1], dtype=torch.float64)
    loss = tals.paper_keypoint_loss(predicted, truth, confidence, threshold, factor=0.1)
    assert loss.tolist()[0] == pytest.approx([0.4, 0.5 * 0.1 * 0.2, 0.0])


def test_gradient_is_the_loss_s_own_above_and_a_share_of_it_below():
    truth = torch.zeros(2, 2, dtype=torch.float64)
    predicted = torch.tensor([[0.3, -0.2], [0.03, -0.02]], dtype=torch.float64, requires_grad=True)
    loss = tals.paper_keypoint_loss(predicted, truth, torch.ones(2).double(), torch.full((2,), 0.1).double())
    (gradient,) = torch.autograd.grad(loss.sum(), predicted)
    assert gradient.tolist() == [[1.0, -1.0], [0.05, -0.05]]


def test_angles_equal_scipy_and_have_numeric_gradients():
    angles = np.array([[0.0, 1e-3, 0.4, 2.0], [np.pi, np.pi - 1e-3, 3.0, 1.0]])
    first, second = _rotations(angles)
    np.testing.assert_allclose(tals.joint_angle(first, second).numpy(), angles, atol=1e-9)
    inner = _rotations(np.array([0.2, 1.5, 2.9]), seed=1)
    assert torch.autograd.gradcheck(tals.joint_angle, (inner[0].requires_grad_(), inner[1]))
    same = torch.eye(3).requires_grad_()
    tals.joint_angle(same, torch.eye(3)).backward()
    assert torch.equal(same.grad, torch.zeros(3, 3))


def test_paper_pose_loss_is_the_angle():
    first, second = _rotations(np.array([[0.5, 0.1]]))
    loss = tals.paper_pose_loss(first, second, torch.tensor([0.3, 0.3]).double(), factor=0.2)
    assert loss.tolist()[0] == pytest.approx([0.5, 0.02])


def test_thresholds_are_means_over_the_visible():
    """Offsets of known L1 length, a third of the points hidden behind nonsense values."""
    rng = np.random.default_rng(0)
    truth = torch.from_numpy(rng.normal(size=(60, 4, 2)))
    length = torch.from_numpy(rng.uniform(0, 0.2, (60, 4)))
    share = torch.from_numpy(rng.uniform(0, 1, (60, 4)))
    offset = torch.stack([length * share, -length * (1 - share)], -1)
    visible = torch.from_numpy(rng.random((60, 4)) > 0.3)
    offset[~visible] = torch.inf
    found = tals.keypoint_thresholds(truth + offset, truth, visible)
    expected = [length[:, k][visible[:, k]].mean().item() for k in range(4)]
    assert found.tolist() == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"\[2\]"):
        tals.keypoint_thresholds(truth, truth, torch.tensor([True, True, False, True]).expand(60, 4))


def test_pose_thresholds_are_mean_angles():
    angles = np.random.default_rng(1).uniform(0, 1, (50, 3))
    found = tals.pose_thresholds(*_rotations(angles))
    np.testing.assert_allclose(found.numpy(), angles.mean(0), atol=1e-9)


def test_code_compares_squares_so_its_radius_is_the_root():
    """23.6 px of 256 for the first joint: 2.2 px would follow had its table held distances."""
    table = torch.tensor(tals.CODE_KEYPOINT_THRESHOLDS, dtype=torch.float64)
    radius = table.sqrt()
    assert radius[0].item() * 256 == pytest.approx(23.6, abs=0.05)
    truth = torch.zeros(2, 44, 2, dtype=torch.float64)
    predicted = torch.stack([torch.stack([radius * s, torch.zeros(44)], -1) for s in (0.999, 1.001)])
    one = torch.ones(2, 44, dtype=torch.float64)
    assert tals.code_strong_keypoints(predicted, truth, one).float().mean(1).tolist() == [0, 1]
    loss = tals.code_keypoint_loss(predicted, truth, one)
    torch.testing.assert_close(loss[0], 0.05 * 0.999 * radius)
    torch.testing.assert_close(loss[1], 1.001 * radius)
    # An unsure point must err by more before it counts in full.
    assert not tals.code_strong_keypoints(predicted, truth, 0.9 * one).any()


def test_code_pose_thresholds_in_degrees():
    degrees = [
        12.55, 12.14, 8.43, 19.02, 17.20, 9.53, 11.42, 15.53, 6.64, 16.33, 16.02, 14.00, 15.05, 15.18, 15.96,
        16.67, 18.36, 19.94, 20.17, 35.76, 33.81, 11.43, 11.44,
    ]  # fmt: skip
    has_pose, trusted = torch.tensor([True]), torch.tensor([False])
    for shift, factor in ((-0.02, 0.05), (0.02, 1.0)):
        angles = np.radians(np.array([degrees]) + shift)
        first, second = _rotations(angles)
        loss = tals.code_pose_loss(first, second, has_pose, trusted)
        # |R1 - R2|_F^2 = 4 (1 - cos angle)
        np.testing.assert_allclose(loss.numpy(), factor * 4 * (1 - np.cos(angles)), rtol=1e-6)
    for angle, factor in ((26.3, 0.05), (26.4, 1.0)):
        angles = np.radians([[angle]])
        loss = tals.code_pose_loss(*_rotations(angles), has_pose, trusted)
        np.testing.assert_allclose(loss.numpy(), factor * 4 * (1 - np.cos(angles)), rtol=1e-6)
    with pytest.raises(ValueError, match="21 rotations"):
        tals.code_pose_loss(*_rotations(np.zeros((1, 21))), has_pose, trusted)


def test_code_trusts_measured_poses_and_ignores_missing_ones():
    angles = np.full((4, 1), 0.1)
    has_pose = torch.tensor([True, False, True, False])
    trusted = torch.tensor([False, False, True, True])
    loss = tals.code_pose_loss(*_rotations(angles), has_pose, trusted)[:, 0]
    np.testing.assert_allclose(loss / (4 * (1 - np.cos(0.1))), [0.05, 0, 1, 1], rtol=1e-6)


def test_code_3d_confidence():
    """Trusted: all. Else: only joints that are strong and sure in 2D; no weak share."""
    confidence_3d = torch.ones(3, 2)
    confidence_2d = torch.tensor([[0.9, 0.4], [0.9, 0.4], [0.9, 0.9]])
    strong = torch.tensor([[False, False], [True, True], [True, False]])
    trusted = torch.tensor([True, False, False])
    kept = tals.code_keypoint3d_confidence(confidence_3d, confidence_2d, strong, trusted)
    assert kept.tolist() == [[1, 1], [1, 0], [1, 0]]


def test_a_fit_trusts_only_points_beyond_their_threshold() -> None:
    detected = torch.zeros(1, 3, 2)
    targets = KeypointTargets(detected, torch.tensor([[2.0, 2.0, torch.inf]]), torch.full((1, 3), 10.0), 1)
    seen = torch.tensor([[[6.0, 5.0], [6.0, 3.0], [90.0, 0.0]]])
    # L1: 11 px is beyond 10 px, 9 px is not; what was not detected has no weight.
    torch.testing.assert_close(targets.trust(seen), torch.tensor([[1.0, 0.05, 0.0]]))
    # The same points by their Euclidean distance, 7.8 px and 6.7 px: both are near.
    by_distance = targets.replace(norm=2)
    torch.testing.assert_close(by_distance.trust(seen), torch.tensor([[0.05, 0.05, 0.0]]))


def test_a_fit_compares_as_the_code_does() -> None:
    """The code's 44 joints and ours by name: the same points are strong."""
    generator = torch.Generator().manual_seed(3)
    offset = 0.25 * torch.rand(44, 2, generator=generator) - 0.125
    strong = tals.code_strong_keypoints(offset, torch.zeros(44, 2), torch.ones(44))
    size = torch.tensor([200.0])
    threshold, norm = tals_thresholds(size, "code")
    joints = [tals.CODE_JOINT[name] for name in KEYPOINTS]
    ours = KeypointTargets(torch.zeros(1, len(KEYPOINTS), 2), torch.ones(1, len(KEYPOINTS)), threshold, norm)
    weight = ours.trust(200 * offset[joints][None])
    assert strong[joints].any()
    assert (~strong[joints]).any()
    assert torch.equal(weight[0] == 1, strong[joints])


def test_an_unknown_variant_is_refused() -> None:
    with pytest.raises(InputError, match=r"none, paper, code"):
        tals_thresholds(torch.ones(1), "papers")
