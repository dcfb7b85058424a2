"""Detector, keypoints, depth and masks at full size with random weights, run as ``depthfit prepare`` does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from depthfit.bench.random_models import FOLDERS, NETWORKS, full_size, random_network, write_random_network
from depthfit.bench.stage import PerceptionConfig, StageRow, measure, peak_memory, start_memory
from depthfit.evidence.keypoints import KeypointPerson
from depthfit.joints import KEYPOINTS
from depthfit.perception.depth_pro import TransformersDepthPro, estimate_depth
from depthfit.perception.detector import PersonDetector
from depthfit.perception.hub import processor_class
from depthfit.perception.sam import PersonSegmenter
from depthfit.perception.vitpose import PoseEstimator
from depthfit.run.device import choose_device

WIDTH, HEIGHT = 1280, 960
BOX = (400.0, 100.0, 900.0, 900.0)
"""Of the one person in each image."""
Images = list[np.ndarray]
Run = Callable[[Images], object]


def detector_stage(config: PerceptionConfig, device: torch.device) -> Iterator[StageRow]:
    """RT-DETR, from 8-bit images to boxes."""

    def make() -> tuple[Run, torch.nn.Module, torch.dtype]:
        network = random_network("detector", full_size("detector"), config.seed, device)
        detector = PersonDetector(network, _processor("detector"), device)
        return lambda images: detector(images, 0.5), network, torch.float32

    yield from _rows("detector", "RT-DETR R50", make, config, device)


def keypoint_stage(config: PerceptionConfig, device: torch.device) -> Iterator[StageRow]:
    """ViTPose, from 8-bit images with a box each to keypoints in the image."""
    boxes = np.array([BOX])

    def make() -> tuple[Run, torch.nn.Module, torch.dtype]:
        network = random_network("keypoints", full_size("keypoints"), config.seed, device)
        estimator = PoseEstimator(network, _processor("keypoints"), device)
        return lambda images: estimator(images, [boxes] * len(images), 0.3), network, _dtype(network)

    yield from _rows("keypoints", "ViTPose++ huge", make, config, device)


def mask_stage(config: PerceptionConfig, device: torch.device) -> Iterator[StageRow]:
    """SAM, from 8-bit images with a box and keypoints each to masks of their size."""
    boxes, rng = np.array([BOX]), np.random.default_rng(config.seed)
    xy = rng.uniform(BOX[:2], BOX[2:], (len(KEYPOINTS), 2))
    person = KeypointPerson(xy, np.full(len(KEYPOINTS), 0.9))

    def make() -> tuple[Run, torch.nn.Module, torch.dtype]:
        network = random_network("masks", full_size("masks"), config.seed, device)
        segmenter = PersonSegmenter(network, _processor("masks"), device)

        def run(images: Images) -> object:
            return segmenter(images, [boxes] * len(images), [[person]] * len(images))

        return run, network, _dtype(network.vision_encoder)

    yield from _rows("masks", "SAM ViT-H", make, config, device)


def depth_stage(config: PerceptionConfig, device: torch.device) -> Iterator[StageRow]:
    """Depth Pro, from 8-bit images to metres on the host."""

    def make() -> tuple[Run, torch.nn.Module, torch.dtype]:
        model = random_network("depth", full_size("depth"), config.seed, device)
        network = TransformersDepthPro(model, device)
        return lambda images: estimate_depth(network, images, [None] * len(images)), model, _dtype(model)

    yield from _rows("depth", "Depth Pro", make, config, device)


def write_random_models(folder: Path, seed: int = 0, device: str = "auto") -> None:
    """All four networks at full size with random weights, where ``prepare`` looks for them: 10 GB.

    Args:
        device: Draws the weights: ``auto``, ``cpu`` or ``cuda``.
    """
    for stage, name in FOLDERS.items():
        write_random_network(stage, folder / name, full_size(stage), seed, choose_device(device))


def _processor(stage: str) -> object:
    name = NETWORKS[stage][2]
    assert name is not None
    return processor_class(name)()


def _dtype(network: torch.nn.Module) -> torch.dtype:
    return next(network.parameters()).dtype


def _rows(
    stage: str,
    title: str,
    make: Callable[[], tuple[Run, torch.nn.Module, torch.dtype]],
    config: PerceptionConfig,
    device: torch.device,
) -> Iterator[StageRow]:
    run, network, dtype = make()
    count = sum(p.numel() for p in network.parameters())
    rng = np.random.default_rng(config.seed)
    for batch in config.batches:
        images = [rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8) for _ in range(batch)]
        # Here, for weights are drawn in 32 bits, which need more than those that are read from files.
        start_memory(device)
        done, seconds = measure(device, batch, config.images, lambda images=images: run(images))  # type: ignore[misc]
        name = str(dtype).removeprefix("torch.")
        yield StageRow(stage, title, count, name, batch, done, seconds, peak_memory(device))
