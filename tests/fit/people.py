"""The open body's people with all kinds of evidence, noisy, for comparisons of two ways to compute."""

from __future__ import annotations

import dataclasses
import math

import torch

from depthfit.body.model import Body
from depthfit.fit import FitConfig, ImageInput
from depthfit.fit.inputs import OutlineInput
from tests.fit.scenes import exact_image


def people(body: Body, count: int, turn: float = 0.06) -> list[ImageInput]:
    """Images with a person each: keypoints and depth with noise, and the outline of their mask."""
    images = []
    for seed in range(count):
        generator = torch.Generator().manual_seed(1000 + seed)
        image, _ = exact_image(body, seed, turn=turn)
        assert image.log_depth is not None
        assert image.depth_valid is not None
        noise = torch.randn(image.log_depth.shape, generator=generator).to(image.log_depth)
        person = image.people[0]
        shift = torch.randn(person.keypoints.shape, generator=generator).to(person.keypoints)
        person = dataclasses.replace(
            person, keypoints=person.keypoints + 2 * shift, outline=outline(image.depth_valid), label=1
        )
        images.append(
            dataclasses.replace(
                image,
                log_depth=image.log_depth + 0.01 * noise,
                labels=image.depth_valid.to(torch.uint8),
                people=[person],
                log_focal_sigma=0.3,
            )
        )
    return images


def outline(mask: torch.Tensor, points: int = 240) -> OutlineInput:
    """Where rays from the middle of a mask (H, W) leave it for good."""
    rows, columns = torch.nonzero(mask, as_tuple=True)
    middle = torch.stack([columns.double().mean(), rows.double().mean()])
    angle = torch.linspace(0, 2 * math.pi, points + 1, dtype=torch.float64)[:-1]
    ray = torch.stack([angle.cos(), angle.sin()], -1)
    offset = torch.stack([columns, rows], -1) - middle
    along = offset @ ray.mT
    across = (offset.square().sum(-1, keepdim=True) - along**2).clamp(min=0)
    far = torch.where(across < 1, along, -torch.inf).amax(0)
    found = far > 0
    return OutlineInput((middle + far[:, None] * ray)[found].float(), ray[found].float(), closed=True)


def default_config() -> FitConfig:
    """The default settings without what needs the whole of a scene."""
    config = FitConfig()
    config.contour.source = "mask"
    return config
