"""Readouts of the decoded query: HMR2.0's pose, and TokenHMR's logits over the pose tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from baselines.hmr.decoder import Decoder, DecoderSize, TwoLayers
from depthfit.joints import NUM_JOINTS
from depthfit.struct import TensorStruct
from depthfit.tokens.vqvae import NUM_CODES, NUM_TOKENS

NUM_BETAS = 10
MIXER_WIDTH, MIXER_TOKEN_WIDTH, MIXER_CHANNEL_WIDTH, MIXER_LAYERS = 64, 64, 256, 4
"""Of TokenHMR's classifier; its configuration does not name them."""


@dataclass(frozen=True)
class Readout(TensorStruct):
    """What a head says, added to the mean person.

    Attributes:
        pose6d: (B, 24, 6) before Gram-Schmidt. With tokens, the body's joints 1..21 are the mean alone:
            what the tokens decode to is still to be added.
        betas: (B, 10).
        camera: (B, 3) crop camera (s, tx, ty).
        token_logits: (B, 160, 2048), or ``None`` for a head without tokens.
    """

    pose6d: Tensor
    betas: Tensor
    camera: Tensor
    token_logits: Tensor | None


class _Head(nn.Module, ABC):
    """Decoder, mean person, shape and camera."""

    init_body_pose: Tensor
    init_betas: Tensor
    init_cam: Tensor

    def __init__(self, size: DecoderSize, context_width: int) -> None:
        super().__init__()
        self.register_buffer("init_body_pose", torch.zeros(1, NUM_JOINTS * 6))
        self.register_buffer("init_betas", torch.zeros(1, NUM_BETAS))
        self.register_buffer("init_cam", torch.zeros(1, 3))
        self.transformer = Decoder(size, context_width)
        self.decshape = nn.Linear(size.width, NUM_BETAS)
        self.deccam = nn.Linear(size.width, 3)

    def forward(self, features: Tensor) -> Readout:
        """Read (B, 192, context_width)."""
        query = self.transformer(features)
        offset, logits = self.pose(query)
        return Readout(
            pose6d=(offset + self.init_body_pose).unflatten(-1, (NUM_JOINTS, 6)),
            betas=self.decshape(query) + self.init_betas,
            camera=self.deccam(query) + self.init_cam,
            token_logits=logits,
        )

    @abstractmethod
    def pose(self, query: Tensor) -> tuple[Tensor, Tensor | None]:
        """Offset (B, 144) of the mean pose, and token logits where there are any, of (B, width)."""


class RotationHead(_Head):
    """HMR2.0: all 24 rotations at once, each the first two COLUMNS of its matrix."""

    layout = "columns"

    def __init__(self, size: DecoderSize, context_width: int) -> None:
        super().__init__(size, context_width)
        self.decpose = nn.Linear(size.width, NUM_JOINTS * 6)

    def pose(self, query: Tensor) -> tuple[Tensor, None]:
        return self.decpose(query), None


class TokenHead(_Head):
    """TokenHMR: root and hands as rotations, first two ROWS of the matrix; the body as token logits."""

    layout = "rows"

    def __init__(self, size: DecoderSize, context_width: int) -> None:
        super().__init__(size, context_width)
        self.decpose_grot = nn.Linear(size.width, 6)
        self.decpose_hands = nn.Linear(size.width, 12)
        self.decpose = _TokenClassifier(size.width)

    def pose(self, query: Tensor) -> tuple[Tensor, Tensor]:
        root, hands = self.decpose_grot(query), self.decpose_hands(query)
        body = root.new_zeros(len(root), NUM_JOINTS * 6 - root.shape[-1] - hands.shape[-1])
        return torch.cat([root, body, hands], -1), self.decpose(query)


class _NormedLinear(nn.Module):
    """Linear, layer norm, ReLU."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.ff = nn.ModuleList([nn.Linear(width_in, width_out), nn.LayerNorm(width_out)])

    def forward(self, x: Tensor) -> Tensor:
        linear, norm = self.ff
        return norm(linear(x)).relu()


class _MixerMlp(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.ff = TwoLayers(width, inner)

    def forward(self, x: Tensor) -> Tensor:
        return self.ff(x)


class _MixerLayer(nn.Module):
    """One layer of an MLP-Mixer (Tolstikhin et al., NeurIPS 2021) that keeps a residual of both steps."""

    def __init__(self) -> None:
        super().__init__()
        self.layernorm1 = nn.LayerNorm(MIXER_WIDTH)
        self.MLP_token = _MixerMlp(NUM_TOKENS, MIXER_TOKEN_WIDTH)
        self.layernorm2 = nn.LayerNorm(MIXER_WIDTH)
        self.MLP_channel = _MixerMlp(MIXER_WIDTH, MIXER_CHANNEL_WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.MLP_token(self.layernorm1(x).mT).mT
        return x + self.MLP_channel(self.layernorm2(x))


class _TokenClassifier(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.mixer_trans = _NormedLinear(width, NUM_TOKENS * MIXER_WIDTH)
        self.mixer_head = nn.ModuleList(_MixerLayer() for _ in range(MIXER_LAYERS))
        self.mixer_norm_layer = _NormedLinear(MIXER_WIDTH, MIXER_WIDTH)
        self.class_pred_layer = nn.Linear(MIXER_WIDTH, NUM_CODES)

    def forward(self, query: Tensor) -> Tensor:
        """Logits (B, 160, 2048) of (B, width)."""
        x = self.mixer_trans(query).unflatten(-1, (NUM_TOKENS, MIXER_WIDTH))
        for layer in self.mixer_head:
            x = layer(x)
        return self.class_pred_layer(self.mixer_norm_layer(x))
