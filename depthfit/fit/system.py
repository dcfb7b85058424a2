"""The MAP problem of a batch of images, as the solver sees it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from depthfit import so3
from depthfit.body.model import Body, Skeleton
from depthfit.body.points import LandmarkTable, PosedPoints, VertexSubset, pose_points, rigid_points
from depthfit.fit.evaluation import Evaluation, Recent, SurfaceRows
from depthfit.fit.space import Chart, PoseSpace
from depthfit.joints import NUM_BODY_JOINTS, NUM_JOINTS
from depthfit.kernels import use_triton
from depthfit.residuals import (
    ContourMatches,
    DepthSamples,
    KeypointTargets,
    Rows,
    contour_rows,
    depth_rows,
    keypoint_rows,
)
from depthfit.residuals.depth import intersect
from depthfit.residuals.pose_priors import MixturePrior, PosePrior
from depthfit.residuals.prior import ImagePrior, PersonPrior
from depthfit.residuals.rows import PersonBlock, normal_block
from depthfit.solver import ArrowSystem, GemanMcClure
from depthfit.solver.schur import scatter_sum
from depthfit.state import LOG_FOCAL, LOG_SCALE, FitState, ImageState, PersonState, StepLayout
from depthfit.struct import TensorStruct

SURFACE, NORMAL = "depthfit.residuals.triton_surface", "depthfit.residuals.triton_normal"
"""Modules of kernels, imported where they are used: Triton is optional."""


@dataclass(frozen=True)
class Matches(TensorStruct):
    """What association found: pixels with triangles, and outline with rim; ``uncovered`` (N,) is the share of
    the person's mask by which body and mask differ."""

    depth: DepthSamples
    contour: ContourMatches
    uncovered: Tensor


@dataclass(frozen=True)
class RobustScales:
    """Geman-McClure scales in sigmas, () each; tensors where a CUDA graph reads them anew in every replay."""

    keypoints: float | Tensor
    depth: float | Tensor
    contour: float | Tensor


