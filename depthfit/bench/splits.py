"""The people of ``depthfit bench splits``: six fixed splits at three levels of noise, and sweeps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from depthfit.bench.accuracy import bench_scene
from depthfit.errors import InputError
from depthfit.synth import NoiseConfig, SynthConfig

PART_PEOPLE = 32
"""People made and fitted together."""
LEVELS = {"half": 0.5, "one": 1.0, "double": 2.0}
"""Factors on all errors of the evidence. The prediction's stay, so that the gain over it can be compared."""
USUAL = "one"
"""The level of the splits themselves."""
SPLIT_STRIDE = 10_000
"""Between the numbers of the first images of two splits: no two people are drawn from the same stream."""


@dataclass(frozen=True)
class Split:
    """One kind of people.

    Attributes:
        people: How many of the 1,024.
        scene: What makes them; number of images, seed and people an image are set for each part.
        crowds: People an image, by parts in turn.
    """

    people: int
    scene: SynthConfig
    crowds: tuple[int, ...] = (1,)


def _scene(**changes: Any) -> SynthConfig:
    return replace(bench_scene(), vertices=False, **changes)


SPLITS: dict[str, Split] = {
    "everyday": Split(256, _scene(pose_mix=(1.0, 0.0, 0.0))),
    "hard": Split(256, _scene(pose_mix=(0.0, 0.6, 0.4), demanding=True)),
    # So near, hardly a whole person fits a usual lens.
    "close": Split(
        128,
        _scene(
            distance_m=(0.8, 1.5),
            fov_degrees=(55.0, 95.0),
            in_frame=(0.5, 1.0),
            place_x=(0.25, 0.75),
            place_y=(0.2, 0.8),
        ),
    ),
    "far": Split(128, _scene(distance_m=(6.0, 12.0))),
    # Near each other in the image, so that they hide each other.
    "several": Split(128, _scene(distance_m=(2.0, 8.0), place_x=(0.3, 0.7), min_visible=0.3), crowds=(2, 4)),
    "truncated": Split(
        128, _scene(in_frame=(0.4, 0.8), place_x=(-0.1, 1.1), place_y=(-0.1, 1.1), distance_m=(1.2, 6.0))
    ),
}
TOTAL = sum(split.people for split in SPLITS.values())


@dataclass(frozen=True)
class Part:
    """Some people of a split at a noise level: the unit of work.

    Attributes:
        group: Split or sweep; level: Of its noise.
        scene: What makes it; its images have as many people as ``people_weights`` has entries.
    """

    group: str
    level: str
    scene: SynthConfig

    @property
    def people(self) -> int:
        """Of all its images."""
        return self.scene.images * len(self.scene.people_weights)

    @property
    def name(self) -> str:
        """Of its folder; the same people have the same name, however many others there are."""
        return f"{self.group}_{self.level}_{self.scene.first}_{self.scene.images}"


def scaled(noise: NoiseConfig, factor: float) -> NoiseConfig:
    """``noise`` with all errors of the evidence times ``factor``, the prediction's as they are."""
    changes = {
        f.name: getattr(noise, f.name) * factor for f in dataclasses.fields(noise) if f.name != "prediction"
    }
    return replace(noise, **changes)


