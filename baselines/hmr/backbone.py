"""The vision transformer of ViTPose-H (Xu et al., NeurIPS 2022), as HMR2.0 and TokenHMR use it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

CROP_PIXELS = 256
SIDE_CUT = 32
"""Columns of the square crop that the network never sees, on each side: a person is higher than wide."""
PATCH = 16
PATCH_PADDING = 2
GRID = (16, 12)
"""Rows and columns of patches."""
MLP_RATIO = 4
NORM_EPS = 1e-6


@dataclass(frozen=True)
class BackboneSize:
    """Size of the transformer; the defaults are ViT-H."""

    width: int = 1280
    depth: int = 32
    heads: int = 16


class _PatchEmbed(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH, stride=PATCH, padding=PATCH_PADDING)

    def forward(self, crops: Tensor) -> Tensor:
        return self.proj(crops).flatten(2).mT


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class _FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, MLP_RATIO * width)
        self.fc2 = nn.Linear(MLP_RATIO * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(gelu(self.fc1(x)))


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = _Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = _FeedForward(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Backbone(nn.Module):
    """Features of normalised crops."""

    def __init__(self, size: BackboneSize) -> None:
        super().__init__()
        self.size = size
        # The first of the embeddings belonged to a class token; what is left of it is added to all patches.
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + GRID[0] * GRID[1], size.width))
        self.patch_embed = _PatchEmbed(size.width)
        self.blocks = nn.ModuleList([_Block(size.width, size.heads) for _ in range(size.depth)])
        self.last_norm = nn.LayerNorm(size.width, eps=NORM_EPS)

    def forward(self, crops: Tensor) -> Tensor:
        """Features (B, 192, width), row by row of the patches, of crops (B, 3, 256, 256)."""
        x = self.patch_embed(crops[..., SIDE_CUT:-SIDE_CUT])
        x = x + self.pos_embed[:, 1:] + self.pos_embed[:, :1]
        for block in self.blocks:
            x = block(x)
        return self.last_norm(x)
