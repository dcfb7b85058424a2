"""The closed-form start."""

from __future__ import annotations

import torch

from depthfit.camera import intrinsics, project
from depthfit.fit.initialise import MIN_START_DISTANCE, translation
from depthfit.residuals import KeypointTargets

CENTER = torch.tensor([[320.0, 240.0]], dtype=torch.float64)
FOCAL = torch.tensor([600.0], dtype=torch.float64)


def _points() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, 12, 3, generator=generator, dtype=torch.float64) * 0.4


def test_exact_points_give_the_translation_back() -> None:
    points, transl = _points(), torch.tensor([[0.7, -0.3, 4.0]], dtype=torch.float64)
    pixels = project(points + transl[:, None], intrinsics(FOCAL, CENTER))
    targets = KeypointTargets(pixels, torch.full((1, 12), 2.0, dtype=torch.float64))
    assert torch.allclose(translation(points, targets, FOCAL, CENTER), transl, atol=1e-4)


def test_points_that_no_distance_explains_still_start_in_front() -> None:
    """Mirrored pixels ask for a negative scale, which is a person behind the camera."""
    points = _points()
    pixels = CENTER[:, None] + torch.tensor([50.0, 20.0]) - 100 * points[..., :2]
    targets = KeypointTargets(pixels, torch.full((1, 12), 2.0, dtype=torch.float64))
    start = translation(points, targets, FOCAL, CENTER)
    assert float(start[0, 2]) >= MIN_START_DISTANCE
    expected = (pixels.mean(1) - CENTER) / FOCAL
    assert torch.allclose(start[:, :2] / start[:, 2:], expected, atol=1e-6)
