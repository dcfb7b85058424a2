"""The whole problem against finite differences, term by term."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from depthfit.body.model import Body
from depthfit.body.points import landmark_table
from depthfit.data.pose_mixture import load_pose_mixture
from depthfit.fit.evaluation import Evaluation
from depthfit.fit.space import RotationSpace
from depthfit.fit.system import BodyFit, Matches, RobustScales
from depthfit.residuals import ContourMatches, DepthSamples, KeypointTargets
from depthfit.residuals.pose_priors import LimitPrior, MixturePrior, PosePrior
from depthfit.residuals.prior import ImagePrior, PersonPrior
from depthfit.state import FitState, ImageState, PersonState, StepLayout
from tests.bodies import NUM_BETAS, NUM_VERTICES, random_body, random_rotations

N, FIELD, CLOTHES = 3, 5, 4
GROUP = torch.tensor([0, 0, 1])
LAYOUT = StepLayout(NUM_BETAS, CLOTHES, FIELD)
DOUBLE = torch.float64


def _normal(*shape: int, seed: int, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=DOUBLE) * scale


def _state() -> FitState:
    people = PersonState(
        root=random_rotations(N, scale=1.0, seed=1),
        pose=random_rotations(N, 23, scale=0.4, seed=2),
        betas=_normal(N, NUM_BETAS, seed=3),
        bearing=_normal(N, 2, seed=4, scale=0.1),
        log_distance=_normal(N, seed=5, scale=0.1) + 1.2,
        clothes=_normal(N, CLOTHES, seed=19, scale=0.005) + 0.006,
        field=_normal(N, FIELD, seed=6, scale=0.02),
        tokens=torch.zeros(N, 0, 0, dtype=DOUBLE),
        dual=torch.zeros(N, 0, 0, dtype=DOUBLE),
    )
    images = ImageState(torch.tensor([6.6, 7.0], dtype=DOUBLE), torch.tensor([0.05, -0.02], dtype=DOUBLE))
    return FitState(people, images)


def _facing(corner: Tensor, body: Body, state: FitState) -> tuple[Tensor, Tensor, Tensor]:
    """Triangles turned to face the camera, which of them do so clearly, and their centres' pixels."""
    people = state.people
    _, vertices = body.forward(people.root, people.pose, people.betas)
    vertices = vertices + people.transl[:, None]
    a, b, c = vertices[torch.arange(N)[:, None, None], corner].unbind(-2)
    normal = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a, dim=-1), dim=-1)
    middle = (a + b + c) / 3
    cosine = (normal * torch.nn.functional.normalize(middle, dim=-1)).sum(-1)
    corner = torch.where((cosine > 0)[..., None], corner.flip(-1), corner)
    pixel = state.images.log_focal.exp()[GROUP][:, None, None] * middle[..., :2] / middle[..., 2:]
    return corner, (cosine.abs() > 0.3).to(DOUBLE), pixel


def _populations() -> tuple[PosePrior, ...]:
    mixture = MixturePrior.of(load_pose_mixture(8), 0.2, 20.0).to(dtype=DOUBLE)
    return mixture, LimitPrior.of(0.2).to(dtype=DOUBLE)


