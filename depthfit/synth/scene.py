"""Worlds: a camera over a ground, and people who stand, float or turn over before it.

The world is y up and level; the camera looks along its -z. ``T_camera_world`` is a rotation alone: positions
are kept in the camera's frame, where the ground is the plane up . x = -height.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator
from scipy.spatial import cKDTree
from torch import Tensor

from depthfit import camera as pinhole
from depthfit import so3
from depthfit.errors import DepthfitError
from depthfit.raster import rasterize
from depthfit.synth.config import SynthConfig
from depthfit.synth.person import Person

PLACE_TRIES, SCENE_TRIES = 60, 30
MIN_HEIGHT_SHARE = 0.2
"""A person's longer side is at least this share of the image's shorter one."""
NEAREST = 0.3
"""m: no part of a body comes nearer to the camera."""
CAMERA_HEIGHT = (0.2, 4.0)
"""m: allowed heights of the camera above the ground."""
GAP = 0.05
"""m: least distance between the surfaces of two people (between points about 3 cm apart)."""
AIRBORNE_SHARE, AIRBORNE_HEIGHT = 0.4, 0.8
"""Share of hard and random poses above the ground, and the greatest height in m."""
CHECK_WIDTH = 160
"""px: width of the picture in which occlusion is checked."""
SURFACE_STEP = 7
"""Every so many vertices take part in the check of distances."""


@dataclass(frozen=True)
class Camera:
    """A pinhole camera over a ground.

    Attributes:
        focal: px.
        K: (3, 3).
        size: (W, H) px.
        up: (3,) the world's up in the camera's frame.
        T_camera_world: (3, 3) rotation.
    """

    focal: float
    K: Tensor
    size: tuple[int, int]
    up: Tensor
    T_camera_world: Tensor


@dataclass(frozen=True)
class Placed:
    """A person and the position (3,) m of its pelvis in the camera's frame."""

    person: Person
    transl: Tensor

    @property
    def clothed(self) -> Tensor:
        return self.person.clothed + self.transl

    @property
    def joints(self) -> Tensor:
        return self.person.skeleton.position + self.transl

    @property
    def keypoints(self) -> Tensor:
        return self.person.keypoints + self.transl


@dataclass(frozen=True)
class World:
    """A camera, its height in m over the ground, and the people before it."""

    camera: Camera
    height: float
    people: list[Placed]


def sample_camera(rng: Generator, config: SynthConfig) -> Camera:
    """A camera with the config's field of view, pitch and roll."""
    fov = rng.uniform(*config.fov_degrees)
    pitch = np.radians(rng.uniform(*config.pitch_degrees))
    roll = np.radians(config.roll_degrees * rng.normal())
    focal = pinhole.fov_to_focal(fov, config.width)
    K = pinhole.intrinsics(focal, pinhole.image_center(config.width, config.height))
    level = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    turned = so3.exp(torch.tensor([[0.0, 0.0, roll], [pitch, 0.0, 0.0]], dtype=torch.float32))
    T_camera_world = turned[0] @ turned[1] @ level
    return Camera(float(focal), K, (config.width, config.height), T_camera_world[:, 1], T_camera_world)


def sample_world(
    rng: Generator, config: SynthConfig, faces: Tensor, draw: Callable[[Generator, Tensor], Person]
) -> World:
    """A camera and one to several people who fit its frame and do not touch or hide each other too much.

    Args:
        rng: Source of randomness.
        config: Settings.
        faces: (F, 3) of the bodies.
        draw: Gives a person, about its pelvis, in the frame of the camera whose ``T_camera_world`` it gets.

    Raises:
        DepthfitError: If the settings leave no room for people.
    """
    weights = np.array(config.people_weights)
    count = 1 + int(rng.choice(len(weights), p=weights / weights.sum()))
    for _ in range(SCENE_TRIES):
        world = _try_world(rng, config, count, draw)
        if world is not None and visible_shares(world, faces).min() >= config.min_visible:
            return world
    raise DepthfitError(
        f"no place was found for {count} people in {SCENE_TRIES} tries. Widen fov_degrees or distance_m, "
        "lower min_visible, or ask for fewer people an image."
    )


