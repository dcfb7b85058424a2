"""Synthetic people: a body that the fitted model cannot match, dressed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from depthfit.body.model import Body, Skeleton
from depthfit.joints import JOINT_INDEX
from depthfit.raster import vertex_normals

BETAS_LIMIT = 2.5
"""Coefficients beyond this many sd are not drawn: such people are caricatures."""

_BARE = ("left_wrist", "right_wrist", "left_hand", "right_hand")
_FEET = ("left_ankle", "right_ankle", "left_foot", "right_foot")
_LEGS = ("pelvis", "left_hip", "right_hip", "left_knee", "right_knee")
_CLOTHES_WAVES = 48
_SKIN = ((0.93, 0.76, 0.65), (0.80, 0.58, 0.44), (0.55, 0.37, 0.27), (0.38, 0.25, 0.19))


@dataclass(frozen=True)
class Surface:
    """What of a body is what, from its rest mesh.

    Attributes:
        head, feet, bare, legs: (V,) share of each vertex.
        hair: (V,) in [0, 1], 1 on the scalp.
    """

    head: Tensor
    feet: Tensor
    bare: Tensor
    legs: Tensor
    hair: Tensor


@dataclass(frozen=True)
class Shape:
    """A body and its clothes before it is posed.

    Attributes:
        betas: (B + E,) coefficients; the first ``num_betas`` are those that fits know.
        num_betas: B.
        clothes: (V,) m, how far clothes and hair stand off.
        normals: (V, 3) of the rest mesh.
        color: (V, 3) RGB in [0, 1].
        height: m, of the rest mesh, barefoot and without hair.
        mean_clothes: m, mean of ``clothes`` over the surface's area.
    """

    betas: Tensor
    num_betas: int
    clothes: Tensor
    normals: Tensor
    color: Tensor
    height: float
    mean_clothes: float


@dataclass(frozen=True)
class Person:
    """One synthetic person, about its pelvis (at the origin), in the frame that ``root`` turns into.

    Attributes:
        shape: Body and clothes.
        root: (3, 3).
        pose: (23, 3, 3).
        skeleton: Of one person, no batch axis.
        vertices: (V, 3) m, the naked body: ground truth of the surface.
        clothed: (V, 3) m, what the camera sees.
        keypoints: (K, 3) m, of the naked body.
        kind: Of the pose: everyday, hard or random.
    """

    shape: Shape
    root: Tensor
    pose: Tensor
    skeleton: Skeleton
    vertices: Tensor
    clothed: Tensor
    keypoints: Tensor
    kind: str

    @property
    def betas(self) -> Tensor:
        """(B,) coefficients that fits know."""
        return self.shape.betas[: self.shape.num_betas]


def widen(body: Body, extra_shapedirs: Tensor) -> Body:
    """The body with further shape directions (V, 3, E) beside its own, which fits do not know."""
    return body.replace(shapedirs=torch.cat([body.shapedirs, extra_shapedirs.to(body.shapedirs)], -1))


def surface(body: Body) -> Surface:
    """Parts of the body's surface, by skinning weights and by place on the head."""

    def share(names: tuple[str, ...]) -> Tensor:
        return body.weights[:, [JOINT_INDEX[n] for n in names]].sum(-1)

    head = share(("head",))
    offset = body.v_template - body.joint_template[JOINT_INDEX["head"]]
    # The scalp: above a plane that rises from the nape to the forehead.
    above = offset[:, 1] - 0.10 - 0.9 * offset[:, 2]
    hair = head * torch.sigmoid(above / 0.012)
    return Surface(head, share(_FEET), share(_BARE), share(_LEGS), hair)