@dataclass
class BodyFit:
    """Least squares over people and cameras (:class:`depthfit.solver.LeastSquares`).

    Attributes:
        body, table: The body and its landmarks.
        group: (N,) image of each person.
        center: (N, 2) px, principal point.
        targets: Keypoints.
        matches: Associations, held during a solve.
        space, chart: Pose coordinates.
        pose_priors: Priors on the pose beside that of the space.
        person_prior, image_prior: The rest of the prior.
        robust: Kernel scales.
        layout: Columns of a step; rigid where the pose does not move.
        free: (layout.size,) bool and ``free_shared`` (2,) bool: unknowns that may move.
        pose_moves: Whether the pose is among them; freezes: whether any may not move.
    """

    body: Body
    table: LandmarkTable
    group: Tensor
    center: Tensor
    targets: KeypointTargets
    matches: Matches
    space: PoseSpace
    chart: Chart
    pose_priors: tuple[PosePrior, ...]
    person_prior: PersonPrior
    image_prior: ImagePrior
    robust: RobustScales
    layout: StepLayout
    free: Tensor
    free_shared: Tensor
    pose_moves: bool
    freezes: bool
    _recent: Recent = field(default_factory=Recent, init=False, repr=False)

    @property
    def num_images(self) -> int:
        return len(self.image_prior.log_focal)

    @cached_property
    def keypoint_table(self) -> LandmarkTable:
        """The landmarks that detectors see, without the joints."""
        return self.table[NUM_JOINTS:]

    @cached_property
    def vertices(self) -> Tensor:
        """(N, S) the vertices that the matches name: 3 P corners of the depth samples, then C of the rim."""
        return torch.cat([self.matches.depth.corner.flatten(1), self.matches.contour.vertex], 1)

    @cached_property
    def subset(self) -> VertexSubset:
        """The same with all that moves them."""
        return VertexSubset.gather(self.body, self.vertices)

    def cost(self, state: FitState) -> Tensor:
        """(I,) robust cost, priors included."""
        people = sum(self.person_costs(state).values())
        assert isinstance(people, Tensor)
        image = (self.image_prior.residual(state.images) ** 2).sum(-1) / 2
        return scatter_sum(people, self.group, len(image)) + image

    def person_costs(self, state: FitState) -> dict[str, Tensor]:
        """Robust cost of each term, (N,) each."""
        found = self.at(state)
        if isinstance(found.surface, SurfaceRows):
            rows = found.surface
            depth, contour = (
                rows.depth.cost(self._kernel("depth")),
                rows.contour.cost(self._kernel("contour")),
            )
        else:
            depth, contour = self._fused_costs(found.surface)
        return {
            "keypoints": found.keypoints.cost(self._kernel("keypoints")),
            "depth": depth,
            "contour": contour + self._unmatched(),
            "pose_prior": self.space.cost(state.people),
            "population": self._populations(state.people),
            "other_priors": (self.person_prior.residual(state.people) ** 2).sum(-1) / 2,
        }

    def _populations(self, people: PersonState) -> Tensor:
        """(N,) cost of the pose priors beside that of the space."""
        costs = [
            prior.cost(people.pose[:, :NUM_BODY_JOINTS]) * self._prior_weight(prior)
            for prior in self.pose_priors
        ]
        return torch.stack(costs).sum(0) if costs else torch.zeros_like(people.log_distance)

    def pose_prior_normal(self, people: PersonState) -> list[tuple[Tensor, Tensor]]:
        """Gradient (N, 63) and Hessian (N, 63, 63) of each of these priors in turns of the joints."""
        found = []
        for prior in self.pose_priors:
            gradient, hessian = prior.normal(people.pose[:, :NUM_BODY_JOINTS])
            weight = self._prior_weight(prior)
            found.append((weight[:, None] * gradient, weight[:, None, None] * hessian))
        return found

    def _prior_weight(self, prior: PosePrior) -> Tensor:
        weight = self.person_prior.population
        return weight if isinstance(prior, MixturePrior) else torch.ones_like(weight)

    def _unmatched(self) -> Tensor:
        """(N,) cost of outline and mask that no pair stands for: what a hopeless pair would cost.

        It is the same all through a solve. Without it, of two solutions the one that has lost more of its
        evidence would be the cheaper.
        """
        pairs, most = self.matches.contour, self.robust.contour**2 / 2
        lost = (pairs.wanted - pairs.weight).clamp(min=0).sum(-1)
        return most * (lost + self.matches.uncovered * pairs.weight.shape[1])

    def evidence(self, state: FitState) -> tuple[Rows, Rows, Rows]:
        """Rows of keypoints, depth and contour."""
        skeleton = self.skeleton(state.people)
        rows = self._surface_rows(state, skeleton)
        return self._keypoint_rows(state, self._positions(state.people, skeleton)), rows.depth, rows.contour

    def depth_error(self, state: FitState) -> Tensor:
        """(N, P) log-depth residual of the samples, beyond the map's scale and its smooth error."""
        _, depth, _ = self.evidence(state)
        return depth.residual[..., 0] * self.matches.depth.sigma

    def linearize(self, state: FitState) -> ArrowSystem:
        """Gauss-Newton system in the chart's coordinates, frozen unknowns taken out."""
        found = self.at(state)
        block = self._block("keypoints", found.keypoints, self._landmarks(found, state.people), found, state)
        if isinstance(found.surface, SurfaceRows):
            at_depth, at_rim = self._surface_points(found, found.surface, state.people)
            block = block + self._block("depth", found.surface.depth, at_depth, found, state)
            block = block + self._block("contour", found.surface.contour, at_rim, found, state)
        else:
            block = block + self._fused_block(found.surface)
        if not self.layout.is_rigid:
            for gradient, hessian in self.pose_prior_normal(state.people):
                block.block[:, self.layout.pose, self.layout.pose].add_(hessian)
                block.block_gradient[:, self.layout.pose].add_(gradient)
        return self._freeze(self._with_priors(block, state))

    def retract(self, state: FitState, block_step: Tensor, shared_step: Tensor, damping: Tensor) -> FitState:
        """Move along the manifold; see :class:`depthfit.state.StepLayout`. A focal step is a dolly zoom."""
        people, layout = state.people, self.layout
        zoom = shared_step[:, LOG_FOCAL][self.group]
        moved = people.replace(
            root=so3.exp(block_step[:, layout.root]) @ people.root,
            bearing=people.bearing * (-zoom).exp()[:, None] + block_step[:, layout.bearing],
            log_distance=people.log_distance + zoom + block_step[:, layout.distance],
            clothes=people.clothes + block_step[:, layout.clothes],
        )
        if not layout.is_rigid:
            moved = moved.replace(
                betas=people.betas + block_step[:, layout.betas],
                field=people.field + block_step[:, layout.field],
            )
        if self.pose_moves:
            moved = self.space.move(self.chart, moved, block_step[:, layout.pose], damping[self.group])
        images = ImageState(
            state.images.log_focal + shared_step[:, LOG_FOCAL],
            state.images.log_scale + shared_step[:, LOG_SCALE],
        )
        return FitState(moved, images)

    def select(self, accepted: Tensor, new: FitState, old: FitState) -> FitState:
        chosen = new.select(accepted, old, self.group)
        self._recent.mix(chosen, new, old, accepted[self.group])
        return chosen

    def at(self, state: FitState) -> Evaluation:
        """What cost and normal equations at ``state`` have in common."""
        return self._recent.at(state, self._evaluate)

    def _evaluate(self, state: FitState) -> Evaluation:
        skeleton = self.skeleton(state.people)
        landmarks = self._positions(state.people, skeleton)
        fused = self._fused(state.people)
        surface = self._surface(state, skeleton) if fused else self._surface_rows(state, skeleton)
        return Evaluation(skeleton, landmarks, self._keypoint_rows(state, landmarks), surface)

    def skeleton(self, people: PersonState) -> Skeleton:
        return self.body.skeleton(people.root, people.pose, people.betas)

    def _kernel(self, term: str) -> GemanMcClure:
        return GemanMcClure(getattr(self.robust, term))

    def _positions(self, people: PersonState, skeleton: Skeleton) -> Tensor:
        """(N, K, 3) m, the keypoints' places, the pelvis at the origin."""
        return self.keypoint_table.positions(skeleton, people.pose, people.betas)

    def _landmarks(self, found: Evaluation, people: PersonState) -> PosedPoints:
        """The keypoints with all that moves them."""
        if self.layout.is_rigid:
            return rigid_points(found.landmarks, found.skeleton)
        rest = self.keypoint_table.rest(people.pose, people.betas)
        return pose_points(self.body, rest, found.skeleton, people.pose)

    def _surface_points(
        self, found: Evaluation, rows: SurfaceRows, people: PersonState
    ) -> tuple[PosedPoints, PosedPoints]:
        """What the depth samples hit, and the rim, with all that moves them."""
        bary, skeleton = rows.hit.bary, found.skeleton
        count = 3 * bary.shape[1]
        if self.layout.is_rigid:
            posed = rows.posed - people.transl[:, None]
            corners = posed[:, :count].unflatten(1, bary.shape[1:])
            inside = (corners * bary[..., None]).sum(-2)
            return rigid_points(inside, skeleton), rigid_points(posed[:, count:], skeleton)
        inside = self.subset.points(rows.rest, 0, bary)
        ones = torch.ones_like(self.matches.contour.sigma)[..., None]
        rim = self.subset.points(rows.rest, count, ones)
        return (
            pose_points(self.body, inside, skeleton, people.pose),
            pose_points(self.body, rim, skeleton, people.pose),
        )

    def _keypoint_rows(self, state: FitState, landmarks: Tensor) -> Rows:
        points = landmarks + state.people.transl[:, None]
        return keypoint_rows(points, self._focal(state), self.center, self.targets)

    def _surface_rows(self, state: FitState, skeleton: Skeleton) -> SurfaceRows:
        people, matches, focal = state.people, self.matches, self._focal(state)
        rest = self.subset.rest(people.pose, people.betas)
        posed = self.subset.skin(skeleton, rest) + people.transl[:, None]
        count = matches.depth.xy.shape[1]
        triangle = posed[:, : 3 * count].unflatten(1, (count, 3))
        thickness = (matches.depth.cover @ people.clothes[..., None])[..., 0]
        hit = intersect(triangle, matches.depth.xy, focal, self.center, thickness)
        scale = state.images.log_scale[self.group]
        depth = depth_rows(hit, focal, scale, people.field, matches.depth)
        contour = contour_rows(posed[:, 3 * count :], focal, self.center, people.clothes, matches.contour)
        return SurfaceRows(depth, contour, hit, rest, posed)

    def _focal(self, state: FitState) -> Tensor:
        return state.images.log_focal.exp()[self.group]

    def _fused(self, people: PersonState) -> bool:
        """Whether the rows on the surface go through Triton kernels, which never build their Jacobian."""
        return use_triton(self.center) and import_module(NORMAL).fits(self.body, people)

    def _surface(self, state: FitState, skeleton: Skeleton) -> Any:
        """:class:`depthfit.residuals.triton_surface.Surface`, the kernels' view of the rows."""
        kernels, group = import_module(SURFACE), self.group
        focal, scale = state.images.log_focal[group], state.images.log_scale[group]
        coupling = self.matches.depth.focal_coupling
        tables = kernels.person_tables(self.body, state.people, skeleton, focal, scale, self.center, coupling)
        return kernels.surface(self.body, self.matches.depth, self.matches.contour, self.vertices, tables)

    def _fused_costs(self, surface: Any) -> tuple[Tensor, Tensor]:
        """(N,) costs of depth and contour."""
        kernels = import_module(SURFACE)
        depth, contour = (kernels.cost(surface, term, self._scale(term)) for term in ("depth", "contour"))
        return depth, contour

    def _fused_block(self, surface: Any) -> PersonBlock:
        scales = {term: self._scale(term) for term in ("depth", "contour")}
        return import_module(NORMAL).normal_block(self.body, surface, scales, self.layout)

    def _scale(self, term: str) -> Tensor:
        """() sigmas, on the device."""
        scale = getattr(self.robust, term)
        return scale if isinstance(scale, Tensor) else self.center.new_full((), scale)

    def _block(
        self, term: str, rows: Rows, points: PosedPoints, found: Evaluation, state: FitState
    ) -> PersonBlock:
        return normal_block(rows, self._kernel(term), points, found.skeleton, state.people, self.layout)

    def _with_priors(self, block: PersonBlock, state: FitState) -> ArrowSystem:
        people, pose = state.people, self.layout.pose
        if not self.layout.is_rigid:
            block = self._in_chart(block)
        hessian, gradient = block.block, block.block_gradient
        self.person_prior.add_normal(people, self.layout, hessian, gradient)
        hessian.diagonal(dim1=-2, dim2=-1)[:, pose].add_(1)
        if self.pose_moves:
            gradient[:, pose].add_(self.space.offset(self.chart, people))
        weight = self.image_prior.precision()
        count = len(weight)
        shared = scatter_sum(block.shared, self.group, count) + torch.diag_embed(weight**2)
        shared_gradient = scatter_sum(block.shared_gradient, self.group, count)
        shared_gradient = shared_gradient + weight * self.image_prior.residual(state.images)
        return ArrowSystem(hessian, block.coupling, shared, gradient, shared_gradient)

    def _in_chart(self, block: PersonBlock) -> PersonBlock:
        """Pose columns from joint turns to the chart's coordinates."""
        pose, basis = self.layout.pose, self.chart.basis

        def rows(matrix: Tensor) -> Tensor:
            parts = matrix[:, : pose.start], basis.mT @ matrix[:, pose], matrix[:, pose.stop :]
            return torch.cat(parts, 1)

        return block.replace(
            block=rows(rows(block.block).mT),
            coupling=rows(block.coupling),
            block_gradient=rows(block.block_gradient[..., None])[..., 0],
        )

    def _freeze(self, system: ArrowSystem) -> ArrowSystem:
        """Frozen unknowns keep a unit diagonal and no gradient, so that their step is zero."""
        if not self.freezes:
            return system
        own, shared = self.free.to(system.block.dtype), self.free_shared.to(system.block.dtype)
        return ArrowSystem(
            system.block * own[:, None] * own + torch.diag(1 - own),
            system.coupling * own[:, None] * shared,
            system.shared * shared[:, None] * shared + torch.diag(1 - shared),
            system.block_gradient * own,
            system.shared_gradient * shared,
        )
