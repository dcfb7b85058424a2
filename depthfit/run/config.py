"""The configuration of a run: the fit's settings, and what to read and write."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from baselines.hmr.release import RegressorFiles
from depthfit.errors import InputError
from depthfit.fit.config import FitConfig


@dataclass
class OutputConfig:
    """What is written.

    Attributes:
        dir: Folder of the results.
        vertices: Put the refined meshes into fits.npz.
        mesh: Write NAME_k.obj and NAME_k.glb.
        overlays: Draw overlays/NAME.png.
    """

    dir: str = "output/fit"
    vertices: bool = False
    mesh: bool = False
    overlays: bool = True


@dataclass
class ModelConfig:
    """The models of a run.

    Attributes:
        body: ``open``, or a SMPL file, or the folder that holds SMPL_{GENDER}.pkl.
        gender: neutral, male or female.
        tokenizer: ``open``, or TokenHMR's tokenizer.pth.
    """

    body: str = "open"
    gender: str = "neutral"
    tokenizer: str = "open"


@dataclass
class RegressorConfig(RegressorFiles):
    """How a regressor runs.

    Attributes:
        batch: People that go through it together.
        precision: Of its backbone: auto (float16 on a GPU, float32 on a CPU), float32, float16 or bfloat16.
    """

    batch: int = 16
    precision: str = "auto"


@dataclass
class RunConfig(FitConfig):
    """All settings of ``run_fit.py``.

    Attributes:
        scene: The scene folder.
        init: predictions, keypoints, or a regressor (tokenhmr, hmr2) that first writes predictions.npz;
            ``null`` takes predictions where the scene has them, else keypoints.
        batch: People fitted together, about; ``null`` takes 16 on a CPU and 256 on a GPU. Fewer where
            images are larger than 4 megapixels.
        device: ``auto``, ``cpu`` or ``cuda``.
        overwrite: Fit again what is done.
        seed: Of every random draw.
    """

    scene: str | None = None
    init: str | None = None
    batch: int | None = None
    device: str = "auto"
    overwrite: bool = False
    seed: int = 0
    output: OutputConfig = field(default_factory=OutputConfig)
    models: ModelConfig = field(default_factory=ModelConfig)
    regressor: RegressorConfig = field(default_factory=RegressorConfig)


def load_config(arguments: Sequence[str], schema: type = RunConfig) -> Any:
    """Merge defaults, an optional YAML file and ``key=value`` arguments, in this order.

    Args:
        arguments: ``[config.yaml] key=value ...``.
        schema: The dataclass of the result.

    Raises:
        InputError: The file, a key or a value is wrong; an unknown key names the nearest known one.
    """
    config = OmegaConf.structured(schema)
    files = [a for a in arguments if "=" not in a]
    for name in files:
        config = merge_file(config, name)
    for argument in arguments:
        if "=" in argument:
            try:
                override = OmegaConf.from_dotlist([argument])
            except Exception as error:
                raise InputError("command line", argument, str(error), "Write key=value.") from error
            config = _merge(config, "command line", override)
    return OmegaConf.to_object(config)


def merge_file(config: DictConfig, name: str) -> DictConfig:
    """``config`` with the settings of a YAML file.

    Raises:
        InputError: The file is not there, or a key or a value in it is wrong.
    """
    if not Path(name).is_file():
        raise InputError(name, "config", "no such file", "Give a YAML file, or settings as key=value.")
    return _merge(config, name, load_yaml(name))


def load_yaml(name: str) -> DictConfig:
    """Settings of a YAML file.

    Raises:
        InputError: It is damaged, or holds something else.
    """
    try:
        loaded = OmegaConf.load(name)
    except Exception as error:
        raise InputError(name, "config", f"not YAML ({error})", "Mend the file.") from error
    if not isinstance(loaded, DictConfig):
        raise InputError(name, "config", "not a mapping", "Write `key: value` lines.")
    return loaded


def _merge(config: DictConfig, source: str, override: DictConfig) -> DictConfig:
    _check_keys(config, source, override, "")
    try:
        merged = OmegaConf.merge(config, override)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "value"
        reason = str(error).splitlines()[0]
        raise InputError(source, str(key), reason, "See the README for what it takes.") from error
    assert isinstance(merged, DictConfig)
    return merged


def _names(config: DictConfig, key: str) -> list[str]:
    """Dotted names of the settings under ``key``, itself among them if it is one."""
    value = config[key]
    if not OmegaConf.is_dict(value):
        return [key]
    return [f"{key}.{name}" for group in value for name in _names(value, str(group))]


def _check_keys(config: DictConfig, source: str, override: DictConfig, prefix: str) -> None:
    known = [str(key) for key in config]
    for key in override:
        name = prefix + str(key)
        if str(key) not in known:
            wanted = tuple(f".{leaf}" for leaf in _names(override, str(key)))
            deeper = [
                prefix + leaf for group in known for leaf in _names(config, group) if leaf.endswith(wanted)
            ]
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)
            meant = " or ".join(deeper) or prefix + near[0]
            fix = f"Did you mean {meant}? Known here: {', '.join(known)}."
            raise InputError(source, name, "unknown key", fix)
        if OmegaConf.is_dict(config[key]) and not OmegaConf.is_dict(override[key]):
            fix = f"It is a group of settings: {', '.join(f'{name}.{k}' for k in config[key])}."
            raise InputError(source, name, f"one value, {override[key]!r}", fix)
        if OmegaConf.is_dict(override[key]):
            if not OmegaConf.is_dict(config[key]):
                raise InputError(source, name, "a group of settings", "It takes one value.")
            _check_keys(config[key], source, override[key], f"{name}.")
