"""The batched solver against scipy.optimize.least_squares, and its promises to a batch."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor

from depthfit.solver import GemanMcClure, Kernel, LevenbergMarquardtConfig, Quadratic, Status, minimize
from tests.solver.problems import Dense, Residual, State

DOUBLE = torch.float64
LONG = LevenbergMarquardtConfig(max_steps=300, relative_tolerance=1e-14)


def rosenbrock(own: Tensor, shared: Tensor) -> Tensor:
    return torch.stack([10 * (own[1] - own[0] ** 2), 1 - own[0], shared[0] - own[1], own[2], shared[1] - 0.5])


def exponential(own: Tensor, shared: Tensor) -> Tensor:
    t = torch.linspace(0, 2, 15, dtype=DOUBLE)
    target = 2.0 * torch.exp(-1.3 * t) + 0.4 + 0.01 * torch.sin(20 * t)
    return own[0] * torch.exp(-own[1] * t) + own[2] * shared[0] - target + 0.1 * shared[1]


def powell(own: Tensor, shared: Tensor) -> Tensor:
    a, b, c, d = own[0], own[1], own[2], shared[0]
    return torch.stack([a + 10 * b, 5**0.5 * (c - d), (b - 2 * c) ** 2, 10**0.5 * (a - d) ** 2, shared[1]])


def outliers(own: Tensor, shared: Tensor) -> Tensor:
    t = torch.linspace(-1, 1, 20, dtype=DOUBLE)
    y = 3 * t + 1 + 5.0 * (torch.arange(20) % 7 == 0)
    return torch.cat([(own[0] * t + own[1] * shared[0] - y) / 0.5, own[2:], shared - 1])


TABLE: list[tuple[Residual, list[float], Kernel, str]] = [
    (rosenbrock, [-1.2, 1.0, 0.3], Quadratic(), "linear"),
    (exponential, [1.0, 0.5, 0.1], Quadratic(), "linear"),
    (powell, [3.0, -1.0, 0.0], Quadratic(), "linear"),
    (outliers, [0.0, 0.0, 0.0], GemanMcClure(2.0), "robust"),
]
START = [0.8, 0.2]


@pytest.mark.parametrize(("residual", "init", "kernel", "kind"), TABLE)
def test_reaches_scipys_minimum(residual: Residual, init: list[float], kernel: Kernel, kind: str) -> None:
    problem = Dense([residual], torch.tensor([0]), 1, kernel)
    start = State(torch.tensor([init], dtype=DOUBLE), torch.tensor([START], dtype=DOUBLE))
    solved, summary = minimize(problem, start, LONG)

    def function(x: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(x)
        r = residual(x[:3], x[3:])
        # The square root of rho is the residual whose square is the robust cost.
        return (torch.sign(r) * kernel.value(r**2).sqrt()).numpy()

    expected = scipy.optimize.least_squares(function, [*init, *START], xtol=1e-15, ftol=1e-15, gtol=1e-15)
    assert float(problem.cost(solved)[0]) == pytest.approx(expected.cost, rel=1e-5, abs=1e-9)
    assert int(summary.status[0]) == Status.CONVERGED


def _mixed() -> tuple[Dense, State]:
    residuals: list[Residual] = [rosenbrock, exponential, rosenbrock, outliers]
    init = torch.tensor([[-1.2, 1, 0.3], [1, 0.5, 0.1], [0.5, 2, 1.0], [0, 0, 0]], dtype=DOUBLE)
    shared = torch.tensor([START, [0.3, 0.1], START], dtype=DOUBLE)
    return Dense(residuals, torch.tensor([0, 0, 1, 2]), 3), State(init, shared)


def test_batch_equals_solo() -> None:
    problem, start = _mixed()
    together, summary = minimize(problem, start, LONG)
    for i in range(3):
        rows = torch.nonzero(problem.group == i)[:, 0].tolist()
        alone = Dense([problem.residuals[n] for n in rows], torch.zeros(len(rows), dtype=torch.int64), 1)
        solo, solo_summary = minimize(alone, State(start.own[rows], start.shared[i : i + 1]), LONG)
        assert torch.allclose(together.own[rows], solo.own, atol=1e-8)
        assert torch.allclose(together.shared[i], solo.shared[0], atol=1e-8)
        assert int(summary.steps[i]) == int(solo_summary.steps[0])


def test_accepted_cost_never_rises() -> None:
    problem, start = _mixed()
    _, summary = minimize(problem, start, LONG)
    assert (summary.costs.diff(dim=-1) <= 0).all()
    assert (summary.costs[:, -1] < summary.costs[:, 0]).all()


def test_a_nan_problem_leaves_its_neighbours_alone() -> None:
    problem, start = _mixed()
    clean, _ = minimize(problem, start, LONG)
    poisoned = State(start.own.clone(), start.shared)
    poisoned.own[2] = torch.nan
    solved, summary = minimize(problem, poisoned, LONG)
    assert int(summary.status[1]) == Status.NON_FINITE
    assert torch.equal(solved.own[[0, 1, 3]], clean.own[[0, 1, 3]])
    assert torch.equal(solved.shared[[0, 2]], clean.shared[[0, 2]])


def test_damping_given_is_taken_up() -> None:
    problem, start = _mixed()
    config = LevenbergMarquardtConfig(max_steps=1)
    small, _ = minimize(problem, start, config, torch.full((3,), 1e-4, dtype=DOUBLE))
    large, _ = minimize(problem, start, config, torch.full((3,), 1e4, dtype=DOUBLE))
    assert (large.own - start.own).norm() < 0.01 * (small.own - start.own).norm()


@pytest.mark.parametrize("status", list(Status))
def test_every_status_has_a_sentence(status: Status) -> None:
    assert len(status.sentence) > 10
