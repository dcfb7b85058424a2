"""Synthetic scenes with ground truth: bodies, cameras, pictures, and evidence with known errors."""

from depthfit.synth.config import NoiseConfig, PredictionNoise, SynthConfig

__all__ = ["NoiseConfig", "PredictionNoise", "SynthConfig"]
