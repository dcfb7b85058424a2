"""How well a tokenizer reproduces poses that it has not seen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from depthfit import so3
from depthfit.body.model import Body
from depthfit.data.random_poses import sample_poses
from depthfit.joints import NUM_BODY_JOINTS
from depthfit.tokens.losses import pose_body
from depthfit.tokens.quantizer import perplexity
from depthfit.tokens.vqvae import NUM_CODES, Tokenizer

CHUNK = 64
RANDOM_SEED = 20240


@dataclass(frozen=True)
class Reconstruction:
    """Errors of one way of decoding, in mm, on a body of mean shape with its pelvis fixed.

    Attributes:
        joint_mean: Mean over poses and joints 1..21.
        joint_p95: 95th percentile over poses of a pose's mean joint error.
        single_joint_p95: 95th percentile over all single joints of all poses.
        mesh_mean: Mean over poses and vertices.
        angle_mean: Mean angle between joint rotations, degrees.
    """

    joint_mean: float
    joint_p95: float
    single_joint_p95: float
    mesh_mean: float
    angle_mean: float


@dataclass(frozen=True)
class TokenizerScore:
    """A tokenizer on one set of poses. Keys of ``decoding`` are quantised, unquantised and soft."""

    poses: int
    perplexity: float
    codes_used: int
    latent_rms: float
    quantisation_rms: float
    decoding: dict[str, Reconstruction]


@torch.no_grad()
def score_tokenizer(tokenizer: Tokenizer, body: Body, poses: Tensor) -> TokenizerScore:
    """Encode and decode rotations (N, 21, 3, 3) in three ways.

    ``soft`` decodes the expected code under probabilities proportional to exp(-d^2 / d0^2), d being the
    distance of a latent to a code and d0^2 the mean of the least d^2: what a regressor that is as unsure
    as the quantisation is coarse would give.
    """
    latents = torch.cat([tokenizer.encode(so3.to_6d(chunk)) for chunk in poses.split(CHUNK)])
    codes = torch.cat([tokenizer.quantise(chunk) for chunk in latents.split(CHUNK)])
    spread = (tokenizer.lookup(codes) - latents).square().sum(-1).mean()
    columns: dict[str, list[tuple[Tensor, ...]]] = {"quantised": [], "unquantised": [], "soft": []}
    for target, z, code in zip(poses.split(CHUNK), latents.split(CHUNK), codes.split(CHUNK), strict=True):
        truth = pose_body(body, target)
        distance = torch.cdist(z, tokenizer.codebook.expand(len(z), -1, -1)).square()
        probabilities = torch.softmax(-distance / spread, -1)
        choices = {
            "quantised": tokenizer.lookup(code),
            "unquantised": z,
            "soft": tokenizer.soft(probabilities),
        }
        for name, chosen in choices.items():
            found = so3.from_6d(tokenizer.decode(chosen))
            columns[name].append(_errors(pose_body(body, found), truth, found, target))
    return TokenizerScore(
        poses=len(poses),
        perplexity=float(perplexity(codes, NUM_CODES)),
        codes_used=len(codes.unique()),
        latent_rms=float(latents.square().mean().sqrt()),
        quantisation_rms=float((spread / latents.shape[-1]).sqrt()),
        decoding={name: _summary(rows) for name, rows in columns.items()},
    )


def _errors(
    found: tuple[Tensor, Tensor], truth: tuple[Tensor, Tensor], rotation: Tensor, target: Tensor
) -> tuple[Tensor, ...]:
    joints = (found[0] - truth[0])[:, 1 : NUM_BODY_JOINTS + 1].norm(dim=-1)
    return joints, (found[1] - truth[1]).norm(dim=-1).mean(-1), so3.log(rotation.mT @ target).norm(dim=-1)


def _summary(rows: list[tuple[Tensor, ...]]) -> Reconstruction:
    joints, mesh, angle = (torch.cat(column).double() for column in zip(*rows, strict=True))
    return Reconstruction(
        joint_mean=1000 * float(joints.mean()),
        joint_p95=1000 * float(joints.mean(-1).quantile(0.95)),
        single_joint_p95=1000 * float(joints.flatten().quantile(0.95)),
        mesh_mean=1000 * float(mesh.mean()),
        angle_mean=float(torch.rad2deg(angle.mean())),
    )


def score_sets(
    tokenizer: Tokenizer, body: Body, held_out: Tensor, random_count: int = 4096
) -> dict[str, TokenizerScore]:
    """Scores on held-out motion capture (N, 21, 3, 3) and on random valid poses of a fixed seed."""
    generator = torch.Generator().manual_seed(RANDOM_SEED)
    random = sample_poses(random_count, generator).to(held_out.device)
    return {
        "held-out clips": score_tokenizer(tokenizer, body, held_out),
        "random valid poses": score_tokenizer(tokenizer, body, random),
    }


def score_table(scores: Mapping[str, TokenizerScore]) -> str:
    """The scores as a Markdown table."""
    lines = [
        "| poses | decoding | joints mm | p95 poses | p95 joints | mesh mm | deg | codes | perplexity |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, score in scores.items():
        for way, r in score.decoding.items():
            lines.append(
                f"| {name} ({score.poses}) | {way} | {r.joint_mean:.2f} | {r.joint_p95:.2f} | "
                f"{r.single_joint_p95:.2f} | {r.mesh_mean:.2f} | {r.angle_mean:.2f} | "
                f"{score.codes_used} | {score.perplexity:.0f} |"
            )
    return "\n".join(lines)


def write_scores(scores: Mapping[str, TokenizerScore], path: str | Path) -> None:
    """Write the scores as JSON."""
    Path(path).write_text(json.dumps({name: asdict(score) for name, score in scores.items()}, indent=2))
