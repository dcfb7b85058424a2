"""Synthetic scenes that a benchmark finds again."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from omegaconf import OmegaConf

from depthfit import __version__
from depthfit.errors import InputError
from depthfit.synth import SynthConfig, make_scene


def ensure_scene(config: SynthConfig, folder: Path, progress: bool = True) -> Path:
    """``folder`` with the scene of ``config``, which is made where there is none yet.

    Raises:
        InputError: It holds a scene that was made with other settings, or by another version.
    """
    if not folder.is_dir():
        return make_scene(config, folder, progress)
    wanted = OmegaConf.create({"depthfit_version": __version__, "config": dataclasses.asdict(config)})
    saved = folder / "synth.yaml"
    if not saved.is_file() or saved.read_text() != OmegaConf.to_yaml(wanted):
        found = "a scene of other settings or another version"
        raise InputError(folder, "synth.yaml", found, "Give another out=.")
    return folder
