"""Association: which triangle each pixel sees, and which rim vertex each outline point belongs to.

Done anew every few steps and held in between, so that the cost of a solve is one fixed function.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from depthfit.body.model import Body
from depthfit.body.points import VertexSubset
from depthfit.camera import intrinsics
from depthfit.fit.config import FitConfig
from depthfit.fit.nuisance import clothes_cover, field_basis
from depthfit.fit.problem import Batch, Outline
from depthfit.fit.system import Matches
from depthfit.raster import Fragments, rasterize
from depthfit.raster.shade import vertex_normals
from depthfit.residuals import ContourMatches, DepthSamples
from depthfit.residuals.keypoints import projection
from depthfit.state import FitState
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
        order: (V,) a fixed random order of vertices, and pixel_noise (S, S) Gumbel noise: they spread
            samples evenly, the same for every person, so that a fit does not depend on its batch.
    """

    edge: Tensor
    edge_face: Tensor
    face_part: Tensor
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
    part = body.weights.cpu()[faces].sum(1).argmax(-1)
    topology = MeshTopology(edge, torch.stack([first, last], -1), part, order, -(-uniform.log()).log())
    return topology.to(body.faces.device)


def associate(
    body: Body, topology: MeshTopology, batch: Batch, state: FitState, config: FitConfig
) -> Matches:
    """Render every person into their window and pair pixels and outlines with the surface."""
    people = state.people
    _, local = body.forward(people.root, people.pose, people.betas)
    vertices = local + people.transl[:, None]
    focal = state.images.log_focal.exp()[batch.group]
    step = batch.window.step
    window_k = intrinsics(focal / step, (batch.center - batch.window.origin) / step[:, None])
    side = config.solver.grid
    fragments = rasterize(vertices, body.faces, window_k, (side, side), cull_backfaces=True)
    facing = _facing(vertices, body.faces)
    depth = _sample_depth(body, topology, batch, facing, fragments, config)
    contour = _match_contour(body, topology, batch, vertices, facing, focal, fragments, config)
    index = torch.cat([depth.corner.flatten(1), contour.vertex], 1)
    return Matches(depth, contour, VertexSubset.gather(body, index), _uncovered(batch, fragments))


def _uncovered(batch: Batch, fragments: Fragments) -> Tensor:
    """(N,) share of the person's mask by which body and mask differ; zero where there is no mask.

    Pairs of outline and rim cannot tell a limb that sticks out of the mask, or a part of the mask that no
    limb fills: those pairs are far apart and their weight is gone. Nothing here pulls at the body; it tells
    one solution from another.
    """
    window = batch.window
    body, mask = fragments.face >= 0, window.own

    def grown(cells: Tensor) -> Tensor:
        size = 2 * COVER_MARGIN + 1
        return torch.nn.functional.max_pool2d(cells[:, None].float(), size, 1, COVER_MARGIN)[:, 0] > 0

    stray = body & window.inside & ~grown(mask | window.other)
    bare = mask & ~grown(body)
    area = mask.flatten(1).sum(-1).clamp(min=1)
    share = (stray | bare).flatten(1).sum(-1) / area
    return torch.where(batch.outline.closed, share, torch.zeros_like(share)).to(batch.center.dtype)


