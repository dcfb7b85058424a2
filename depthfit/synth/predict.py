"""A simulated regressor: the truth with a regressor's errors, in a regressor's camera."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from depthfit import camera as pinhole
from depthfit import so3
from depthfit.body.model import Body
from depthfit.joints import JOINT_INDEX, NUM_BODY_JOINTS, NUM_JOINTS, SMPL_JOINTS, SMPL_PARENTS
from depthfit.synth.config import PredictionNoise
from depthfit.synth.scene import Camera, Placed
from depthfit.tokens.vqvae import NUM_TOKENS, Tokenizer

_SHARE = {
    "hip": 1.25, "shoulder": 1.25, "knee": 1.5, "elbow": 1.5, "head": 1.5, "ankle": 2.0, "foot": 2.0,
    "wrist": 2.0, "hand": 2.0,
}  # fmt: skip
JOINT_SHARE = np.array([_SHARE.get(name.split("_")[-1], 1.0) for name in SMPL_JOINTS])
"""(24,) noise of each joint's rotation relative to a torso joint's: distal joints err 1.5-2 times as much."""

LIMBS = (
    ("left_hip", "left_knee", "left_ankle"),
    ("right_hip", "right_knee", "right_ankle"),
    ("left_shoulder", "left_elbow", "left_wrist"),
    ("right_shoulder", "right_elbow", "right_wrist"),
)
FLIPPED_SHARE = 2.0
"""How much less sure of a flipped limb the regressor is."""
BOX_ASPECT = 192 / 256
"""Width over height of the boxes that HMR2.0 and TokenHMR cut out, before they are made square."""
CAMERA_ITERATIONS = 5
TOKEN_SMOOTHING = 4.0
"""Tokens over which a joint's uncertainty is smeared; a joint has 7.6."""


@dataclass(frozen=True)
class PredictedPeople:
    """Predictions of the N people of one image.

    Attributes:
        root: (N, 3, 3), pose: (N, 23, 3, 3), betas: (N, B).
        box_center: (N, 2) px, box_size: (N,) px, pred_cam: (N, 3).
        token_probs: (N, 160, 2048) float16, or ``None`` without a tokenizer.
    """

    root: Tensor
    pose: Tensor
    betas: Tensor
    box_center: NDArray[np.float64]
    box_size: NDArray[np.float64]
    pred_cam: NDArray[np.float64]
    token_probs: NDArray[np.float16] | None


def predict(
    rng: Generator,
    people: list[Placed],
    camera: Camera,
    body: Body,
    tokenizer: Tokenizer | None,
    noise: PredictionNoise,
) -> PredictedPeople:
    """What a regressor says of ``people``.

    Args:
        rng: Source of randomness.
        people: The truth.
        camera: The true camera; only its image size enters the regressor's own.
        body: The body that is fitted (without the further shape directions of the truth).
        tokenizer: With one, poses pass through its codes as TokenHMR's do.
        noise: Levels.
    """
    noisy = [_disturb(rng, placed, body, noise) for placed in people]
    roots, poses, shapes, spreads = zip(*noisy, strict=True)
    root, pose, betas, spread = torch.stack(roots), torch.stack(poses), torch.stack(shapes), np.stack(spreads)
    probabilities = None
    if tokenizer is not None:
        soft = code_probabilities(pose[:, :NUM_BODY_JOINTS], spread[:, 1:22], tokenizer, noise)
        stored = soft.half()
        pose = torch.cat([decode_pose(stored.to(soft.dtype), tokenizer), pose[:, NUM_BODY_JOINTS:]], 1)
        probabilities = stored.numpy()
    skeleton, vertices = body.forward(root, pose, betas)
    keypoints = body.keypoints(skeleton, vertices)
    boxes = [detector_box(rng, placed, camera, noise.box) for placed in people]
    center, size = np.stack([b[0] for b in boxes]), np.array([b[1] for b in boxes])
    cams = [
        crop_camera(rng, points, placed, camera, (c, s), noise)
        for points, placed, c, s in zip(keypoints, people, center, size, strict=True)
    ]
    return PredictedPeople(root, pose, betas, center, size, np.stack(cams), probabilities)


