"""What initialisers share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from depthfit.body.model import Body
from depthfit.body.points import LandmarkTable, landmark_table
from depthfit.fit.config import FitConfig
from depthfit.tokens.vqvae import Tokenizer


@dataclass(frozen=True)
class InitContext:
    """The body, the tokenizer (or ``None``), the fit's settings, the device and the seed."""

    body: Body
    tokenizer: Tokenizer | None
    config: FitConfig
    device: torch.device
    seed: int

    @cached_property
    def table(self) -> LandmarkTable:
        """The body's landmarks, on the CPU."""
        return landmark_table(self.body.to("cpu"))
