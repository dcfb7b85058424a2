"""TokenHMR and HMR2.0 at full size with random weights: their speed, and files in the official formats."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from omegaconf import OmegaConf

from baselines import REGRESSORS
from baselines.hmr.backbone import CROP_PIXELS, BackboneSize
from baselines.hmr.crop import IMAGE_MEAN, IMAGE_STD
from baselines.hmr.decoder import DecoderSize
from baselines.hmr.model_config import ROTATION_HEAD, TOKEN_HEAD
from baselines.hmr.regressor import Network, Regressor
from baselines.hmr.release import MODEL_CONFIG, TOKENIZER, Release, choose_precision, place
from depthfit.bench.stage import PerceptionConfig, StageRow, measure, peak_memory, start_memory
from depthfit.joints import NUM_JOINTS
from depthfit.run.device import choose_device
from depthfit.tokens.load import load_tokenizer
from depthfit.tokens.vqvae import CODE_DIM, NUM_CODES, NUM_TOKENS

WEIGHT_STD, READOUT_STD = 0.02, 0.0005
READOUTS = tuple(
    f"{name}.weight" for name in ("deccam", "decshape", "decpose", "decpose_grot", "decpose_hands")
)
"""Their weights are small, so that a random person stays near the mean one, in the middle of the crop."""
MEAN_CAMERA = (0.9, 0.0, 0.0)
UPRIGHT_6D = (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
"""A body that stands upright in a camera whose y axis points down, facing it; rows and columns alike."""
NO_TURN_6D = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def regressor_stage(config: PerceptionConfig, device: torch.device) -> Iterator[StageRow]:
    """Both regressors, from normalised crops to SMPL parameters on the host, with each batch size."""
    dtype = choose_precision(config.precision, device)
    for release in REGRESSORS.values():
        for batch in config.batches:
            yield _measured(release, batch, config, device, dtype)


def _measured(
    release: Release, batch: int, config: PerceptionConfig, device: torch.device, dtype: torch.dtype
) -> StageRow:
    start_memory(device)
    network = random_network(release.tokens, device, dtype, config.seed)
    regressor = Regressor(network, load_tokenizer().to(device) if release.tokens else None)
    crops = torch.rand(batch, 3, CROP_PIXELS, CROP_PIXELS)
    images, seconds = measure(device, batch, config.images, lambda: regressor(crops.to(device)).to("cpu"))
    count = sum(p.numel() for p in network.parameters())
    name = str(dtype).removeprefix("torch.")
    return StageRow("regressor", release.title, count, name, batch, images, seconds, peak_memory(device))


def random_network(
    tokens: bool,
    device: torch.device,
    dtype: torch.dtype,
    seed: int,
    backbone: BackboneSize | None = None,
    decoder: DecoderSize | None = None,
) -> Network:
    """A network of random weights whose mean person stands upright before the camera."""
    with torch.device("meta"):
        network = Network(backbone or BackboneSize(), decoder or DecoderSize(), tokens)
    network = place(network, torch.device("meta"), dtype).to_empty(device=device)
    generator = torch.Generator(device).manual_seed(seed)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.ndim > 1:
                std = READOUT_STD if name.endswith(READOUTS) else WEIGHT_STD
                value.normal_(0, std, generator=generator)
            else:
                value.fill_(1.0 if name.endswith("weight") else 0.0)
        head = network.smpl_head
        head.init_body_pose.copy_(torch.tensor([UPRIGHT_6D + NO_TURN_6D * (NUM_JOINTS - 1)]))
        head.init_betas.zero_()
        head.init_cam.copy_(torch.tensor([MEAN_CAMERA]))
    return network.eval().requires_grad_(False)


def write_random_release(release: Release, folder: Path, seed: int = 0, device: str = "auto") -> None:
    """Files of a release with random weights, under their official names and in their formats: about 2.7 GB.

    What TokenHMR's tokens stand for is taken from the open tokenizer.

    Args:
        device: Draws the weights: ``auto``, ``cpu`` or ``cuda``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    network = random_network(release.tokens, choose_device(device), torch.float32, seed).cpu()
    torch.save({"state_dict": network.state_dict(), "hyper_parameters": {}}, folder / release.checkpoint)
    OmegaConf.save(OmegaConf.create(_model_config(release.tokens)), folder / MODEL_CONFIG)
    if release.tokens:
        tokenizer = load_tokenizer()
        content = {"net": tokenizer.state_dict(), "hparams": {"ARCH": {"WIDTH": tokenizer.width}}}
        torch.save(content, folder / TOKENIZER)


def _model_config(tokens: bool) -> dict[str, object]:
    size = DecoderSize()
    head: dict[str, object] = {
        "TYPE": TOKEN_HEAD if tokens else ROTATION_HEAD,
        "TRANSFORMER_DECODER": {
            "depth": size.depth,
            "heads": size.heads,
            "mlp_dim": size.mlp_width,
            "dim_head": size.head_width,
            "context_dim": BackboneSize().width,
        },
    }
    if tokens:
        head["TOKENIZER"] = {
            "TOKEN_CODE_DIM": CODE_DIM,
            "TOKEN_NUM": NUM_TOKENS,
            "TOKEN_CLASS_NUM": NUM_CODES,
            "TOKENIZER_TYPE": "Vanilla",
        }
    model = {
        "IMAGE_SIZE": CROP_PIXELS,
        "IMAGE_MEAN": list(IMAGE_MEAN),
        "IMAGE_STD": list(IMAGE_STD),
        "BACKBONE": {"TYPE": "vit"},
        "SMPL_HEAD": head,
    }
    return {"MODEL": model, "SMPL": {"NUM_BODY_JOINTS": NUM_JOINTS - 1}}
