"""The codebook, and how it is learned: exponential moving averages with a reset of unused codes.

Source: van den Oord et al., "Neural Discrete Representation Learning" (NeurIPS 2017), appendix A.1; the
reset follows Dhariwal et al., "Jukebox" (2020).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

NEAREST_ROWS = 65536
"""Latents compared with the codebook at a time: bounds the table of distances to 0.5 GB."""


class Quantizer(nn.Module):
    """Nearest-code lookup of ``codes`` vectors of ``dim`` numbers.

    ``codebook`` alone is part of the state dict, as in TokenHMR's files. The running sums and counts that
    training needs are in ``training_state``, which a checkpoint must keep.
    """

    codebook: Tensor
    code_sum: Tensor
    code_count: Tensor

    def __init__(self, codes: int, dim: int, decay: float = 0.99, least_count: float = 1.0) -> None:
        super().__init__()
        self.decay, self.least_count = decay, least_count
        self.initialised = False
        self.register_buffer("codebook", torch.zeros(codes, dim))
        self.register_buffer("code_sum", torch.zeros(codes, dim), persistent=False)
        self.register_buffer("code_count", torch.ones(codes), persistent=False)

    def nearest(self, z: Tensor) -> Tensor:
        """Codes (*batch) int64 nearest to latents (*batch, dim) in squared L2 distance."""
        half_norm = 0.5 * (self.codebook * self.codebook).sum(-1)
        rows = z.flatten(0, -2)
        # Differences of distances are small beside the distances: bfloat16 would confuse neighbours.
        with torch.autocast(z.device.type, enabled=False):
            chunks = [
                torch.addmm(half_norm, chunk, self.codebook.mT, alpha=-1).argmin(-1)
                for chunk in rows.split(NEAREST_ROWS)
            ]
        return torch.cat(chunks).reshape(z.shape[:-1])

    @torch.no_grad()
    def initialise(self, latents: Tensor, generator: torch.Generator) -> None:
        """Take the first codebook from latents (R, dim), in random order; repeats get a little noise."""
        codes, dim = self.codebook.shape
        chosen = self._draw(latents, generator)
        if latents.shape[0] < codes:
            noise = torch.randn(codes, dim, generator=generator, device=latents.device, dtype=latents.dtype)
            chosen = chosen + noise * (0.01 / dim**0.5)
        self.codebook.copy_(chosen)
        self.code_sum.copy_(chosen)
        self.code_count.fill_(1.0)
        self.initialised = True

    @torch.no_grad()
    def update(self, latents: Tensor, codes: Tensor, generator: torch.Generator) -> Tensor:
        """One step of the moving averages; returns the number of codes that were replaced.

        Args:
            latents: (R, dim) encoder outputs of the batch.
            codes: (R,) their nearest codes.
            generator: Chooses the latents that replace unused codes.
        """
        batch_sum = torch.zeros_like(self.code_sum).index_add_(0, codes, latents.to(self.code_sum.dtype))
        batch_count = torch.bincount(codes, minlength=self.codebook.shape[0]).to(self.code_count.dtype)
        self.code_sum.lerp_(batch_sum, 1 - self.decay)
        self.code_count.lerp_(batch_count, 1 - self.decay)
        used = (self.code_count >= self.least_count)[:, None]
        fresh = self._draw(latents, generator)
        # A replaced code starts again as if it had been seen once: with its old average it would be
        # replaced at every step until that average had recovered.
        self.code_sum.copy_(torch.where(used, self.code_sum, fresh))
        self.code_count.copy_(torch.where(used[:, 0], self.code_count, self.least_count))
        self.codebook.copy_(self.code_sum / self.code_count[:, None])
        return (~used).sum()

    def training_state(self) -> dict[str, Any]:
        """What ``update`` needs beside the codebook."""
        return {"sum": self.code_sum, "count": self.code_count, "initialised": self.initialised}

    def load_training_state(self, state: dict[str, Any]) -> None:
        """Take back what ``training_state`` gave."""
        self.code_sum.copy_(state["sum"])
        self.code_count.copy_(state["count"])
        self.initialised = bool(state["initialised"])

    def _draw(self, latents: Tensor, generator: torch.Generator) -> Tensor:
        """As many latents as there are codes, in random order, repeated where there are too few."""
        order = torch.randperm(latents.shape[0], generator=generator, device=latents.device)
        repeats = -(-self.codebook.shape[0] // latents.shape[0])
        return latents[order.repeat(repeats)[: self.codebook.shape[0]]].to(self.codebook.dtype)


def perplexity(codes: Tensor, num_codes: int) -> Tensor:
    """exp(entropy) of the use of codes: ``num_codes`` if all are used alike, 1 if a single one is."""
    share = torch.bincount(codes.flatten(), minlength=num_codes).double()
    share = share / share.sum()
    return torch.exp(torch.special.entr(share).sum())
