"""Small regressors with seeded weights, and their files in the official formats."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from baselines import REGRESSORS
from baselines.hmr.backbone import BackboneSize
from baselines.hmr.decoder import DecoderSize
from baselines.hmr.regressor import Network, Regressor
from depthfit.tokens.vqvae import Tokenizer
from tests.baselines.hmr.seeded import weight, weights

BACKBONE = BackboneSize(width=32, depth=2, heads=2)
DECODER = DecoderSize(width=1024, depth=2, heads=2, head_width=8, mlp_width=24)
"""The decoder's width is the official one, which its code fixes."""
TOKENIZER_WIDTH = 8
FIGURES: dict[str, Any] = json.loads((Path(__file__).parent / "official_figures.json").read_text())
"""What the official code (TokenHMR 198645f, 4D-Humans 6ec7965) gave with these weights."""
NAMES = tuple(REGRESSORS)


@cache
def seeded_state(name: str) -> dict[str, Tensor]:
    return weights(_empty(name).state_dict())


def _empty(name: str) -> Network:
    with torch.device("meta"):
        return Network(BACKBONE, DECODER, REGRESSORS[name].tokens)


def network(name: str) -> Network:
    model = _empty(name)
    model.load_state_dict({key: value.clone() for key, value in seeded_state(name).items()}, assign=True)
    return model.eval().requires_grad_(False)


def tokenizer() -> Tokenizer:
    model = Tokenizer(TOKENIZER_WIDTH)
    model.load_state_dict(
        {key: weight(f"tokenizer.{key}", tuple(value.shape)) for key, value in model.state_dict().items()}
    )
    return model.eval().requires_grad_(False)


def regressor(name: str) -> Regressor:
    return Regressor(network(name), tokenizer() if REGRESSORS[name].tokens else None)


def model_config(name: str) -> dict[str, Any]:
    """model_config.yaml as a release has it, but for the decoder's size; paths are not resolved there."""
    head: dict[str, Any] = {
        "TYPE": "token" if REGRESSORS[name].tokens else "transformer_decoder",
        "IN_CHANNELS": 2048,
        "TRANSFORMER_DECODER": {
            "depth": 2, "heads": 2, "mlp_dim": 24, "dim_head": 8, "dropout": 0.0, "emb_dropout": 0.0,
            "norm": "layer", "context_dim": 32,
        },
    }  # fmt: skip
    if REGRESSORS[name].tokens:
        head["TOKENIZER"] = {
            "TOKEN_CODE_DIM": 256, "TOKEN_NUM": 160, "TOKEN_CLASS_NUM": 2048, "TOKENIZER_TYPE": "Vanilla",
        }  # fmt: skip
    return {
        "task_name": "release",
        "SMPL": {
            "DATA_DIR": "${oc.env:NOT_SET_ANYWHERE}/data", "MODEL_PATH": "${SMPL.DATA_DIR}/smpl",
            "NUM_BODY_JOINTS": 23, "MEAN_PARAMS": "${SMPL.DATA_DIR}/smpl_mean_params.npz",
        },
        "EXTRA": {"FOCAL_LENGTH": 5000, "PELVIS_IND": 39},
        "MODEL": {
            "IMAGE_SIZE": 256, "IMAGE_MEAN": [0.485, 0.456, 0.406], "IMAGE_STD": [0.229, 0.224, 0.225],
            "BACKBONE": {"TYPE": "vit", "PRETRAINED_WEIGHTS": "backbone.pth"}, "SMPL_HEAD": head,
        },
    }  # fmt: skip


def checkpoint(name: str, hyper_parameters: Any = None) -> dict[str, Any]:
    """A Lightning checkpoint, with the parts that a prediction does not need."""
    state: dict[str, Tensor] = dict(network(name).state_dict())
    state |= {"smpl.v_template": torch.zeros(4, 3), "initialized": torch.tensor(True)}
    if name == "hmr2":
        state["discriminator.betas_out.bias"] = torch.zeros(1)
    return {
        "epoch": 35, "global_step": 10, "pytorch-lightning_version": "1.8.1", "state_dict": state,
        "loops": {}, "callbacks": {}, "optimizer_states": [], "lr_schedulers": [],
        "hparams_name": "kwargs", "hyper_parameters": hyper_parameters or {},
    }  # fmt: skip


def write_files(folder: Path, name: str) -> Path:
    """The files of a release, all in one folder; returns the checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / REGRESSORS[name].checkpoint
    torch.save(checkpoint(name), path)
    OmegaConf.save(OmegaConf.create(model_config(name)), folder / "model_config.yaml")
    if REGRESSORS[name].tokens:
        arch = {"CODE_DIM": 256, "NB_CODE": 2048, "WIDTH": TOKENIZER_WIDTH, "ROT_TYPE": "rot6d"}
        torch.save({"net": tokenizer().state_dict(), "hparams": {"ARCH": arch}}, folder / "tokenizer.pth")
    return path
