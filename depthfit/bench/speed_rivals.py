"""The least-squares problem of a fit, held still, and the ways of others to solve it.

All of them minimise :meth:`depthfit.fit.system.BodyFit.cost` with the associations held, from the same state.

Adam and L-BFGS step one flat vector of unknowns through :meth:`BodyFit.retract` about the start, which is
never moved: turns of root and joints as rotation vectors, the rest as differences. That is what the peers'
fitters do (rotation vectors of the joints), it keeps the moments and the curvature pairs of these methods
valid from step to step, which a new base would not, and no turn comes near pi where it would break down.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor

from depthfit.fit.graphs import Recorder
from depthfit.fit.space import RotationSpace
from depthfit.fit.stages import MAX_CARRIED_DAMPING, flat_chart
from depthfit.fit.system import BodyFit
from depthfit.residuals import Rows
from depthfit.solver import ArrowSystem, GemanMcClure, LevenbergMarquardtConfig, minimize
from depthfit.solver.schur import scatter_sum
from depthfit.state import LOG_FOCAL, LOG_SCALE, NUM_SHARED, FitState
from depthfit.struct import copy_into

BODY = ("root", "pose", "betas", "bearing", "distance", "clothes", "field")
SHARED = "shared"
BEARING_UNIT, DISTANCE_UNIT = 0.02, 0.05
"""rad and log m: units of the two unknowns without a prior, where the others are counted in prior sigmas."""
LM_STEPS_A_CHART = 2
LM_CONFIG = LevenbergMarquardtConfig(max_steps=LM_STEPS_A_CHART)
FORWARD_BYTES, FLOATS_A_VERTEX = 4 * 2**30, 100
"""Forward-mode tangents go through together as long as they take about this much memory, at about so many
floats of each for every sampled vertex."""


@dataclass(frozen=True)
class Problem:
    """A problem with its start. All unknowns must be free."""

    fit: BodyFit
    start: FitState


@dataclass
class Trace:
    """Costs (I,) on the way, with the time of each since the start.

    ``stop`` is asked now and then, where the device is waited for anyway or rarely, whether the mean cost is
    low enough.
    """

    device: torch.device
    stop: Callable[[Trace], bool] = lambda trace: False
    costs: list[Tensor] = field(default_factory=list)
    _marks: list[torch.cuda.Event | float] = field(default_factory=list)

    def begin(self) -> None:
        """Start the clock."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self._began = self._mark()

    def add(self, cost: Tensor) -> None:
        """Note the cost (I,) reached by now, without waiting for the device."""
        self.costs.append(cost.detach())
        self._marks.append(self._mark())

    def _mark(self) -> torch.cuda.Event | float:
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self) -> list[float]:
        """Of each cost, since :meth:`begin`."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return [self._since(mark) for mark in self._marks]

    def _since(self, mark: torch.cuda.Event | float) -> float:
        if isinstance(mark, float) or isinstance(self._began, float):
            assert isinstance(mark, float)
            assert isinstance(self._began, float)
            return mark - self._began
        return self._began.elapsed_time(mark) / 1000

    def lowest(self) -> Tensor:
        """(I,) costs where their mean is the least."""
        return min(self.costs, key=lambda cost: float(cost.mean()))


def solve_lm(problem: Problem, trace: Trace, steps: int, fit: BodyFit | None = None) -> FitState:
    """Levenberg-Marquardt as the fit runs it: a new chart every other step, the damping carried over.

    Args:
        fit: The problem with another way to its normal equations.
    """
    fit, state = problem.fit if fit is None else fit, problem.start
    damping: Tensor | None = None
    for _ in range(math.ceil(steps / LM_STEPS_A_CHART)):
        state, damping, cost = _lm_round(fit, state, damping)
        trace.add(cost)
        if trace.stop(trace):
            break
    return state


def _lm_round(fit: BodyFit, state: FitState, damping: Tensor | None) -> tuple[FitState, Tensor, Tensor]:
    """A new chart and the steps in it: the state, the damping (I,) to go on with, and the cost (I,)."""
    fit = replace(fit, chart=fit.space.chart(state.people))
    state, summary = minimize(fit, state, LM_CONFIG, damping)
    return state, summary.damping.clamp(max=MAX_CARRIED_DAMPING), summary.costs[:, -1]


class RecordedLM:
    """:func:`solve_lm` as a fit runs it on CUDA: a round is recorded once, in buffers, and then replayed.

    The problem's space must be recordable.
    """

    def __init__(self, problem: Problem, recorder: Recorder) -> None:
        start = problem.start
        self._problem = problem
        self._state = FitState(start.people.map(torch.clone), start.images.map(torch.clone))
        self._damping = torch.empty_like(start.images.log_focal)
        self._begin()
        self._replay, self._cost = recorder.record(self._round)

    def solve(self, trace: Trace, steps: int) -> None:
        """From the problem's start."""
        self._begin()
        for _ in range(math.ceil(steps / LM_STEPS_A_CHART)):
            self._replay()
            # The next replay overwrites it.
            trace.add(self._cost.clone())
            if trace.stop(trace):
                break

    def _begin(self) -> None:
        self._keep(self._problem.start)
        self._damping.fill_(LM_CONFIG.initial_damping)

    def _keep(self, state: FitState) -> None:
        copy_into(self._state.people, state.people)
        copy_into(self._state.images, state.images)

    def _round(self) -> Tensor:
        state, damping, cost = _lm_round(self._problem.fit, self._state, self._damping)
        self._keep(state)
        self._damping.copy_(damping)
        return cost