def _disturb(
    rng: Generator, placed: Placed, body: Body, noise: PredictionNoise
) -> tuple[Tensor, Tensor, Tensor, NDArray[np.float64]]:
    """Root, pose and shape with errors, and the sd (24,) rad that each joint's error was drawn with."""
    person = placed.person
    sd = noise.pose_rad * JOINT_SHARE
    sd[0] = noise.root_rad
    # Log-normal factors with unit mean square keep the overall level.
    spread = np.exp(noise.spread * rng.normal() + noise.spread * rng.normal(size=NUM_JOINTS))
    sd = sd * spread * np.exp(-2 * noise.spread**2)
    error = so3.exp(torch.as_tensor(sd[:, None] * rng.normal(size=(NUM_JOINTS, 3)), dtype=torch.float32))
    root = view_turn(placed.transl, noise.view_bias) @ person.root @ error[0]
    pose = person.pose @ error[1:]
    betas = person.betas + noise.betas * torch.as_tensor(rng.normal(size=len(person.betas)), dtype=root.dtype)
    if rng.random() < noise.flipped:
        skeleton = body.skeleton(root, pose, betas)
        rise = [_bone(skeleton.position, limb)[2].abs().item() + 1e-6 for limb in LIMBS]
        limb = LIMBS[rng.choice(len(LIMBS), p=np.array(rise) / sum(rise))]
        pose = flip_limb(skeleton.rotation, skeleton.position, pose, limb)
        sd[[JOINT_INDEX[name] for name in limb[:2]]] *= FLIPPED_SHARE
    return root, pose, betas, sd


def _bone(position: Tensor, limb: tuple[str, ...]) -> Tensor:
    start, end = position[JOINT_INDEX[limb[0]]], position[JOINT_INDEX[limb[1]]]
    return (end - start) / (end - start).norm()


def flip_limb(rotation: Tensor, position: Tensor, pose: Tensor, limb: tuple[str, str, str]) -> Tensor:
    """The pose (23, 3, 3) in which the two bones of ``limb`` point as far back as they pointed front.

    Seen from afar along z, the picture stays the same: the ambiguity that single-image regressors get wrong.

    Args:
        rotation: (24, 3, 3) global rotations of the joints.
        position: (24, 3) m.
        pose: (23, 3, 3) local rotations.
        limb: Names of its three joints, from the trunk outwards.
    """
    flipped = pose.clone()
    parent = rotation[SMPL_PARENTS[JOINT_INDEX[limb[0]]]]
    for start, end in pairwise(limb):
        joint = JOINT_INDEX[start]
        bone = torch.nn.functional.normalize(position[JOINT_INDEX[end]] - position[joint], dim=-1)
        mirrored = bone * bone.new_tensor([1.0, 1.0, -1.0])
        turned = _shortest_turn(bone, mirrored) @ rotation[joint]
        flipped[joint - 1] = parent.mT @ turned
        parent = turned
    return flipped


def view_turn(transl: Tensor, share: float) -> Tensor:
    """Rotation (3, 3) by ``share`` of the way from the line of sight to a person at ``transl`` (3,) m to the
    optical axis.

    A crop shows a person beside the axis as if on it: a regressor that sees nothing else turns the root so.
    """
    sight = torch.nn.functional.normalize(transl, dim=-1)
    return _shortest_turn(sight, sight.new_tensor([0.0, 0.0, 1.0]), share)


def _shortest_turn(a: Tensor, b: Tensor, share: float = 1.0) -> Tensor:
    """Rotation (3, 3) about a x b by ``share`` of the angle from unit vector ``a`` (3,) to ``b`` (3,)."""
    axis = torch.linalg.cross(a, b)
    sine = axis.norm()
    return so3.exp(axis / sine.clamp(min=1e-9) * (share * torch.atan2(sine, a @ b)))


