"""Weights that follow from a key's name and shape alone, and images that follow from a formula.

No random generator takes part, so that the numbers are the same on every machine and in every version.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

GAINS = {"deccam": 0.05, "decpose_grot": 0.7, "class_pred_layer": 6.0, "decoder.15": 0.7}
"""Weights of readouts, so that cameras look ahead, rotations are far from the mean, and softmaxes peak."""
POSITION_SCALE, BIAS_SCALE, NORM_SPREAD = 0.5, 0.3, 0.3
MEAN_CAMERA = (0.9, 0.05, -0.02)


def uniform(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers in [-1, 1), float64: splitmix64 (Steele et al., OOPSLA 2014) over name and index."""
    with np.errstate(over="ignore"):
        index = np.arange(int(np.prod(shape)), dtype=np.uint64)
        z = (index + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z += np.uint64(zlib.crc32(name.encode())) << np.uint64(32)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(40)).astype(np.float64).reshape(shape) / 2**23 - 1


def weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """The tensor of a state-dict key."""
    u = uniform(name, shape)
    if name.endswith("init_cam"):
        return torch.tensor([MEAN_CAMERA])
    if "pos_embed" in name or ".init_" in name:
        values = POSITION_SCALE * u
    elif len(shape) == 1 and name.endswith("weight"):
        values = 1 + NORM_SPREAD * u
    elif len(shape) == 1:
        values = BIAS_SCALE * u
    else:
        gain = next((g for part, g in GAINS.items() if part in name), 1.0)
        values = gain * u * np.sqrt(3 / np.prod(shape[1:]))
    return torch.from_numpy(values.astype(np.float32))


def weights(like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with the keys and shapes of ``like``."""
    return {name: weight(name, tuple(value.shape)) for name, value in like.items()}


def image(height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8 RGB with coarse and fine structure."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    waves = [np.sin(x / (7 + 3 * c) + y / 11) * np.cos(y / (5 + 2 * c)) for c in range(3)]
    noise = uniform("image", (height, width, 3))
    return np.clip(127.5 + 70 * np.stack(waves, -1) + 55 * noise, 0, 255).astype(np.uint8)


def crops(count: int) -> Tensor:
    """(count, 3, 256, 256) float32 in about [-2, 2], each of its own pattern."""
    y, x = np.mgrid[:256, :256].astype(np.float64)
    patterns = [
        [np.sin(x / (9 + 8 * n) + c) + np.cos(y / (6 + 11 * n) - c) * (-1) ** n for c in range(3)]
        for n in range(count)
    ]
    return torch.from_numpy(np.array(patterns) + 0.3 * uniform("crops", (count, 3, 256, 256))).float()


BOXES = {
    "inside, sharp": (40.0, 30.5, 170.25, 259.75),
    "across the border": (-35.5, 100.0, 120.0, 330.0),
    "wide": (60.0, 140.0, 430.0, 250.0),
    "large, blurred": (15.5, -120.25, 500.75, 640.0),
    "far larger than the image": (-700.0, -500.0, 1200.0, 900.0),
}
"""xyxy in the image of ``IMAGE_SIZE``."""
IMAGE_SIZE = (320, 480)
"""Height, width."""


def probe(values: Tensor | np.ndarray, count: int = 96) -> list[float]:
    """Figures that pin down a large array: ``count`` of its entries evenly spread, and 8 weighted sums.

    The sums have weights of either sign by ``uniform``, over the root of the number of entries.
    """
    flat = np.asarray(values, dtype=np.float64).ravel()
    entries = flat[np.linspace(0, len(flat) - 1, min(count, len(flat))).astype(int)]
    sums = [float(flat @ uniform(f"probe {k}", flat.shape)) / np.sqrt(len(flat)) for k in range(8)]
    return [*entries.tolist(), *sums]
