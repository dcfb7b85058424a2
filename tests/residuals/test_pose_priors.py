"""Pose priors against numeric derivatives, and against what they must say of known poses."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from depthfit import so3
from depthfit.data.pose_library import load_pose_library
from depthfit.data.pose_mixture import fit_pose_mixture, load_pose_mixture, mirrored
from depthfit.data.random_poses import sample_poses, twist_axes
from depthfit.errors import InputError
from depthfit.joints import JOINT_INDEX
from depthfit.residuals.pose_priors import LimitPrior, MixturePrior, PosePrior, swing_twist
from tests.bodies import random_rotations

DOUBLE = torch.float64
STEP = 1e-6


def _priors() -> dict[str, PosePrior]:
    return {
        "gaussian": MixturePrior.of(load_pose_mixture(1)).to(dtype=DOUBLE),
        "mixture": MixturePrior.of(load_pose_mixture(8), 0.1).to(dtype=DOUBLE),
        "robust": MixturePrior.of(load_pose_mixture(1), 0.1, 20.0).to(dtype=DOUBLE),
        "robust mixture": MixturePrior.of(load_pose_mixture(8), 0.1, 20.0).to(dtype=DOUBLE),
        "limits": LimitPrior.of(0.1).to(dtype=DOUBLE),
    }


def _wild(seed: int) -> Tensor:
    """Poses (2, 21, 3, 3), half of whose joints are beyond their limits."""
    return random_rotations(2, 21, scale=0.8, seed=seed)


@pytest.mark.parametrize("name", list(_priors()))
def test_gradient_is_the_numeric_one(name: str) -> None:
    prior, pose = _priors()[name], _wild(1)
    gradient, hessian = prior.normal(pose)
    numeric = torch.zeros(2, 63, dtype=DOUBLE)
    for i in range(63):
        turn = torch.zeros(63, dtype=DOUBLE)
        turn[i] = STEP
        ahead, back = (so3.exp(sign * turn.reshape(21, 3)) @ pose for sign in (1, -1))
        numeric[:, i] = (prior.cost(ahead) - prior.cost(back)) / (2 * STEP)
    assert gradient.abs().max() > 1
    torch.testing.assert_close(gradient, numeric, rtol=1e-5, atol=1e-5)
    assert torch.linalg.eigvalsh(hessian).min() > -1e-9 * hessian.abs().max()


def test_hessian_of_a_gaussian_is_that_of_its_residual() -> None:
    prior, pose = _priors()["gaussian"], _wild(2)
    assert isinstance(prior, MixturePrior)
    _, hessian = prior.normal(pose)
    rows = []
    for i in range(63):
        turn = torch.zeros(63, dtype=DOUBLE)
        turn[i] = STEP
        ahead, back = (so3.exp(sign * turn.reshape(21, 3)) @ pose for sign in (1, -1))
        difference = (so3.log(ahead) - so3.log(back)).flatten(1) / (2 * STEP)
        rows.append(difference @ prior.whiten[0].mT)
    jacobian = torch.stack(rows, -1)
    torch.testing.assert_close(hessian, jacobian.mT @ jacobian, rtol=1e-4, atol=1e-3)


def test_mixture_cost_is_the_best_components_log_density() -> None:
    mixture = load_pose_mixture(8).to(dtype=DOUBLE)
    prior, pose = MixturePrior.of(mixture), _wild(3)
    density = torch.stack(
        [
            torch.distributions.MultivariateNormal(mixture.mean[k], scale_tril=mixture.scale[k]).log_prob(
                so3.log(pose).flatten(1)
            )
            + mixture.log_weight[k]
            for k in range(8)
        ]
    ).amax(0)
    torch.testing.assert_close(prior.cost(pose) - prior.cost(pose[:1]), density[0] - density)


def test_play_is_added_to_every_directions_variance() -> None:
    mixture = load_pose_mixture(8).to(dtype=DOUBLE)
    whiten = MixturePrior.of(mixture, 0.3).whiten
    covariance = torch.linalg.inv(whiten.mT @ whiten)
    torch.testing.assert_close(covariance, mixture.scale @ mixture.scale.mT + 0.09 * torch.eye(63))


def test_the_robust_one_is_the_kernel_of_the_others_cost() -> None:
    mixture, pose = load_pose_mixture(1).to(dtype=DOUBLE), _wild(4)
    plain = MixturePrior.of(mixture, 0.1).cost(pose)
    torch.testing.assert_close(
        MixturePrior.of(mixture, 0.1, 20.0).cost(pose), plain / (1 + 2 * plain / 20.0**2)
    )


def test_a_pose_unlike_the_populations_is_left_alone() -> None:
    mixture, pose = load_pose_mixture(1).to(dtype=DOUBLE), _wild(5)
    normal, _ = MixturePrior.of(mixture, 0.1).normal(pose)
    robust, _ = MixturePrior.of(mixture, 0.1, 20.0).normal(pose)
    assert (robust.norm(dim=-1) < 0.1 * normal.norm(dim=-1)).all()


def test_swing_and_twist_make_the_rotation_again() -> None:
    bone = torch.nn.functional.one_hot(twist_axes(), 3).to(DOUBLE)
    pose = random_rotations(3, 21, scale=1.2, seed=4)
    angles, _ = swing_twist(pose, bone)
    swing, twist = so3.exp(angles * (1 - bone)), so3.exp(angles * bone)
    torch.testing.assert_close(swing @ twist, pose)


def test_random_valid_poses_are_inside_the_limits() -> None:
    poses = sample_poses(200, torch.Generator().manual_seed(0))
    assert LimitPrior.of(0.1).cost(poses).max() < 1e-3


def test_limits_know_a_knee_that_bends_the_wrong_way() -> None:
    pose = torch.eye(3, dtype=DOUBLE).repeat(2, 21, 1, 1)
    for row, angle in enumerate((60.0, -60.0)):
        turn = torch.tensor([math.radians(angle), 0.0, 0.0], dtype=DOUBLE)
        pose[row, JOINT_INDEX["left_knee"] - 1] = so3.exp(turn)
    cost = LimitPrior.of(0.1).to(dtype=DOUBLE).cost(pose)
    torch.testing.assert_close(cost, torch.tensor([0.0, (math.radians(60) / 0.1) ** 2 / 2], dtype=DOUBLE))


def test_real_poses_are_likelier_than_scrambled_ones() -> None:
    poses = load_pose_library("everyday").body
    generator = torch.Generator().manual_seed(5)
    order = torch.stack([torch.randperm(len(poses), generator=generator) for _ in range(21)], 1)
    scrambled = torch.stack([poses[order[:, j], j] for j in range(21)], 1)
    for components in (1, 8):
        prior = MixturePrior.of(load_pose_mixture(components))
        assert prior.cost(poses).mean() < 0.8 * prior.cost(scrambled).mean()


def test_a_mixture_finds_the_two_groups_it_was_drawn_from() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is needed only to fit the shipped mixtures")
    generator = torch.Generator().manual_seed(6)
    group = torch.arange(600) % 2
    vectors = 0.05 * torch.randn(600, 21, 3, generator=generator)
    vectors[:, 3, 0] += torch.where(group == 0, 1.2, 0.2)
    vectors[:, 4, 0] += torch.where(group == 0, 1.2, 0.2)
    mixture = fit_pose_mixture(so3.exp(vectors), 2, seed=0)
    found = mixture.mean.reshape(2, 21, 3)[:, 3:5, 0].sort(0).values
    torch.testing.assert_close(found, torch.tensor([[0.2, 0.2], [1.2, 1.2]]), atol=0.02, rtol=0)
    torch.testing.assert_close(mixture.log_weight.exp(), torch.tensor([0.5, 0.5]), atol=0.02, rtol=0)


def test_a_mirrored_pose_mirrored_again_is_the_pose() -> None:
    pose = random_rotations(2, 21, scale=0.8, seed=7)
    torch.testing.assert_close(mirrored(mirrored(pose)), pose)
    assert not torch.allclose(mirrored(pose), pose)


def test_a_mixture_that_is_not_shipped_is_refused() -> None:
    with pytest.raises(InputError, match=r"\[1, 8\]"):
        load_pose_mixture(5)