def _problem(terms: str) -> BodyFit:
    """A problem whose evidence is near the state, with only the named term's rows in it."""
    body, state = random_body(), _state()
    generator = torch.Generator().manual_seed(7)
    count, rim = 25, 9
    corner = torch.stack([torch.randperm(NUM_VERTICES, generator=generator)[:3] for _ in range(N * count)])
    corner, seen, pixel = _facing(corner.reshape(N, count, 3), body, state)
    vertex = torch.randint(0, NUM_VERTICES, (N, rim), generator=generator)
    center = torch.tensor([[320.0, 240.0]], dtype=DOUBLE).repeat(N, 1)
    sigma = torch.full((N, 27), 20.0 if terms == "keypoints" else torch.inf, dtype=DOUBLE)
    depth = DepthSamples(
        corner=corner,
        xy=pixel + center[:, None] + _normal(N, count, 2, seed=8, scale=3.0),
        log_depth=_normal(N, count, seed=9, scale=0.1) + 1.2 - 6.6,
        sigma=torch.full((N, count), 0.1, dtype=DOUBLE),
        weight=seen * float(terms == "depth"),
        basis=_normal(N, count, FIELD, seed=10),
        cover=_normal(N, count, CLOTHES, seed=20).abs(),
        focal_coupling=torch.tensor([1.0, 1.0, 0.0], dtype=DOUBLE),
    )
    contour = ContourMatches(
        vertex=vertex,
        xy=center[:, None] + _normal(N, rim, 2, seed=11, scale=60.0),
        normal=torch.nn.functional.normalize(_normal(N, rim, 2, seed=12), dim=-1),
        sigma=torch.full((N, rim), 5.0, dtype=DOUBLE),
        weight=torch.full((N, rim), float(terms == "contour"), dtype=DOUBLE),
        wanted=torch.full((N, rim), float(terms == "contour"), dtype=DOUBLE),
        cover=_normal(N, rim, CLOTHES, seed=21).abs(),
    )
    ones = torch.ones(N, dtype=DOUBLE)
    space = RotationSpace(
        state.people.pose[:, :21] @ random_rotations(N, 21, scale=0.3, seed=13),
        torch.linalg.cholesky(0.02 * torch.eye(63, dtype=DOUBLE) + 0.01).expand(N, -1, -1),
    )
    return BodyFit(
        body=body,
        table=landmark_table(body),
        group=GROUP,
        center=center,
        targets=KeypointTargets(center[:, None] + _normal(N, 27, 2, seed=14, scale=60.0), sigma),
        matches=Matches(
            depth,
            contour,
            uncovered=torch.zeros(N, dtype=DOUBLE),
        ),
        space=space,
        chart=space.chart(state.people),
        pose_priors=_populations() if terms == "populations" else (),
        person_prior=PersonPrior(
            root=state.people.root @ random_rotations(N, scale=0.3, seed=15),
            root_sigma=ones * 0.3,
            betas=_normal(N, NUM_BETAS, seed=16),
            betas_sigma=torch.ones(N, NUM_BETAS, dtype=DOUBLE),
            clothes=torch.full((N, CLOTHES), 0.005, dtype=DOUBLE),
            clothes_sigma=torch.full((N, CLOTHES), 0.01, dtype=DOUBLE),
            field_sigma=torch.full((N, FIELD), 0.02, dtype=DOUBLE),
            height_row=_normal(N, NUM_BETAS, seed=17),
            height_target=_normal(N, seed=18),
            population=_normal(N, seed=21).abs(),
        ),
        image_prior=ImagePrior(*(torch.full((2,), v, dtype=DOUBLE) for v in (6.8, 0.25, 0.12))),
        # Wide kernels: the Gauss-Newton gradient is exact for robust costs too, so this only avoids
        # rows that are so far out that nothing is left to compare.
        robust=RobustScales(20.0, 20.0, 20.0),
        layout=LAYOUT,
        free=torch.ones(LAYOUT.size, dtype=torch.bool),
        free_shared=torch.ones(2, dtype=torch.bool),
        pose_moves=True,
        freezes=False,
    )


@pytest.mark.parametrize("terms", ["keypoints", "depth", "contour", "priors", "populations"])
def test_gradient_is_that_of_the_cost(terms: str) -> None:
    problem, state = _problem(terms), _state()
    system = problem.linearize(state)
    damping = torch.zeros(2, dtype=DOUBLE)
    h = 1e-6
    for column in range(LAYOUT.size + 2):
        own, shared = torch.zeros(N, LAYOUT.size, dtype=DOUBLE), torch.zeros(2, 2, dtype=DOUBLE)
        if column < LAYOUT.size:
            own[:, column] = h
            expected = torch.zeros(2, dtype=DOUBLE).index_add_(0, GROUP, system.block_gradient[:, column])
        else:
            shared[:, column - LAYOUT.size] = h
            expected = system.shared_gradient[:, column - LAYOUT.size]
        up = problem.cost(problem.retract(state, own, shared, damping))
        down = problem.cost(problem.retract(state, -own, -shared, damping))
        numeric = (up - down) / (2 * h)
        assert torch.allclose(numeric, expected, rtol=2e-5, atol=1e-5 * float(expected.abs().max() + 1)), (
            column
        )


