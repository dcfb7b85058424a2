"""The built-in rasteriser against a ray caster, and its edge cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from depthfit.raster import NEAR, Fragments, rasterize, torch_raster

from .ray_caster import cast
from .shapes import intrinsics, sphere, triangle_soup


def assert_matches_rays(
    vertices: Tensor, faces: Tensor, K: Tensor, size: tuple[int, int], fragments: Fragments
) -> int:
    """Compare one mesh's fragments with the oracle off the edges; returns the number of pixels compared."""
    hits = cast(vertices.numpy(), faces.numpy(), K.numpy(), size)
    # Nearly tied in depth: either triangle would be right.
    clear = (hits.margin > 1e-4) & (hits.runner_up > np.nan_to_num(hits.depth, posinf=0) * (1 + 1e-6))
    face, bary, depth = (t.numpy() for t in (fragments.face, fragments.bary, fragments.depth))
    np.testing.assert_array_equal(face[clear], hits.face[clear])
    seen = clear & (hits.face >= 0)
    np.testing.assert_allclose(depth[seen], hits.depth[seen], rtol=1e-5)
    # On the ray: the point that the weights give projects back to the pixel.
    corners = vertices.numpy()[faces.numpy()[face[seen]]].astype(np.float64)
    point = (bary[seen][..., None] * corners).sum(1)
    np.testing.assert_allclose(bary[seen].sum(-1), 1, atol=1e-6)
    np.testing.assert_allclose(point[:, 2], depth[seen], rtol=1e-5)
    pixel = point @ K.numpy().T.astype(np.float64)
    y, x = np.nonzero(seen)
    scale = np.abs(corners).max((1, 2)) / point[:, 2] * K[0, 0].item()
    error = np.linalg.norm(pixel[:, :2] / pixel[:, 2:] - np.stack([x, y], -1), axis=-1)
    assert (error < 1e-5 + 1e-6 * scale).all()
    return int(seen.sum())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_triangle_soup_equals_ray_caster(seed: int, dtype: torch.dtype) -> None:
    vertices, faces = triangle_soup(150, seed)
    K = intrinsics(40.0, 21.3, 14.8)
    K[0, 1] = 3.0
    fragments = rasterize(vertices[None].to(dtype), faces, K[None].to(dtype), (30, 44))
    assert fragments.depth.dtype == fragments.bary.dtype == dtype
    assert assert_matches_rays(vertices, faces, K, (30, 44), fragments[0]) > 400


@pytest.mark.parametrize(("focal", "distance"), [(60.0, 3.0), (1250.0, 62.5)])
def test_sphere_equals_ray_caster_and_culling_changes_nothing(focal: float, distance: float) -> None:
    vertices, faces = sphere(24, (0.1, -0.05, distance), 0.8)
    vertices, K = vertices.float(), intrinsics(focal, 20.0, 19.5)
    fragments = rasterize(vertices[None], faces, K[None], (40, 42))
    assert assert_matches_rays(vertices, faces, K, (40, 42), fragments[0]) > 500
    culled = rasterize(vertices[None], faces, K[None], (40, 42), cull_backfaces=True)
    assert torch.equal(culled.face, fragments.face)
    inside_out = rasterize(vertices[None], faces.flip(-1), K[None], (40, 42), cull_backfaces=True)
    middle = inside_out.depth[0, 10:30, 12:32]
    assert ((middle > distance) & (middle < distance + 0.81)).all()


def test_closed_mesh_has_no_holes_where_pixels_lie_on_edges() -> None:
    # Vertices on pixel centres: every edge and corner of the grid is hit exactly.
    x, y = torch.meshgrid(torch.arange(9.0), torch.arange(9.0), indexing="xy")
    vertices = torch.stack([x, y, torch.ones_like(x)], -1).reshape(-1, 3) * 2.0
    start = (torch.arange(8)[:, None] * 9 + torch.arange(8)).reshape(-1)
    upper = torch.stack([start, start + 9, start + 1], -1)
    lower = torch.stack([start + 1, start + 9, start + 10], -1)
    faces = torch.cat([upper, lower])
    fragments = rasterize(vertices[None], faces, torch.eye(3)[None], (9, 9))
    assert fragments.hit.all()
    lowest = [(faces == vertex).any(-1).nonzero()[0].item() for vertex in range(81)]
    assert fragments.face[0].reshape(-1).tolist() == lowest


