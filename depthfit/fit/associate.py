"""Association: which triangle each pixel sees, and which rim vertex each outline point belongs to.

Done anew every few steps and held in between, so that the cost of a solve is one fixed function.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor

from depthfit.body.model import Body
from depthfit.camera import intrinsics
from depthfit.fit import association_torch
from depthfit.fit.config import FitConfig
from depthfit.fit.nuisance import clothes_cover, field_basis
from depthfit.fit.problem import Batch, Outline
from depthfit.fit.system import Matches
from depthfit.kernels import use_triton
from depthfit.raster import Fragments, rasterize
from depthfit.residuals import ContourMatches, DepthSamples
from depthfit.residuals.keypoints import projection
from depthfit.state import FitState, PersonState
from depthfit.struct import TensorStruct

RIM_BUDGET = 1536
"""Most rim vertices kept a person."""
FAR_GATE, NEAR_GATE = 0.12, 0.05
"""Longest pair of an outline point and a rim vertex over the person's size: of a mask, of a depth edge."""
MIN_SAMPLE_FACING = 0.2
"""Smallest cosine between a surface and its ray at which depth is sampled: nearer to grazing, a step of the
body moves the hit by more than the linear model knows."""
COVER_MARGIN = 2
"""Cells by which mask and body may differ: clothes, hair, and the window's own resolution."""
MIN_ALIGNMENT = 0.3
"""Smallest cosine between the image normals of a pair."""


@dataclass(frozen=True)
class MeshTopology(TensorStruct):
    """What association needs of the mesh, made once.

    Attributes:
        edge: (E, 2) vertices; edge_face: (E, 2) faces on either side (the same twice on a border).
        face_part: (F,) joint that moves the face most.
        around: (V, K) faces at each vertex, -1 where there are fewer.
        face_cover: (F, C) and vertex_cover (V, C): share of each amplitude of the clothes on them.
        order: (V,) a fixed random order of vertices, and pixel_noise (S, S) Gumbel noise: they spread
            samples evenly, the same for every person, so that a fit does not depend on its batch.
    """

    edge: Tensor
    edge_face: Tensor
    face_part: Tensor
    around: Tensor
    face_cover: Tensor
    vertex_cover: Tensor
    order: Tensor
    pixel_noise: Tensor


def mesh_topology(body: Body, grid: int, seed: int = 0) -> MeshTopology:
    """Edges with their faces, parts and sampling orders, seeded."""
    faces = body.faces.cpu()
    half = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).sort(-1).values
    owner = torch.arange(len(faces)).repeat(3)
    edge, inverse = torch.unique(half, dim=0, return_inverse=True)
    first = torch.full((len(edge),), len(faces)).scatter_reduce(0, inverse, owner, "amin")
    last = torch.full((len(edge),), -1).scatter_reduce(0, inverse, owner, "amax")
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(grid, grid, generator=generator).clamp(1e-6, 1 - 1e-6)
    order = torch.rand(body.num_vertices, generator=generator)
    weights = body.weights.cpu()
    return MeshTopology(
        edge=edge,
        edge_face=torch.stack([first, last], -1),
        face_part=weights[faces].sum(1).argmax(-1),
        around=_faces_around(faces, body.num_vertices),
        face_cover=clothes_cover(weights[faces].mean(-2)),
        vertex_cover=clothes_cover(weights),
        order=order,
        pixel_noise=-(-uniform.log()).log(),
    ).to(body.faces.device)


def _faces_around(faces: Tensor, num_vertices: int) -> Tensor:
    """(V, K) faces that meet at each vertex, -1 where there are fewer than K."""
    vertex, index = faces.flatten().sort(stable=True)
    counts = torch.bincount(vertex, minlength=num_vertices)
    slot = torch.arange(len(vertex)) - (counts.cumsum(0) - counts)[vertex]
    around = torch.full((num_vertices, int(counts.max())), -1)
    around[vertex, slot] = index // 3
    return around


