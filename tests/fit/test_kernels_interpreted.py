"""The kernels' logic through Triton's interpreter, where Triton is installed and there is no GPU."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from importlib.util import find_spec
from types import ModuleType

import pytest
import torch

from depthfit import so3
from depthfit.body.load import load_body
from depthfit.body.tree import joint_tree
from depthfit.fit import Fitter, association_torch
from depthfit.fit.evaluation import SurfaceRows
from depthfit.fit.stages import ALL_UNKNOWNS, Parts, Plan, flat_chart
from depthfit.raster import rasterize
from depthfit.state import FitState
from tests.fit.people import default_config, people

pytestmark = [
    pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels themselves are tested on the GPU"),
]
RIGID = ("root", "bearing", "distance", "clothes")


def interpreted(name: str) -> ModuleType:
    """A module of kernels. No other test imports one where there is no GPU."""
    return importlib.import_module(name)


@pytest.fixture(autouse=True, scope="module")
def _interpreter() -> Iterator[None]:
    """For as long as kernels are made and called: Triton asks at both times."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        yield


def test_rotations_and_kinematics() -> None:
    kernels = interpreted("depthfit.so3_triton")
    generator = torch.Generator().manual_seed(0)
    size = torch.cat([torch.logspace(-6, 0.47, 200), torch.zeros(1)])
    omega = torch.nn.functional.normalize(torch.randn(201, 3, generator=generator), dim=-1) * size[:, None]
    for name in ("exp", "left_jacobian", "right_jacobian_inverse"):
        wanted = getattr(so3, name)(omega.double())
        torch.testing.assert_close(getattr(kernels, name)(omega).double(), wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(kernels.log(so3.exp(omega.double()).float()), omega, rtol=1e-4, atol=1e-6)
    body = load_body("open")
    root, pose = so3.exp(omega[:2]), so3.exp(omega[100:146]).unflatten(0, (2, 23))
    wanted = body.skeleton(root, pose, torch.zeros(2, body.num_betas))
    tree = joint_tree(root.device, root.dtype)
    found = interpreted("depthfit.body.triton_kinematics").pose_joints(root, pose, wanted.rest, tree.parent)
    torch.testing.assert_close(found[0], wanted.rotation, rtol=0, atol=2e-6)
    torch.testing.assert_close(found[1], wanted.position, rtol=0, atol=2e-6)


@pytest.mark.parametrize("cull", [True, False])
def test_the_same_triangles_are_drawn(cull: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    vertices = torch.randn(1, 60, 3, generator=generator) * 0.3 + torch.tensor([0.0, 0.0, 2.0])
    vertices[0, 5, 2] = -1
    faces = torch.randint(0, 60, (100, 3), generator=generator)
    camera = torch.tensor([[[12.0, 0, 8], [0, 12, 7], [0, 0, 1]]])
    wanted = rasterize(vertices, faces, camera, (14, 17), "torch", cull)
    interpreted("depthfit.raster.triton_raster")
    found = rasterize(vertices, faces, camera, (14, 17), "triton", cull)
    assert wanted.hit.any()
    assert torch.equal(found.face, wanted.face)
    torch.testing.assert_close(found.depth, wanted.depth)
    torch.testing.assert_close(found.bary, wanted.bary)


@pytest.mark.parametrize("free", [ALL_UNKNOWNS, RIGID], ids=["all", "rigid"])
@torch.no_grad()
def test_cost_and_columns_are_those_of_the_rows(free: tuple[str, ...]) -> None:
    config = default_config()
    config.depth.samples, config.contour.points, config.solver.grid = 40, 20, 64
    stages = Fitter(load_body("open"), None, config).scheduler(people(load_body("open"), 1))
    start = stages.start()
    generator = torch.Generator().manual_seed(0)
    field = 0.02 * torch.randn(start.people.field.shape, generator=generator)
    state = FitState(start.people.replace(field=field), start.images)
    fit = stages.problem(state, flat_chart(state.people), Plan(free, Parts()), stages.robust(2.0))
    interpreted("depthfit.residuals.triton_surface")
    normal = interpreted("depthfit.residuals.triton_normal")
    assert normal.fits(fit.body, state.people)
    # A field that does not move is read all the same.
    assert not normal.fits(fit.body, state.people.replace(field=field.new_zeros(len(field), 33)))
    exact = fit.at(state)
    assert isinstance(exact.surface, SurfaceRows)
    rows = (exact.surface.depth, exact.surface.contour)
    surface = fit._surface(state, exact.skeleton)
    for found, row, term in zip(fit._fused_costs(surface), rows, ("depth", "contour"), strict=True):
        torch.testing.assert_close(found, row.cost(fit._kernel(term)), rtol=1e-4, atol=1e-3)
    points = fit._surface_points(exact, exact.surface, state.people)
    wanted = fit._block("depth", rows[0], points[0], exact, state)
    wanted = wanted + fit._block("contour", rows[1], points[1], exact, state)
    found = fit._fused_block(surface)
    for part in ("block", "coupling", "shared", "block_gradient", "shared_gradient"):
        one, two = getattr(found, part), getattr(wanted, part)
        assert float((one - two).norm() / two.norm()) < 1e-4, part


def test_partners_and_uncovered_masks() -> None:
    kernels = interpreted("depthfit.fit.association_triton")
    generator = torch.Generator().manual_seed(2)
    xy, to_xy = (100 * torch.rand(2, count, 2, generator=generator) for count in (20, 150))
    normal, to_normal = (
        torch.nn.functional.normalize(torch.randn(*of.shape, generator=generator), dim=-1)
        for of in (xy, to_xy)
    )
    valid = torch.rand(2, 150, generator=generator) < 0.5
    # One whole tile of partners, and one person's everybody, are not valid.
    valid[0, 64:128], valid[1] = False, False
    found = kernels.nearest(xy, normal, to_xy, to_normal, valid, 0.3)
    wanted = association_torch.nearest(xy, normal, to_xy, to_normal, valid, 0.3)
    assert torch.equal(found[1].isfinite(), wanted[1].isfinite())
    matched = wanted[1].isfinite()
    assert matched[0].any()
    assert not matched[1].any()
    assert torch.equal(found[0][matched], wanted[0][matched])
    torch.testing.assert_close(found[1][matched], wanted[1][matched], rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(found[2][matched], wanted[2][matched], rtol=1e-4, atol=1e-2)
    face = torch.where(torch.rand(2, 17, 17, generator=generator) < 0.1, 5, -1)
    own, other = (torch.rand(2, 17, 17, generator=generator) < share for share in (0.1, 0.02))
    inside = torch.rand(2, 17, 17, generator=generator) < 0.9
    wanted = association_torch.uncovered(face, own, other, inside, 2)
    assert (wanted > 0).all()
    torch.testing.assert_close(kernels.uncovered(face, own, other, inside, 2), wanted)
