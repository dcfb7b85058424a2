"""Random body poses within the limits of the joints.

Each joint's rotation is a swing of its bone followed, in the bone's own frame, by a twist about it:
R = exp(swing) exp(twist * bone). The swing lies in an ellipse with a different half-axis on each side.

Ranges: passive ranges of motion of adults as goniometry tables give them (American Academy of Orthopaedic
Surgeons, "Joint Motion: Method of Measuring and Recording", 1965; Boone and Azen, J. Bone Joint Surg. 61-A,
1979), rounded outwards by up to 15 deg because dancers and climbers exceed them, and shared out where SMPL
has several joints for one of the anatomy: trunk flexion over three spine joints, the neck's over neck and
head, arm elevation over shoulder and collar bone, forearm pronation over elbow and wrist.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from depthfit import so3
from depthfit.data.rest_skeleton import REST_OFFSETS
from depthfit.joints import JOINT_INDEX, NUM_BODY_JOINTS, SMPL_JOINTS, SMPL_PARENTS, mirror_name

CANDIDATES = 2
"""Poses drawn for each one kept, so that those that cut through themselves can be left out."""


@dataclass(frozen=True)
class JointLimit:
    """Limits (least, greatest) in degrees about the body's axes of a joint of the left side or the middle.

    x turns a limb forwards and backwards, y about the vertical, z sideways, all in the T-pose. ``twist``
    names the axis along the bone.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    z: tuple[float, float]
    twist: str


LIMITS = {
    "hip": JointLimit(x=(-130, 30), y=(-50, 50), z=(-30, 70), twist="y"),
    "knee": JointLimit(x=(0, 150), y=(-15, 15), z=(-5, 8), twist="y"),
    "ankle": JointLimit(x=(-30, 50), y=(-30, 30), z=(-25, 25), twist="z"),
    "foot": JointLimit(x=(-50, 40), y=(-5, 5), z=(-3, 3), twist="z"),
    "spine1": JointLimit(x=(-15, 45), y=(-15, 15), z=(-18, 18), twist="y"),
    "spine2": JointLimit(x=(-12, 30), y=(-18, 18), z=(-15, 15), twist="y"),
    "spine3": JointLimit(x=(-12, 25), y=(-18, 18), z=(-15, 15), twist="y"),
    "neck": JointLimit(x=(-35, 40), y=(-40, 40), z=(-28, 28), twist="y"),
    "head": JointLimit(x=(-35, 35), y=(-40, 40), z=(-25, 25), twist="y"),
    "collar": JointLimit(x=(-8, 8), y=(-20, 15), z=(-12, 30), twist="x"),
    "shoulder": JointLimit(x=(-80, 70), y=(-130, 45), z=(-100, 85), twist="x"),
    "elbow": JointLimit(x=(-45, 45), y=(-150, 3), z=(-12, 12), twist="x"),
    "wrist": JointLimit(x=(-45, 45), y=(-25, 35), z=(-75, 75), twist="x"),
}


def joint_limits() -> Tensor:
    """(21, 3, 2) least and greatest angle in rad about x, y and z, of SMPL's joints 1..21."""
    rows = []
    for name in SMPL_JOINTS[1 : NUM_BODY_JOINTS + 1]:
        limit = LIMITS[name.removeprefix("left_").removeprefix("right_")]
        y, z = limit.y, limit.z
        if name.startswith("right_"):  # mirrored: turns about y and z change their sign
            y, z = (-y[1], -y[0]), (-z[1], -z[0])
        rows.append([limit.x, y, z])
    return torch.deg2rad(torch.tensor(rows, dtype=torch.float32))


def twist_axes() -> Tensor:
    """(21,) index of the axis along each joint's bone."""
    plain = [
        name.removeprefix("left_").removeprefix("right_") for name in SMPL_JOINTS[1 : NUM_BODY_JOINTS + 1]
    ]
    return torch.tensor(["xyz".index(LIMITS[name].twist) for name in plain])


def sample_poses(count: int, generator: torch.Generator, device: torch.device | str = "cpu") -> Tensor:
    """Rotations (count, 21, 3, 3) of joints 1..21, of valid poses, without heavy self-intersection.

    Twice as many poses are drawn as are kept; those are kept first in which no limb passes through the
    trunk, the head or another limb.

    Args:
        generator: On ``device``; the same state gives the same poses.
    """
    poses = _draw(count * CANDIDATES, generator, torch.device(device))
    valid = self_intersection(poses) <= 0
    # A stable sort keeps the order of drawing among the valid ones: no preference for tame poses.
    order = torch.sort(valid.logical_not().to(torch.uint8), stable=True).indices
    return poses[order[:count]]