def test_coincident_triangles_go_to_the_lowest_face() -> None:
    triangle = torch.tensor([[-1.0, -1, 2], [1, -1, 3], [0, 1, 2]])
    faces = torch.tensor([[0, 1, 2], [1, 2, 0], [0, 2, 1]])
    fragments = rasterize(triangle[None], faces, intrinsics(20, 10, 10)[None], (20, 20))
    assert fragments.hit.any()
    assert set(fragments.face.unique().tolist()) == {-1, 0}


def test_huge_triangle_covers_the_window_with_the_plane_s_depth() -> None:
    # The plane z = 2 + 0.5 x, seen far beyond the window.
    corners = torch.tensor([[-3.9, -5e3, 0.0], [4e3, -5e3, 0.0], [0.0, 9e3, 0.0]])
    corners[:, 2] = 2 + 0.5 * corners[:, 0]
    K = intrinsics(50.0, 16.0, 12.0)
    fragments = rasterize(corners[None], torch.tensor([[0, 1, 2]]), K[None], (24, 32))
    slope = (torch.arange(32) - 16) / 50.0
    assert fragments.hit.all()
    torch.testing.assert_close(fragments.depth[0], (2 / (1 - 0.5 * slope)).expand(24, 32), rtol=1e-5, atol=0)


@pytest.mark.parametrize("bad", [0.0, -1.0, NEAR / 2, math.nan, math.inf])
def test_triangles_at_or_behind_the_camera_are_left_out(bad: float) -> None:
    vertices = torch.tensor([[-1.0, -1, 2], [1, -1, 2], [0, 1, 2], [0, 0.5, bad]])
    faces = torch.tensor([[0, 1, 3], [1, 2, 3], [0, 1, 2]])
    fragments = rasterize(vertices[None], faces, intrinsics(20, 10, 10)[None], (20, 20))
    assert set(fragments.face.unique().tolist()) == {-1, 2}
    assert torch.isfinite(fragments.bary).all()
    assert (fragments.depth[fragments.hit] == 2).all()
    assert torch.isinf(fragments.depth[~fragments.hit]).all()


def test_slivers_of_any_length_never_give_nan() -> None:
    rng = torch.Generator().manual_seed(0)
    ends = torch.randn(4000, 2, 3, generator=rng, dtype=torch.float64)
    ends = ends * 10 ** (4 * torch.rand(4000, 1, 1, generator=rng, dtype=torch.float64) - 1)
    ends[..., 2] = ends[..., 2].abs() + 0.5
    share = torch.rand(4000, 1, generator=rng, dtype=torch.float64)
    between = ends[:, 0] + share * (ends[:, 1] - ends[:, 0])
    between[:, 1] += torch.tensor([0.0, 1e-12, 1e-8, 1e-3]).double().repeat(1000)
    vertices = torch.cat([ends, between[:, None]], 1).reshape(-1, 3)
    faces = torch.arange(12000).reshape(-1, 3)
    fragments = rasterize(vertices[None], faces, intrinsics(300, 32, 32)[None].double(), (64, 64))
    assert fragments.hit.any()
    assert torch.isfinite(fragments.bary).all()
    assert (fragments.bary >= 0).all()
    assert (fragments.depth >= 0.5).all()
    torch.testing.assert_close(fragments.bary.sum(-1), fragments.hit.double())


def test_nothing_to_see() -> None:
    vertices, faces = sphere(6, (50.0, 0.0, 3.0), 0.5)
    line = torch.tensor([[0.0, 0, 2], [1, 1, 2], [2, 2, 2]])
    for mesh, triangles in ((vertices.float(), faces), (line, torch.tensor([[0, 1, 2], [1, 1, 1]]))):
        fragments = rasterize(mesh[None], triangles, intrinsics(20, 10, 10)[None], (20, 21))
        assert fragments.face.shape == (1, 20, 21)
        assert not fragments.hit.any()
        assert (fragments.bary == 0).all()


