"""TokenHMR (Dwivedi et al., CVPR 2024): the body's pose as probabilities of 160 tokens."""

from __future__ import annotations

from baselines.hmr.release import Release

TOKENHMR = Release(
    name="tokenhmr",
    title="TokenHMR",
    tokens=True,
    checkpoint="tokenhmr_model_latest.ckpt",
    page="https://tokenhmr.is.tue.mpg.de",
)
