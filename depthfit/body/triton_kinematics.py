# mypy: disable-error-code="no-untyped-def"
"""Forward kinematics as one Triton kernel, for CUDA. One lane a person walks down the tree."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_LANES = 32


@triton.jit
def _kernel(root, pose, rest, parents, rotation, position, count, JOINTS: tl.constexpr, LANES: tl.constexpr):
    person = tl.program_id(0).to(tl.int64) * LANES + tl.arange(0, LANES)
    live = person < count
    for k in tl.static_range(9):
        value = tl.load(root + person * 9 + k, mask=live, other=0.0)
        tl.store(rotation + person * JOINTS * 9 + k, value, mask=live)
    for k in tl.static_range(3):
        tl.store(position + person * JOINTS * 3 + k, tl.zeros([LANES], tl.float32), mask=live)
    for joint in tl.static_range(1, JOINTS):
        # A lane reads what it wrote itself for the parent.
        parent = tl.load(parents + joint)
        above = rotation + (person * JOINTS + parent) * 9
        local = pose + (person * (JOINTS - 1) + joint - 1) * 9
        bone = rest + (person * JOINTS + joint) * 3
        start = rest + (person * JOINTS + parent) * 3
        b0 = tl.load(bone, mask=live, other=0.0) - tl.load(start, mask=live, other=0.0)
        b1 = tl.load(bone + 1, mask=live, other=0.0) - tl.load(start + 1, mask=live, other=0.0)
        b2 = tl.load(bone + 2, mask=live, other=0.0) - tl.load(start + 2, mask=live, other=0.0)
        for i in tl.static_range(3):
            r0 = tl.load(above + 3 * i, mask=live, other=0.0)
            r1 = tl.load(above + 3 * i + 1, mask=live, other=0.0)
            r2 = tl.load(above + 3 * i + 2, mask=live, other=0.0)
            from_parent = tl.load(position + (person * JOINTS + parent) * 3 + i, mask=live, other=0.0)
            place = from_parent + r0 * b0 + r1 * b1 + r2 * b2
            tl.store(position + (person * JOINTS + joint) * 3 + i, place, mask=live)
            for k in tl.static_range(3):
                value = r0 * tl.load(local + k, mask=live, other=0.0)
                value += r1 * tl.load(local + 3 + k, mask=live, other=0.0)
                value += r2 * tl.load(local + 6 + k, mask=live, other=0.0)
                tl.store(rotation + (person * JOINTS + joint) * 9 + 3 * i + k, value, mask=live)


def pose_joints(root: Tensor, pose: Tensor, rest: Tensor, parents: Tensor) -> tuple[Tensor, Tensor]:
    """Global rotations (N, 24, 3, 3) and positions (N, 24, 3) m, the pelvis at the origin.

    Args:
        root: (N, 3, 3); pose: (N, 23, 3, 3); rest: (N, 24, 3) m; parents: (24,) int64.
    """
    n, joints, _ = rest.shape
    rotation, position = rest.new_empty(n, joints, 3, 3), torch.empty_like(rest)
    if n:
        _kernel[(triton.cdiv(n, _LANES),)](
            root.contiguous(), pose.contiguous(), rest.contiguous(), parents, rotation, position, n,
            JOINTS=joints, LANES=_LANES, num_warps=1,
        )  # fmt: skip
    return rotation, position
