"""A training checkpoint as a folder of small safetensors files: nothing in it can run code.

The tensors are spread over files of at most ``SHARD_BYTES`` so that they pass through narrow channels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from depthfit.errors import InputError
from depthfit.tokens.vqvae import Tokenizer

SHARD_BYTES = 12 * 2**20
_RECORD = "training.json"


def save_checkpoint(
    folder: str | Path, model: Tokenizer, optimizer: torch.optim.Optimizer, record: Mapping[str, Any]
) -> None:
    """Write everything that training needs to go on as if it had not stopped.

    Args:
        record: What to keep beside the tensors; must hold ``step``.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    state = model.quantizer.training_state()
    tensors |= {"codes.sum": state["sum"], "codes.count": state["count"]}
    names = [name for name, _ in model.named_parameters()]
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"{key}.{names[index]}": moments[key] for key in ("exp_avg", "exp_avg_sq")}
    shards: list[dict[str, Tensor]] = [{}]
    filled = 0
    for key, value in tensors.items():
        size = value.numel() * value.element_size()
        if shards[-1] and filled + size > SHARD_BYTES:
            shards.append({})
            filled = 0
        shards[-1][key] = value.detach().cpu().contiguous()
        filled += size
    for index, shard in enumerate(shards):
        save_file(shard, folder / f"training-{index:02d}.safetensors")
    written = {**record, "shards": len(shards), "codes_initialised": state["initialised"]}
    # The record goes last: without it the folder is no checkpoint.
    (folder / _RECORD).write_text(json.dumps(written, indent=2))


def has_checkpoint(folder: str | Path) -> bool:
    """Whether ``folder`` holds a checkpoint."""
    return (Path(folder) / _RECORD).is_file()


def load_checkpoint(folder: str | Path, model: Tokenizer, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Restore model, codebook statistics and optimiser in place; returns the record.

    Raises:
        InputError: A file is missing or belongs to another model.
    """
    folder = Path(folder)
    record = json.loads((folder / _RECORD).read_text())
    tensors: dict[str, Tensor] = {}
    for index in range(record["shards"]):
        path = folder / f"training-{index:02d}.safetensors"
        if not path.is_file():
            raise InputError(path, "file", "not found", "Copy all files of the checkpoint")
        tensors |= load_file(path)
    saved = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    own = model.state_dict()
    if {k: v.shape for k, v in saved.items()} != {k: v.shape for k, v in own.items()}:
        found = f"width {record.get('config', {}).get('width')}, the model has {model.width}"
        raise InputError(folder, "model", found, "Resume with the settings the checkpoint was made with")
    model.load_state_dict(saved)
    model.quantizer.load_training_state(
        {
            "sum": tensors["codes.sum"],
            "count": tensors["codes.count"],
            "initialised": record["codes_initialised"],
        }
    )
    step = torch.tensor(float(record["step"]))
    moments = {
        index: {"step": step.clone(), **{key: tensors[f"{key}.{name}"] for key in ("exp_avg", "exp_avg_sq")}}
        for index, (name, _) in enumerate(model.named_parameters())
        if f"exp_avg.{name}" in tensors
    }
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    return record