def _facing(vertices: Tensor, faces: Tensor) -> Tensor:
    """(N, F) cosine between each face's normal and the direction to the camera; positive where it faces."""
    corners = vertices[:, faces]
    normal = torch.linalg.cross(corners[:, :, 1] - corners[:, :, 0], corners[:, :, 2] - corners[:, :, 0])
    return -torch.nn.functional.cosine_similarity(normal, corners[:, :, 0], dim=-1)


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
    n, side = len(batch.group), config.solver.grid
    seen = fragments.face.clamp(min=0)
    steep = facing.gather(1, seen.flatten(1)).reshape(seen.shape) < MIN_SAMPLE_FACING
    usable = (fragments.face >= 0) & ~steep & window.depth_valid & window.own
    part = topology.face_part[seen]
    counts = torch.zeros(n, 24, dtype=fragments.depth.dtype, device=part.device)
    counts.scatter_add_(1, part.flatten(1), usable.flatten(1).to(counts.dtype))
    share = counts.clamp(min=1).gather(1, part.flatten(1)).reshape(part.shape)
    key = topology.pixel_noise - 0.5 * share.log()
    key = torch.where(usable, key, torch.full_like(key, -torch.inf)).flatten(1)
    best, pixel = key.topk(min(config.depth.samples, side * side), dim=1)
    weight = best.isfinite().to(counts.dtype)
    cell = torch.stack([pixel % side, pixel // side], -1).to(counts.dtype)
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
        cover=clothes_cover(body.weights[body.faces[face]].mean(-2)),
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
    if outline.valid.shape[1] == 0:
        none = outline.xy[:, :0]
        cover = clothes_cover(body.weights[none[..., 0].long()])
        return ContourMatches(
            none[..., 0].long(), none, none, none[..., 0], none[..., 0], none[..., 0], cover
        )
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
    return ContourMatches(
        vertex, matched, normals, sigma, weight, wanted, clothes_cover(body.weights[vertex])
    )


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
    """Rim vertices (N, R), whether each is seen (N, R), their pixels and image normals (N, R, 2).

    A rim vertex lies on an edge between a facing and an averted triangle. It is seen where nothing nearer
    covers it; of a closed outline only the rim against the background counts.
    """
    pair = (facing > 0)[:, topology.edge_face]
    turning = pair[..., 0] != pair[..., 1]
    flag = torch.zeros(vertices.shape[:2], dtype=vertices.dtype, device=vertices.device)
    flag.scatter_reduce_(
        1,
        topology.edge.flatten().expand(len(vertices), -1),
        turning.repeat_interleave(2, dim=1).to(flag.dtype),
        "amax",
    )
    z = vertices[..., 2]
    xy, _ = projection(vertices, focal, batch.center)
    cell = ((xy - batch.window.origin[:, None]) / batch.window.step[:, None, None]).round().long()
    side = fragments.depth.shape[-1]
    inside = ((cell >= 0) & (cell < side)).all(-1)
    flat = (cell[..., 1].clamp(0, side - 1) * side + cell[..., 0].clamp(0, side - 1)).long()
    # The farthest surface in the cells around: at a true rim the background, or what lies behind, shows.
    behind = torch.nn.functional.max_pool2d(fragments.depth[:, None], 3, stride=1, padding=1)
    behind = behind.flatten(1).gather(1, flat)
    uncovered = torch.where(batch.outline.closed[:, None], behind.isinf(), behind > z + 0.03)
    # A person's own mask ends where another's begins, which says nothing of the body.
    hidden = batch.window.other.flatten(1).gather(1, flat)
    # Beyond the image there is no outline to be found.
    inside = inside & batch.window.inside.flatten(1).gather(1, flat)
    seen = (flag > 0) & inside & uncovered & ~hidden
    key = torch.where(seen, topology.order, torch.full_like(flag, -1))
    best, rim = key.topk(min(RIM_BUDGET, key.shape[1]), dim=1)
    normal = _pick(vertex_normals(vertices, body.faces)[..., :2], rim)
    return rim, best >= 0, _pick(xy, rim), torch.nn.functional.normalize(normal, dim=-1)


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
    squared = torch.cdist(xy, to_xy).square()
    alignment = normal @ to_normal.mT
    # A point whose normal differs is as good as one that lies farther: at 60 degrees, twice as far.
    cost = squared * (1 + 6 * (1 - alignment))
    allowed = (alignment > MIN_ALIGNMENT) & to_valid[:, None]
    best, index = torch.where(allowed, cost, torch.full_like(cost, torch.inf)).min(-1)
    distance = squared.gather(2, index[..., None])[..., 0].sqrt()
    ok = valid & best.isfinite() & (distance < gate[:, None])
    return index, ok.to(xy.dtype)


def _pick(values: Tensor, index: Tensor) -> Tensor:
    """Gather (N, B, C) at (N, A) -> (N, A, C)."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))
