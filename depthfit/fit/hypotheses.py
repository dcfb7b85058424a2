"""Front/back twins: a limb seen in 2D may point towards the camera or away from it.

Where the depth at a limb's detected keypoints contradicts the fitted limb and agrees with its twin, the
person is fitted once more from the prediction with that limb flipped, and the better fit is kept.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from depthfit import so3
from depthfit.body.model import Body
from depthfit.fit.problem import Batch
from depthfit.joints import JOINT_INDEX, KEYPOINTS, SMPL_PARENTS
from depthfit.state import FitState

LIMBS = tuple(
    tuple(f"{side}_{part}" for part in parts)
    for side in ("left", "right")
    for parts in (("shoulder", "elbow", "wrist"), ("hip", "knee", "ankle"))
)
"""Each limb's joints from the trunk outwards; a flip may be of both bones or of the outer one."""
LOWER_PARTS = tuple(
    [JOINT_INDEX[f"{side}_{part}"] for part in parts]
    for side in ("left", "right")
    for parts in (("elbow", "wrist", "hand"), ("knee", "ankle", "foot"))
)
"""Skinning parts of each limb's lower half."""
FLIP_COST = 30.0
"""What a flipped fit must gain at the least: minus the log of the odds that a regressor flips a limb."""
LIMB_RADIUS = 0.04
"""m; the skin in front of a limb's joint."""
DEPTH_SIGMA_M, DEPTH_SIGMA_LOG = 0.05, 0.02
MAX_WRONG_BEND = 0.35
"""Sine of the angle by which a shin may stand before its thigh's line, a forearm behind its upper arm's."""
MIN_GAIN = 0.5
"""A twin is tried if it lowers the squared depth error at the limb's keypoints by this, in sigmas squared."""


def contradicted(body: Body, batch: Batch, state: FitState) -> Tensor:
    """Which flips the depth speaks for: (N, limbs, 2) bool, [both bones, outer bone]; one a limb at most."""
    people = state.people
    skeleton = body.skeleton(people.root, people.pose, people.betas)
    measured, known = _depth_at_keypoints(batch, state)
    joints, points, signs = _limb_tables(batch.center.dtype, batch.center.device)
    z = (skeleton.position + people.transl[:, None])[..., 2][:, joints]  # (N, limbs, 3)
    bone = z[..., 1:] - z[..., :-1]
    flipped = z[..., None, :1] + torch.cumsum(bone[..., None, :] * signs, -1)
    twins = torch.cat([z[..., None, 1:], flipped], -2)  # (N, limbs, 3, 2): as it is, and both flips
    target, seen = measured[:, points][..., None, :], known[:, points][..., None, :]
    sigma = DEPTH_SIGMA_M + DEPTH_SIGMA_LOG * twins
    error = torch.where(seen, (twins - LIMB_RADIUS - target) / sigma, torch.zeros_like(twins))
    score = (error**2 / (1 + error**2 / 16)).sum(-1)
    gain = score[..., :1] - score[..., 1:]
    best = gain.argmax(-1, keepdim=True) == torch.arange(2, device=gain.device)
    return best & (gain > MIN_GAIN)


@cache
def _limb_tables(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Each limb's joints (limbs, 3), keypoints at the ends of its bones (limbs, 2), and the sign of each
    bone's depth in both flips (2, 2)."""
    joints = [[JOINT_INDEX[name] for name in limb] for limb in LIMBS]
    points = [[KEYPOINTS.index(name) for name in limb[1:]] for limb in LIMBS]
    signs = torch.tensor([[-1.0, -1.0], [1.0, -1.0]], dtype=dtype, device=device)
    return torch.tensor(joints, device=device), torch.tensor(points, device=device), signs


def bends_naturally(body: Body, pose: Tensor) -> Tensor:
    """(N, limbs) bool: the knee or elbow of ``pose`` (N, 23, 3, 3) is not bent the wrong way.

    A mirrored limb is one that the picture allows; a shin that folds forwards is one that no body does.
    """
    out = []
    for limb in LIMBS:
        middle, end = JOINT_INDEX[limb[1]], JOINT_INDEX[limb[2]]
        rest = torch.nn.functional.normalize(body.joint_template[end] - body.joint_template[middle], dim=0)
        forward = (pose[:, middle - 1] @ rest)[:, 2] - rest[2]
        out.append(forward < MAX_WRONG_BEND if "knee" in limb[1] else forward > -MAX_WRONG_BEND)
    return torch.stack(out, -1)


def flip(body: Body, root: Tensor, pose: Tensor, betas: Tensor, ray: Tensor, flips: Tensor) -> Tensor:
    """Poses (N, 23, 3, 3) with limbs mirrored in the plane across the viewing ray.

    Args:
        ray: (N, 3) unit, from the camera to the person; flips: (N, limbs, 2) of :func:`contradicted`.
    """
    for k, limb in enumerate(LIMBS):
        joints = [JOINT_INDEX[name] for name in limb]
        both, outer = flips[:, k, 0], flips[:, k, 1]
        pose = _flip_bone(body, root, pose, betas, ray, joints[0], joints[1], both)
        # Turning the upper bone carried the lower one along; put it back to its own twin (or leave it).
        pose = _flip_bone(body, root, pose, betas, ray, joints[1], joints[2], both | outer)
    return pose


def _flip_bone(
    body: Body, root: Tensor, pose: Tensor, betas: Tensor, ray: Tensor, joint: int, child: int, which: Tensor
) -> Tensor:
    skeleton = body.skeleton(root, pose, betas)
    bone = torch.nn.functional.normalize(skeleton.position[:, child] - skeleton.position[:, joint], dim=-1)
    twin = bone - 2 * (bone * ray).sum(-1, keepdim=True) * ray
    turn = _between(bone, twin)
    parent = skeleton.rotation[:, SMPL_PARENTS[joint]]
    local = parent.mT @ turn @ skeleton.rotation[:, joint]
    # The next joint keeps its world rotation, so that the rest of the limb does not swing along.
    below = local.mT @ parent.mT @ skeleton.rotation[:, child]
    flipped = pose.clone()
    flipped[:, joint - 1] = local
    flipped[:, child - 1] = below
    return torch.where(which[:, None, None, None], flipped, pose)


def _between(a: Tensor, b: Tensor) -> Tensor:
    """Least rotation (N, 3, 3) that takes unit vectors a to b."""
    axis = torch.linalg.cross(a, b, dim=-1)
    sine, cosine = axis.norm(dim=-1, keepdim=True), (a * b).sum(-1, keepdim=True)
    angle = torch.atan2(sine, cosine)
    return so3.exp(torch.nn.functional.normalize(axis, dim=-1) * angle)


def _depth_at_keypoints(batch: Batch, state: FitState) -> tuple[Tensor, Tensor]:
    """Metres read at each detected keypoint under the fitted camera, (N, K), and whether there is one."""
    window = batch.window
    side = window.log_depth.shape[-1]
    cell = ((batch.targets.xy - window.origin[:, None]) / window.step[:, None, None]).round().long()
    inside = ((cell >= 0) & (cell < side)).all(-1) & batch.targets.sigma.isfinite()
    flat = cell[..., 1].clamp(0, side - 1) * side + cell[..., 0].clamp(0, side - 1)
    known = inside & (window.depth_valid & window.own).flatten(1).gather(1, flat)
    focal = state.images.log_focal[batch.group] * batch.focal_coupling
    shift = focal + state.images.log_scale[batch.group]
    return (window.log_depth.flatten(1).gather(1, flat) + shift[:, None]).exp(), known
