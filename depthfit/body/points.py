"""Points that ride on the body, and their exact derivatives with respect to pose and shape.

A point is a fixed blend of vertices (and joints), so under skinning it is a sum over joints j of
A_j = G_j (q_j - w_j J_j) + w_j p_j, where q_j, w_j gather the blend, J_j is the rest joint, and G_j, p_j
the posed one. When joint j turns by a small omega (in the frame of its parent, from the left), all that
hangs below it turns about p_j:

    d X / d omega_j = -[S_j - W_j p_j]_x G_parent(j),   S_j, W_j = sums of A, w over j's descendants,

plus the pose blend shapes' own change of the rest surface.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from depthfit import so3
from depthfit.body.model import Body, Skeleton
from depthfit.body.tree import chain_sum, joint_tree
from depthfit.joints import NUM_JOINTS
from depthfit.struct import TensorStruct


@dataclass(frozen=True)
class RestPoints(TensorStruct):
    """Points of the shaped rest body, with what their motion needs. All lead with (N, P).

    Attributes:
        by_joint: (N, P, 24, 3) m, q_j: sum over vertices of blend x skinning weight x rest vertex.
        weight: (N, P, 24), w_j.
        by_joint_shape: (P, 24, 3, B) or (N, P, V, 3, B): change of q_j, or of each blended vertex, with
            shape; see ``vertex_weight``.
        vertex_weight: (N, P, V, 24) blend x skinning weight of each blended vertex, or ``None`` where
            ``by_joint_shape`` is by joint.
        posedirs: (P, 24, 3, 207) or (N, P, V, 3, 207) likewise for the pose blend shapes, or ``None``.
    """

    by_joint: Tensor
    weight: Tensor
    by_joint_shape: Tensor
    vertex_weight: Tensor | None
    posedirs: Tensor | None


@dataclass(frozen=True)
class PosedPoints(TensorStruct):
    """Posed points with the arms about which each joint turns them.

    Attributes:
        position: (N, P, 3) m, the pelvis at the origin.
        arm: (N, P, 3, J) m, S_j - W_j p_j of the first J joints: all 24, or the root alone.
        shape: (N, P, 3, B) m per unit of shape.
        blend: (N, P, 3, 69) m per rad: what pose blend shapes add for joints 1..23, or ``None``.
    """

    position: Tensor
    arm: Tensor
    shape: Tensor
    blend: Tensor | None

    def turn(self, gradient: Tensor, skeleton: Skeleton) -> Tensor:
        """Rows of d(gradient . X) / d(omega of the J joints): (N, P, R, 3) -> (N, P, R, 3 J)."""
        ax, ay, az = self.arm[:, :, None].unbind(-2)
        gx, gy, gz = gradient[..., None].unbind(-2)
        cx, cy, cz = ay * gz - az * gy, az * gx - ax * gz, ax * gy - ay * gx
        parent = parent_rotation(skeleton)[:, None, None, : self.arm.shape[-1]]  # (N, 1, 1, J, 3, 3)
        axes = [cx * p[..., 0] + cy * p[..., 1] + cz * p[..., 2] for p in parent.unbind(-1)]
        rows = torch.stack(axes, -1).flatten(-2)
        if self.blend is not None:
            rows = torch.cat([rows[..., :3], rows[..., 3:] + gradient @ self.blend], -1)
        return rows


def parent_rotation(skeleton: Skeleton) -> Tensor:
    """(N, 24, 3, 3) global rotation of each joint's parent; identity for the root."""
    eye = torch.eye(3, dtype=skeleton.rotation.dtype, device=skeleton.rotation.device)
    eye = eye.expand(*skeleton.rotation.shape[:-3], 1, 3, 3)
    parent = joint_tree(eye.device, eye.dtype).parent
    return torch.cat([eye, skeleton.rotation.index_select(-3, parent[1:])], -3)


