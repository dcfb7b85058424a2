"""Official checkpoints: every weight of the network from the file, and every weight of the file used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from baselines.hmr.backbone import BackboneSize
from baselines.hmr.decoder import DecoderSize
from baselines.hmr.heads import NUM_BETAS
from baselines.hmr.regressor import Network
from depthfit.errors import InputError
from depthfit.evidence.files import npz_array, open_npz
from depthfit.joints import NUM_JOINTS
from depthfit.torch_file import load_torch_file

UNUSED = ("smpl.", "discriminator.")
"""Parts of the official training program that have no part in a prediction: body model and critic."""
UNUSED_FLAG = "initialized"
MEAN_PERSON = {
    "init_body_pose": ("pose", NUM_JOINTS * 6),
    "init_betas": ("shape", NUM_BETAS),
    "init_cam": ("cam", 3),
}
"""The head's buffers -> array of smpl_mean_params.npz and its length."""
LISTED = 8
"""So many keys of a kind are named in an error; the rest are counted."""


def load_network(
    path: Path,
    backbone: BackboneSize,
    decoder: DecoderSize,
    tokens: bool,
    mean_params: Path | None,
) -> Network:
    """The network of a Lightning checkpoint, in evaluation mode, on the CPU, without gradients.

    Its weights are mapped from the file: they take memory only once they are used or moved.

    Args:
        path: The ``.ckpt`` file.
        mean_params: ``smpl_mean_params.npz``, read only where the checkpoint lacks the mean person.

    Raises:
        InputError: The file is damaged or needs to run code; weights are missing, left over or of another
            shape; or neither file has the mean person.
    """
    with torch.device("meta"):
        network = Network(backbone, decoder, tokens)
    state = _weights(path)
    expected = network.state_dict()
    lacking = [f"smpl_head.{name}" for name in MEAN_PERSON if f"smpl_head.{name}" not in state]
    if lacking and len(lacking) == len(MEAN_PERSON):
        state |= _mean_person(path, lacking, mean_params)
    check_weights(path, state, expected)
    state = {key: value.to(torch.float32) for key, value in state.items()}
    network.load_state_dict(state, strict=True, assign=True)
    return network.eval().requires_grad_(False)


def _weights(path: Path) -> dict[str, Tensor]:
    fix = "Give the checkpoint as its owners publish it."
    content = load_torch_file(path, fix)
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        found = f"has {', '.join(map(str, content))}" if isinstance(content, dict) else type(content).__name__
        raise InputError(path, "state_dict", f"missing or not of tensors; the file {found}", fix)
    return {k: v for k, v in state.items() if not k.startswith(UNUSED) and k != UNUSED_FLAG}


def check_weights(path: Path, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Nothing missing, nothing left over, nothing of another shape, nothing that is no number.

    Raises:
        InputError: It is not so; the keys are listed.
    """
    missing = [key for key in expected if key not in found]
    extra = [key for key in found if key not in expected]
    wrong = [
        f"{key} {tuple(found[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in expected
        if key in found and found[key].shape != expected[key].shape
    ]
    kinds = {"missing": missing, "left over": extra, "of another shape": wrong}
    if any(kinds.values()):
        problem = "; ".join(f"{kind}: {_listed(keys)}" for kind, keys in kinds.items() if keys)
        fix = "Give a checkpoint and a model_config.yaml that belong together (init=tokenhmr or init=hmr2)."
        raise InputError(path, "weights", problem, fix)
    broken = [key for key, value in found.items() if not torch.isfinite(value).all()]
    if broken:
        raise InputError(path, "weights", f"not finite: {_listed(broken)}", "Download the file again.")


def _listed(keys: list[str]) -> str:
    rest = f" and {len(keys) - LISTED} more" if len(keys) > LISTED else ""
    return ", ".join(keys[:LISTED]) + rest


def _mean_person(path: Path, lacking: list[str], mean_params: Path | None) -> dict[str, Tensor]:
    if mean_params is None or not mean_params.is_file():
        found = "not in the checkpoint, and there is no " + str(mean_params or "smpl_mean_params.npz")
        fix = "Put smpl_mean_params.npz of the same download into the folder, or name it: mean_params=FILE."
        raise InputError(path, ", ".join(lacking), found, fix)
    state = {}
    with open_npz(mean_params) as archive:
        for name, (field, length) in MEAN_PERSON.items():
            values = npz_array(mean_params, archive, field)
            if values.shape != (length,) or values.dtype.kind not in "fiu" or not np.isfinite(values).all():
                found = f"shape {values.shape}, dtype {values.dtype}"
                raise InputError(mean_params, field, found, f"It has {length} finite numbers.")
            state[f"smpl_head.{name}"] = torch.from_numpy(values.astype(np.float32))[None]
    return state
