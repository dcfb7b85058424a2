"""The arrow solve against a dense one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from depthfit.solver import ArrowSystem, GemanMcClure

N, P, M, I = 5, 4, 2, 3  # noqa: E741
GROUP = torch.tensor([0, 0, 1, 2, 2])


def _system(seed: int) -> tuple[ArrowSystem, list[Tensor], list[Tensor]]:
    """A random arrow system with the dense Hessian and gradient of each problem."""
    generator = torch.Generator().manual_seed(seed)
    own = torch.randn(N, 9, P, generator=generator, dtype=torch.float64)
    shared = torch.randn(N, 9, M, generator=generator, dtype=torch.float64)
    r = torch.randn(N, 9, 1, generator=generator, dtype=torch.float64)
    zeros = torch.zeros(I, M, M, dtype=torch.float64)
    system = ArrowSystem(
        own.mT @ own,
        own.mT @ shared,
        zeros.index_add(0, GROUP, shared.mT @ shared),
        (own.mT @ r)[..., 0],
        zeros[:, 0].index_add(0, GROUP, (shared.mT @ r)[..., 0]),
    )
    hessians, gradients = [], []
    for i in range(I):
        rows = torch.nonzero(GROUP == i)[:, 0].tolist()
        wide = torch.zeros(9 * len(rows), P * len(rows) + M, dtype=torch.float64)
        for k, n in enumerate(rows):
            wide[9 * k : 9 * k + 9, P * k : P * k + P] = own[n]
            wide[9 * k : 9 * k + 9, -M:] = shared[n]
        residual = r[rows].reshape(-1)
        hessians.append(wide.mT @ wide)
        gradients.append(wide.mT @ residual)
    return system, hessians, gradients


def test_step_is_the_dense_newton_step() -> None:
    system, hessians, gradients = _system(0)
    own, shared, ok = system.solve(GROUP)
    assert ok.all()
    predicted = system.predicted_reduction(GROUP, own, shared)
    for i in range(I):
        step = torch.cat([own[GROUP == i].reshape(-1), shared[i]])
        assert torch.allclose(step, -torch.linalg.solve(hessians[i], gradients[i]))
        fall = -(gradients[i] @ step + step @ hessians[i] @ step / 2)
        assert torch.allclose(predicted[i], fall)


def test_covariance_is_the_dense_inverse() -> None:
    system, hessians, _ = _system(1)
    block, cross, shared = system.covariance(GROUP)
    for i in range(I):
        inverse = torch.linalg.inv(hessians[i])
        assert torch.allclose(shared[i], inverse[-M:, -M:])
        for k, n in enumerate(torch.nonzero(GROUP == i)[:, 0].tolist()):
            span = slice(P * k, P * k + P)
            assert torch.allclose(block[n], inverse[span, span])
            assert torch.allclose(cross[n], inverse[span, -M:])


def test_inflated_covariance_is_that_of_a_weaker_shared_part() -> None:
    """The same as if evidence on the shared unknowns, beyond what the blocks take of it, were less."""
    system, hessians, _ = _system(1)
    inflation = torch.tensor([1.0, 1.5, 4.0], dtype=torch.float64)
    block, cross, shared = system.covariance(GROUP, inflation)
    for i in range(I):
        weaker = hessians[i].clone()
        own, to = weaker[:-M, :-M], weaker[:-M, -M:]
        reduced = weaker[-M:, -M:] - to.mT @ torch.linalg.solve(own, to)
        weaker[-M:, -M:] -= (1 - 1 / inflation[i]) * reduced
        inverse = torch.linalg.inv(weaker)
        assert torch.allclose(shared[i], inverse[-M:, -M:])
        for k, n in enumerate(torch.nonzero(GROUP == i)[:, 0].tolist()):
            span = slice(P * k, P * k + P)
            assert torch.allclose(block[n], inverse[span, span])
            assert torch.allclose(cross[n], inverse[span, -M:])


def test_damping_scales_the_diagonals() -> None:
    system, hessians, gradients = _system(2)
    damping = torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64)
    own, shared, _ = system.damped(GROUP, damping).solve(GROUP)
    for i in range(I):
        damped = hessians[i] + damping[i] * torch.diag(hessians[i].diagonal())
        step = torch.cat([own[GROUP == i].reshape(-1), shared[i]])
        assert torch.allclose(step, -torch.linalg.solve(damped, gradients[i]))


def test_a_singular_problem_is_reported_and_stays() -> None:
    system, _, _ = _system(3)
    block = system.block.clone()
    block[2] = 0
    own, shared, ok = system.replace(block=block).solve(GROUP)
    assert ok.tolist() == [True, False, True]
    assert (own[2] == 0).all()
    assert (shared[1] == 0).all()
    reference, _, _ = system.solve(GROUP)
    assert torch.equal(own[[0, 1, 3, 4]], reference[[0, 1, 3, 4]])


def test_geman_mcclure_weight_is_the_derivative_of_its_value() -> None:
    kernel = GemanMcClure(3.0)
    s = torch.linspace(0, 50, 40, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(kernel.value(s).sum(), s)
    assert torch.allclose(kernel.weight(s), slope)
    assert float(kernel.value(torch.tensor(1e9))) == pytest.approx(9.0, rel=1e-3)
