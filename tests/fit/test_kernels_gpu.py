"""Triton kernels and recorded rounds against plain torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from depthfit import so3
from depthfit.body.load import load_body
from depthfit.body.model import Body
from depthfit.camera import intrinsics
from depthfit.fit import Fitter, association_torch
from depthfit.fit.associate import associate, mesh_topology
from depthfit.fit.search import WIDE
from depthfit.fit.stages import ALL_UNKNOWNS, Parts, Plan, Scheduler, flat_chart
from depthfit.fit.system import BodyFit, Matches
from depthfit.kernels import plain_torch, triton_kernels
from depthfit.raster import rasterize
from depthfit.solver import LevenbergMarquardtConfig, minimize
from depthfit.state import FitState
from tests.fit.people import default_config, people

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]
COUNT = 6


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body("open")


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad(), triton_kernels():
        yield


@pytest.fixture(scope="module")
def stages(body: Body) -> Scheduler:
    config = default_config()
    config.solver.kernels = True
    with torch.no_grad():
        return Fitter(body.to("cuda"), None, config, "cuda").scheduler(people(body, COUNT))


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


def test_the_same_triangles_are_drawn(stages: Scheduler) -> None:
    start = stages.start().people
    _, vertices = stages.body.forward(start.root, start.pose, start.betas)
    vertices = vertices + start.transl[:, None]
    # One behind the camera, one that fills the picture, one with a vertex that is no number.
    vertices[0] -= vertices.new_tensor([0.0, 0.0, 100.0])
    vertices[1] -= vertices.new_tensor([0.0, 0.0, 0.8]) * vertices[1, :, 2:].mean()
    vertices[2, 7] = torch.nan
    camera = intrinsics(torch.full((COUNT,), 150.0), torch.full((COUNT, 2), 40.0)).cuda()
    for cull in (True, False):
        one, two = (
            rasterize(vertices, stages.body.faces, camera, (90, 80), b, cull) for b in ("torch", "triton")
        )
        assert one.hit.any()
        assert torch.equal(one.face, two.face)
        torch.testing.assert_close(two.depth, one.depth, rtol=1e-6, atol=0)
        torch.testing.assert_close(two.bary, one.bary, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "name", ["skin", "facing", "sample_key", "rim_key", "area_normals", "nearest", "uncovered"]
)
def test_association_finds_the_same(stages: Scheduler, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from depthfit.fit import association_triton

    calls = []
    kernel = getattr(association_triton, name)

    def noted(*args: object) -> object:
        calls.append(args)
        return kernel(*args)

    monkeypatch.setattr(association_triton, name, noted)
    associate(stages.body, stages.topology, stages.batch, stages.start(), stages.config)
    assert calls
    for args in calls:
        found, wanted = kernel(*args), getattr(association_torch, name)(*args)
        if name != "nearest":
            # Where rounding decides, one in ten thousand may differ.
            same = torch.isclose(found, wanted, rtol=1e-3, atol=1e-6) | (found == wanted)
            assert float(same.float().mean()) > 1 - 1e-4
            continue
        matched = wanted[1].isfinite()
        assert torch.equal(found[1].isfinite(), matched)
        # The distance matters, not which of two equally near partners has it.
        torch.testing.assert_close(found[1][matched], wanted[1][matched], rtol=1e-2, atol=0.5)


def problem(stages: Scheduler) -> tuple[BodyFit, FitState]:
    start = stages.start()
    plan = Plan(ALL_UNKNOWNS, Parts())
    return stages.problem(start, flat_chart(start.people), plan, stages.robust(2.0)), start


def test_cost_and_normal_equations_are_those_of_the_rows(stages: Scheduler) -> None:
    fit, state = problem(stages)
    generator = torch.Generator("cuda").manual_seed(0)
    noise = torch.randn(state.people.clothes.shape, generator=generator, device="cuda")
    moved = state.people.replace(clothes=state.people.clothes + 0.01 * noise)
    moved = moved.replace(field=0.02 * torch.randn(moved.field.shape, generator=generator, device="cuda"))
    moved = moved.replace(betas=torch.randn(moved.betas.shape, generator=generator, device="cuda"))
    state = FitState(moved, state.images)
    cost, system = fit.person_costs(state), fit.linearize(state)
    with plain_torch():
        wanted_cost, wanted = fit.person_costs(state), fit.linearize(state)
    for term, value in wanted_cost.items():
        torch.testing.assert_close(cost[term], value, rtol=1e-4, atol=1e-3)
    for part in ("block", "coupling", "shared", "block_gradient", "shared_gradient"):
        assert relative(getattr(system, part), getattr(wanted, part)) < 1e-4, part


def test_rotations_and_kinematics(body: Body) -> None:
    generator = torch.Generator().manual_seed(0)
    size = torch.cat([torch.logspace(-6, 0.49, 500), torch.tensor([0.0, 3.1, 3.1415])])
    omega = (
        torch.nn.functional.normalize(torch.randn(len(size), 3, generator=generator), dim=-1) * size[:, None]
    )
    for name in ("exp", "left_jacobian", "right_jacobian_inverse"):
        function = getattr(so3, name)
        near = omega[size < 3] if name == "right_jacobian_inverse" else omega
        assert relative(function(near.cuda()).cpu(), function(near.double())) < 1e-5, name
    back = so3.log(so3.exp(omega[size < 3].double()).float().cuda()).cpu()
    torch.testing.assert_close(back, omega[size < 3], rtol=1e-4, atol=1e-6)
    root, pose = so3.exp(omega[:5]), so3.exp(omega[100:215]).unflatten(0, (5, 23))
    betas = torch.randn(5, body.num_betas, generator=generator)
    wanted = body.skeleton(root, pose, betas)
    found = body.to("cuda").skeleton(root.cuda(), pose.cuda(), betas.cuda())
    torch.testing.assert_close(found.rotation.cpu(), wanted.rotation, rtol=0, atol=2e-6)
    torch.testing.assert_close(found.position.cpu(), wanted.position, rtol=0, atol=2e-6)


def test_a_recorded_stage_is_the_stage_itself(stages: Scheduler) -> None:
    """Padding to a recorded size changes nothing; neither does a second use of the recording."""
    start = stages.start()
    eager = replace(stages, graphs=None).root(start, WIDE)
    assert stages.graphs is not None
    for _ in range(2):
        found = stages.root(start, WIDE)
        assert torch.equal(found.steps, eager.steps)
        torch.testing.assert_close(found.state.people.transl, eager.state.people.transl, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found.state.people.root, eager.state.people.root, rtol=0, atol=1e-3)
        torch.testing.assert_close(
            found.fit.cost(found.state), eager.fit.cost(eager.state), rtol=1e-3, atol=0
        )


def settled(stages: Scheduler, matches: Matches) -> tuple[Tensor, Tensor]:
    """Joints (N, 24, 3) m about the pelvis, and log focal (N,), after a solve with given associations."""
    start = stages.start()
    plan = Plan(ALL_UNKNOWNS, Parts())
    fit = stages.assemble(matches, stages.space.chart(start.people), plan, stages.robust(1.0))
    state, _ = minimize(fit, start, LevenbergMarquardtConfig(max_steps=12))
    joints = fit.skeleton(state.people).position
    return joints.double().cpu(), state.images.log_focal.double().cpu()


def test_a_solve_ends_where_double_precision_on_a_cpu_ends(body: Body, stages: Scheduler) -> None:
    """With the same associations: which triangle a pixel finds is for rounding to decide, here and there."""
    config = stages.config
    exact = Fitter(body.to(dtype=torch.float64), None, config).scheduler(people(body, COUNT))
    matches = problem(stages)[0].matches
    joints, focal = settled(stages, matches)
    wanted, wanted_focal = settled(exact, matches.to("cpu", torch.float64))
    error = (joints - wanted).norm(dim=-1)
    assert float(error.median()) < 0.5e-3
    assert float(error.max()) < 2e-3
    assert float((focal - wanted_focal).abs().max()) < 2e-3


def test_the_mesh_tables_do_not_depend_on_the_device(body: Body) -> None:
    cpu, gpu = mesh_topology(body, 32), mesh_topology(body.to("cuda"), 32)
    for name in ("edge", "edge_face", "around", "order", "pixel_noise"):
        assert torch.equal(getattr(gpu, name).cpu(), getattr(cpu, name))
