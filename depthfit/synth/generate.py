"""Images of synthetic people with their truth and with what estimators would say of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from depthfit import camera as pinhole
from depthfit.body.load import load_body, load_extra_shapedirs
from depthfit.body.model import Body
from depthfit.joints import KEYPOINT_FORMATS, KEYPOINTS
from depthfit.synth import noise as models
from depthfit.synth.config import SynthConfig
from depthfit.synth.demanding import draw_demanding
from depthfit.synth.person import Person, Surface, pose_person, shape_person, surface, widen
from depthfit.synth.poses import PoseSource
from depthfit.synth.predict import PredictedPeople, predict
from depthfit.synth.render import Picture, render
from depthfit.synth.scene import World, sample_world
from depthfit.tokens.load import load_tokenizer
from depthfit.tokens.vqvae import Tokenizer

LIMB_SHARE = 0.2
"""About the width of a limb, in square roots of a person's area."""


@dataclass(frozen=True)
class Studio:
    """What all images of a scene are made from.

    Attributes:
        body: The body that fits know.
        wide: The same body with further shape directions, for the truth.
        parts: Of its surface.
        poses: Source of poses.
        tokenizer: ``None`` where predictions do without.
    """

    body: Body
    wide: Body
    parts: Surface
    poses: PoseSource
    tokenizer: Tokenizer | None


@dataclass(frozen=True)
class SyntheticImage:
    """One image: truth and evidence. N people.

    Attributes:
        name: Stem of its files.
        world, picture: The truth.
        depth: (H, W) float32 m, estimated.
        focal: px, that the depth estimator assumed.
        masks: (H, W) uint8, estimated.
        keypoints: (N, K, 3) x, y px and confidence in the config's point format.
        predictions: Of the regressor.
    """

    name: str
    world: World
    picture: Picture
    depth: NDArray[np.float32]
    focal: float
    masks: NDArray[np.uint8]
    keypoints: NDArray[np.float64]
    predictions: PredictedPeople


def open_studio(config: SynthConfig) -> Studio:
    """Load the open body, poses and tokenizer.

    Raises:
        InputError: A setting or a file is unusable.
    """
    config.validate()
    body = load_body()
    wide = widen(body, load_extra_shapedirs())
    tokenizer = load_tokenizer(config.tokenizer) if config.token_probs else None
    return Studio(body, wide, surface(body), PoseSource(config.pose_mix), tokenizer)


def sample(config: SynthConfig, studio: Studio | None = None) -> Iterator[SyntheticImage]:
    """The images of ``config``, one by one. Each depends on the seed and its own number alone.

    Args:
        config: Settings.
        studio: Of ``open_studio``, to share it between calls.
    """
    studio = studio or open_studio(config)
    for index in range(config.first, config.first + config.images):
        yield make_image(config, studio, index)


@torch.no_grad()
def make_image(config: SynthConfig, studio: Studio, index: int) -> SyntheticImage:
    """The image of number ``index``."""
    # A stream for each part: a change of one noise level leaves the world and the other noises as they were.
    streams = np.random.SeedSequence([config.seed, index]).spawn(6)
    world_rng, picture_rng, keypoint_rng, depth_rng, mask_rng, prediction_rng = map(
        np.random.default_rng, streams
    )
    faces = studio.body.faces
    world = sample_world(world_rng, config, faces, lambda rng, T: _draw_person(rng, config, studio, T))
    picture = render(picture_rng, world, faces)
    areas = np.maximum(np.bincount(picture.labels.ravel(), minlength=len(world.people) + 1)[1:], 1.0)
    limb = LIMB_SHARE * float(np.sqrt(areas.mean()))
    depth, focal = models.estimate_depth(depth_rng, picture.depth, world.camera.focal, limb, config.noise)
    predictions = predict(
        prediction_rng, world.people, world.camera, studio.body, studio.tokenizer, config.noise.prediction
    )
    return SyntheticImage(
        name=f"{index:05d}",
        world=world,
        picture=picture,
        depth=depth,
        focal=focal,
        masks=models.segment(mask_rng, picture.labels, len(world.people), config.noise),
        keypoints=_detect(keypoint_rng, config, studio.body, world, picture, areas),
        predictions=predictions,
    )


def _draw_person(rng: Generator, config: SynthConfig, studio: Studio, T_camera_world: Tensor) -> Person:
    draw = studio.poses.draw
    if config.demanding:
        pose, root, kind = draw_demanding(rng, draw, studio.body, T_camera_world)
    else:
        pose, root, kind = draw(rng)
    thickness = rng.uniform(*config.clothes_cm) / 100
    shape = shape_person(rng, studio.wide, studio.parts, studio.body.num_betas, config.extra_shape, thickness)
    return pose_person(studio.wide, shape, T_camera_world @ root, pose, kind)


def _detect(
    rng: Generator,
    config: SynthConfig,
    body: Body,
    world: World,
    picture: Picture,
    areas: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Detected keypoints (N, K, 3). Detectors see the dressed body."""
    names = KEYPOINT_FORMATS[config.keypoint_format]
    rows = [KEYPOINTS.index(name) for name in names]
    found = []
    for placed, visible, area in zip(world.people, picture.visible, areas, strict=True):
        dressed = body.keypoints(placed.person.skeleton, placed.person.clothed) + placed.transl
        points = pinhole.project(dressed[rows], world.camera.K).double().numpy()
        size = picture.labels.shape
        found.append(models.detect_keypoints(rng, points, names, area, visible[rows], size, config.noise))
    return np.stack(found)
