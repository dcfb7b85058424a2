"""The pose tokenizer: TokenHMR's VQ-VAE over the 21 body joints, layer by layer.

A pose is (N, 21, 6): per joint the first two ROWS of its rotation. The encoder gives 160 latents of 256
numbers, each of which a code of the codebook stands for. Layers, lengths and state-dict keys are those of
TokenHMR (Dwivedi et al., CVPR 2024), so that its released file loads; the width alone is free here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from depthfit.joints import NUM_BODY_JOINTS
from depthfit.struct import TensorStruct
from depthfit.tokens.layers import ResidualStack, convolve, resize
from depthfit.tokens.quantizer import Quantizer

NUM_TOKENS = 160
CODE_DIM = 256
NUM_CODES = 2048
OFFICIAL_WIDTH = 512
ENCODER_LENGTHS = (40, 80, 160, 320)
DECODER_LENGTHS = (125, 90, 55, 21)
RESIZED_LAYERS = ("3", "6", "9", "12")
"""Convolutions that follow a resize to the lengths above; the numbers are TokenHMR's module indices."""


@dataclass(frozen=True)
class TokenizerOutput(TensorStruct):
    """One pass in training.

    Attributes:
        pose6d: (N, 21, 6) decoded rows, before Gram-Schmidt.
        latents: (N, 160, 256) encoder output.
        codes: (N, 160) nearest codes.
        commit: () mean squared distance of the latents to their codes.
    """

    pose6d: Tensor
    latents: Tensor
    codes: Tensor
    commit: Tensor


class Encoder(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        half = nn.Conv1d(width, width, 4, stride=2, padding=1)
        self.encoder = nn.ModuleDict(
            {
                "0": nn.Conv1d(6, width, 3, padding=1),
                **{name: nn.Conv1d(width, width, 3, padding=1) for name in RESIZED_LAYERS},
                "14": nn.ModuleList([half, ResidualStack(width)]),
                "15": nn.Conv1d(width, CODE_DIM, 3, padding=1),
            }
        )

    def convolution(self, name: str) -> nn.Conv1d:
        return cast(nn.Conv1d, self.encoder[name])

    def halving(self) -> tuple[nn.Conv1d, ResidualStack]:
        half, stack = cast(nn.ModuleList, self.encoder["14"])
        return cast(nn.Conv1d, half), cast(ResidualStack, stack)

    def forward(self, pose6d: Tensor) -> Tensor:
        x = convolve(pose6d, self.convolution("0")).relu()
        for name, length in zip(RESIZED_LAYERS, ENCODER_LENGTHS, strict=True):
            x = convolve(resize(x, length), self.convolution(name)).relu()
        half, stack = self.halving()
        return convolve(stack(convolve(x, half)), self.convolution("15"))


class Decoder(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        last = nn.Conv1d(width, width, 3, padding=1)
        self.decoder = nn.ModuleDict(
            {
                "0": nn.Conv1d(CODE_DIM, width, 3, padding=1),
                **{name: nn.Conv1d(width, width, 3, padding=1) for name in RESIZED_LAYERS},
                "14": nn.ModuleList([ResidualStack(width), last]),
                "15": nn.Conv1d(width, 6, 3, padding=1),
            }
        )

    def convolution(self, name: str) -> nn.Conv1d:
        return cast(nn.Conv1d, self.decoder[name])

    def refining(self) -> tuple[ResidualStack, nn.Conv1d]:
        stack, last = cast(nn.ModuleList, self.decoder["14"])
        return cast(ResidualStack, stack), cast(nn.Conv1d, last)

    def forward(self, z: Tensor) -> Tensor:
        x = convolve(z, self.convolution("0")).relu()
        for name, length in zip(RESIZED_LAYERS, DECODER_LENGTHS, strict=True):
            x = convolve(resize(x, length), self.convolution(name)).relu()
        stack, last = self.refining()
        return convolve(convolve(stack(x), last), self.convolution("15"))


class Tokenizer(nn.Module):
    """Encoder, codebook and decoder. ``width`` is 512 in TokenHMR's release."""

    def __init__(self, width: int = OFFICIAL_WIDTH) -> None:
        super().__init__()
        self.width = width
        self.encoder = Encoder(width)
        self.decoder = Decoder(width)
        self.quantizer = Quantizer(NUM_CODES, CODE_DIM)

    @property
    def codebook(self) -> Tensor:
        """(2048, 256)."""
        return self.quantizer.codebook

    def encode(self, pose6d: Tensor) -> Tensor:
        """Latents (N, 160, 256) of poses (N, 21, 6) given as rows; not quantised."""
        _expect(pose6d, (NUM_BODY_JOINTS, 6), "pose6d")
        return self.encoder(pose6d)

    def decode(self, z: Tensor) -> Tensor:
        """Pose (N, 21, 6) as rows before Gram-Schmidt, of latents (N, 160, 256)."""
        _expect(z, (NUM_TOKENS, CODE_DIM), "z")
        return self.decoder(z)

    def quantise(self, z: Tensor) -> Tensor:
        """Nearest codes (N, 160) int64 of latents (N, 160, 256)."""
        return self.quantizer.nearest(z)

    def lookup(self, codes: Tensor) -> Tensor:
        """Latents (N, 160, 256) of codes (N, 160)."""
        return self.codebook[codes]

    def soft(self, probabilities: Tensor) -> Tensor:
        """Expected latents (N, 160, 256) under code probabilities (N, 160, 2048)."""
        return probabilities @ self.codebook

    def forward(self, pose6d: Tensor, keep_latents: Tensor | None = None) -> TokenizerOutput:
        """Encode, quantise with a straight-through gradient, decode.

        Args:
            pose6d: (N, 21, 6).
            keep_latents: (N,) bool, poses to decode from their latents themselves. A fit leaves the
                codes, so the decoder must be as good between them.
        """
        latents = self.encode(pose6d).float()
        codes = self.quantise(latents.detach())
        chosen = self.lookup(codes)
        z = latents + (chosen - latents).detach()
        if keep_latents is not None:
            z = torch.where(keep_latents[:, None, None], latents, z)
        return TokenizerOutput(
            pose6d=self.decode(z).float(),
            latents=latents,
            codes=codes,
            commit=torch.nn.functional.mse_loss(latents, chosen),
        )


def _expect(value: Tensor, shape: tuple[int, int], name: str) -> None:
    if tuple(value.shape[1:]) != shape or value.ndim != 3:
        raise ValueError(f"{name} has shape {tuple(value.shape)}; expected (N, {shape[0]}, {shape[1]})")