def clothe(rng: Generator, rest: Tensor, parts: Surface, thickness: float) -> Tensor:
    """How far clothes and hair stand off the rest mesh ``rest`` (V, 3): (V,) m in [0, ``thickness``].

    A smooth random field: tight here and loose there. Trunk and limbs have garments of their own thickness,
    hair another, shoes little; hands and face are bare.
    """
    length = rng.uniform(0.08, 0.3)
    frequency = rng.normal(size=(_CLOTHES_WAVES, 3)) / length
    phase = rng.uniform(0, 2 * np.pi, _CLOTHES_WAVES)
    points = rest.double().numpy()
    smooth = np.sqrt(2 / _CLOTHES_WAVES) * np.cos(points @ frequency.T + phase).sum(-1)
    looseness = torch.as_tensor(1 / (1 + np.exp(-1.5 * smooth)), dtype=rest.dtype)
    upper, lower, hair, shoes = rng.uniform(0.3, 1, size=4) * (1, 1, 1, 0.5)
    garment = (1 - parts.legs) * upper + parts.legs * lower
    garment = garment * (1 - parts.head - parts.feet - parts.bare).clamp(min=0)
    garment = garment + parts.hair * hair + parts.feet * shoes
    return thickness * garment.clamp(0, 1) * looseness


def dress_colors(rng: Generator, parts: Surface) -> Tensor:
    """Vertex colours (V, 3) RGB in [0, 1]: skin, top, trousers, shoes, hair."""
    skin = torch.tensor(_SKIN[rng.integers(len(_SKIN))])
    top, trousers, shoes, hair = (
        torch.as_tensor(c, dtype=skin.dtype) for c in rng.uniform(0.1, 0.85, (4, 3))
    )
    hair = 0.1 + 0.35 * hair * torch.tensor([1.0, 0.7, 0.45])
    color = top.expand(len(parts.head), 3)
    for share, paint in ((parts.legs, trousers), (parts.feet, shoes), (parts.head, skin), (parts.bare, skin)):
        color = torch.where(share[:, None] > 0.5, paint, color)
    return torch.where(parts.hair[:, None] > 0.5, hair, color)


def shape_person(
    rng: Generator, body: Body, parts: Surface, num_betas: int, extra_sd: float, thickness: float
) -> Shape:
    """A random shape, dressed.

    Args:
        rng: Source of randomness.
        body: As ``widen`` gives it.
        parts: Of that body.
        num_betas: Number of its leading shape directions that fits know.
        extra_sd: Sd of the coefficients of the others.
        thickness: m, of the thickest clothes.
    """
    sd = np.where(np.arange(body.num_betas) < num_betas, 1.0, extra_sd)
    drawn = np.clip(rng.normal(size=len(sd)), -BETAS_LIMIT, BETAS_LIMIT)
    betas = torch.as_tensor(sd * drawn, dtype=body.v_template.dtype)
    rest = body.rest_vertices(betas)
    clothes = clothe(rng, rest, parts, thickness)
    height = float(rest[:, 1].max() - rest[:, 1].min())
    normals = vertex_normals(rest, body.faces)
    return Shape(
        betas=betas,
        num_betas=num_betas,
        clothes=clothes,
        normals=normals,
        color=dress_colors(rng, parts),
        height=height,
        mean_clothes=_surface_mean(rest, body.faces, clothes),
    )


def _surface_mean(vertices: Tensor, faces: Tensor, values: Tensor) -> float:
    """Mean over a mesh's area of ``values`` (V,) at its vertices."""
    a, b, c = (vertices[corner] for corner in faces.unbind(-1))
    area = torch.linalg.cross(b - a, c - a).norm(dim=-1)
    return float((area * values[faces].mean(-1)).sum() / area.sum())


def pose_person(body: Body, shape: Shape, root: Tensor, pose: Tensor, kind: str) -> Person:
    """The person of ``shape`` with ``root`` (3, 3) and ``pose`` (23, 3, 3)."""
    skeleton = body.skeleton(root, pose, shape.betas)
    rest = body.posed_rest_vertices(pose, shape.betas)
    vertices = body.vertices(skeleton, rest)
    return Person(
        shape=shape,
        root=root,
        pose=pose,
        skeleton=skeleton,
        vertices=vertices,
        clothed=body.vertices(skeleton, rest + shape.clothes[:, None] * shape.normals),
        keypoints=body.keypoints(skeleton, vertices),
        kind=kind,
    )
