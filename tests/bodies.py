"""Small random bodies and states for tests: every term of the body's function switched on."""

from __future__ import annotations

import torch
from torch import Tensor

from depthfit import so3
from depthfit.body.model import Body
from depthfit.joints import KEYPOINTS, NUM_JOINTS

NUM_VERTICES, NUM_BETAS = 40, 10

# A rough T-pose in metres, so that bones have lengths and no two joints coincide.
REST_JOINTS = torch.tensor(
    [
        [0, 0, 0], [0.1, -0.05, 0], [-0.1, -0.05, 0], [0, 0.1, 0], [0.1, -0.45, 0], [-0.1, -0.45, 0],
        [0, 0.25, 0], [0.1, -0.85, 0], [-0.1, -0.85, 0], [0, 0.3, 0], [0.1, -0.9, 0.12], [-0.1, -0.9, 0.12],
        [0, 0.5, 0], [0.08, 0.42, 0], [-0.08, 0.42, 0], [0, 0.6, 0.02], [0.18, 0.45, 0], [-0.18, 0.45, 0],
        [0.45, 0.45, 0], [-0.45, 0.45, 0], [0.7, 0.45, 0], [-0.7, 0.45, 0], [0.78, 0.45, 0], [-0.78, 0.45, 0],
    ],
    dtype=torch.float64,
)  # fmt: skip


def random_body(seed: int = 0, posedirs: bool = True) -> Body:
    """A float64 body of 40 random vertices with dense skinning, shape and pose blend shapes."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64) * scale

    owner = torch.randint(0, NUM_JOINTS, (NUM_VERTICES,), generator=generator)
    owner[:NUM_JOINTS] = torch.arange(NUM_JOINTS)
    vertices = REST_JOINTS[owner] + normal(NUM_VERTICES, 3, scale=0.06)
    regressor = torch.softmax(-80 * torch.cdist(REST_JOINTS, vertices) ** 2, -1)
    weights = torch.softmax(-30 * torch.cdist(vertices, REST_JOINTS) ** 2, -1)
    count = len(KEYPOINTS)
    keypoint = torch.softmax(normal(count, NUM_VERTICES, scale=3.0), -1)
    joint = torch.zeros(count, NUM_JOINTS, dtype=torch.float64)
    joint[::3, 5], keypoint[::3] = 1.0, 0.0
    return Body(
        name="random",
        v_template=vertices,
        shapedirs=normal(NUM_VERTICES, 3, NUM_BETAS, scale=0.01),
        posedirs=normal(NUM_VERTICES, 3, 207, scale=0.005) if posedirs else None,
        joint_regressor=regressor,
        weights=weights,
        faces=torch.randint(0, NUM_VERTICES, (30, 3), generator=generator),
        keypoint_regressor=keypoint,
        keypoint_joint=joint,
    )


def random_rotations(*shape: int, scale: float, seed: int) -> Tensor:
    """Rotations (*shape, 3, 3) of normal rotation vectors, float64."""
    generator = torch.Generator().manual_seed(seed)
    return so3.exp(torch.randn(*shape, 3, generator=generator, dtype=torch.float64) * scale)
