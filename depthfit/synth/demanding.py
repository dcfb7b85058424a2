"""Poses that single-image regressors find hard: upside down, twisted, a limb stretched towards the camera."""

from __future__ import annotations

from collections.abc import Callable

import torch
from numpy.random import Generator
from torch import Tensor

from depthfit.body.model import Body
from depthfit.errors import DepthfitError
from depthfit.joints import JOINT_INDEX

DEMANDS = ("inverted", "twisted", "foreshortened")
INVERTED_COSINE = -0.35
"""Of the angle between the pelvis' up and the world's: 110 degrees and more."""
TWIST_COSINE = 0.8
"""Of the angle between hips and shoulders about the trunk: 37 degrees and more."""
TOWARDS_CAMERA = 0.75
"""Least part of both bones of a limb that points at the camera: 41 degrees from the optical axis and less."""
TRIES = 4000
LIMBS = tuple(
    (f"{side}_{a}", f"{side}_{b}", f"{side}_{c}")
    for side in ("left", "right")
    for a, b, c in (("shoulder", "elbow", "wrist"), ("hip", "knee", "ankle"))
)
Draw = Callable[[Generator], tuple[Tensor, Tensor, str]]


def draw_demanding(
    rng: Generator, draw: Draw, body: Body, T_camera_world: Tensor
) -> tuple[Tensor, Tensor, str]:
    """Pose, root in the world and kind (one of ``DEMANDS``, each as often) of the first draw that meets it.

    Raises:
        DepthfitError: None of ``TRIES`` draws did.
    """
    wanted = DEMANDS[int(rng.integers(len(DEMANDS)))]
    for _ in range(TRIES):
        pose, root, _ = draw(rng)
        if wanted in demands(body, T_camera_world @ root, pose, T_camera_world[:, 1]):
            return pose, root, wanted
    raise DepthfitError(f"no {wanted} pose in {TRIES} draws: give hard and random poses a share of pose_mix")


def demands(body: Body, root: Tensor, pose: Tensor, up: Tensor) -> set[str]:
    """Which of ``DEMANDS`` pose (23, 3, 3) and root (3, 3) meet, with ``up`` (3,), in the camera's frame."""
    skeleton = body.skeleton(root, pose, torch.zeros(body.num_betas).to(root))
    rotation, position = skeleton.rotation, skeleton.position

    def line(start: str, end: str) -> Tensor:
        along = position[JOINT_INDEX[end]] - position[JOINT_INDEX[start]]
        return torch.nn.functional.normalize(along, dim=-1)

    found = set()
    if float(rotation[0, :, 1] @ up) < INVERTED_COSINE:
        found.add("inverted")
    trunk = line("pelvis", "neck")
    hips, shoulders = (
        torch.nn.functional.normalize(across - (across @ trunk) * trunk, dim=-1)
        for across in (line("right_hip", "left_hip"), line("right_shoulder", "left_shoulder"))
    )
    if float(hips @ shoulders) < TWIST_COSINE:
        found.add("twisted")
    for a, b, c in LIMBS:
        if min(-float(line(a, b)[2]), -float(line(b, c)[2])) > TOWARDS_CAMERA:
            found.add("foreshortened")
    return found
