"""The networks on a GPU, where most of them compute in 16-bit floats, against the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from depthfit.perception import depth_pro
from depthfit.perception.depth_pro import DepthEstimate, estimate_depth, load_depth_pro
from depthfit.perception.detector import PersonDetector
from depthfit.perception.sam import PersonSegmenter
from depthfit.perception.vitpose import PoseEstimator
from tests.perception.networks import FOLDERS, write_tiny

pytestmark = pytest.mark.gpu
CPU, GPU = torch.device("cpu"), torch.device("cuda")
PLACES = 8**2 + 4**2 + 2**2
"""Where the tiny detector may see somebody, on its three maps of 64 px."""
BOXES = [np.array([[10.0, 10, 90, 80], [40, 20, 110, 88]])] * 2


@pytest.fixture
def images() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (90, 120, 3), np.uint8) for _ in range(2)]


def test_boxes(tmp_path: Path, images: list[np.ndarray]) -> None:
    # As many queries as places: which places a random network prefers hangs on the last bits.
    write_tiny(tmp_path, "detector", num_queries=PLACES)
    cpu, gpu = (
        PersonDetector.load(tmp_path / FOLDERS["detector"], device)(images, 0.5) for device in (CPU, GPU)
    )
    for a, b in zip(cpu, gpu, strict=True):
        assert len(a.xyxy) == len(b.xyxy) == PLACES
        # px of 120; convolutions on a GPU round to TF32.
        assert np.abs(a.xyxy[:, None] - b.xyxy[None]).max(-1).min(1).max() < 0.5


def test_keypoints(models: Path, images: list[np.ndarray]) -> None:
    cpu, gpu = (
        PoseEstimator.load(models / FOLDERS["keypoints"], device)(images, BOXES, 0.3) for device in (CPU, GPU)
    )
    confidence = [np.stack([p.confidence for found in people for p in found]) for people in (cpu, gpu)]
    np.testing.assert_allclose(*confidence, atol=0.02)


def test_masks(models: Path, images: list[np.ndarray]) -> None:
    people = PoseEstimator.load(models / FOLDERS["keypoints"], CPU)(images, BOXES, 0.3)
    cpu, gpu = (
        PersonSegmenter.load(models / FOLDERS["masks"], device)(images, BOXES, people)
        for device in (CPU, GPU)
    )
    for a, b in zip(cpu, gpu, strict=True):
        assert (a == b).mean() > 0.95


def test_depth(models: Path, images: list[np.ndarray]) -> None:
    focals: list[float | None] = [None, 100.0]
    cpu, gpu = (
        estimate_depth(load_depth_pro(depth_pro.REPO, models, device), images, focals)
        for device in (CPU, GPU)
    )
    for a, b in zip(cpu, gpu, strict=True):
        assert isinstance(a, DepthEstimate)
        assert isinstance(b, DepthEstimate)
        assert a.focal_px == pytest.approx(b.focal_px, rel=0.02)
        assert np.median(np.abs(np.log(a.metres / b.metres))) < 0.02
