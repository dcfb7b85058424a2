"""Bones longer or shorter than a body's shape directions know: a nuisance that fits may use.

Ten shape directions leave a few per cent of a person's bone lengths unexplained. A fit that cannot say so
bends joints, and moves the camera, to bring hands and feet to where they are seen.
"""

from __future__ import annotations

import torch
from torch import Tensor

from depthfit.body.model import Body
from depthfit.joints import JOINT_INDEX, NUM_JOINTS, SMPL_PARENTS

BONES = (
    ("left_hip", "right_hip"),
    ("left_knee", "right_knee"),
    ("left_ankle", "right_ankle"),
    ("left_foot", "right_foot"),
    ("spine1", "spine2", "spine3", "neck"),
    ("head",),
    ("left_shoulder", "right_shoulder"),
    ("left_elbow", "right_elbow"),
    ("left_wrist", "right_wrist"),
    ("left_hand", "right_hand"),
)
"""Bones that stretch together, each named by the joint at its far end: both sides alike, the trunk as one.
The collar bones lie inside the trunk, where no skin is theirs alone."""


def with_bones(body: Body, sigma: float) -> Body:
    """``body`` with one shape direction more for each of ``BONES``, after its own.

    Args:
        sigma: Share of a bone's length by which a coefficient of one stretches it; zero adds nothing.
    """
    if sigma <= 0:
        return body
    return body.replace(shapedirs=torch.cat([body.shapedirs, sigma * bone_directions(body)], -1))


def bone_directions(body: Body) -> Tensor:
    """(V, 3, len(BONES)) m: how the rest mesh moves as bones double in length.

    What hangs on the far joint moves with it; what the near joint moves is drawn out along the bone.
    """
    joints, vertices = body.joint_template, body.v_template
    directions = []
    for bones in BONES:
        moved = torch.zeros_like(vertices)
        for name in bones:
            far = JOINT_INDEX[name]
            near = SMPL_PARENTS[far]
            bone = joints[far] - joints[near]
            along = ((vertices - joints[near]) @ bone / (bone @ bone)).clamp(0, 1)
            share = body.weights[:, _from(far)].sum(-1) + body.weights[:, near] * along
            moved = moved + share[:, None] * bone
        directions.append(moved)
    return torch.stack(directions, -1)


def _from(joint: int) -> list[int]:
    """``joint`` and all that hang on it."""
    hanging = [joint]
    for child in range(joint + 1, NUM_JOINTS):
        if SMPL_PARENTS[child] in hanging:
            hanging.append(child)
    return hanging