def associate(
    body: Body,
    topology: MeshTopology,
    batch: Batch,
    state: FitState,
    config: FitConfig,
    depth: bool = True,
    contour: bool = True,
) -> Matches:
    """Render every person into their window and pair pixels and outlines with the surface.

    Without ``depth`` no pixel has a weight; without ``contour`` there are no pairs.
    """
    ops = _ops(batch.center)
    vertices = _vertices(body, state.people)
    focal = state.images.log_focal.exp()[batch.group]
    step = batch.window.step
    window_k = intrinsics(focal / step, (batch.center - batch.window.origin) / step[:, None])
    side = config.solver.grid
    fragments = rasterize(vertices, body.faces, window_k, (side, side), cull_backfaces=True)
    facing = ops.facing(vertices, body.faces)
    samples = _sample_depth(body, topology, batch, facing, fragments, config)
    if not depth:
        samples = samples.replace(weight=torch.zeros_like(samples.weight))
    if not contour or not batch.outline.valid.shape[1]:
        return Matches(samples, _no_pairs(topology, batch), torch.zeros_like(focal))
    pairs = _match_contour(body, topology, batch, vertices, facing, focal, fragments, config)
    return Matches(samples, pairs, _uncovered(batch, fragments))


def _no_pairs(topology: MeshTopology, batch: Batch) -> ContourMatches:
    none = batch.outline.xy[:, :0]
    vertex = none[..., 0].long()
    cover = topology.vertex_cover[vertex]
    return ContourMatches(vertex, none, none, none[..., 0], none[..., 0], none[..., 0], cover)


def _ops(like: Tensor) -> ModuleType:
    """The inner loops for tensors like this one. Triton is imported where it is used: it is optional."""
    if use_triton(like):
        return import_module("depthfit.fit.association_triton")
    return association_torch


def _vertices(body: Body, people: PersonState) -> Tensor:
    """(N, V, 3) m, camera frame."""
    ops = _ops(people.root)
    skeleton = body.skeleton(people.root, people.pose, people.betas)
    offset = skeleton.offset + people.transl[:, None]
    transform = torch.cat([skeleton.rotation, offset[..., None]], -1)
    rest = body.posed_rest_vertices(people.pose, people.betas)
    return ops.skin(body, rest, transform)


def _uncovered(batch: Batch, fragments: Fragments) -> Tensor:
    """(N,) share of the person's mask by which body and mask differ; zero where there is no mask.

    Pairs of outline and rim cannot tell a limb that sticks out of the mask, or a part of the mask that no
    limb fills: those pairs are far apart and their weight is gone. Nothing here pulls at the body; it tells
    one solution from another.
    """
    window = batch.window
    ops = _ops(batch.center)
    share = ops.uncovered(fragments.face, window.own, window.other, window.inside, COVER_MARGIN)
    return torch.where(batch.outline.closed, share, torch.zeros_like(share)).to(batch.center.dtype)


