"""A stick figure with thickness from 2D keypoints: where in the image a person's body can be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from depthfit.evidence.keypoints import KeypointPerson
from depthfit.joints import COCO17, KEYPOINTS

MIN_CONFIDENCE = 0.3
_BONES: tuple[tuple[str, str, float, float], ...] = (
    ("shoulder", "elbow", 0.17, 0.050),
    ("elbow", "wrist", 0.15, 0.042),
    ("hip", "knee", 0.245, 0.075),
    ("knee", "ankle", 0.245, 0.055),
    ("shoulder", "hip", 0.29, 0.080),
)
"""Bones of either side: from, to, length and radius per stature (after the segment lengths of Drillis and
Contini, 1964, that biomechanics uses; radii with clothes)."""
_ACROSS = (
    ("left_shoulder", "right_shoulder", 0.21, 0.060),
    ("left_hip", "right_hip", 0.11, 0.080),
)
_TORSO = ("left_shoulder", "right_shoulder", "right_hip", "left_hip")
_FACE = COCO17[:5]
_HAND_SHARE, _HAND_RADIUS = 0.45, 0.050
"""A hand goes on past the wrist by this share of the forearm."""
_FOOT_RADIUS, _FACE_RADIUS, _CROWN_RADIUS, _NECK_RADIUS = 0.070, 0.075, 0.070, 0.050
_CROWN_SHARE = 0.35
"""The crown lies beyond the face by this share of the way from the shoulders."""
_FORESHORTENING_QUANTILE = 0.85
"""Of the statures that a person's bones tell: seen from the front a bone tells too little, and a wrong
keypoint too much."""


@dataclass(frozen=True)
class Bone:
    """A capsule: end points (2,) px and radius px."""

    start: np.ndarray
    end: np.ndarray
    radius: float


@dataclass(frozen=True)
class Figure:
    """A person's bones.

    Attributes:
        bones: Capsules.
        torso: (4, 2) px corners, or ``None`` where one of them was not found.
        stature: px, how long the person would be standing upright at this distance.
    """

    bones: tuple[Bone, ...]
    torso: np.ndarray | None
    stature: float

    def draw(self, size: tuple[int, int], factor: float) -> np.ndarray:
        """(h, w) bool: the bones with radii times ``factor``, and the torso."""
        canvas = np.zeros(size, np.uint8)
        for bone in self.bones:
            draw_bone(canvas, bone, factor)
        if self.torso is not None:
            cv2.fillConvexPoly(canvas, cv2.convexHull(np.rint(self.torso).astype(np.int32)), 1)
        return canvas > 0

    def shifted(self, origin: np.ndarray) -> Figure:
        """The same figure in a window whose first pixel is ``origin`` (2,) px."""
        bones = tuple(Bone(bone.start - origin, bone.end - origin, bone.radius) for bone in self.bones)
        return Figure(bones, None if self.torso is None else self.torso - origin, self.stature)


def draw_bone(canvas: np.ndarray, bone: Bone, factor: float) -> None:
    """Paint a capsule of 1 into ``canvas`` (h, w) uint8."""
    radius = max(round(bone.radius * factor), 1)
    start, end = (np.rint(point).astype(int).tolist() for point in (bone.start, bone.end))
    cv2.line(canvas, start, end, 1, 2 * radius)
    cv2.circle(canvas, end, radius, 1, -1)


def make_figure(
    person: KeypointPerson, place: Callable[[np.ndarray], np.ndarray] = lambda xy: xy
) -> Figure | None:
    """The figure of a person, or ``None`` where no bone has both its ends.

    Args:
        person: Keypoints; those below ``MIN_CONFIDENCE`` are not used.
        place: Carries image px (..., 2) into the px of the figure.
    """
    xy = place(person.xy)
    known = {
        name: xy[k]
        for k, name in enumerate(KEYPOINTS)
        if person.confidence[k] >= MIN_CONFIDENCE and name in COCO17
    }
    spans = [
        (f"{side}_{a}", f"{side}_{b}", length, radius)
        for a, b, length, radius in _BONES
        for side in ("left", "right")
    ]
    found = [span for span in (*spans, *_ACROSS) if span[0] in known and span[1] in known]
    if not found:
        return None
    told = [float(np.linalg.norm(known[a] - known[b])) / length for a, b, length, _ in found]
    stature = max(float(np.quantile(told, _FORESHORTENING_QUANTILE)), 1.0)
    bones = [Bone(known[a], known[b], radius * stature) for a, b, _, radius in found]
    bones += _ends(known, stature)
    torso = np.stack([known[name] for name in _TORSO]) if all(name in known for name in _TORSO) else None
    return Figure(tuple(bones), torso, stature)


def _ends(known: dict[str, np.ndarray], stature: float) -> list[Bone]:
    """Hands, feet and head, which have no keypoints of their own."""
    bones = []
    for side in ("left", "right"):
        elbow, wrist, ankle = (known.get(f"{side}_{name}") for name in ("elbow", "wrist", "ankle"))
        if elbow is not None and wrist is not None:
            bones.append(Bone(wrist, wrist + _HAND_SHARE * (wrist - elbow), _HAND_RADIUS * stature))
        if ankle is not None:
            bones.append(Bone(ankle, ankle, _FOOT_RADIUS * stature))
    face = [known[name] for name in _FACE if name in known]
    shoulders = [known[f"{side}_shoulder"] for side in ("left", "right") if f"{side}_shoulder" in known]
    if face:
        center = np.mean(face, 0)
        bones.append(Bone(center, center, _FACE_RADIUS * stature))
        if shoulders:
            middle = np.mean(shoulders, 0)
            crown = center + _CROWN_SHARE * (center - middle)
            bones.append(Bone(middle, center, _NECK_RADIUS * stature))
            bones.append(Bone(center, crown, _CROWN_RADIUS * stature))
    return bones
