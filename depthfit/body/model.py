"""The body: SMPL's function from pose and shape to joints, surface and keypoints.

Frame of the model: y up, facing +z, the person's left = +x, metres. A pose is the root's rotation and 23
joint rotations relative to their parents; the root turns about the pelvis, which ``transl`` then moves.
Source: Loper et al., "SMPL: A Skinned Multi-Person Linear Model" (SIGGRAPH Asia 2015).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib import import_module

import torch
from torch import Tensor

from depthfit.body.tree import chain_sum, global_rotations, joint_tree
from depthfit.joints import KEYPOINTS
from depthfit.kernels import use_triton
from depthfit.struct import TensorStruct


@dataclass(frozen=True)
class Skeleton(TensorStruct):
    """Posed joints. All in the body's frame, with the pelvis at ``position[..., 0, :]``.

    Attributes:
        rotation: (*batch, 24, 3, 3) global rotation of each joint.
        position: (*batch, 24, 3) m, posed joints (``transl`` not added).
        rest: (*batch, 24, 3) m, joints of the shaped rest mesh.
    """

    rotation: Tensor
    position: Tensor
    rest: Tensor

    @property
    def offset(self) -> Tensor:
        """(*batch, 24, 3) m, o_j: joint j takes a rest point q that rides on it alone to G_j q + o_j."""
        return self.position - (self.rotation @ self.rest[..., None])[..., 0]


@dataclass(frozen=True, eq=False)
class Body(TensorStruct):
    """A body in SMPL's layout. V vertices, F triangles, B shape directions, K keypoints.

    Attributes:
        name: Such as ``open-neutral`` or ``smpl-neutral``.
        v_template: (V, 3) m.
        shapedirs: (V, 3, B) m per unit of shape.
        posedirs: (V, 3, 207) m per unit of (R - I) of joints 1..23, row-major; ``None`` where all zero.
        joint_regressor: (24, V).
        weights: (V, 24) skinning weights; rows sum to one.
        faces: (F, 3) int64, counter-clockwise seen from outside.
        keypoint_regressor: (K, V) weights on posed vertices, one row for each of ``joints.KEYPOINTS``.
        keypoint_joint: (K, 24) weights on posed joints, added to the vertex part. Rows of both sum to 1.
    """

    name: str
    v_template: Tensor
    shapedirs: Tensor
    posedirs: Tensor | None
    joint_regressor: Tensor
    weights: Tensor
    faces: Tensor
    keypoint_regressor: Tensor
    keypoint_joint: Tensor

    @property
    def num_vertices(self) -> int:
        return self.v_template.shape[0]

    @property
    def num_betas(self) -> int:
        return self.shapedirs.shape[-1]

    @property
    def keypoint_names(self) -> tuple[str, ...]:
        return KEYPOINTS

    @cached_property
    def joint_template(self) -> Tensor:
        """(24, 3) m, joints of the mean shape."""
        return self.joint_regressor @ self.v_template

    @cached_property
    def joint_shapedirs(self) -> Tensor:
        """(24, 3, B) m, change of the rest joints with shape."""
        return torch.einsum("jv,vcb->jcb", self.joint_regressor, self.shapedirs)

    @cached_property
    def bones(self) -> tuple[Tensor, Tensor]:
        """(V, K) int32 joints that move each vertex, heaviest first, and their skinning weights (V, K)."""
        weight, bone = self.weights.topk(int((self.weights > 0).sum(-1).max()), -1)
        return bone.int(), weight

    def height(self) -> tuple[Tensor, Tensor]:
        """Height () m of the mean shape as it stands at rest, and its change (B,) m per unit of shape: from
        the lowest vertex to the highest, the same two for all shapes."""
        top, bottom = self.v_template[:, 1].argmax(), self.v_template[:, 1].argmin()
        mean = self.v_template[top, 1] - self.v_template[bottom, 1]
        return mean, self.shapedirs[top, 1] - self.shapedirs[bottom, 1]

    def rest_vertices(self, betas: Tensor) -> Tensor:
        """Shaped rest mesh (*batch, V, 3) m for ``betas`` (*batch, B)."""
        flat = self.shapedirs.reshape(-1, self.num_betas)
        return self.v_template + (betas @ flat.mT).reshape(*betas.shape[:-1], -1, 3)

    def skeleton(self, root: Tensor, pose: Tensor, betas: Tensor) -> Skeleton:
        """Forward kinematics.

        Args:
            root: (*batch, 3, 3) rotation of the root.
            pose: (*batch, 23, 3, 3) rotations of joints 1..23 relative to their parents.
            betas: (*batch, B).
        """
        rest = self.joint_template + torch.einsum("jcb,...b->...jc", self.joint_shapedirs, betas)
        parent = joint_tree(rest.device, rest.dtype).parent
        if use_triton(rest) and rest.ndim == 3:
            kernel = import_module("depthfit.body.triton_kinematics")
            rotation, position = kernel.pose_joints(root, pose, rest, parent)
            return Skeleton(rotation, position, rest)
        rotation = global_rotations(root, pose)
        # The root is its own parent here, so its bone is zero.
        bone = rest - rest.index_select(-2, parent)
        turned = (rotation.index_select(-3, parent) @ bone[..., None])[..., 0]
        # SMPL leaves the pelvis where the rest mesh has it; depthfit's translation is the pelvis itself.
        return Skeleton(rotation, chain_sum(turned), rest)

    def posed_rest_vertices(self, pose: Tensor, betas: Tensor) -> Tensor:
        """Rest mesh with pose blend shapes (*batch, V, 3) m: what skinning then moves."""
        rest = self.rest_vertices(betas)
        if self.posedirs is None:
            return rest
        eye = torch.eye(3, dtype=pose.dtype, device=pose.device)
        feature = (pose - eye).flatten(-3)
        flat = self.posedirs.reshape(-1, self.posedirs.shape[-1])
        return rest + (feature @ flat.mT).reshape(rest.shape)

    def vertices(self, skeleton: Skeleton, rest_vertices: Tensor) -> Tensor:
        """Linear blend skinning of ``rest_vertices`` (*batch, V, 3) m, pelvis at the origin."""
        transform = torch.cat([skeleton.rotation, skeleton.offset[..., None]], -1)
        blended = (self.weights @ transform.flatten(-2)).unflatten(-1, (3, 4))
        return (blended[..., :3] @ rest_vertices[..., None])[..., 0] + blended[..., 3]

    def keypoints(self, skeleton: Skeleton, vertices: Tensor) -> Tensor:
        """Detector-style keypoints (*batch, K, 3) m of a posed mesh (*batch, V, 3)."""
        return self.keypoint_regressor @ vertices + self.keypoint_joint @ skeleton.position

    def forward(self, root: Tensor, pose: Tensor, betas: Tensor) -> tuple[Skeleton, Tensor]:
        """Skeleton and posed vertices (*batch, V, 3) m, the pelvis at the origin.

        ``smplx`` leaves the pelvis at its rest position instead: its vertices are these plus
        ``skeleton.rest[..., :1, :]``.
        """
        skeleton = self.skeleton(root, pose, betas)
        return skeleton, self.vertices(skeleton, self.posed_rest_vertices(pose, betas))