def test_terms_reach_every_unknown_they_should() -> None:
    """Each term's gradient is not zero by accident: the unknowns it may not touch are named here."""
    layout = LAYOUT
    gradient = {t: _problem(t).linearize(_state()).block_gradient for t in ("keypoints", "depth", "contour")}
    prior = _problem("priors").linearize(_state()).block_gradient
    for term, value in gradient.items():
        evidence = (value - prior).abs().amax(0)
        assert (evidence[: layout.clothes.start] > 1e-9).all(), term
        assert (evidence[layout.clothes] > 1e-9).all() == (term != "keypoints"), term
        assert (evidence[layout.field] > 1e-9).all() == (term == "depth"), term


def _rigid(terms: str) -> BodyFit:
    layout = LAYOUT.rigid
    free = torch.ones(layout.size, dtype=torch.bool)
    return replace(_problem(terms), layout=layout, free=free, pose_moves=False)


@pytest.mark.parametrize("terms", ["keypoints", "depth", "contour", "priors", "populations"])
def test_a_rigid_system_is_a_part_of_the_full_one(terms: str) -> None:
    state, layout = _state(), LAYOUT
    full, rigid = _problem(terms).linearize(state), _rigid(terms).linearize(state)
    columns = [*range(3), *range(layout.bearing.start, layout.clothes.stop)]
    assert rigid.block.shape[-1] == len(columns)
    torch.testing.assert_close(rigid.block, full.block[:, columns][:, :, columns])
    torch.testing.assert_close(rigid.coupling, full.coupling[:, columns])
    torch.testing.assert_close(rigid.block_gradient, full.block_gradient[:, columns])
    torch.testing.assert_close(rigid.shared, full.shared)
    torch.testing.assert_close(rigid.shared_gradient, full.shared_gradient)


def test_a_rigid_step_is_the_full_one_with_zeros() -> None:
    state, layout = _state(), LAYOUT
    step, shared = _normal(N, layout.rigid.size, seed=30, scale=0.1), _normal(2, 2, seed=31, scale=0.1)
    whole = torch.zeros(N, layout.size, dtype=DOUBLE)
    whole[:, [*range(3), *range(layout.bearing.start, layout.clothes.stop)]] = step
    damping = torch.zeros(2, dtype=DOUBLE)
    found = _rigid("depth").retract(state, step, shared, damping)
    wanted = replace(_problem("depth"), pose_moves=False).retract(state, whole, shared, damping)
    for name in ("root", "pose", "betas", "bearing", "log_distance", "clothes", "field"):
        torch.testing.assert_close(getattr(found.people, name), getattr(wanted.people, name))


@torch.no_grad()
def test_what_is_known_of_a_state_is_what_a_new_problem_finds() -> None:
    problem, old = _problem("depth"), _state()
    step, shared = _normal(N, LAYOUT.size, seed=32, scale=0.05), _normal(2, 2, seed=33, scale=0.05)
    new = problem.retract(old, step, shared, torch.zeros(2, dtype=DOUBLE))
    problem.cost(old)
    problem.cost(new)
    mixed = problem.select(torch.tensor([True, False]), new, old)
    for state in (mixed, mixed, old, new):
        for name, cost in problem.person_costs(state).items():
            torch.testing.assert_close(cost, _problem("depth").person_costs(state)[name])
        found, wanted = problem.linearize(state), _problem("depth").linearize(state)
        for name in ("block", "coupling", "shared", "block_gradient", "shared_gradient"):
            torch.testing.assert_close(getattr(found, name), getattr(wanted, name))


class Counting:
    """A function that counts its calls."""

    def __init__(self, function: Callable[[FitState], Evaluation]) -> None:
        self.function, self.count = function, 0

    def __call__(self, state: FitState) -> Evaluation:
        self.count += 1
        return self.function(state)


def test_a_known_state_is_not_evaluated_again(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, state = _problem("depth"), _state()
    monkeypatch.setattr(problem, "_evaluate", calls := Counting(problem._evaluate))
    with torch.no_grad():
        problem.cost(state)
        problem.linearize(state)
    assert calls.count == 1
    other = FitState(state.people, state.images)
    problem.cost(other)
    problem.cost(other)
    assert calls.count == 3
    # What was found without gradients would cut them off.
    problem.cost(state)
    assert calls.count == 4
