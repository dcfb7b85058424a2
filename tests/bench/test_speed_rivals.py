"""Solvers of others: they see the fit's own cost, and come to where the fit's solver comes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from depthfit.bench import speed_race
from depthfit.bench.speed_race import EQUAL, Course, draw_course
from depthfit.bench.speed_report import _rules
from depthfit.bench.speed_rivals import (
    BODY,
    CAMSMPLIFY,
    SHARED,
    Phase,
    Problem,
    RecordedLM,
    Trace,
    flatten,
    forward_mode,
    solve_adam,
    solve_lbfgs,
    solve_lm,
)
from depthfit.body.load import load_body
from depthfit.fit import Fitter
from tests.fit.recorder import StandIn
from tests.fit.scenes import exact_config, exact_image


@pytest.fixture(scope="module")
def course() -> Course:
    """Two images, two people in the first, few depth pixels; every unknown has a finite prior."""
    body = load_body("open").to(dtype=torch.float64)
    config = exact_config(pose_sigma=0.1, depth_sigma=0.02)
    config.depth.samples, config.solver.grid, config.depth.scale_sigma = 60, 64, 0.1
    config.depth.field_sigma, config.depth.field_order = 0.01, 2
    config.body.clothes_sigma_cm = config.body.garment_sigma_cm = 0.5
    config.pose.root_sigma_rad = 0.1
    first, second = (exact_image(body, seed)[0] for seed in (1, 2))
    first = replace(first, people=[*first.people, *second.people])
    with torch.no_grad():
        stages = Fitter(body, None, config).scheduler([first, second])
    return draw_course(stages)


@pytest.fixture
def problem(course: Course) -> Problem:
    return course.problem


@pytest.fixture
def settled(course: Course) -> torch.Tensor:
    """(I,) cost at which the fit's solver ends."""
    return course.target


def _trace() -> Trace:
    trace = Trace(torch.device("cpu"))
    trace.begin()
    return trace


# torch's own forward-mode rules still go through torch.jit.
scripted = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


@scripted
def test_forward_mode_gives_the_written_equations(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the columns go through a few at a time."""
    from depthfit.bench import speed_rivals

    monkeypatch.setattr(speed_rivals, "FORWARD_BYTES", 30 * 3 * 8 * 100 * (3 * 60))
    with torch.no_grad():
        ours = problem.fit.linearize(problem.start)
        theirs = forward_mode(problem.fit).linearize(problem.start)
    for name in ("block", "coupling", "shared", "block_gradient", "shared_gradient"):
        a, b = getattr(ours, name), getattr(theirs, name)
        assert torch.allclose(a, b, rtol=1e-7, atol=1e-7 * float(a.abs().max())), name


def test_flat_unknowns_start_at_the_state_with_its_cost_and_gradient(problem: Problem) -> None:
    """Gradients in prior units against those of the written normal equations, whose pose is in a chart."""
    flat = flatten(problem, prior_units=True)
    for leaf in flat.leaves.values():
        leaf.requires_grad_()
    cost = flat.cost()
    with torch.no_grad():
        assert torch.allclose(cost, problem.fit.cost(problem.start))
        system = problem.fit.linearize(problem.start)
    cost.sum().backward()
    gradient = {name: flat.leaves[name].grad / flat.unit[name] for name in (*BODY, SHARED)}
    pose = (problem.fit.chart.basis.mT @ gradient["pose"][..., None])[..., 0]
    own = torch.cat([pose if name == "pose" else gradient[name] for name in BODY], -1)
    assert torch.allclose(own, system.block_gradient, rtol=1e-6, atol=1e-6)
    assert torch.allclose(gradient[SHARED], system.shared_gradient, rtol=1e-6, atol=1e-6)


@scripted
def test_lm_by_forward_mode_comes_to_the_same_cost(problem: Problem, settled: torch.Tensor) -> None:
    trace = _trace()
    with torch.no_grad():
        solve_lm(problem, trace, 16, forward_mode(problem.fit))
    assert torch.allclose(trace.costs[-1], settled, rtol=1e-4)


def test_recorded_lm_is_the_eager_one(problem: Problem) -> None:
    """Cost by cost; also when it runs again, and a recording that was never replayed is not read."""
    wanted = _trace()
    recorder = StandIn()
    with torch.no_grad():
        solve_lm(problem, wanted, 7)
        recorded = RecordedLM(problem, recorder)
        for runs in (1, 2):
            found = _trace()
            recorded.solve(found, 7)
            assert torch.equal(torch.stack(found.costs), torch.stack(wanted.costs))
            assert (recorder.recorded, recorder.replayed) == (1, 4 * runs)
    assert (wanted.costs[-1] < wanted.costs[0]).all()


def test_a_race_records_the_fits_own_solver_alone(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = StandIn()
    monkeypatch.setattr(speed_race, "Recorder", lambda: recorder)
    eager = speed_race.run_race(course, "lm", 1, 60.0)
    assert not eager.recorded
    monkeypatch.setattr(speed_race, "use_triton", lambda like: True)
    race = speed_race.run_race(course, "lm", 1, 60.0)
    assert race.recorded
    assert recorder.recorded == 1
    assert recorder.replayed == race.steps == eager.steps
    assert [excess for _, excess in race.curve] == [excess for _, excess in eager.curve]
    assert not speed_race.run_race(course, "reference", 1, 60.0).recorded
    assert "as in a fit: LM of the fit; no other" in _rules([race])


def test_lbfgs_comes_to_the_same_cost(problem: Problem, settled: torch.Tensor) -> None:
    trace, level = _trace(), float(settled.mean()) * (1 + EQUAL)
    trace.stop = lambda t: float(t.costs[-1].mean()) <= level or len(t.costs) > 600
    solve_lbfgs(problem, trace)
    assert float(trace.lowest().mean()) <= level


def test_adam_comes_near_the_same_cost(problem: Problem, settled: torch.Tensor) -> None:
    trace = _trace()
    solve_adam(problem, trace, (Phase((*BODY, SHARED), 300),), 0.05, prior_units=True)
    began = float(trace.costs[0].mean())
    goal = float(settled.mean())
    assert float(trace.lowest().mean()) - goal < 0.03 * (began - goal)


def test_phases_move_their_unknowns_alone(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    """CamSMPLify's phases, two steps each, with the leaves watched."""
    from depthfit.bench import speed_rivals

    made, seen = [], []
    monkeypatch.setattr(speed_rivals, "flatten", lambda *args: made.append(flatten(*args)) or made[-1])
    short = tuple(replace(phase, steps=2) for phase in CAMSMPLIFY)

    def look(trace: Trace) -> bool:
        moved = {name for name, leaf in made[0].leaves.items() if bool((leaf != 0).any())}
        seen.append((moved, max(float(leaf.detach().abs().max()) for leaf in made[0].leaves.values())))
        return False

    trace = Trace(torch.device("cpu"), look)
    trace.begin()
    solve_adam(problem, trace, short, 1e-3, prior_units=False, ask=2)
    assert [moved for moved, _ in seen] == [set(phase.names) for phase in CAMSMPLIFY]
    # Adam's first steps are as long as its rate, in the unknowns' own units.
    assert seen[0][1] == pytest.approx(2e-3, rel=0.05)
    assert sum(phase.steps for phase in CAMSMPLIFY) == 1100
    assert len(trace.costs) == 7