def split_parts(names: list[str], people: int, seed: int, level: str) -> list[Part]:
    """The parts of splits ``names`` with their shares of ``people`` (of 1,024); at least one person each.

    Raises:
        InputError: There is no such split.
    """
    unknown = [name for name in names if name not in SPLITS]
    if unknown:
        raise InputError("command line", "splits", ", ".join(unknown), f"Known: {', '.join(SPLITS)}.")
    parts = []
    for name in names:
        split, first = SPLITS[name], SPLIT_STRIDE * (1 + list(SPLITS).index(name))
        left, number = max(round(split.people * people / TOTAL), 1), 0
        while left > 0:
            crowd = split.crowds[number % len(split.crowds)]
            images = -(-min(PART_PEOPLE, left) // crowd)
            noise = scaled(split.scene.noise, LEVELS[level])
            scene = replace(split.scene, people_weights=_always(crowd), noise=noise)
            parts.append(Part(name, level, _numbered(scene, seed, first, images)))
            left, first, number = left - images * crowd, first + images, number + 1
    return parts


def _always(crowd: int) -> tuple[float, ...]:
    return (*[0.0] * (crowd - 1), 1.0)


def _numbered(scene: SynthConfig, seed: int, first: int, images: int) -> SynthConfig:
    return replace(scene, seed=seed, first=first, images=images)


@dataclass(frozen=True)
class Sweep:
    """One noise level or condition that is varied, all else as in :func:`bench_scene`.

    Attributes:
        title: What is varied, with its unit.
        values: To take; usual: The one that all other sweeps have, or ``None``.
        change: Scene with a value.
    """

    title: str
    values: tuple[float, ...]
    usual: float | None
    change: Callable[[SynthConfig, float], SynthConfig]


def _noise(field: str) -> Callable[[SynthConfig, float], SynthConfig]:
    def change(scene: SynthConfig, value: float) -> SynthConfig:
        changed: dict[str, Any] = {field: value}
        return replace(scene, noise=replace(scene.noise, **changed))

    return change


def _prediction(scene: SynthConfig, value: float) -> SynthConfig:
    usual = scene.noise.prediction
    factor = value / usual.pose_rad
    worse = replace(usual, pose_rad=value, root_rad=usual.root_rad * factor, betas=usual.betas * factor)
    return replace(scene, noise=replace(scene.noise, prediction=worse))


def _distance(scene: SynthConfig, value: float) -> SynthConfig:
    # Lenses that suit the distance, so that people are seen about as large at all of them.
    wide = (20.0, 95.0)
    return replace(scene, distance_m=(value, value), fov_degrees=wide, in_frame=(0.6, 1.0))


SWEEPS: dict[str, Sweep] = {
    "depth_scale": Sweep(
        "depth scale, sd of log", (0.0, 0.05, 0.1, 0.2, 0.4), 0.1, _noise("depth_log_scale")
    ),
    "focal": Sweep("focal, sd of log", (0.05, 0.11, 0.22, 0.44), 0.22, _noise("focal_log")),
    "keypoints": Sweep("keypoints, OKS sigmas", (0.1, 0.35, 0.7, 1.4), 0.35, _noise("keypoint_factor")),
    "prediction": Sweep("prediction, rad a joint", (0.02, 0.04, 0.08, 0.16, 0.32), 0.08, _prediction),
    "distance": Sweep("distance, m", (1.0, 1.5, 3.0, 6.0, 12.0), None, _distance),
}
SWEEP_FIRST = SPLIT_STRIDE * 20


def sweep_parts(names: list[str], people: int, seed: int) -> dict[str, dict[float, list[Part]]]:
    """For each sweep and value its parts of ``people`` in all: the same people but in the distance's sweep.

    Raises:
        InputError: There is no such sweep.
    """
    unknown = [name for name in names if name not in SWEEPS]
    if unknown:
        raise InputError("command line", "sweeps", ", ".join(unknown), f"Known: {', '.join(SWEEPS)}.")
    found: dict[str, dict[float, list[Part]]] = {}
    for name in names:
        sweep = SWEEPS[name]
        found[name] = {}
        for value in sweep.values:
            usual = value == sweep.usual
            scene = _scene(people_weights=_always(1))
            scene = scene if usual else sweep.change(scene, value)
            group, level = ("sweep", "usual") if usual else (f"sweep_{name}", f"{value:g}")
            found[name][value] = [
                Part(
                    group,
                    level,
                    _numbered(scene, seed, SWEEP_FIRST + first, min(PART_PEOPLE, people - first)),
                )
                for first in range(0, people, PART_PEOPLE)
            ]
    return found
