"""What the tokenizer's training minimises."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from depthfit import so3
from depthfit.body.model import Body
from depthfit.joints import NUM_BODY_JOINTS
from depthfit.tokens.vqvae import TokenizerOutput

MESH_POINTS = 500


@dataclass
class LossWeights:
    """Weights of the mean squared errors.

    Attributes:
        rotation: Of the entries of the 21 rotation matrices.
        joints, mesh: Of joints 1..21 and of the sampled skin points, per m^2. Ten times TokenHMR's, which
            makes them as large as the rotations' term when errors are a few millimetres.
        raw: Of the 6D entries before Gram-Schmidt, which keeps their length near one. A fit adds to
            these entries and steps through them, so their scale must not drift.
        commit: Of the latents' distance to their codes.
    """

    rotation: float = 20.0
    joints: float = 1000.0
    mesh: float = 1000.0
    raw: float = 1.0
    commit: float = 0.1


def sample_body(body: Body, points: int = MESH_POINTS, seed: int = 0) -> Body:
    """``body`` with a sample of its vertices in its mean shape, for a loss over the skin.

    Vertices are drawn in proportion to the area around them, so that the dense mesh of face and hands
    does not count for more than its skin. Joints stay where they are.
    """
    corners = body.v_template[body.faces]
    normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = torch.zeros(body.num_vertices).index_add_(
        0, body.faces.flatten(), normal.norm(dim=-1).repeat_interleave(3)
    )
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.multinomial(area, points, generator=generator).sort().values
    vertices = body.v_template[chosen].double()
    # Any weights that give the joints and sum to one will do: the least-norm ones.
    basis = torch.cat([vertices, torch.ones(points, 1, dtype=torch.float64)], 1)
    joints = torch.cat([body.joint_template.double(), torch.ones(len(body.joint_template), 1)], 1)
    regressor = joints @ torch.linalg.pinv(basis)
    return Body(
        name=f"{body.name}-{points}",
        v_template=body.v_template[chosen],
        shapedirs=body.shapedirs[chosen][..., :1],
        posedirs=None if body.posedirs is None else body.posedirs[chosen],
        joint_regressor=regressor.to(body.v_template.dtype),
        weights=body.weights[chosen],
        faces=body.faces[:0],
        keypoint_regressor=body.keypoint_regressor[:, chosen],
        keypoint_joint=body.keypoint_joint,
    )


def pose_body(body: Body, poses: Tensor) -> tuple[Tensor, Tensor]:
    """Joints (N, 24, 3) and vertices (N, V, 3) in m of poses (N, 21, 3, 3), mean shape, root at rest."""
    eye = torch.eye(3, dtype=poses.dtype, device=poses.device)
    hands = eye.expand(len(poses), 2, 3, 3)
    betas = poses.new_zeros(len(poses), body.num_betas)
    skeleton, vertices = body.forward(eye.expand(len(poses), 3, 3), torch.cat([poses, hands], 1), betas)
    return skeleton.position, vertices


@dataclass(frozen=True)
class PoseLoss:
    """Weighted sum of the terms, on ``body`` (see ``sample_body``)."""

    body: Body
    weights: LossWeights

    def __call__(self, output: TokenizerOutput, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and its terms (unweighted) for target rotations (B, 21, 3, 3)."""
        found = so3.from_6d(output.pose6d)
        joints, mesh = pose_body(self.body, found)
        with torch.no_grad():
            true_joints, true_mesh = pose_body(self.body, target)
        body_joints = slice(1, NUM_BODY_JOINTS + 1)
        terms = {
            "rotation": mse_loss(found, target),
            "joints": mse_loss(joints[:, body_joints], true_joints[:, body_joints]),
            "mesh": mse_loss(mesh, true_mesh),
            "raw": mse_loss(output.pose6d, so3.to_6d(target)),
            "commit": output.commit,
        }
        total = sum(getattr(self.weights, name) * terms[name] for name in terms)
        return torch.as_tensor(total), terms
