"""Depth Pro (Bochkovskii et al., ICLR 2025): one image to inverse depth, focal length and metres.

The network sees the image resampled to a square. It answers with the *canonical* inverse depth C and the
horizontal field of view. With W the image's width and f its focal length in px:

    f = W / 2 / tan(fov / 2)        1 / z = C W / f        z = 1 / clip(1 / z, 1e-4, 1e4)

A known focal length takes the place of the estimate, which scales z in proportion.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from depthfit.atomic import atomic_path
from depthfit.errors import InputError
from depthfit.perception.hub import CONFIG, WEIGHTS, HubModel, first_line, half_on, load_network
from depthfit.torch_file import load_torch_file

REPO = "apple/DepthPro-hf"
PACKAGE_FILE = "depth_pro.pt"
PACKAGE_PAGE = "https://github.com/apple/ml-depth-pro"
INVERSE_RANGE = (1e-4, 1e4)
"""1/m: as the network's owners clip it."""
MAP_SIDE = 1536
"""px: the network resolves no more along a side, so that larger images get a smaller map."""
_PLAUSIBLE_FOV = (1.0, 179.0)


@dataclass(frozen=True)
class CanonicalDepth:
    """What the network says of N images.

    Attributes:
        inverse: (N, S, S) canonical inverse depth: 1/m of a camera whose focal length is the image's width.
        fov_degrees: (N,) horizontal field of view; ``None`` from a network without that part.
    """

    inverse: Tensor
    fov_degrees: Tensor | None


@dataclass(frozen=True)
class DepthEstimate:
    """Depth of one image.

    Attributes:
        metres: (h, w) float32, of the image's aspect and at most ``MAP_SIDE`` a side.
        focal_px: The focal length that belongs to the metres, in px of the *map*.
        fov_degrees: The network's own horizontal field of view, or ``None``.
    """

    metres: np.ndarray
    focal_px: float
    fov_degrees: float | None


class DepthNetwork(Protocol):
    """A Depth Pro, whoever implements it."""

    side: int
    device: torch.device

    def __call__(self, pixels: Tensor) -> CanonicalDepth:
        """Canonical depth of (N, 3, side, side) float32 in [-1, 1]."""


class TransformersDepthPro:
    """Depth Pro of ``transformers``, a ``DepthProForDepthEstimation``; in 16-bit floats on a GPU."""

    def __init__(self, model: Any, device: torch.device) -> None:
        self.model = model.to(device, half_on(device))
        self.side = input_side(model.config)
        self.device = device

    def __call__(self, pixels: Tensor) -> CanonicalDepth:
        output = self.model(pixel_values=pixels.to(half_on(self.device)))
        fov = output.field_of_view
        return CanonicalDepth(output.predicted_depth.float(), None if fov is None else fov.float().flatten())


class PackageDepthPro:
    """Depth Pro of its owners' package ``depth_pro``, with their checkpoint.

    Raises:
        InputError: The checkpoint is no plain file of weights, or not this network's.
    """

    def __init__(self, checkpoint: Path, device: torch.device) -> None:
        package = importlib.import_module("depth_pro.depth_pro")
        # Their own loading lets a checkpoint run code on older versions of torch.
        config = dataclasses.replace(package.DEFAULT_MONODEPTH_CONFIG_DICT, checkpoint_uri=None)
        model, _ = package.create_model_and_transforms(config, torch.device("cpu"))
        fix = f"Fetch {PACKAGE_FILE} again: {PACKAGE_PAGE}"
        weights = load_torch_file(checkpoint, fix)
        try:
            model.load_state_dict(weights, strict=True)
        except (RuntimeError, TypeError, AttributeError) as error:
            found = f"not the weights of Depth Pro ({first_line(error)})"
            raise InputError(checkpoint, "weights", found, fix) from error
        self.model = model.to(device, half_on(device)).eval().requires_grad_(False)
        self.side = int(model.img_size)
        self.device = device

    def __call__(self, pixels: Tensor) -> CanonicalDepth:
        inverse, fov = self.model(pixels.to(half_on(self.device)))
        return CanonicalDepth(inverse[:, 0].float(), None if fov is None else fov.float().flatten())


def find_depth_pro(name: str, models: Path) -> tuple[str, Path] | None:
    """Which implementation has its files here: (``transformers`` or ``depth_pro``, folder or checkpoint).

    Args:
        name: ``owner/name`` on the hub, a folder in its layout, or a ``.pt`` file of the owners' package.
        models: The models folder, which may hold the hub's files, or the checkpoint where that package is
            installed.

    Raises:
        InputError: A file or folder was named and cannot be used.
    """
    if name.endswith(".pt"):
        if not Path(name).is_file():
            raise InputError(name, "model", "no such file", f"Fetch it: {PACKAGE_PAGE}")
        if not package_installed():
            fix = f"Install it from {PACKAGE_PAGE}, or use the transformers weights: {REPO}."
            raise InputError(name, "model", "its package depth_pro is not installed", fix)
        return "depth_pro", Path(name)
    folder = hub_model(name).find(models)
    if folder is not None:
        return "transformers", folder
    checkpoint = models / PACKAGE_FILE
    return ("depth_pro", checkpoint) if checkpoint.is_file() and package_installed() else None


