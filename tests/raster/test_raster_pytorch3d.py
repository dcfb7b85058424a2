"""The PyTorch3D backend against the built-in one; skipped without PyTorch3D."""

from __future__ import annotations

import importlib.util
import sys

import pytest
import torch

from depthfit.errors import DepthfitError
from depthfit.raster import rasterize

from .ray_caster import cast
from .shapes import intrinsics, sphere, triangle_soup

needs_pytorch3d = pytest.mark.skipif(
    importlib.util.find_spec("pytorch3d") is None, reason="PyTorch3D is not installed: build it from source"
)


@needs_pytorch3d
@pytest.mark.parametrize("size", [(30, 44), (40, 28)])
@pytest.mark.parametrize("cull", [False, True])
def test_agrees_with_the_built_in_rasteriser(size: tuple[int, int], cull: bool) -> None:
    soups = torch.stack([triangle_soup(80, seed)[0] for seed in range(3)])
    soups[1, :, 2] = -1.0
    faces = triangle_soup(80, 0)[1]
    K = torch.stack([intrinsics(f, 21.3, 14.8) for f in (30.0, 40.0, 50.0)])
    ours = rasterize(soups, faces, K, size, cull_backfaces=cull)
    theirs = rasterize(soups, faces, K, size, backend="pytorch3d", cull_backfaces=cull)
    assert not theirs.hit[1].any()
    for n in (0, 2):
        margin = torch.from_numpy(cast(soups[n].numpy(), faces.numpy(), K[n].numpy(), size).margin)
        # Where two triangles cross, their depths tie to rounding.
        near = (ours.depth[n] - theirs.depth[n]).abs() < 1e-5 * ours.depth[n]
        clear = (margin > 1e-2) & ~(near & (ours.face[n] != theirs.face[n]))
        assert clear.float().mean() > 0.8
        assert torch.equal(ours.face[n][clear], theirs.face[n][clear])
        same = clear & ours.hit[n]
        torch.testing.assert_close(theirs.depth[n][same], ours.depth[n][same], rtol=1e-4, atol=0)
        torch.testing.assert_close(theirs.bary[n][same], ours.bary[n][same], rtol=0, atol=2e-2)


@needs_pytorch3d
def test_nothing_to_see() -> None:
    vertices, faces = sphere(6, (50.0, 0.0, 3.0), 0.5)
    K = intrinsics(20, 10, 10)[None]
    fragments = rasterize(vertices[None].float(), faces, K, (20, 21), backend="pytorch3d")
    assert fragments.face.shape == (1, 20, 21)
    assert not fragments.hit.any()


def test_says_how_to_get_it_when_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.split(".")[0] == "pytorch3d"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pytorch3d", None)
    vertices, faces = sphere(6, (0.0, 0.0, 3.0), 0.5)
    with pytest.raises(DepthfitError, match="pip install"):
        rasterize(vertices[None], faces, torch.eye(3)[None], (4, 4), backend="pytorch3d")
