"""One-dimensional convolutions and nearest resizing as gathers and matrix products.

Sequences are (N, length, channels). In this layout a convolution is one matrix product over the stacked
taps, which is fast on a CPU and on a GPU alike and whose transpose is as easy to write.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad


def nearest_index(length_in: int, length_out: int) -> list[int]:
    """Source position of every output position of a nearest resize: floor(i * L_in / L_out)."""
    return [i * length_in // length_out for i in range(length_out)]


@lru_cache(maxsize=64)
def _cached_tables(length_in: int, length_out: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Gather index of a resize, and (copies, L_in) gather indices of its transpose.

    Entry L_out of the transpose's indices stands for "no source": the row of zeros appended there.
    """
    forward = nearest_index(length_in, length_out)
    targets: list[list[int]] = [[] for _ in range(length_in)]
    for out, source in enumerate(forward):
        targets[source].append(out)
    copies = max(len(t) for t in targets)
    backward = [[t[k] if k < len(t) else length_out for t in targets] for k in range(copies)]
    # The cache outlives the caller's mode: tensors made in inference mode could never take part in autograd.
    with torch.inference_mode(False):
        return torch.tensor(forward, device=device), torch.tensor(backward, device=device)


def _resize_tables(length_in: int, length_out: int, device: torch.device) -> tuple[Tensor, Tensor]:
    return _cached_tables(length_in, length_out, device)


def before_compiling() -> None:
    """Tell the compiler that the resize tables are constants: it would build them anew in every call.

    Not done on import, for it loads the compiler, which takes longer than the rest of depthfit.
    """
    torch.compiler.assume_constant_result(_resize_tables)


def resize_transpose(gradient: Tensor, length_in: int, length_out: int) -> Tensor:
    backward = _resize_tables(length_in, length_out, gradient.device)[1]
    padded = pad(gradient, (0, 0, 0, 1))
    out = padded.index_select(-2, backward[0])
    for index in backward[1:]:
        out = out + padded.index_select(-2, index)
    return out


class _Resize(torch.autograd.Function):
    """Nearest resize whose backward is a gather too: deterministic, and without atomic additions."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, length: int) -> Tensor:
        return x.index_select(-2, _resize_tables(x.shape[-2], length, x.device)[0])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
        ctx.lengths = inputs[0].shape[-2], inputs[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return resize_transpose(gradients[0], *ctx.lengths), None


def resize(x: Tensor, length: int) -> Tensor:
    """Nearest resize of (N, L, C) to (N, length, C)."""
    if length == 2 * x.shape[-2]:
        return x.unsqueeze(-2).expand(*x.shape[:-1], 2, x.shape[-1]).flatten(-3, -2)
    return _Resize.apply(x, length)


def conv_matrix(conv: nn.Conv1d) -> Tensor:
    """Weights (out, taps * in) that act on stacked taps."""
    return conv.weight.permute(0, 2, 1).flatten(1)


def convolve(x: Tensor, conv: nn.Conv1d) -> Tensor:
    """Convolution of (N, L, C_in) to (N, L', C_out).

    Kernels of 1 and 3 taps keep the length; the 4-tap kernel of stride 2 halves it.
    """
    taps, length = conv.kernel_size[0], x.shape[-2]
    if taps == 1:
        return linear(x, conv.weight[..., 0], conv.bias)
    edge = int(conv.padding[0])
    padded = pad(x, (0, 0, edge, edge))
    if conv.stride[0] == 2:
        pairs = padded.unflatten(-2, (-1, 2)).flatten(-2)
        stacked = torch.cat([pairs[..., :-1, :], pairs[..., 1:, :]], -1)
    else:
        step = conv.dilation[0]
        stacked = torch.cat([padded[..., k * step : k * step + length, :] for k in range(taps)], -1)
    return linear(stacked, conv_matrix(conv), conv.bias)


class ResidualBlock(nn.Module):
    """y = x + conv2(ReLU(conv1(ReLU(x)))): conv1 has 3 dilated taps, conv2 one."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        self.conv2 = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + convolve(convolve(x.relu(), self.conv1).relu(), self.conv2)


class ResidualStack(nn.Module):
    """Two residual blocks, dilation 3 and then 1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.model = nn.ModuleList([ResidualBlock(width, 3), ResidualBlock(width, 1)])

    @property
    def blocks(self) -> list[ResidualBlock]:
        return [cast(ResidualBlock, block) for block in self.model]

    def forward(self, x: Tensor) -> Tensor:
        for block in self.model:
            x = block(x)
        return x
