"""People of capsules before a wall and on a floor, as depth maps and keypoints."""

from __future__ import annotations

import cv2
import numpy as np

from depthfit.evidence.depth import DepthMap
from depthfit.evidence.keypoints import KeypointPerson
from depthfit.joints import KEYPOINTS

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
