"""Recorded rounds on a CPU: what is recorded and replayed is the fit itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from depthfit.body.load import load_body
from depthfit.body.model import Body
from depthfit.fit import FitConfig, Fitter, ImageInput, fitter, graphs, hypotheses, search, stages
from depthfit.fit.fitter import Fitted
from depthfit.fit.graphs import RoundGraphs, padded_size
from depthfit.fit.search import DIRECT, WIDE
from depthfit.fit.stages import Scheduler
from depthfit.state import FitState
from tests.fit.people import default_config, people
from tests.fit.recorder import StandIn, tensors


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body("open").to(dtype=torch.float64)


@pytest.fixture(scope="module")
def images(body: Body) -> list[ImageInput]:
    """Three images with four people, two of them in the first."""
    found = people(body, 3, turn=0.2)
    found[0].people.append(found[2].people[0])
    return found


@pytest.fixture
def config() -> FitConfig:
    config = default_config()
    config.solver.rounds, config.solver.steps, config.solver.grid = 2, 1, 32
    config.solver.polish = 1
    config.depth.samples, config.contour.points = 40, 40
    return config


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[StandIn]:
    """Rounds are recorded, by stand-ins; those that were made."""
    made: list[StandIn] = []

    def recorder() -> StandIn:
        made.append(StandIn())
        return made[-1]

    monkeypatch.setattr(graphs, "Recorder", recorder)
    monkeypatch.setattr(stages, "use_triton", lambda like: True)
    monkeypatch.setattr(fitter, "use_triton", lambda like: True)
    return made


def assert_same(found: Any, wanted: Any, exact: bool) -> None:
    """Exactly, or to rounding where people fill up: products of another batch size may round otherwise."""
    pairs = list(zip(tensors(found), tensors(wanted), strict=True))
    assert pairs
    for one, two in pairs:
        if exact:
            assert torch.equal(one.nan_to_num(7.0), two.nan_to_num(7.0))
        else:
            torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-8, equal_nan=True)


def outcome(fitted: Fitted) -> list[Any]:
    solved = [(s.state, s.steps, s.status, s.fit.matches) for s in (fitted.before, fitted.after)]
    return [solved, fitted.measures, fitted.deviations, fitted.verdict, fitted.final]


@pytest.mark.parametrize("count", [1, 2])
def test_a_recorded_fit_is_the_fit_itself(
    body: Body,
    images: list[ImageInput],
    config: FitConfig,
    count: int,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two people, and three, who are filled up; some are tried again, limbs are flipped."""
    monkeypatch.setattr(search, "UNSETTLED", 1.0)
    monkeypatch.setattr(hypotheses, "MIN_GAIN", -5.0)
    monkeypatch.setattr(hypotheses, "FLIP_COST", -1e4)
    batch = images[:count]
    wanted = outcome(Fitter(body, None, config).solve(batch))
    made = request.getfixturevalue("made")
    engine = Fitter(body, None, config)
    fitted = engine.solve(batch)
    exact = padded_size(count + 1) == count + 1
    assert_same(outcome(fitted), wanted, exact)
    (recorder,) = made
    recorded, replayed = recorder.recorded, recorder.replayed
    # Of other people nothing must be left, and the same people are nothing new.
    other = engine.solve(images[::-1][:count])
    assert not torch.equal(other.batch.targets.xy, fitted.batch.targets.xy)
    again = recorder.recorded
    assert_same(outcome(engine.solve(batch)), wanted, exact)
    assert recorder.recorded == again
    assert replayed > recorded


@pytest.mark.usefixtures("made")
def test_every_stage_can_be_recorded(body: Body, images: list[ImageInput], config: FitConfig) -> None:
    """In any order, by several schedules, each from where the one before ended."""
    plain = Fitter(body, None, config).scheduler(images[:2])
    recorded = replace(plain, graphs=RoundGraphs())
    plain = replace(plain, graphs=None)
    runs: list[Callable[[Scheduler, FitState], Any]] = [
        lambda s, state: s.root(state, WIDE),
        lambda s, state: s.camera(state, DIRECT),
        lambda s, state: s.bodies(state, WIDE),
        lambda s, state: s.judged_camera(state, DIRECT),
        lambda s, state: s.everything(state, search.PATIENT),
        lambda s, state: s.bodies(state, DIRECT),
    ]
    with torch.no_grad():
        state = plain.start()
        for run in runs:
            wanted, found = run(plain, state), run(recorded, state)
            assert_same(
                (found.state, found.steps, found.status), (wanted.state, wanted.steps, wanted.status), False
            )
            assert_same(found.fit.matches, wanted.fit.matches, False)
            assert_same(found.fit.chart, wanted.fit.chart, False)
            assert_same(found.person_costs, wanted.fit.person_costs(wanted.state), False)
            assert_same(found.cost, wanted.fit.cost(wanted.state), False)
            state = wanted.state
        assert_same(recorded.place(state), plain.place(state), False)


def test_everything_is_its_stages(body: Body, images: list[ImageInput], config: FitConfig) -> None:
    """One after another, and nothing but the state is carried on."""
    scheduler = Fitter(body, None, config).scheduler(images[:2])
    with torch.no_grad():
        start = scheduler.start()
        found = scheduler.everything(start, WIDE)
        rooted = scheduler.root(scheduler.camera(start, WIDE).state, WIDE)
        wanted = scheduler.bodies(rooted.state, WIDE)
        assert_same(
            (found.state, found.steps, found.status), (wanted.state, wanted.steps, wanted.status), True
        )
        assert_same(found.fit.matches, wanted.fit.matches, True)
        assert int(rooted.steps.min()) > 0
