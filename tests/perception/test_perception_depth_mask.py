"""Masks from depth, against people of capsules before a wall and on a floor."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from depthfit.evidence.depth import DepthMap
from depthfit.evidence.keypoints import KeypointPerson
from depthfit.evidence.match import match_masks
from depthfit.evidence.scene import read_scene
from depthfit.joints import KEYPOINTS
from depthfit.perception.depth_mask import depth_masks
from depthfit.perception.figure import MIN_CONFIDENCE, make_figure
from depthfit.synth import SynthConfig, make_scene

WIDTH, HEIGHT, FOCAL, CAMERA_HEIGHT = 400, 320, 400.0, 1.4
PERSON = {
    "nose": (0, -0.75), "left_eye": (0.03, -0.78), "right_eye": (-0.03, -0.78), "left_ear": (0.07, -0.76),
    "right_ear": (-0.07, -0.76), "left_shoulder": (0.18, -0.5), "right_shoulder": (-0.18, -0.5),
    "left_elbow": (0.35, -0.3), "right_elbow": (-0.35, -0.3), "left_wrist": (0.5, -0.1),
    "right_wrist": (-0.5, -0.1), "left_hip": (0.1, 0.0), "right_hip": (-0.1, 0.0), "left_knee": (0.13, 0.42),
    "right_knee": (-0.13, 0.42), "left_ankle": (0.15, 0.85), "right_ankle": (-0.15, 0.85),
}  # fmt: skip
"""m, right and down of the pelvis, of a person who faces the camera."""
LIMBS = (
    ("shoulder", "elbow", 0.05), ("elbow", "wrist", 0.045), ("hip", "knee", 0.08), ("knee", "ankle", 0.06),
    ("shoulder", "hip", 0.1),
)  # fmt: skip
FOOT_UNDER_ANKLE = 0.08


def project(x: float, y: float, z: float) -> tuple[float, float]:
    return FOCAL * x / z + (WIDTH - 1) / 2, FOCAL * y / z + (HEIGHT - 1) / 2


def background(wall_z: float = 6.0) -> np.ndarray:
    """A floor ``CAMERA_HEIGHT`` under the camera, and a wall."""
    down = (np.arange(HEIGHT) - (HEIGHT - 1) / 2) / FOCAL
    floor = np.where(down > 0, CAMERA_HEIGHT / np.maximum(down, 1e-9), np.inf)
    return np.repeat(np.minimum(floor, wall_z)[:, None], WIDTH, 1)


def stand(depth: np.ndarray, x: float, z: float, lift: float = 0.0) -> tuple[KeypointPerson, np.ndarray]:
    """Draw a person of capsules into ``depth``; the keypoints and the pixels drawn."""
    down = CAMERA_HEIGHT - 0.85 - FOOT_UNDER_ANKLE - lift
    at = {name: project(x + px, py + down, z) for name, (px, py) in PERSON.items()}
    canvas = np.zeros(depth.shape, np.uint8)

    def capsule(a: tuple[float, float], b: tuple[float, float], radius: float) -> None:
        ends = [tuple(round(v * 16) for v in point) for point in (a, b)]
        cv2.line(canvas, *ends, 1, max(round(2 * radius * FOCAL / z), 1), shift=4)

    for side in ("left", "right"):
        for a, b, radius in LIMBS:
            capsule(at[f"{side}_{a}"], at[f"{side}_{b}"], radius)
        ankle = at[f"{side}_ankle"]
        capsule(ankle, (ankle[0], ankle[1] + (FOOT_UNDER_ANKLE - 0.04) * FOCAL / z), 0.04)
    capsule(at["left_shoulder"], at["right_hip"], 0.12)
    capsule(at["nose"], (at["nose"][0], at["nose"][1] - 0.06 * FOCAL / z), 0.1)
    drawn = (canvas > 0) & (z < depth)
    depth[drawn] = z
    xy, confidence = np.zeros((len(KEYPOINTS), 2)), np.zeros(len(KEYPOINTS))
    for name, point in at.items():
        xy[KEYPOINTS.index(name)], confidence[KEYPOINTS.index(name)] = point, 0.9
    return KeypointPerson(xy, confidence), drawn


def as_map(depth: np.ndarray, scale: float = 1.0) -> DepthMap:
    return DepthMap(depth.astype(np.float32), np.array([scale, scale]), None)


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
