"""A regressor: crops of people in, SMPL parameters out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from baselines.hmr.backbone import Backbone, BackboneSize
from baselines.hmr.decoder import DecoderSize
from baselines.hmr.heads import Readout, RotationHead, TokenHead
from depthfit import so3
from depthfit.joints import NUM_BODY_JOINTS
from depthfit.struct import TensorStruct
from depthfit.tokens.vqvae import Tokenizer

BODY = slice(1, 1 + NUM_BODY_JOINTS)
"""The joints that tokens stand for; the root and the hands are regressed beside them."""


@dataclass(frozen=True)
class RegressorOutput(TensorStruct):
    """People, float32. Rotations are SMPL's, the root's in the crop's camera frame.

    Attributes:
        root: (B, 3, 3); pose: (B, 23, 3, 3), joints 1..23.
        betas: (B, 10).
        camera: (B, 3) crop camera (s, tx, ty); ``camera.full_image_translation`` takes it to the image.
        token_probs: (B, 160, 2048) softmax over the codes, or ``None`` for a regressor without tokens.
    """

    root: Tensor
    pose: Tensor
    betas: Tensor
    camera: Tensor
    token_probs: Tensor | None


class Network(nn.Module):
    """The trained part; its state dict has the keys and shapes of the official one."""

    def __init__(self, backbone: BackboneSize, decoder: DecoderSize, tokens: bool) -> None:
        super().__init__()
        self.backbone = Backbone(backbone)
        self.smpl_head: RotationHead | TokenHead
        self.smpl_head = (TokenHead if tokens else RotationHead)(decoder, backbone.width)

    def forward(self, crops: Tensor) -> Readout:
        """Read normalised crops (B, 3, 256, 256)."""
        return self.smpl_head(self.features(crops))

    def features(self, crops: Tensor) -> Tensor:
        """(B, 192, width) float32. The transformer computes in the precision that its weights have.

        Below float32 its sums, norms and softmaxes stay float32 (autocast), as they were trained.
        """
        dtype = self.backbone.patch_embed.proj.weight.dtype
        with torch.autocast(crops.device.type, dtype, enabled=dtype in (torch.float16, torch.bfloat16)):
            return self.backbone(crops).to(self.smpl_head.init_cam.dtype)


class Regressor:
    """A network with what it needs to give poses.

    Args:
        network: On its device, in evaluation mode. The head is float32 (or float64, like the backbone).
        tokenizer: TokenHMR's, which its logits refer to; ``None`` for a network without tokens.
    """

    def __init__(self, network: Network, tokenizer: Tokenizer | None) -> None:
        if (tokenizer is not None) != isinstance(network.smpl_head, TokenHead):
            raise ValueError("a tokenizer belongs to a network with tokens, and to no other")
        self.network, self.tokenizer = network, tokenizer

    @property
    def device(self) -> torch.device:
        return self.network.smpl_head.init_cam.device

    @torch.inference_mode()
    def __call__(self, crops: Tensor) -> RegressorOutput:
        """Predict the people of normalised crops (B, 3, 256, 256) on the regressor's device."""
        readout = self.network(crops)
        six, probs = readout.pose6d, None
        if readout.token_logits is not None:
            assert self.tokenizer is not None
            probs = readout.token_logits.softmax(-1)
            six[:, BODY] += self.tokenizer.decode(self.tokenizer.soft(probs))
        rotations = so3.from_6d(six, self.network.smpl_head.layout)
        return RegressorOutput(rotations[:, 0], rotations[:, 1:], readout.betas, readout.camera, probs)