def load_depth_pro(name: str, models: Path, device: torch.device) -> DepthNetwork:
    """The implementation whose files are here; with neither, the one of ``transformers`` from the hub.

    Raises:
        InputError: No weights can be had, or they are not Depth Pro's.
    """
    found = find_depth_pro(name, models)
    if found is not None and found[0] == "depth_pro":
        return PackageDepthPro(found[1], device)
    folder = hub_model(name).fetch(models) if found is None else found[1]
    model = load_network("DepthProForDepthEstimation", folder, device, half_on(device))
    return TransformersDepthPro(model, device)


def hub_model(name: str = REPO) -> HubModel:
    """Depth Pro's files on the hub; its processor needs torchvision and is not used."""
    return HubModel(name, (CONFIG, WEIGHTS))


def package_installed() -> bool:
    """Whether the owners' package can be imported."""
    return importlib.util.find_spec("depth_pro") is not None


def input_side(config: Any) -> int:
    """px: side of the square that the network sees, whose smallest pyramid level is one patch."""
    return round(config.patch_size / min(config.scaled_images_ratios))


def network_input(rgb: np.ndarray, side: int, device: torch.device) -> Tensor:
    """The network's input (3, side, side) in [-1, 1] from (H, W, 3) uint8 RGB.

    Scaled first, then resampled bilinearly without antialiasing and without regard to the aspect: the order
    and kind of both implementations. The resampling is a look-up of four neighbours, for which the whole
    image as floats (0.5 GB at 40 megapixels) is not needed: rows first.
    """
    height, width = rgb.shape[:2]
    pixels = torch.from_numpy(rgb).to(device)
    above, below, share = _neighbours(height, side, device)
    rows = torch.lerp(pixels[above].float(), pixels[below].float(), share[:, None, None])
    left, right, share = _neighbours(width, side, device)
    square = torch.lerp(rows[:, left], rows[:, right], share[:, None])
    return (square.permute(2, 0, 1) / 127.5 - 1).contiguous()


@torch.inference_mode()
def estimate_depth(
    network: DepthNetwork, images: list[np.ndarray], focals_px: list[float | None]
) -> list[DepthEstimate | str]:
    """Depth of images of any sizes, in one batch; a sentence for an image whose depth has no scale.

    Args:
        network: Depth Pro.
        images: (H, W, 3) uint8 RGB each, upright.
        focals_px: Known focal length of each in its own px, or ``None``.
    """
    batch = torch.stack([network_input(rgb, network.side, network.device) for rgb in images])
    canonical = network(batch)
    results: list[DepthEstimate | str] = []
    for k, (rgb, focal) in enumerate(zip(images, focals_px, strict=True)):
        fov = None if canonical.fov_degrees is None else float(canonical.fov_degrees[k])
        plausible = fov is not None and _PLAUSIBLE_FOV[0] < fov < _PLAUSIBLE_FOV[1]
        if focal is None and not plausible:
            seen = "no field of view" if fov is None else f"a field of view of {fov:.1f} degrees"
            results.append(f"the depth network gives {seen}; give a focal length in cameras.json")
            continue
        results.append(metric_depth(canonical.inverse[k], fov, rgb.shape[:2], focal))
    return results


def metric_depth(
    inverse: Tensor, fov_degrees: float | None, image_size: tuple[int, ...], focal_px: float | None = None
) -> DepthEstimate:
    """Metres from canonical inverse depth, by the formulas at the top of this file.

    Args:
        inverse: (S, S) canonical inverse depth.
        fov_degrees: Horizontal field of view that the network saw; needed if ``focal_px`` is ``None``.
        image_size: (H, W) px.
        focal_px: Known focal length in px of the image.

    Raises:
        ValueError: Neither the field of view nor the focal length is given.
    """
    height, width = image_size
    if focal_px is None:
        if fov_degrees is None:
            raise ValueError("metric depth needs a field of view or a focal length")
        focal_px = 0.5 * width / math.tan(0.5 * math.radians(fov_degrees))
    shrink = min(1.0, MAP_SIDE / max(height, width))
    size = (max(round(height * shrink), 1), max(round(width * shrink), 1))
    # Interpolated in inverse depth, where the network blends near and far.
    scaled = F.interpolate(inverse[None, None] * (width / focal_px), size, mode="bilinear")[0, 0]
    metres = 1 / scaled.clamp(*INVERSE_RANGE)
    return DepthEstimate(metres.cpu().numpy(), focal_px * size[1] / width, fov_degrees)


def write_depth(path: Path, estimate: DepthEstimate) -> None:
    """Write ``depth`` and ``focallength_px`` as npz, atomically."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, depth=estimate.metres, focallength_px=np.float64(estimate.focal_px))


def _neighbours(source: int, target: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Per target pixel the two source pixels around its centre and the share (target,) of the second."""
    at = (torch.arange(target, device=device, dtype=torch.float32) + 0.5) * (source / target) - 0.5
    at = at.clamp(0, source - 1)
    low = at.floor().long()
    return low, (low + 1).clamp(max=source - 1), at - low
