"""Vector-Jacobian products of the decoder, many at a time and without an autograd graph.

The decoder is convolutions, nearest resizes and ReLUs. One forward pass keeps which ReLUs are on; each
cotangent then runs back through the transposed layers under the same masks. All is matrix products over
stacked taps, as in :mod:`depthfit.tokens.layers`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from depthfit.kernels import use_triton
from depthfit.tokens.layers import ResidualBlock, convolve, resize, resize_transpose
from depthfit.tokens.vqvae import DECODER_LENGTHS, RESIZED_LAYERS, Decoder, Tokenizer

CHUNK_BYTES = 256 * 2**20
"""About how much the activations of one chunk of people may take."""


@dataclass
class _Trace:
    """ReLU masks of one forward pass: of the first layer and the resized ones, and two a residual block."""

    entry: list[Tensor]
    blocks: list[tuple[Tensor, Tensor]]


def decoder_vjp(tokenizer: Tokenizer, z: Tensor, cotangents: Tensor) -> tuple[Tensor, Tensor]:
    """Decode and pull cotangents back to the latents.

    Args:
        z: (N, 160, 256) latents.
        cotangents: (N, M, 21, 6) on the decoded pose.

    Returns:
        The decoded pose (N, 21, 6) and the pulled-back cotangents (N, M, 160, 256): exact in plain
        torch. Where kernels are asked for, the pull-back multiplies bfloat16 numbers: a direction to step in
        need not be exact, the pose is.
    """
    decoder = tokenizer.decoder
    n, m = cotangents.shape[:2]
    row_bytes = 4 * tokenizer.width * z.shape[1] * z.element_size()
    size = max(1, CHUNK_BYTES // (m * row_bytes))
    poses, pulled = [], []
    for first in range(0, n, size):
        pose, trace = _forward(decoder, z[first : first + size])
        poses.append(pose)
        with torch.autocast("cuda", torch.bfloat16, enabled=use_triton(z)):
            back = _backward(decoder, trace, cotangents[first : first + size], z.shape[1])
        pulled.append(back.to(z.dtype))
    return torch.cat(poses), torch.cat(pulled)


def _forward(decoder: Decoder, z: Tensor) -> tuple[Tensor, _Trace]:
    x = convolve(z, decoder.convolution("0")).relu()
    entry = [x > 0]
    for name, length in zip(RESIZED_LAYERS, DECODER_LENGTHS, strict=True):
        x = convolve(resize(x, length), decoder.convolution(name)).relu()
        entry.append(x > 0)
    stack, last = decoder.refining()
    blocks = []
    for block in stack.blocks:
        inner = convolve(x.relu(), block.conv1)
        blocks.append((x > 0, inner > 0))
        x = x + convolve(inner.relu(), block.conv2)
    return convolve(convolve(x, last), decoder.convolution("15")), _Trace(entry, blocks)


def _backward(decoder: Decoder, trace: _Trace, cotangents: Tensor, num_tokens: int) -> Tensor:
    stack, last = decoder.refining()
    g = _transpose(_transpose(cotangents, decoder.convolution("15")), last)
    for block, masks in zip(reversed(stack.blocks), reversed(trace.blocks), strict=True):
        g = g + _block(g, block, masks)
    lengths = (num_tokens, *DECODER_LENGTHS)
    for k in reversed(range(len(RESIZED_LAYERS))):
        g = _transpose(g * trace.entry[k + 1][:, None], decoder.convolution(RESIZED_LAYERS[k]))
        g = resize_transpose(g, lengths[k], lengths[k + 1])
    return _transpose(g * trace.entry[0][:, None], decoder.convolution("0"))


def _block(g: Tensor, block: ResidualBlock, masks: tuple[Tensor, Tensor]) -> Tensor:
    inner = torch.nn.functional.linear(g, block.conv2.weight[..., 0].mT) * masks[1][:, None]
    return _transpose(inner, block.conv1) * masks[0][:, None]


def _transpose(g: Tensor, conv: nn.Conv1d) -> Tensor:
    """Transpose of a length-keeping convolution of three taps, on (N, M, L, C_out)."""
    step, length = conv.dilation[0], g.shape[-2]
    padded = torch.nn.functional.pad(g, (0, 0, step, step))
    # out[l] = sum_k W_k x[l + (k - 1) step], so x[l] gathers W_k^T g[l - (k - 1) step].
    taps = [padded[..., (2 - k) * step : (2 - k) * step + length, :] for k in range(3)]
    weight = conv.weight.permute(1, 2, 0).flatten(1)  # (in, taps * out)
    return torch.nn.functional.linear(torch.cat(taps, -1), weight)