@dataclass(frozen=True)
class VertexSubset(TensorStruct):
    """S vertices picked for each of N people, with all that moves them.

    Attributes:
        template: (N, S, 3) m; shapedirs: (N, S, 3, B); posedirs: (N, S, 3, 207) or ``None``;
        weights: (N, S, 24).
    """

    template: Tensor
    shapedirs: Tensor
    posedirs: Tensor | None
    weights: Tensor

    @staticmethod
    def gather(body: Body, index: Tensor) -> VertexSubset:
        """Pick vertices ``index`` (N, S)."""
        posedirs = None if body.posedirs is None else body.posedirs[index]
        return VertexSubset(body.v_template[index], body.shapedirs[index], posedirs, body.weights[index])

    def rest(self, pose: Tensor, betas: Tensor) -> Tensor:
        """Shaped vertices with pose blend shapes, (N, S, 3) m."""
        out = self.template + (self.shapedirs @ betas[:, None, :, None])[..., 0]
        if self.posedirs is not None:
            eye = torch.eye(3, dtype=pose.dtype, device=pose.device)
            out = out + (self.posedirs @ (pose - eye).flatten(-3)[:, None, :, None])[..., 0]
        return out

    def skin(self, skeleton: Skeleton, rest: Tensor) -> Tensor:
        """Posed vertices (N, S, 3) m, the pelvis at the origin."""
        transform = torch.cat([skeleton.rotation, skeleton.offset[..., None]], -1).flatten(-2)
        blended = (self.weights @ transform).unflatten(-1, (3, 4))
        return (blended[..., :3] * rest[..., None, :]).sum(-1) + blended[..., 3]

    def points(self, rest: Tensor, first: int, bary: Tensor) -> RestPoints:
        """Points blended of consecutive vertices of the subset.

        Args:
            rest: (N, S, 3) of :meth:`rest`.
            first: Where the first point's vertices begin; each point takes the next C.
            bary: (N, P, C) blend.
        """
        _, p, c = bary.shape
        span = slice(first, first + p * c)
        weight = self.weights[:, span].unflatten(1, (p, c)) * bary[..., None]
        corners = rest[:, span].unflatten(1, (p, c))
        by_joint = (corners[..., None] * weight[..., None, :]).sum(-3).mT
        shape = self.shapedirs[:, span].unflatten(1, (p, c))
        posedirs = None if self.posedirs is None else self.posedirs[:, span].unflatten(1, (p, c))
        return RestPoints(by_joint, weight.sum(-2), shape, weight, posedirs)


@dataclass(frozen=True)
class LandmarkTable(TensorStruct):
    """Fixed landmarks (joints, keypoints) as blends by joint, linear in shape and pose features.

    Attributes:
        template: (K, 24, 3); shape: (K, 24, 3, B); posedirs: (K, 24, 3, 207) or ``None``; weight: (K, 24).
    """

    template: Tensor
    shape: Tensor
    posedirs: Tensor | None
    weight: Tensor

    def rest(self, pose: Tensor, betas: Tensor) -> RestPoints:
        """Landmarks of the shaped rest body, for ``pose`` (N, 23, 3, 3) and ``betas`` (N, B)."""
        by_joint = self.template + torch.einsum("kjcb,nb->nkjc", self.shape, betas)
        if self.posedirs is not None:
            eye = torch.eye(3, dtype=pose.dtype, device=pose.device)
            by_joint = by_joint + torch.einsum("kjcf,nf->nkjc", self.posedirs, (pose - eye).flatten(-3))
        weight = self.weight.expand(len(betas), *self.weight.shape)
        return RestPoints(by_joint, weight, self.shape, None, self.posedirs)

    def positions(self, skeleton: Skeleton, pose: Tensor, betas: Tensor) -> Tensor:
        """Posed landmarks (N, 24 + K, 3) m, the pelvis at the origin, without derivatives."""
        rest = self.rest(pose, betas)
        turned = torch.einsum("njcd,npjd->npc", skeleton.rotation, rest.by_joint)
        return turned + rest.weight @ skeleton.offset


