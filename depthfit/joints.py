"""Named joint and keypoint lists, so that no other file holds a bare index.

SMPL joints and OKS sigmas: COCO keypoint evaluation (Ronchi & Perona, ICCV 2017) and the SMPL model.
"""

from __future__ import annotations

SMPL_JOINTS = (
    "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle",
    "right_ankle", "spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head",
    "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
    "left_hand", "right_hand",
)  # fmt: skip
SMPL_PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
JOINT_INDEX = {name: i for i, name in enumerate(SMPL_JOINTS)}
NUM_JOINTS = len(SMPL_JOINTS)
NUM_BODY_JOINTS = 21
"""Joints 1..21, the ones a pose tokenizer covers; 22 and 23 are the hands."""

COCO17 = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee",
    "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip
FEET = ("left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel")
KEYPOINTS = (*COCO17, *FEET, "neck", "mid_hip", "upper_neck", "head_top")
"""Every 2D keypoint that depthfit knows. `neck` and `mid_hip` are the midpoints of the shoulders and
the hips, as OpenPose defines them; `upper_neck` and `head_top` are BODY_25B's."""

BODY25 = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow",
    "left_wrist", "mid_hip", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee",
    "left_ankle", "right_eye", "left_eye", "right_ear", "left_ear", "left_big_toe", "left_small_toe",
    "left_heel", "right_big_toe", "right_small_toe", "right_heel",
)  # fmt: skip
BODY25B = (
    *COCO17, "upper_neck", "head_top", "left_big_toe", "left_small_toe", "left_heel", "right_big_toe",
    "right_small_toe", "right_heel",
)  # fmt: skip
KEYPOINT_FORMATS = {"coco17": COCO17, "body25": BODY25, "body25b": BODY25B}

OKS_SIGMA = {
    "nose": 0.026, "left_eye": 0.025, "right_eye": 0.025, "left_ear": 0.035, "right_ear": 0.035,
    "left_shoulder": 0.079, "right_shoulder": 0.079, "left_elbow": 0.072, "right_elbow": 0.072,
    "left_wrist": 0.062, "right_wrist": 0.062, "left_hip": 0.107, "right_hip": 0.107,
    "left_knee": 0.087, "right_knee": 0.087, "left_ankle": 0.089, "right_ankle": 0.089,
    "left_big_toe": 0.068, "left_small_toe": 0.066, "left_heel": 0.066,
    "right_big_toe": 0.092, "right_small_toe": 0.094, "right_heel": 0.094,
    "neck": 0.079, "mid_hip": 0.107, "upper_neck": 0.079, "head_top": 0.079,
}  # fmt: skip
"""Annotation spread of each keypoint, in units of the square root of the person's area. The feet are
those of COCO-WholeBody; points that COCO does not have take the value of their nearest relative."""


def mirror_name(name: str) -> str:
    """The name of the same point on the other side of the body."""
    if name.startswith("left_"):
        return "right_" + name[5:]
    if name.startswith("right_"):
        return "left_" + name[6:]
    return name


SMPL_MIRROR = tuple(JOINT_INDEX[mirror_name(name)] for name in SMPL_JOINTS)
"""Permutation that swaps left and right joints."""


def descendants() -> list[list[int]]:
    """For every SMPL joint, itself and all joints below it."""
    below: list[list[int]] = [[j] for j in range(NUM_JOINTS)]
    for j in reversed(range(1, NUM_JOINTS)):
        below[SMPL_PARENTS[j]] += below[j]
    return below
