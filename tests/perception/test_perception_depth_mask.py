"""Masks from depth, against people of capsules before a wall and on a floor."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from depthfit.evidence.keypoints import KeypointPerson
from depthfit.evidence.match import match_masks
from depthfit.evidence.scene import read_scene
from depthfit.joints import KEYPOINTS
from depthfit.perception.depth_mask import depth_masks
from depthfit.perception.figure import MIN_CONFIDENCE, make_figure
from depthfit.synth import SynthConfig, make_scene
from tests.perception.capsules import FOCAL, HEIGHT, WIDTH, as_map, background, stand


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def nobody() -> KeypointPerson:
    return KeypointPerson(np.zeros((len(KEYPOINTS), 2)), np.zeros(len(KEYPOINTS)))


def test_a_person_in_the_air_before_a_wall() -> None:
    depth = background()
    person, drawn = stand(depth, 0.0, 3.0, lift=0.6)
    labels = depth_masks(as_map(depth), [person], (WIDTH, HEIGHT))
    assert iou(labels == 1, drawn) > 0.97


def test_the_floor_under_the_feet_is_not_the_person() -> None:
    depth = background()
    person, drawn = stand(depth, 0.0, 3.5)
    labels = depth_masks(as_map(depth), [person], (WIDTH, HEIGHT))
    assert iou(labels == 1, drawn) > 0.93
    below = round(person.xy[KEYPOINTS.index("left_ankle"), 1] + 0.12 * FOCAL / 3.5)
    assert not labels[below:].any()


def test_noise_and_blurred_edges() -> None:
    rng = np.random.default_rng(0)
    depth = background()
    person, drawn = stand(depth, 0.0, 3.0)
    blurred = 1 / cv2.GaussianBlur(1 / depth, (0, 0), 1.2) * np.exp(0.01 * rng.standard_normal(depth.shape))
    assert iou(depth_masks(as_map(blurred), [person], (WIDTH, HEIGHT)) == 1, drawn) > 0.9


def test_of_two_people_the_nearer_hides_the_farther() -> None:
    depth = background()
    far, far_drawn = stand(depth, -0.45, 5.0)
    near, near_drawn = stand(depth, 0.1, 3.6)
    labels = depth_masks(as_map(depth), [far, near], (WIDTH, HEIGHT))
    assert iou(labels == 2, near_drawn) > 0.93
    assert iou(labels == 1, far_drawn & ~near_drawn) > 0.85


def test_a_map_of_another_size() -> None:
    depth = background()
    person, drawn = stand(depth, 0.0, 3.0, lift=0.5)
    half = depth[::2, ::2]
    labels = depth_masks(as_map(half, 0.5), [person], (WIDTH, HEIGHT))
    assert labels.shape == (HEIGHT, WIDTH)
    assert iou(labels == 1, drawn) > 0.9


def test_the_scale_of_depth_and_focal_does_not_matter_to_the_floor() -> None:
    depth = background()
    person, drawn = stand(depth, 0.0, 3.5)
    labels = depth_masks(as_map(1.3 * depth), [person], (WIDTH, HEIGHT))
    assert iou(labels == 1, drawn) > 0.92


def test_who_has_no_keypoints_or_no_depth_has_no_mask() -> None:
    depth = background()
    person, _ = stand(depth, 0.0, 3.0)
    labels = depth_masks(as_map(depth), [nobody(), person], (WIDTH, HEIGHT))
    assert set(np.unique(labels)) == {0, 2}
    empty = np.zeros_like(depth)
    assert not depth_masks(as_map(empty), [person], (WIDTH, HEIGHT)).any()
    away = KeypointPerson(person.xy + 10000, person.confidence)
    assert not depth_masks(as_map(depth), [away], (WIDTH, HEIGHT)).any()


def test_stature_is_that_of_the_bones_seen_in_full() -> None:
    person, _ = stand(background(), 0.0, 3.0)
    figure = make_figure(person)
    assert figure is not None
    # The arms, 0.26 m and 0.25 m long, are the longest for their share: see the table of bones.
    assert figure.stature == pytest.approx(1.72 * FOCAL / 3.0, rel=0.1)
    unsure = KeypointPerson(person.xy, np.full(len(KEYPOINTS), MIN_CONFIDENCE / 2))
    assert make_figure(unsure) is None


def test_rendered_people(tmp_path: Path) -> None:
    config = SynthConfig(seed=5, images=2, people_weights=(1.0,), width=480, height=360, token_probs=False)
    config.noise.mask_px = config.noise.mask_bites = 0.0
    scene = read_scene(make_scene(config, tmp_path / "scene", progress=False), "coco17")
    for name in scene.names:
        evidence = scene.read(name)
        assert evidence.labels is not None
        assert evidence.depth is not None
        assert match_masks(evidence.people, evidence.labels).tolist() == [1]
        labels = depth_masks(evidence.depth, evidence.people, evidence.size)
        assert iou(labels == 1, evidence.labels == 1) > 0.9