def landmark_table(body: Body) -> LandmarkTable:
    """Table of the 24 joints followed by the K detector-style keypoints."""
    dense = body.keypoint_regressor[:, :, None] * body.weights  # (K, V, 24)
    weight = torch.cat([torch.eye(NUM_JOINTS).to(body.weights), dense.sum(1) + body.keypoint_joint])
    eye = torch.eye(NUM_JOINTS).to(body.weights)
    joint_part = torch.cat([eye, body.keypoint_joint])
    joints = torch.einsum("kj,jc->kjc", joint_part, body.joint_template)
    joint_shape = torch.einsum("kj,jcb->kjcb", joint_part, body.joint_shapedirs)
    flat = dense.mT.reshape(-1, body.num_vertices)
    vertices = (flat @ body.v_template).unflatten(0, (-1, NUM_JOINTS))
    shape = (flat @ body.shapedirs.flatten(1)).reshape(-1, NUM_JOINTS, 3, body.num_betas)
    template = torch.cat([joints[:NUM_JOINTS], joints[NUM_JOINTS:] + vertices])
    shapes = torch.cat([joint_shape[:NUM_JOINTS], joint_shape[NUM_JOINTS:] + shape])
    posedirs = None
    if body.posedirs is not None:
        moved = (flat @ body.posedirs.flatten(1)).reshape(-1, NUM_JOINTS, 3, body.posedirs.shape[-1])
        posedirs = torch.cat([torch.zeros_like(moved[:1]).expand(NUM_JOINTS, -1, -1, -1), moved])
    return LandmarkTable(template, shapes, posedirs, weight)


def pose_points(body: Body, points: RestPoints, skeleton: Skeleton, pose: Tensor) -> PosedPoints:
    """Pose rest points and gather the derivatives."""
    g, weight = skeleton.rotation, points.weight
    # Joints side by side, so that each number is one long row of all points.
    x, y, z = points.by_joint.mT.unbind(-2)
    part = points.by_joint.new_empty(*weight.shape[:2], 3, NUM_JOINTS)
    for c, to in enumerate(part.unbind(-2)):
        torch.mul(x, g[:, None, :, c, 0], out=to)
        to.addcmul_(y, g[:, None, :, c, 1]).addcmul_(z, g[:, None, :, c, 2])
        to.addcmul_(weight, skeleton.offset[:, None, :, c])
    mask = joint_tree(part.device, part.dtype).below.mT
    below = part @ mask
    arm = below - (weight @ mask)[:, :, None] * skeleton.position.mT[:, None]
    return PosedPoints(below[..., 0], arm, _shape_rows(body, points, g), _blend_rows(points, g, pose))


def _shape_rows(body: Body, points: RestPoints, g: Tensor) -> Tensor:
    """d X / d betas: the surface's own change, and that of the joints it is skinned to."""
    joints = torch.einsum("npj,njcb->npcb", points.weight, joint_shape_rows(body, g, skinned=True))
    if points.vertex_weight is None:
        return joints + torch.einsum("njcd,pjdb->npcb", g, points.by_joint_shape)
    turn = torch.einsum("npvj,njcd->npvcd", points.vertex_weight, g)
    return joints + torch.einsum("npvcd,npvdb->npcb", turn, points.by_joint_shape)


def rigid_points(position: Tensor, skeleton: Skeleton) -> PosedPoints:
    """Points (N, P, 3) m, the pelvis at the origin, of a body that turns as a whole and does not bend."""
    arm = position - skeleton.position[:, :1]
    return PosedPoints(position, arm[..., None], position.new_zeros(*position.shape, 0), None)


def joint_shape_rows(body: Body, g: Tensor, skinned: bool = False) -> Tensor:
    """d p_j / d betas (N, 24, 3, B); with ``skinned``, that of p_j - G_j J_j instead."""
    rest = body.joint_shapedirs
    parent = joint_tree(rest.device, rest.dtype).parent
    bone = rest - rest.index_select(0, parent)
    moved = chain_sum((g.index_select(-3, parent) @ bone).flatten(-2)).unflatten(-1, bone.shape[1:])
    return moved - g @ rest if skinned else moved


def _blend_rows(points: RestPoints, g: Tensor, pose: Tensor) -> Tensor | None:
    """d X / d omega through the pose blend shapes, (N, P, 3, 69)."""
    if points.posedirs is None:
        return None
    if points.vertex_weight is None:
        rows = torch.einsum("njcd,pjdf->npcf", g, points.posedirs)
    else:
        turn = torch.einsum("npvj,njcd->npvcd", points.vertex_weight, g)
        rows = torch.einsum("npvcd,npvdf->npcf", turn, points.posedirs)
    basis = so3.hat(torch.eye(3, dtype=pose.dtype, device=pose.device))
    # A turn from the left by omega changes R by [omega]_x R: nine feature entries for each axis.
    change = torch.einsum("acd,njde->njcea", basis, pose).flatten(2, 3)
    rows = rows.unflatten(-1, (NUM_JOINTS - 1, 9))
    return torch.einsum("npcjf,njfa->npcja", rows, change).flatten(-2)