def _sample_depth(
    body: Body,
    topology: MeshTopology,
    batch: Batch,
    facing: Tensor,
    fragments: Fragments,
    config: FitConfig,
) -> DepthSamples:
    """Pixels on the body with a reading, spread over its parts so that thin limbs count."""
    window = batch.window
    side = config.solver.grid
    ops = _ops(facing)
    usable = window.depth_valid & window.own
    key = ops.sample_key(
        fragments, facing, topology.face_part, usable, topology.pixel_noise, MIN_SAMPLE_FACING
    )
    best, pixel = key.topk(min(config.depth.samples, side * side), dim=1)
    weight = best.isfinite().to(facing.dtype)
    cell = torch.stack([pixel % side, pixel // side], -1).to(facing.dtype)
    xy = (window.origin[:, None] + cell * window.step[:, None, None]).round()
    face = fragments.face.flatten(1).gather(1, pixel).clamp(min=0)
    z = fragments.depth.flatten(1).gather(1, pixel)
    z = torch.where(weight > 0, z, torch.ones_like(z))
    sigma = torch.hypot(torch.full_like(z, config.depth.pixel_sigma), config.depth.surface_cm / 100 / z)
    return DepthSamples(
        corner=body.faces[face],
        xy=xy,
        log_depth=window.log_depth.flatten(1).gather(1, pixel),
        sigma=sigma,
        weight=weight,
        basis=field_basis(cell / (side - 1), config),
        cover=topology.face_cover[face],
        focal_coupling=batch.focal_coupling,
    )


def _match_contour(
    body: Body,
    topology: MeshTopology,
    batch: Batch,
    vertices: Tensor,
    facing: Tensor,
    focal: Tensor,
    fragments: Fragments,
    config: FitConfig,
) -> ContourMatches:
    """Pairs from the outline to the rim and from the rim to the outline."""
    outline = batch.outline
    rim, seen, xy, normal = _rim(body, topology, batch, vertices, facing, focal, fragments)
    to_rim, weight_rim = _pair(
        outline.xy, outline.normal, outline.valid, xy, normal, seen, _gate(batch, outline, FAR_GATE)
    )
    count = outline.xy.shape[1]
    own_xy, own_normal, own_seen = xy[:, :count], normal[:, :count], seen[:, :count]
    # Where a mask is all there is, a rim far from it is wrong however far; an edge may just be missing.
    to_line, weight_line = _pair(
        own_xy, own_normal, own_seen, outline.xy, outline.normal, outline.valid, _gate(batch, outline, 1.0)
    )
    vertex = torch.cat([rim.gather(1, to_rim), rim[:, :count]], 1)
    matched = torch.cat([outline.xy, _pick(outline.xy, to_line)], 1)
    normals = torch.cat([outline.normal, _pick(outline.normal, to_line)], 1)
    z = vertices[..., 2].gather(1, vertex).clamp(min=0.05)
    surface = config.contour.surface_cm / 100 * focal[:, None] / z
    sigma = torch.hypot(torch.full_like(z, config.contour.pixel_sigma), surface)
    weight = torch.cat([weight_rim, weight_line], 1)
    # Of a mask every point has a place on the body; a depth edge may be another thing's.
    found = torch.cat([outline.valid, own_seen], 1) & outline.closed[:, None]
    wanted = torch.where(found, torch.ones_like(weight), weight)
    cover = topology.vertex_cover[vertex]
    return ContourMatches(vertex, matched, normals, sigma, weight, wanted, cover)


def _gate(batch: Batch, outline: Outline, closed: float) -> Tensor:
    """(N,) px, the longest pair: ``closed`` (a share of the person's size) for closed outlines."""
    return batch.size * torch.where(outline.closed, closed, NEAR_GATE)


def _rim(
    body: Body,
    topology: MeshTopology,
    batch: Batch,
    vertices: Tensor,
    facing: Tensor,
    focal: Tensor,
    fragments: Fragments,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rim vertices (N, R), whether each is seen (N, R), their pixels and image normals (N, R, 2)."""
    ops = _ops(vertices)
    window, outline = batch.window, batch.outline
    key = ops.rim_key(
        vertices,
        facing,
        topology.edge,
        topology.edge_face,
        topology.order,
        focal,
        batch.center,
        window.origin,
        window.step,
        fragments.depth,
        outline.closed,
        # A person's own mask ends where another's begins, which says nothing of the body; beyond the image
        # there is no outline to be found.
        window.other | ~window.inside,
    )
    best, rim = key.topk(_rim_budget(key, outline.xy.shape[1]), dim=1)
    normal = ops.area_normals(vertices, body.faces, topology.around, rim)[..., :2]
    xy, _ = projection(_pick(vertices, rim), focal, batch.center)
    return rim, best >= 0, xy, torch.nn.functional.normalize(normal, dim=-1, eps=1e-20)


def _rim_budget(key: Tensor, outline: int) -> int:
    """How many rim vertices to keep: on a CPU, where asking costs nothing, no more than are seen."""
    most = min(RIM_BUDGET, key.shape[1])
    return most if key.is_cuda else min(most, max(outline, int((key >= 0).sum(1).max())))


def _pair(
    xy: Tensor,
    normal: Tensor,
    valid: Tensor,
    to_xy: Tensor,
    to_normal: Tensor,
    to_valid: Tensor,
    gate: Tensor,
) -> tuple[Tensor, Tensor]:
    """For each of (N, A) points the nearest of (N, B) with a like normal: index and weight (N, A)."""
    ops = _ops(xy)
    index, best, squared = ops.nearest(xy, normal, to_xy, to_normal, to_valid, MIN_ALIGNMENT)
    distance = squared.sqrt()
    ok = valid & best.isfinite() & (distance < gate[:, None])
    return index, ok.to(xy.dtype)


def _pick(values: Tensor, index: Tensor) -> Tensor:
    """Gather (N, B, C) at (N, A) -> (N, A, C)."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))