def test_batch_equals_solo_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    soups = torch.stack([triangle_soup(120, seed)[0] for seed in range(5)])
    soups[3] = math.nan
    faces = triangle_soup(120, 0)[1]
    K = torch.stack([intrinsics(f, 15 + f / 10, 12.0) for f in (20.0, 30.0, 45.0, 60.0, 80.0)])
    batch = rasterize(soups, faces, K, (24, 33))
    # Small slabs and chunks must not change a thing either.
    monkeypatch.setattr(torch_raster, "_TRIANGLES_PER_SLAB", 250)
    monkeypatch.setitem(torch_raster._PIXELS_PER_CHUNK, "cpu", 37)
    pieces = rasterize(soups, faces, K, (24, 33))
    for n in range(5):
        solo = rasterize(soups[n : n + 1], faces, K[n : n + 1], (24, 33))
        for name in ("face", "bary", "depth"):
            assert torch.equal(getattr(solo, name)[0], getattr(batch, name)[n])
            assert torch.equal(getattr(pieces, name)[n], getattr(batch, name)[n])
    assert not batch.hit[3].any()
    assert batch.hit[[0, 1, 2, 4]].any(-1).any(-1).all()


def test_interpolate_gives_the_point_hit() -> None:
    vertices, faces = sphere(10, (0.0, 0.0, 3.0), 0.8)
    K = intrinsics(60.0, 20.0, 20.0).double()
    fragments = rasterize(vertices[None], faces, K[None], (40, 40))
    point = fragments.interpolate(faces, vertices[None])
    hit = fragments.hit
    torch.testing.assert_close(point[hit][:, 2], fragments.depth[hit])
    assert (point[~hit] == 0).all()


def test_wrong_arguments_are_named() -> None:
    vertices, faces = sphere(4, (0.0, 0.0, 3.0), 0.8)
    K = torch.eye(3)
    with pytest.raises(ValueError, match="K must be"):
        rasterize(vertices[None], faces, K, (4, 4))
    with pytest.raises(ValueError, match="vertices must be"):
        rasterize(vertices, faces, K[None], (4, 4))
    with pytest.raises(ValueError, match="at least one pixel"):
        rasterize(vertices[None], faces, K[None], (0, 4))
    with pytest.raises(ValueError, match="unknown backend"):
        rasterize(vertices[None], faces, K[None], (4, 4), backend="opengl")


@pytest.mark.parametrize("seed", range(3))
def test_what_is_passed_over_changes_no_bit(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large triangles, whose rows are cut short and of which hidden ones are left out, against all of all."""
    draw = torch.Generator().manual_seed(seed)
    centers = torch.randn(2, 150, 1, 3, generator=draw) * torch.tensor([0.8, 0.8, 0.3])
    spread = 0.5 * 10 ** (-2 * torch.rand(2, 150, 1, 1, generator=draw))
    corners = centers + spread * torch.randn(2, 150, 3, 3, generator=draw) + torch.tensor([0.0, 0, 3])
    wall = torch.tensor([[0.0, 2, 2.9], [2, -2, 2.9], [-2, -2, 2.9]]).expand(2, 1, 3, 3)
    soup = torch.cat([corners, wall], 1).reshape(2, -1, 3)
    triangles = torch.arange(soup.shape[1]).reshape(-1, 3)
    K = torch.tensor([[150.0, 0, 90], [0, 150, 70], [0, 0, 1]]).expand(2, 3, 3)
    fast = rasterize(soup, triangles, K, (143, 181), backend="torch")
    monkeypatch.setattr(torch_raster, "_WIDE", math.inf)
    monkeypatch.setattr(torch_raster, "_unhidden", lambda keys, screen, faces, boxes: boxes.face >= 0)
    plain = rasterize(soup, triangles, K, (143, 181), backend="torch")
    assert bool(plain.hit.any())
    for name in ("face", "bary", "depth"):
        assert torch.equal(getattr(fast, name), getattr(plain, name)), name


def test_a_sliver_between_the_pixels_centres_hits_nothing() -> None:
    """Its box is large and holds many centres; it is the only triangle."""
    sliver = torch.tensor([[[0.5, 0.0, 1.0], [20.5, 20.0, 1.0], [20.6, 20.0, 1.0]]])
    found = rasterize(sliver, torch.tensor([[0, 1, 2]]), torch.eye(3)[None], (32, 32), backend="torch")
    assert not found.hit.any()