def _draw(count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    limits = joint_limits().to(device)
    axis = twist_axes().to(device)
    shape = (count, NUM_BODY_JOINTS, 3)
    # Uniform in direction and area inside the unit disc of the two swing axes.
    direction = torch.randn(shape, generator=generator, device=device)
    along = torch.nn.functional.one_hot(axis, 3).to(direction.dtype)
    direction = direction * (1 - along)
    direction = direction / direction.norm(dim=-1, keepdim=True).clamp(min=1e-6)
    uniform = torch.rand(shape, generator=generator, device=device)
    amount = direction * uniform[..., :1].sqrt()
    # The unit disc stretches to each side's half-axis; a person's share of it makes some poses tame.
    vigour = uniform[:, :1, 2:].mul(0.75).add(0.25)
    half = torch.where(amount < 0, -limits[..., 0], limits[..., 1])
    centre = _hinge_centre(limits)
    swing = torch.where(centre.bool(), _hinge(uniform[..., :1], limits), amount * half) * vigour
    twist = limits[..., 0] + uniform[..., 1:2] * (limits[..., 1] - limits[..., 0])
    return so3.exp(swing * (1 - along)) @ so3.exp(twist * along * vigour)


def _hinge_centre(limits: Tensor) -> Tensor:
    """One for the bending axis of knees and elbows, whose range has zero near its end."""
    span = limits[..., 1] - limits[..., 0]
    one_sided = torch.minimum(limits[..., 1].abs(), limits[..., 0].abs()) < 0.03 * span
    return (one_sided & (span > 1)).to(limits.dtype)


def _hinge(uniform: Tensor, limits: Tensor) -> Tensor:
    return limits[..., 0] + uniform * (limits[..., 1] - limits[..., 0])


_RADII = {
    "trunk": (("pelvis", "spine3"), 0.11), "chest": (("spine3", "neck"), 0.10),
    "skull": (("neck", "head"), 0.08),
    "left_thigh": (("left_hip", "left_knee"), 0.055), "right_thigh": (("right_hip", "right_knee"), 0.055),
    "left_shank": (("left_knee", "left_ankle"), 0.04), "right_shank": (("right_knee", "right_ankle"), 0.04),
    "left_forearm": (("left_elbow", "left_hand"), 0.035),
    "right_forearm": (("right_elbow", "right_hand"), 0.035),
}  # fmt: skip
"""Capsules (m) thinner than a body's parts: skin touches skin in many valid poses."""
_PAIRS = [
    (f"{side}_forearm", other)
    for side in ("left", "right")
    for other in ("trunk", "chest", "skull", f"{side}_thigh", mirror_name(f"{side}_thigh"))
] + [
    ("left_forearm", "right_forearm"),
    ("left_shank", "right_shank"),
    ("left_shank", "right_thigh"),
    ("right_shank", "left_thigh"),
    ("left_shank", "trunk"),
    ("right_shank", "trunk"),
]


def self_intersection(poses: Tensor) -> Tensor:
    """Greatest depth (N,) in m by which capsules of (N, 21, 3, 3) poses overlap; negative if none does."""
    positions = rest_skeleton_joints(poses)
    centres = torch.linspace(0, 1, 5, device=poses.device, dtype=poses.dtype)
    points = {}
    for name, ((top, bottom), _) in _RADII.items():
        a, b = positions[:, JOINT_INDEX[top]], positions[:, JOINT_INDEX[bottom]]
        points[name] = a[:, None] + centres[:, None] * (b - a)[:, None]
    depths = [
        _RADII[a][1] + _RADII[b][1] - torch.cdist(points[a], points[b]).flatten(1).amin(1) for a, b in _PAIRS
    ]
    return torch.stack(depths, 1).amax(1)


def rest_skeleton_joints(poses: Tensor) -> Tensor:
    """Joints (N, 24, 3) m of the plain rest skeleton under poses (N, 21, 3, 3), pelvis at the origin."""
    offsets = torch.as_tensor(REST_OFFSETS, dtype=poses.dtype, device=poses.device)
    eye = torch.eye(3, dtype=poses.dtype, device=poses.device).expand(len(poses), 3, 3)
    rotation, position = [eye], [torch.zeros_like(poses[:, 0, 0])]
    for j in range(1, len(SMPL_PARENTS)):
        parent = SMPL_PARENTS[j]
        position.append(position[parent] + rotation[parent] @ offsets[j])
        rotation.append(rotation[parent] @ poses[:, j - 1] if j <= NUM_BODY_JOINTS else rotation[parent])
    return torch.stack(position, 1)