def code_probabilities(
    pose: Tensor, sd: NDArray[np.float64], tokenizer: Tokenizer, noise: PredictionNoise
) -> Tensor:
    """Probabilities (N, 160, 2048) of each token's codes, as a TokenHMR-like classifier puts them out.

    p_tk = softmax_k(-||e_t - c_k||^2 / (2 tau_t^2)) with the noisy pose's latents e and codes c. tau follows
    the sd of the error at the token's place: token t of 160 lies over joint 21 t / 160. Its unit is the
    distance from a latent to its nearest code, the tokenizer's own grain.

    Args:
        pose: (N, 21, 3, 3) predicted rotations.
        sd: (N, 21) rad, of the error of each.
        tokenizer: The codes.
        noise: ``token_spread`` and ``pose_rad`` set the level.
    """
    latents = tokenizer.encode(so3.to_6d(pose))
    distance2 = torch.cdist(latents, tokenizer.codebook.expand(len(latents), -1, -1)) ** 2
    grain2 = distance2.amin(-1).mean()
    place = (np.arange(NUM_TOKENS) + 0.5) * NUM_BODY_JOINTS / NUM_TOKENS - 0.5
    over_tokens = np.stack([np.interp(place, np.arange(NUM_BODY_JOINTS), row) for row in sd])
    over_tokens = gaussian_filter1d(over_tokens, TOKEN_SMOOTHING, axis=-1, mode="nearest")
    relative = over_tokens / (noise.pose_rad * JOINT_SHARE[1:22].mean()) if noise.pose_rad > 0 else 1.0
    tau = torch.as_tensor(noise.token_spread * relative * np.ones(NUM_TOKENS), dtype=latents.dtype)
    return torch.softmax(-distance2 / (2 * grain2 * tau[..., None] ** 2), -1)


def decode_pose(probabilities: Tensor, tokenizer: Tokenizer) -> Tensor:
    """Rotations (N, 21, 3, 3) of the expected codes under ``probabilities`` (N, 160, 2048)."""
    return so3.from_6d(tokenizer.decode(tokenizer.soft(probabilities)))


def detector_box(
    rng: Generator, placed: Placed, camera: Camera, sd: float
) -> tuple[NDArray[np.float64], float]:
    """Centre (2,) px and side px of the square crop around a detector's box, widened to 192:256 first."""
    points = pinhole.project(placed.clothed, camera.K).double().numpy()
    limit = np.array(camera.size) - 1.0
    low, high = np.clip(points.min(0), 0, limit), np.clip(points.max(0), 0, limit)
    width, height = high - low
    side = max(height, width / BOX_ASPECT)
    center = (low + high) / 2 + sd * side * rng.normal(size=2)
    return center, float(side * np.exp(sd * rng.normal()))


def crop_camera(
    rng: Generator,
    keypoints: Tensor,
    placed: Placed,
    camera: Camera,
    box: tuple[NDArray[np.float64], float],
    noise: PredictionNoise,
) -> NDArray[np.float64]:
    """pred_cam (s, tx, ty) that best lays predicted keypoints over the true ones, with errors.

    Under the regressor's focal length f = 5000/256 x longer side the least-squares scale and shift are found
    by a few weak-perspective solutions, each with the perspective of the last.

    Args:
        rng: Source of randomness.
        keypoints: (K, 3) m, predicted, about the pelvis.
        placed: The truth.
        camera: Of the truth.
        box: Centre and side of the crop in px.
        noise: Levels.
    """
    true = pinhole.project(placed.keypoints, camera.K).double().numpy()
    middle = (np.array(camera.size) - 1) / 2
    focal = float(pinhole.regressor_focal(*camera.size))
    points = keypoints.double().numpy()
    depth = np.inf
    for _ in range(CAMERA_ITERATIONS):
        flat = points[:, :2] / (1 + points[:, 2:] / depth)
        weight = 1 / (1 + points[:, 2] / depth)
        # u - c = scale * (flat + shift * weight): linear in (scale, scale * shift).
        zero = np.zeros_like(weight)
        design = np.concatenate(
            [np.stack([flat[:, 0], weight, zero], -1), np.stack([flat[:, 1], zero, weight], -1)]
        )
        solution = np.linalg.lstsq(design, (true - middle).T.reshape(-1), rcond=None)[0]
        scale, offset = solution[0], solution[1:]
        depth = focal / scale
    extent = (true.max(0) - true.min(0)).max()
    offset = offset + noise.shift * extent * rng.normal(size=2)
    depth = depth * np.exp(noise.scale * rng.normal())
    # The shift in metres moves with the depth, so that the person stays where it is in the image.
    shift = offset * depth / focal
    center, side = box
    return np.array(
        [
            2 * focal / (side * depth),
            *(shift - (center - middle) * depth / focal),
        ]
    )
