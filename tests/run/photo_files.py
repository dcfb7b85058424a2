"""Photographs for the tests of preparing them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from depthfit.run import load_config
from depthfit.run.prepare import PrepareConfig, PrepareSummary, prepare_scene

WIDTH, HEIGHT = 96, 72


def pixels(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A smooth random photograph (H, W, 3) uint8 BGR."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def write_photo(folder: Path, name: str, image: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(folder / name), image)
    return folder / name


def prepare(photos: Path, scene: Path, models: Path, *settings: str) -> PrepareSummary:
    config: PrepareConfig = load_config([f"folder={models}", "device=cpu", *settings], PrepareConfig)
    return prepare_scene(photos, scene, config)


def points(offset: float = 0.0, count: int = 17) -> list[float]:
    """A person of ``count`` points between (20, 10) and (60, 60) px."""
    xy = np.random.default_rng(1).uniform((20, 10), (60, 60), (count, 2)) + offset
    return np.column_stack([xy, np.full(count, 0.9)]).flatten().tolist()