def _try_world(
    rng: Generator, config: SynthConfig, count: int, draw: Callable[[Generator, Tensor], Person]
) -> World | None:
    camera = sample_camera(rng, config)
    height: float | None = None
    people: list[Placed] = []
    trees: list[cKDTree] = []
    for _ in range(count):
        person = draw(rng, camera.T_camera_world)
        for _ in range(PLACE_TRIES):
            placed, over_ground = _try_place(rng, config, camera, height, person)
            surface = placed.clothed[::SURFACE_STEP].numpy()
            if _fits(placed, camera, config.in_frame) and CAMERA_HEIGHT[0] <= over_ground <= CAMERA_HEIGHT[1]:
                tree = cKDTree(surface)
                if all(not any(t.query_ball_tree(tree, GAP)) for t in trees):
                    break
        else:
            return None
        people.append(placed)
        trees.append(tree)
        height = over_ground
    return None if height is None else World(camera, height, people)


def _try_place(
    rng: Generator, config: SynthConfig, camera: Camera, height: float | None, person: Person
) -> tuple[Placed, float]:
    """A position drawn at random, and the camera's height over the ground that goes with it.

    The first person finds the ground: the lowest point of the body is on it, or floats. The others are put
    on that ground.
    """
    width, rows = camera.size
    z = np.exp(rng.uniform(*np.log(config.distance_m)))
    u, v = rng.uniform(*config.place_x) * width, rng.uniform(*config.place_y) * rows
    floats = person.kind != "everyday" and rng.random() < AIRBORNE_SHARE
    lift = rng.uniform(0, AIRBORNE_HEIGHT) if floats else 0.0
    lowest = float((person.clothed @ camera.up).min())
    ray = torch.linalg.solve(camera.K, torch.tensor([u, v, 1.0], dtype=torch.float32))
    up = camera.up
    if height is not None:
        # up . (z ray) + lowest = lift - height, solved for the ray's y.
        ray[1] = ((lift - height - lowest) / z - up[0] * ray[0] - up[2]) / up[1]
    transl = z * ray
    over_ground = lift - lowest - float(transl @ up)
    return Placed(person, transl), over_ground


def _fits(placed: Placed, camera: Camera, in_frame: tuple[float, float]) -> bool:
    """Whether the person is before the camera, large enough, and as much in the frame as is asked for."""
    if float(placed.clothed[:, 2].min()) < NEAREST:
        return False
    points = pinhole.project(placed.joints, camera.K)
    size = torch.tensor(camera.size)
    inside = ((points >= 0) & (points <= size - 1)).all(-1)
    extent = float((points.amax(0) - points.amin(0)).max())
    share = float(inside.float().mean())
    return in_frame[0] <= share <= in_frame[1] and extent >= MIN_HEIGHT_SHARE * min(camera.size)


def visible_shares(world: World, faces: Tensor) -> np.ndarray:
    """(N,) share of each person's silhouette that no other person hides, in a small picture."""
    count = len(world.people)
    if count == 1:
        return np.ones(1)
    shrink = CHECK_WIDTH / world.camera.size[0]
    size = (max(round(world.camera.size[1] * shrink), 1), CHECK_WIDTH)
    K = scaled_intrinsics(world.camera.K, shrink).expand(count, 3, 3)
    vertices = torch.stack([placed.clothed for placed in world.people])
    depth = rasterize(vertices, faces, K, size, cull_backfaces=True).depth
    solo = torch.isfinite(depth)
    seen = solo & (depth <= depth.amin(0))
    return (seen.sum((1, 2)) / solo.sum((1, 2)).clamp(min=1)).numpy()


def scaled_intrinsics(K: Tensor, factor: float) -> Tensor:
    """Intrinsics of the image resampled by ``factor``; pixel edges, not centres, are scaled."""
    scaled = K * factor
    scaled[:2, 2] += (factor - 1) / 2
    scaled[2, 2] = 1.0
    return scaled
