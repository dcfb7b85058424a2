"""Nuisance shapes that stretch bones."""

from __future__ import annotations

import pytest
import torch

from depthfit.body.bones import BONES, with_bones
from depthfit.body.load import load_body
from depthfit.body.model import Body
from depthfit.joints import JOINT_INDEX, NUM_JOINTS, SMPL_PARENTS

STRETCH = 0.1


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body("open")


def _lengths(joints: torch.Tensor) -> torch.Tensor:
    """(23,) m, of the bone that ends in joints 1..23."""
    return (joints[1:] - joints[list(SMPL_PARENTS[1:])]).norm(dim=-1)


@pytest.mark.parametrize("k", range(len(BONES)), ids=["+".join(bones) for bones in BONES])
def test_a_coefficient_stretches_its_own_bones(body: Body, k: int) -> None:
    wide = with_bones(body, STRETCH)
    betas = torch.zeros(wide.num_betas)
    betas[body.num_betas + k] = 1
    joints = wide.joint_template + wide.joint_shapedirs @ betas
    before, after = _lengths(wide.joint_template), _lengths(joints)
    own = torch.zeros(NUM_JOINTS - 1, dtype=torch.bool)
    own[[JOINT_INDEX[name] - 1 for name in BONES[k]]] = True
    # Joints are regressed from skin that a neighbouring bone moves too: not exactly the share asked for.
    stretched = float(after[own].sum() / before[own].sum()) - 1
    assert 0.4 * STRETCH < stretched < 1.1 * STRETCH
    # The collar bones lie inside the trunk and go with it.
    others = ~own
    others[[JOINT_INDEX[name] - 1 for name in ("left_collar", "right_collar")]] = False
    assert ((after / before - 1)[others].abs() < 0.4 * STRETCH).all()


def test_no_sigma_no_directions(body: Body) -> None:
    assert with_bones(body, 0.0) is body
    assert with_bones(body, 0.03).num_betas == body.num_betas + len(BONES)
