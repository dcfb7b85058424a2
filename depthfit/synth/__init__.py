"""Synthetic scenes with ground truth: bodies, cameras, pictures, and evidence with known errors."""

from depthfit.synth.config import NoiseConfig, PredictionNoise, SynthConfig
from depthfit.synth.generate import SyntheticImage, open_studio, sample
from depthfit.synth.write import make_scene

__all__ = [
    "NoiseConfig",
    "PredictionNoise",
    "SynthConfig",
    "SyntheticImage",
    "make_scene",
    "open_studio",
    "sample",
]