class ForwardModeFit(BodyFit):
    """The same problem with a Jacobian of :func:`torch.func.jacfwd` in place of the written one.

    One tangent a column, pushed through skeleton, skinning and residuals of all people at once, as many
    together as memory allows, about the state (a step of zero). Rows are weighted as in the written normal
    equations.
    """

    def linearize(self, state: FitState) -> ArrowSystem:
        size = self.layout.size
        still = state.images.log_focal.new_full((self.num_images,), torch.inf)

        def rows(step: Tensor) -> tuple[Tensor, ...]:
            own = step[:size].expand(len(self.group), -1)
            shared = step[size:].expand(self.num_images, -1)
            moved = self.retract(state, own, shared, still)
            evidence = [r.residual for r in self.evidence(moved)]
            priors = self.person_prior.residual(moved.people), self.space.offset(self.chart, moved.people)
            return (*evidence, *priors)

        zero = state.images.log_focal.new_zeros(size + NUM_SHARED)
        together = max(1, FORWARD_BYTES // (self.vertices.numel() * FLOATS_A_VERTEX * zero.element_size()))
        jacobians = _jacfwd(rows, zero, together)
        columns = [
            self._weighted(term, found, jacobian)
            for term, found, jacobian in zip(
                ("keypoints", "depth", "contour"), self.evidence(state), jacobians[:3], strict=True
            )
        ]
        residuals = self.person_prior.residual(state.people), self.space.offset(self.chart, state.people)
        for residual, jacobian in zip(residuals, jacobians[3:], strict=True):
            columns.append(torch.cat([jacobian, residual[..., None]], -1))
        every = torch.cat(columns, 1)
        gram = every.mT @ every
        # Reweighted by themselves, these priors have no residual to differentiate.
        for gradient, hessian in self.pose_prior_normal(state.people):
            basis, pose = self.chart.basis, self.layout.pose
            gram[:, pose, pose] += basis.mT @ hessian @ basis
            gram[:, pose, -1] += (basis.mT @ gradient[..., None])[..., 0]
        own, end = slice(0, size), slice(size, size + NUM_SHARED)
        weight, count = self.image_prior.precision(), self.num_images
        shared = scatter_sum(gram[:, end, end].contiguous(), self.group, count) + torch.diag_embed(weight**2)
        gradient = scatter_sum(gram[:, end, -1].contiguous(), self.group, count)
        gradient = gradient + weight * self.image_prior.residual(state.images)
        return ArrowSystem(gram[:, own, own], gram[:, own, end], shared, gram[:, own, -1], gradient)

    def _weighted(self, term: str, rows: Rows, jacobian: Tensor) -> Tensor:
        """(N, rows, columns + 1): Jacobian and residual under the kernel's weights, zero without evidence."""
        kernel = GemanMcClure(getattr(self.robust, term))
        weight = rows.weight * kernel.weight((rows.residual**2).sum(-1))
        root = torch.where(rows.weight > 0, weight.sqrt(), torch.zeros_like(weight))[..., None, None]
        columns = torch.cat([jacobian, rows.residual[..., None]], -1)
        return torch.where(root > 0, columns * root, torch.zeros_like(columns)).flatten(1, 2)


def _jacfwd(rows: Callable[[Tensor], tuple[Tensor, ...]], at: Tensor, together: int) -> list[Tensor]:
    """Jacobian (*output, columns) of each output of ``rows``, so many columns ``together`` at a time."""

    def some(first: int, last: int) -> tuple[Tensor, ...]:
        def part(step: Tensor) -> tuple[Tensor, ...]:
            return rows(torch.cat([at[:first], step, at[last:]]))

        return torch.func.jacfwd(part)(at[first:last])

    starts = range(0, len(at), together)
    chunks = [some(first, min(first + together, len(at))) for first in starts]
    return [torch.cat(parts, -1) for parts in zip(*chunks, strict=True)]


def forward_mode(fit: BodyFit) -> ForwardModeFit:
    """``fit`` with a Jacobian by forward-mode differentiation."""
    return ForwardModeFit(**{f.name: getattr(fit, f.name) for f in fields(fit) if f.init})


@dataclass
class Flat:
    """Unknowns of a problem as flat leaves, in units of ``unit``, zero at the start.

    Attributes:
        fit: The problem in a chart in which a pose step is a turn of each joint, rad.
        leaves: (N, columns) by name of :data:`BODY`, and (I, 2) of :data:`SHARED`.
        unit: What one of a leaf stands for, of its shape or broadcast to it.
    """

    fit: BodyFit
    start: FitState
    leaves: dict[str, Tensor]
    unit: dict[str, Tensor]

    def cost(self) -> Tensor:
        """(I,), with gradients."""
        step = {name: leaf * self.unit[name] for name, leaf in self.leaves.items()}
        body = torch.cat([step[name] for name in BODY], -1)
        still = torch.full_like(self.start.images.log_focal, torch.inf)
        return self.fit.cost(self.fit.retract(self.start, body, step[SHARED], still))


def flatten(problem: Problem, prior_units: bool) -> Flat:
    """Leaves for Adam and L-BFGS.

    Args:
        prior_units: Count each unknown in its prior's sigma, which makes the problem far rounder than rad,
            m and logarithms do; those are what the peers step in.
    """
    fit, start = problem.fit, problem.start
    space, prior, image = fit.space, fit.person_prior, fit.image_prior
    assert isinstance(space, RotationSpace)
    n, layout = len(fit.group), fit.layout
    one = fit.center.new_ones(1)
    unit = dict.fromkeys((*BODY, SHARED), one)
    if prior_units:
        unit = {
            "root": prior.root_sigma[:, None],
            "pose": space.scale.diagonal(dim1=-2, dim2=-1),
            "betas": prior.betas_sigma,
            "bearing": one * BEARING_UNIT,
            "distance": one * DISTANCE_UNIT,
            "clothes": prior.clothes_sigma,
            "field": prior.field_sigma,
            SHARED: torch.stack([image.log_focal_sigma, image.log_scale_sigma], -1),
        }
        assert (LOG_FOCAL, LOG_SCALE) == (0, 1)
    width = {"root": 3, "pose": 63, "betas": layout.num_betas, "bearing": 2, "distance": 1}
    width |= {"clothes": layout.num_clothes, "field": layout.num_field}
    leaves = {name: fit.center.new_zeros(n, width[name]) for name in BODY}
    leaves[SHARED] = fit.center.new_zeros(fit.num_images, NUM_SHARED)
    return Flat(replace(fit, chart=flat_chart(start.people)), start, leaves, unit)


@dataclass(frozen=True)
class Phase:
    """Some unknowns, and how many steps they are moved."""

    names: tuple[str, ...]
    steps: int


CAMERA = ("bearing", "distance", "betas", "clothes", "field", SHARED)
CAMSMPLIFY = (Phase(CAMERA, 300), Phase((*CAMERA, "root"), 300), Phase((*BODY, SHARED), 500))
"""CamSMPLify's 1,100 steps: translation and shape, then the root too, then the pose. What it does not have
(camera, clothes, depth-error field) joins from the start."""
CAMSMPLIFY_RATE = 1e-3
"""Its step size in rad, m and units of shape, with Adam's default moments."""


def solve_adam(
    problem: Problem, trace: Trace, phases: Sequence[Phase], rate: float, prior_units: bool, ask: int = 25
) -> None:
    """Adam with autograd; its moments begin anew in each phase. ``trace.stop`` is asked at every ``ask``."""
    flat, count = flatten(problem, prior_units), 0
    for phase in phases:
        for name, leaf in flat.leaves.items():
            leaf.requires_grad_(name in phase.names)
        optimizer = torch.optim.Adam([flat.leaves[name] for name in phase.names], lr=rate)
        for _ in range(phase.steps):
            optimizer.zero_grad()
            cost = flat.cost()
            cost.sum().backward()
            trace.add(cost)
            optimizer.step()
            count += 1
            if count % ask == 0 and trace.stop(trace):
                return
    with torch.no_grad():
        trace.add(flat.cost())


SMPLIFYX_STAGES, SMPLIFYX_STEPS, SMPLIFYX_TOLERANCE = 5, 30, 1e-9


def solve_lbfgs(problem: Problem, trace: Trace) -> None:
    """L-BFGS with a strong Wolfe line search, as SMPLify-X runs it: 5 stages, each of up to 30 calls of up
    to 30 iterations until the cost falls by less than a billionth. SMPLify-X changes its weights from stage
    to stage; here one cost is minimised throughout, so a stage only clears the curvature pairs.

    The people of a batch share one line search, as they do in the peers that batch it. Unknowns are counted
    in prior sigmas.
    """
    flat = flatten(problem, prior_units=True)
    leaves = [leaf.requires_grad_() for leaf in flat.leaves.values()]
    for _ in range(SMPLIFYX_STAGES):
        optimizer = torch.optim.LBFGS(
            leaves,
            max_iter=SMPLIFYX_STEPS,
            tolerance_grad=SMPLIFYX_TOLERANCE,
            tolerance_change=SMPLIFYX_TOLERANCE,
            line_search_fn="strong_wolfe",
        )

        def closure(optimizer: torch.optim.LBFGS = optimizer) -> Tensor:
            optimizer.zero_grad()
            cost = flat.cost()
            total = cost.sum()
            total.backward()
            trace.add(cost)
            return total

        before = math.inf
        for _ in range(SMPLIFYX_STEPS):
            optimizer.step(closure)
            after = float(trace.costs[-1].sum())
            if trace.stop(trace):
                return
            if before - after <= SMPLIFYX_TOLERANCE * max(abs(after), 1.0):
                break
            before = after
