"""The joint tree as tensors, made once for each device and dtype.

Sums along a chain of joints are products with the ancestor matrix, so that only rotations, which do not
commute, need a pass from the root to the leaves, one step for all joints of a level.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor

from depthfit.joints import NUM_JOINTS, SMPL_PARENTS, descendants
from depthfit.struct import TensorStruct


@dataclass(frozen=True)
class JointTree(TensorStruct):
    """Tables of the tree.

    Attributes:
        below: (24, 24), row j is one at joint j and all joints below it; its transpose sums over ancestors.
        parent: (24,) int64; the root's is the root.
    """

    below: Tensor
    parent: Tensor


@dataclass(frozen=True)
class Level(TensorStruct):
    """Joints at one distance from the root.

    Attributes:
        pose: (L,) int64, their rows of a pose; parent: (L,) int64, place of each one's parent in the level
            before.
    """

    pose: Tensor
    parent: Tensor


def _joints_by_level() -> list[list[int]]:
    levels, placed = [[0]], {0}
    while len(placed) < NUM_JOINTS:
        levels.append([j for j in range(1, NUM_JOINTS) if SMPL_PARENTS[j] in levels[-1]])
        placed |= set(levels[-1])
    return levels


@cache
def joint_tree(device: torch.device, dtype: torch.dtype) -> JointTree:
    """The tables on a device."""
    # The cache outlives the caller's mode: tensors made in inference mode could never take part in autograd.
    with torch.inference_mode(False):
        below = torch.zeros(NUM_JOINTS, NUM_JOINTS, dtype=dtype)
        for joint, others in enumerate(descendants()):
            below[joint, others] = 1
        parent = torch.tensor([max(p, 0) for p in SMPL_PARENTS])
        return JointTree(below.to(device), parent.to(device))


@cache
def joint_levels(device: torch.device) -> tuple[tuple[Level, ...], Tensor]:
    """Levels below the root, and (24,) the place of every joint when levels stand one after another."""
    levels = _joints_by_level()
    order = [joint for level in levels for joint in level]
    with torch.inference_mode(False):
        steps = tuple(
            Level(
                torch.tensor([joint - 1 for joint in level], device=device),
                torch.tensor([above.index(SMPL_PARENTS[joint]) for joint in level], device=device),
            )
            for above, level in pairwise(levels)
        )
        return steps, torch.tensor([order.index(joint) for joint in range(NUM_JOINTS)], device=device)


def global_rotations(root: Tensor, pose: Tensor) -> Tensor:
    """Global rotations (*batch, 24, 3, 3) of a root (*batch, 3, 3) and a pose (*batch, 23, 3, 3)."""
    levels, place = joint_levels(root.device)
    rotations = [root[..., None, :, :]]
    for level in levels:
        above = rotations[-1].index_select(-3, level.parent)
        rotations.append(above @ pose.index_select(-3, level.pose))
    return torch.cat(rotations, -3).index_select(-3, place)


def chain_sum(links: Tensor) -> Tensor:
    """Sum over each joint and its ancestors of ``links`` (*batch, 24, C), those that lead to each joint."""
    tree = joint_tree(links.device, links.dtype)
    return tree.below.mT @ links
