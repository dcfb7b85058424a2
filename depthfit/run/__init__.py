"""Fit a scene folder: read, initialise, fit in batches, write."""

from depthfit.run.config import RunConfig, load_config
from depthfit.run.scene_fit import fit_scene

__all__ = ["RunConfig", "fit_scene", "load_config"]
