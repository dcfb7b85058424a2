"""Synthetic people: clothes, and shapes that the fitted body cannot take."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from depthfit.joints import JOINT_INDEX
from depthfit.synth.person import pose_person, shape_person


@pytest.fixture(scope="module")
def shapes(studio):
    rng = np.random.default_rng(0)
    return [shape_person(rng, studio.wide, studio.parts, studio.body.num_betas, 1.0, 0.04) for _ in range(8)]


@pytest.fixture(scope="module")
def people(studio, shapes):
    root, pose = torch.eye(3), torch.eye(3).expand(23, 3, 3)
    return [pose_person(studio.wide, shape, root, pose, "everyday") for shape in shapes]


def test_clothes_stay_in_their_range(shapes):
    for shape in shapes:
        assert shape.clothes.min() >= 0
        assert shape.clothes.max() <= 0.04
    assert np.mean([float(s.clothes.max()) for s in shapes]) > 0.02
    assert 0.004 < np.mean([s.mean_clothes for s in shapes]) < 0.02


def test_hands_and_face_are_bare_and_the_trunk_is_not(studio, shapes):
    weights = studio.body.weights
    hands = weights[:, [JOINT_INDEX["left_hand"], JOINT_INDEX["right_hand"]]].sum(-1) > 0.9
    offset = studio.body.v_template - studio.body.joint_template[JOINT_INDEX["head"]]
    face = (weights[:, JOINT_INDEX["head"]] > 0.9) & (offset[:, 2] > 0.09) & (offset[:, 1] < 0.1)
    trunk = weights[:, [JOINT_INDEX[f"spine{i}"] for i in (1, 2, 3)]].sum(-1) > 0.9
    assert min(hands.sum(), face.sum(), trunk.sum()) > 50
    clothes = torch.stack([s.clothes for s in shapes]).mean(0)
    assert clothes[hands].max() < 0.002
    assert clothes[face].max() < 0.002
    assert clothes[trunk].mean() > 0.008


def test_clothes_are_smooth(studio, shapes):
    """The offset changes by less than a third of the way along the surface, mean over edges far less."""
    a, b = studio.body.faces[:, 0], studio.body.faces[:, 1]
    rest = studio.body.v_template
    length = (rest[a] - rest[b]).norm(dim=-1).clamp(min=0.002)
    for shape in shapes:
        slope = (shape.clothes[a] - shape.clothes[b]).abs() / length
        assert slope.mean() < 0.1


def test_clothes_lie_outside_the_body(people):
    for person in people:
        moved = person.clothed - person.vertices
        torch.testing.assert_close(moved.norm(dim=-1), person.shape.clothes, atol=1e-5, rtol=0)
        assert ((moved * person.shape.normals).sum(-1) >= -1e-6).all()


def test_joints_know_nothing_of_clothes(studio, people):
    person = people[0]
    again = studio.wide.skeleton(person.root, person.pose, person.shape.betas)
    torch.testing.assert_close(person.skeleton.position, again.position)


def test_the_fitted_body_cannot_match_the_truth(studio, people):
    """The best shape coefficients leave millimetres of the naked surface unexplained."""
    body = studio.body
    basis = body.shapedirs.reshape(-1, body.num_betas).double()
    residuals = []
    for person in people:
        target = (person.vertices - person.vertices.mean(0)).flatten().double()
        mean = body.v_template - body.v_template.mean(0)
        centred = basis.reshape(-1, 3, body.num_betas)
        centred = (centred - centred.mean(0)).flatten(0, 1)
        best = torch.linalg.lstsq(centred, (target - mean.flatten())[:, None]).solution
        left = (target - mean.flatten() - (centred @ best)[:, 0]).reshape(-1, 3)
        residuals.append(float(left.norm(dim=-1).mean()) * 1000)
    assert np.mean(residuals) > 4


def test_heights_are_those_of_adults(studio):
    rng = np.random.default_rng(1)
    heights = [
        shape_person(rng, studio.wide, studio.parts, studio.body.num_betas, 1.0, 0.02).height
        for _ in range(60)
    ]
    assert 1.60 < np.mean(heights) < 1.80
    assert 0.05 < np.std(heights) < 0.14
