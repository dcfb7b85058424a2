"""Batches for the tokenizer: motion capture, recombined and jittered, and random valid poses.

Everything is on the device, and every batch is a function of (seed, step) alone: resuming needs no record
of random states.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from depthfit import so3
from depthfit.data.random_poses import sample_poses
from depthfit.errors import InputError
from depthfit.joints import JOINT_INDEX, NUM_BODY_JOINTS, SMPL_MIRROR

RANDOM_BLOCK = 200
"""Steps whose random poses are drawn at once."""

PARTS = {
    "head": ("neck", "head"),
    "left_arm": ("left_collar", "left_shoulder", "left_elbow", "left_wrist"),
    "right_arm": ("right_collar", "right_shoulder", "right_elbow", "right_wrist"),
    "left_leg": ("left_hip", "left_knee", "left_ankle", "left_foot"),
    "right_leg": ("right_hip", "right_knee", "right_ankle", "right_foot"),
}


@dataclass
class Mixture:
    """What a batch is made of.

    Attributes:
        random_share: Share of random valid poses; the rest is motion capture, half of it mirrored.
        recombined_share: Share of the motion capture in which some limbs come from other frames.
        jittered_share: Share of the motion capture whose joints are turned a little.
        jitter: Greatest standard deviation of that turn, rad per axis.
        noise_share: Share of the batch whose *input* is disturbed while the target is not.
        noise_levels: Greatest disturbance of 6D entries, level by level.
        noise_every: Steps a level lasts; the last one stays.
    """

    random_share: float = 0.35
    recombined_share: float = 0.4
    jittered_share: float = 0.5
    jitter: float = 0.15
    noise_share: float = 0.2
    noise_levels: tuple[float, ...] = (0.01, 0.05, 0.1)
    noise_every: int = 5000


def part_masks(device: torch.device | str = "cpu") -> Tensor:
    """(5, 21) bool, which of joints 1..21 belong to each of ``PARTS``."""
    masks = torch.zeros(len(PARTS), NUM_BODY_JOINTS, dtype=torch.bool)
    for row, names in zip(masks, PARTS.values(), strict=True):
        row[[JOINT_INDEX[name] - 1 for name in names]] = True
    return masks.to(device)


def load_mocap(path: str | Path, held_out: bool) -> tuple[Tensor, list[str]]:
    """Rotations (F, 21, 3, 3) and clip names of the training or of the held-out clips.

    Raises:
        InputError: The file is not one of ``depthfit tokenizer prepare``.
    """
    if not Path(path).is_file():
        raise InputError(path, "file", "not found", "Make it with `depthfit tokenizer prepare`")
    with np.load(path, allow_pickle=False) as data:
        if not {"rotvec", "clip", "names", "held_out"} <= set(data.files):
            raise InputError(path, "keys", str(data.files), "Make it with `depthfit tokenizer prepare`")
        chosen = data["held_out"][data["clip"]] == held_out
        rotvec = torch.from_numpy(data["rotvec"][chosen].astype(np.float32))
        names = [str(n) for n, out in zip(data["names"], data["held_out"], strict=True) if out == held_out]
    return so3.exp(rotvec), names


def mirror(poses: Tensor) -> Tensor:
    """Left and right exchanged in rotations (N, 21, 3, 3)."""
    order = [j - 1 for j in SMPL_MIRROR[1 : NUM_BODY_JOINTS + 1]]
    sign = torch.tensor([-1.0, 1.0, 1.0], dtype=poses.dtype, device=poses.device)
    return poses[:, order] * sign[:, None] * sign


class PoseBatches:
    """Batches of target poses and of the inputs that shall be decoded to them."""

    def __init__(self, mocap: Tensor, mixture: Mixture, batch: int, seed: int) -> None:
        self.mocap, self.mixture, self.batch, self.seed = mocap, mixture, batch, seed
        self.device = mocap.device
        self.generator = torch.Generator(device=self.device)
        self.masks = part_masks(self.device)
        self.num_random = round(batch * mixture.random_share)
        self._block_index, self._block = -1, mocap[:0]

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """Target rotations (B, 21, 3, 3) and network input (B, 21, 6) of a step."""
        extra = self._random_poses(step)
        self.generator.manual_seed(self._seed(2, step))
        poses = torch.cat([self._mocap_poses(self.batch - self.num_random), extra])
        return poses, add_input_noise(so3.to_6d(poses), step, self.mixture, self.masks, self.generator)

    def _seed(self, stream: int, index: int) -> int:
        return (self.seed * 3 + stream) * 100_000_007 + index

    def _random_poses(self, step: int) -> Tensor:
        block, within = divmod(step, RANDOM_BLOCK)
        if block != self._block_index:
            self.generator.manual_seed(self._seed(1, block))
            self._block = sample_poses(RANDOM_BLOCK * self.num_random, self.generator, self.device)
            self._block_index = block
        return self._block[within * self.num_random : (within + 1) * self.num_random]

    def _mocap_poses(self, count: int) -> Tensor:
        mixture = self.mixture
        first, second = self._frames(count), self._frames(count)
        swap = self._chance((count, len(self.masks)), 0.5) & self._chance(
            (count, 1), mixture.recombined_share
        )
        from_second = (swap[..., None] & self.masks).any(1)
        poses = torch.where(from_second[..., None, None], second, first)
        size = torch.rand(count, 1, 1, generator=self.generator, device=self.device) * mixture.jitter
        size = size * self._chance((count, 1, 1), mixture.jittered_share)
        shape = (count, NUM_BODY_JOINTS, 3)
        turn = torch.randn(shape, generator=self.generator, device=self.device) * size
        return poses @ so3.exp(turn)

    def _frames(self, count: int) -> Tensor:
        index = torch.randint(len(self.mocap), (count,), generator=self.generator, device=self.device)
        poses = self.mocap[index]
        return torch.where(self._chance((count, 1, 1, 1), 0.5), mirror(poses), poses)

    def _chance(self, shape: tuple[int, ...], probability: float) -> Tensor:
        return torch.rand(shape, generator=self.generator, device=self.device) < probability


def add_input_noise(
    pose6d: Tensor, step: int, mixture: Mixture, masks: Tensor, generator: torch.Generator
) -> Tensor:
    """Poses (B, 21, 6), some with one number added to all entries of one body part; a new tensor.

    What TokenHMR means by its augmentation. The disturbance grows with the step.
    """
    level = mixture.noise_levels[min(step // mixture.noise_every, len(mixture.noise_levels) - 1)]
    count, device = len(pose6d), pose6d.device
    chosen = torch.rand(count, 1, generator=generator, device=device) < mixture.noise_share
    part = torch.randint(len(masks), (count,), generator=generator, device=device)
    amount = torch.rand(count, 1, 1, generator=generator, device=device) * level
    return pose6d + amount * (masks[part] & chosen)[..., None]
