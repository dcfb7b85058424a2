"""``model_config.yaml``, as both releases ship it: read, and held against what is implemented."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from baselines.hmr.backbone import CROP_PIXELS, BackboneSize
from baselines.hmr.crop import BOX_ASPECT, IMAGE_MEAN, IMAGE_STD
from baselines.hmr.decoder import DecoderSize
from depthfit.camera import REGRESSOR_FOCAL
from depthfit.errors import InputError
from depthfit.joints import NUM_JOINTS
from depthfit.tokens.vqvae import CODE_DIM, NUM_CODES, NUM_TOKENS

TOKEN_HEAD, ROTATION_HEAD = "token", "transformer_decoder"
"""``MODEL.SMPL_HEAD.TYPE`` of TokenHMR and of HMR2.0."""
_DECODER = "MODEL.SMPL_HEAD.TRANSFORMER_DECODER"
_REQUIRED: dict[str, Any] = {
    "MODEL.IMAGE_SIZE": CROP_PIXELS,
    "MODEL.IMAGE_MEAN": list(IMAGE_MEAN),
    "MODEL.IMAGE_STD": list(IMAGE_STD),
    "MODEL.BACKBONE.TYPE": "vit",
    "SMPL.NUM_BODY_JOINTS": NUM_JOINTS - 1,
}
_REQUIRED_WITH_TOKENS: dict[str, Any] = {
    "MODEL.SMPL_HEAD.TOKENIZER.TOKEN_CODE_DIM": CODE_DIM,
    "MODEL.SMPL_HEAD.TOKENIZER.TOKEN_NUM": NUM_TOKENS,
    "MODEL.SMPL_HEAD.TOKENIZER.TOKEN_CLASS_NUM": NUM_CODES,
    "MODEL.SMPL_HEAD.TOKENIZER.TOKENIZER_TYPE": "Vanilla",
}
_DEFAULTS: dict[str, Any] = {
    "MODEL.BBOX_SHAPE": list(BOX_ASPECT),
    "MODEL.SMPL_HEAD.JOINT_REP": "6d",
    "MODEL.SMPL_HEAD.TRANSFORMER_INPUT": "zero",
    "MODEL.SMPL_HEAD.IEF_ITERS": 1,
    f"{_DECODER}.norm": "layer",
    "EXTRA.FOCAL_LENGTH": REGRESSOR_FOCAL,
}
"""What is implemented. ``_DEFAULTS`` may be left out of a file: the official code has the same."""
_SIZES = {"depth": "depth", "heads": "heads", "head_width": "dim_head", "mlp_width": "mlp_dim"}
"""Our names of the decoder's sizes -> the file's, all of them required; its ``dim`` has a default."""


def read_model_config(path: Path, tokens: bool, backbone: BackboneSize) -> DecoderSize:
    """The decoder's size by a model's configuration file.

    Args:
        path: ``model_config.yaml``.
        tokens: Whether TokenHMR's is expected, or HMR2.0's.
        backbone: The backbone that its features must come from.

    Raises:
        InputError: The file is missing, no YAML, or describes a network that this is not.
    """
    config = _read(path)
    head, wanted = _get(path, config, "MODEL.SMPL_HEAD.TYPE"), TOKEN_HEAD if tokens else ROTATION_HEAD
    if head != wanted:
        names = {TOKEN_HEAD: "TokenHMR (init=tokenhmr)", ROTATION_HEAD: "HMR2.0 (init=hmr2)"}
        fix = f"{wanted!r} is needed. {head!r} is the head of {names.get(str(head), 'another network')}."
        raise InputError(path, "MODEL.SMPL_HEAD.TYPE", repr(head), fix)
    for key, expected in {**_REQUIRED, **(_REQUIRED_WITH_TOKENS if tokens else {}), **_DEFAULTS}.items():
        value = _get(path, config, key)
        if value != expected and not (value is None and key in _DEFAULTS):
            raise InputError(path, key, repr(value), f"Only {expected!r} is supported, as in the release.")
    context = _size(path, config, "context_dim")
    if context != backbone.width:
        fix = f"The backbone's features have {backbone.width} numbers."
        raise InputError(path, f"{_DECODER}.context_dim", str(context), fix)
    names = _SIZES if _get(path, config, f"{_DECODER}.dim") is None else {**_SIZES, "width": "dim"}
    return DecoderSize(**{ours: _size(path, config, theirs) for ours, theirs in names.items()})


def _read(path: Path) -> DictConfig:
    fix = "Give the model_config.yaml that came with the checkpoint."
    if not path.is_file():
        raise InputError(path, "file", "not found", fix)
    try:
        config = OmegaConf.load(path)
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError, OSError) as error:
        raise InputError(path, "file", f"not YAML ({str(error).splitlines()[0]})", fix) from error
    if not isinstance(config, DictConfig):
        raise InputError(path, "file", "not a mapping", fix)
    return config


def _get(path: Path, config: DictConfig, key: str) -> Any:
    """A setting by its dotted name, or ``None``."""
    try:
        value = OmegaConf.select(config, key)
        return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    except OmegaConfBaseException as error:
        fix = "Give the model_config.yaml that came with the checkpoint."
        raise InputError(path, key, f"cannot be read ({str(error).splitlines()[0]})", fix) from error


def _size(path: Path, config: DictConfig, name: str) -> int:
    value = _get(path, config, f"{_DECODER}.{name}")
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        fix = "It is a whole number above zero; give the model_config.yaml that came with the checkpoint."
        raise InputError(path, f"{_DECODER}.{name}", repr(value), fix)
    return value
