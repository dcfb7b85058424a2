from __future__ import annotations

import math
import sys
import types
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from depthfit.errors import InputError
from depthfit.evidence.depth import read_depth
from depthfit.perception import depth_pro
from depthfit.perception.depth_pro import (
    CanonicalDepth,
    estimate_depth,
    load_depth_pro,
    metric_depth,
    network_input,
    write_depth,
)
from tests.perception.networks import DEPTH_SIDE, FOLDERS, TINY

CPU = torch.device("cpu")


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def documented(
    inverse: torch.Tensor, fov: float, size: tuple[int, ...], known: float | None = None
) -> tuple[np.ndarray, float]:
    """Metres and focal by the formula of the owners' package, written down once more."""
    height, width = size
    focal = known or 0.5 * width / math.tan(0.5 * math.pi / 180 * fov)
    full = F.interpolate((inverse * width / focal)[None, None], size=(height, width), mode="bilinear")[0, 0]
    return (1 / full.clamp(1e-4, 1e4)).numpy(), focal


@pytest.mark.parametrize("size", [(48, 64), (200, 90), (64, 64), (7, 500)])
def test_input_is_scaled_then_resampled_bilinearly(size: tuple[int, int]) -> None:
    rgb = picture(*size)
    scaled = (torch.from_numpy(rgb).permute(2, 0, 1) / 255 - 0.5) / 0.5
    expected = F.interpolate(scaled[None], (64, 64), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(network_input(rgb, 64, CPU), expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("size", [(48, 64), (90, 30)])
def test_metres_and_focal_follow_the_documented_formula(size: tuple[int, int]) -> None:
    inverse = torch.rand(16, 16, generator=torch.Generator().manual_seed(0)) + 0.1
    metres, focal = documented(inverse, 60.0, size)
    estimate = metric_depth(inverse, 60.0, size)
    np.testing.assert_allclose(estimate.metres, metres, rtol=1e-5)
    assert estimate.focal_px == pytest.approx(focal)


def test_a_wall_at_a_known_distance() -> None:
    # Canonical inverse depth is f / (W z): a wall at 4 m before a camera of 90 degrees, whose f is W / 2.
    estimate = metric_depth(torch.full((16, 16), 0.5 / 4.0), 90.0, (30, 40))
    np.testing.assert_allclose(estimate.metres, 4.0, rtol=1e-6)
    assert estimate.focal_px == pytest.approx(20.0)


def test_a_known_focal_takes_the_place_of_the_estimate_and_scales_depth() -> None:
    inverse = torch.rand(16, 16) + 0.1
    free, known = metric_depth(inverse, 60.0, (48, 64)), metric_depth(inverse, 60.0, (48, 64), 100.0)
    assert known.focal_px == 100.0
    np.testing.assert_allclose(known.metres, free.metres * 100.0 / free.focal_px, rtol=1e-5)


def test_neither_field_of_view_nor_focal_is_an_error() -> None:
    with pytest.raises(ValueError, match="field of view"):
        metric_depth(torch.ones(4, 4), None, (8, 8))


def test_inverse_depth_is_clipped_as_documented() -> None:
    estimate = metric_depth(torch.tensor([[0.0, 1e9]]), 90.0, (1, 2))
    np.testing.assert_allclose(estimate.metres, [[1e4, 1e-4]], rtol=1e-5)


def test_a_large_image_gets_a_map_of_the_networks_size_with_the_focal_in_its_px(tmp_path: Path) -> None:
    estimate = metric_depth(torch.full((8, 8), 0.2), 60.0, (3000, 6000))
    assert estimate.metres.shape == (768, 1536)
    write_depth(tmp_path / "a.npz", estimate)
    read = read_depth(tmp_path / "a.npz", (6000, 3000))
    assert read.focal_px == pytest.approx(3000 / math.tan(math.radians(30)), rel=1e-6)
    np.testing.assert_allclose(read.metres, estimate.metres)


def test_transformers_network_by_the_documented_formula_image_by_image(models: Path) -> None:
    network = load_depth_pro(depth_pro.REPO, models, CPU)
    assert network.side == DEPTH_SIDE
    images = [picture(50, 70, 1), picture(40, 30, 2)]
    together = estimate_depth(network, images, [None, 33.0])
    for image, focal, got in zip(images, (None, 33.0), together, strict=True):
        assert not isinstance(got, str)
        (alone,) = estimate_depth(network, [image], [focal])
        assert not isinstance(alone, str)
        np.testing.assert_allclose(got.metres, alone.metres, rtol=1e-3)
        output = network(network_input(image, DEPTH_SIDE, CPU)[None])
        assert output.fov_degrees is not None
        fov = float(output.fov_degrees)
        metres, expected = documented(output.inverse[0], fov, image.shape[:2], focal)
        np.testing.assert_allclose(alone.metres, metres, rtol=1e-4)
        assert alone.focal_px == pytest.approx(expected, rel=1e-6)


class _Fixed:
    """A network that says the same of everything."""

    side, device = 8, CPU

    def __init__(self, fov: float | None) -> None:
        self.fov = fov

    def __call__(self, pixels: torch.Tensor) -> CanonicalDepth:
        fov = None if self.fov is None else torch.full((len(pixels),), self.fov)
        return CanonicalDepth(torch.ones(len(pixels), 8, 8), fov)


@pytest.mark.parametrize(("fov", "words"), [(None, "no field of view"), (-3.0, "-3.0 degrees")])
def test_depth_without_scale_is_said_unless_the_focal_is_known(fov: float | None, words: str) -> None:
    said, estimate = estimate_depth(_Fixed(fov), [picture(8, 8)] * 2, [None, 5.0])
    assert isinstance(said, str)
    assert words in said
    assert "cameras.json" in said
    assert not isinstance(estimate, str)


@dataclass
class _Config:
    checkpoint_uri: str | None = "./checkpoints/depth_pro.pt"


@pytest.fixture
def package(models: Path, monkeypatch: pytest.MonkeyPatch) -> torch.nn.Module:
    """A package ``depth_pro`` with the documented interface, around the tiny network of transformers."""
    import transformers

    tiny = transformers.DepthProForDepthEstimation.from_pretrained(models / FOLDERS["depth"])

    class Official(torch.nn.Module):
        img_size = DEPTH_SIDE

        def __init__(self) -> None:
            super().__init__()
            self.inner = transformers.DepthProForDepthEstimation(tiny.config)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            output = self.inner(pixel_values=x)
            return output.predicted_depth[:, None], output.field_of_view[:, None, None, None]

    def create(config: _Config, device: torch.device) -> tuple[torch.nn.Module, None]:
        assert config.checkpoint_uri is None, "the weights are for us to load, safely"
        return Official().to(device), None

    module = types.ModuleType("depth_pro.depth_pro")
    module.create_model_and_transforms = create  # type: ignore[attr-defined]
    module.DEFAULT_MONODEPTH_CONFIG_DICT = _Config()  # type: ignore[attr-defined]
    parent = types.ModuleType("depth_pro")
    monkeypatch.setitem(sys.modules, "depth_pro", parent)
    monkeypatch.setitem(sys.modules, "depth_pro.depth_pro", module)
    monkeypatch.setattr(depth_pro, "package_installed", lambda: True)
    official = Official()
    official.inner.load_state_dict(tiny.state_dict())
    return official


def test_both_implementations_give_the_same(models: Path, package: torch.nn.Module, tmp_path: Path) -> None:
    torch.save(package.state_dict(), tmp_path / depth_pro.PACKAGE_FILE)
    official = load_depth_pro(str(tmp_path / depth_pro.PACKAGE_FILE), models, CPU)
    assert isinstance(official, depth_pro.PackageDepthPro)
    image = picture(50, 70)
    (a,) = estimate_depth(official, [image], [None])
    (b,) = estimate_depth(load_depth_pro(depth_pro.REPO, models, CPU), [image], [None])
    assert not isinstance(a, str)
    assert not isinstance(b, str)
    np.testing.assert_allclose(a.metres, b.metres, rtol=1e-5)
    assert a.focal_px == pytest.approx(b.focal_px)


def test_the_checkpoint_of_the_package_is_found_where_there_is_nothing_else(
    package: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    torch.save(package.state_dict(), tmp_path / depth_pro.PACKAGE_FILE)
    assert depth_pro.find_depth_pro(depth_pro.REPO, tmp_path) == (
        "depth_pro",
        tmp_path / depth_pro.PACKAGE_FILE,
    )


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_a_checkpoint_that_is_none(
    package: torch.nn.Module, tmp_path: Path, models: Path, content: bytes | None
) -> None:
    path = tmp_path / depth_pro.PACKAGE_FILE
    if content is None:
        torch.save({"some": torch.ones(2)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"depth_pro\.pt: .*Fetch depth_pro\.pt again.*ml-depth-pro"):
        load_depth_pro(str(path), models, CPU)


def test_a_checkpoint_without_its_package(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(depth_pro, "package_installed", lambda: False)
    (tmp_path / "depth_pro.pt").write_bytes(b"x")
    with pytest.raises(InputError, match="depth_pro is not installed"):
        load_depth_pro(str(tmp_path / "depth_pro.pt"), models, CPU)
    with pytest.raises(InputError, match="no such file"):
        load_depth_pro(str(tmp_path / "other.pt"), models, CPU)


def test_the_input_side_is_that_of_the_released_network() -> None:
    import transformers

    assert depth_pro.input_side(transformers.DepthProConfig()) == 1536
    assert TINY["depth"]["patch_size"] * 4 == DEPTH_SIDE
