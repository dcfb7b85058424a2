"""The decoder of HMR2.0: one query that attends to the features of the crop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention


@dataclass(frozen=True)
class DecoderSize:
    """Size of the decoder; the defaults are those of both releases.

    Attributes:
        width: Of the query.
        depth: Layers.
        heads: Attention heads; head_width: numbers of each.
        mlp_width: Of the feed-forward layer inside.
    """

    width: int = 1024
    depth: int = 6
    heads: int = 8
    head_width: int = 64
    mlp_width: int = 1024


class _SelfAttention(nn.Module):
    def __init__(self, size: DecoderSize) -> None:
        super().__init__()
        inner = size.heads * size.head_width
        self.heads = size.heads
        self.to_qkv = nn.Linear(size.width, 3 * inner, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(inner, size.width)])

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.to_qkv(x).chunk(3, -1)
        return self.to_out[0](_attend(query, key, value, self.heads))


class _CrossAttention(nn.Module):
    def __init__(self, size: DecoderSize, context_width: int) -> None:
        super().__init__()
        inner = size.heads * size.head_width
        self.heads = size.heads
        self.to_kv = nn.Linear(context_width, 2 * inner, bias=False)
        self.to_q = nn.Linear(size.width, inner, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(inner, size.width)])

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        key, value = self.to_kv(context).chunk(2, -1)
        return self.to_out[0](_attend(self.to_q(x), key, value, self.heads))


def _attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Attention with the heads side by side in the last axis of (B, length, heads * width)."""
    split = [t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (query, key, value)]
    return scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)


class TwoLayers(nn.ModuleDict):
    """Linear, GELU, linear; the keys count an activation and a dropout between them."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__({"0": nn.Linear(width, inner), "3": nn.Linear(inner, width)})

    def forward(self, x: Tensor) -> Tensor:
        return self["3"](gelu(self["0"](x)))


class _FeedForward(nn.Module):
    def __init__(self, size: DecoderSize) -> None:
        super().__init__()
        self.net = TwoLayers(size.width, size.mlp_width)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class _Residual(nn.Module):
    """x + fn(norm(x), ...)."""

    def __init__(self, width: int, fn: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fn = fn

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        return x + self.fn(self.norm(x), *context)


class _Layers(nn.Module):
    def __init__(self, size: DecoderSize, context_width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleList(
                [
                    _Residual(size.width, _SelfAttention(size)),
                    _Residual(size.width, _CrossAttention(size, context_width)),
                    _Residual(size.width, _FeedForward(size)),
                ]
            )
            for _ in range(size.depth)
        )

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        for layer in self.layers:
            mix, look, think = cast(nn.ModuleList, layer)
            x = think(look(mix(x), context))
        return x


class Decoder(nn.Module):
    """From the features of a crop to one vector for its person."""

    def __init__(self, size: DecoderSize, context_width: int) -> None:
        super().__init__()
        self.size = size
        self.to_token_embedding = nn.Linear(1, size.width)
        self.pos_embedding = nn.Parameter(torch.zeros(1, 1, size.width))
        self.transformer = _Layers(size, context_width)

    def forward(self, context: Tensor) -> Tensor:
        """(B, width) of features (B, 192, context_width)."""
        nothing_known = context.new_zeros(len(context), 1, 1)
        query = self.to_token_embedding(nothing_known) + self.pos_embedding
        return self.transformer(query, context)[:, 0]
