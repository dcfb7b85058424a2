"""A training checkpoint as a folder of small safetensors files: nothing in it can run code.

The tensors are spread over files of at most ``SHARD_BYTES`` so that they pass through narrow channels. Files
of another step have other names, and the record names those that belong together: it is swapped when all are
written, so that a run that is killed at any time leaves the old checkpoint or the new one, never a mix.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from depthfit.atomic import atomic_path
from depthfit.errors import InputError
from depthfit.tokens.vqvae import Tokenizer

SHARD_BYTES = 12 * 2**20
_RECORD = "training.json"
_SHARD = re.compile(r"training-\d+-\d+\.safetensors")
_MOMENTS = ("exp_avg", "exp_avg_sq")
_FIX = "Copy all files of the checkpoint again, or train in another folder"


def save_checkpoint(
    folder: str | Path, model: Tokenizer, optimizer: torch.optim.Optimizer, record: Mapping[str, Any]
) -> None:
    """Write everything that training needs to go on as if it had not stopped; then delete the one before.

    Args:
        record: What to keep beside the tensors; must hold ``step``, which no other state has.
    """
    folder = Path(folder)
    state = model.quantizer.training_state()
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {"codes.sum": state["sum"], "codes.count": state["count"]}
    names = [name for name, _ in model.named_parameters()]
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"{key}.{names[index]}": moments[key] for key in _MOMENTS}
    files = []
    for index, shard in enumerate(_shards(tensors)):
        files.append(f"training-{record['step']:08d}-{index:02d}.safetensors")
        with atomic_path(folder / files[-1]) as temporary:
            save_file(shard, temporary)
    written = {**record, "files": files, "codes_initialised": state["initialised"]}
    with atomic_path(folder / _RECORD) as temporary:
        temporary.write_text(json.dumps(written, indent=2))
    # Those with a dot are what a killed save had not finished.
    for path in (*folder.glob("training-*.safetensors"), *folder.glob(".training-*.safetensors")):
        if path.name not in files:
            path.unlink()


def _shards(tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    shards: list[dict[str, Tensor]] = [{}]
    filled = 0
    for key, value in tensors.items():
        size = value.numel() * value.element_size()
        if shards[-1] and filled + size > SHARD_BYTES:
            shards.append({})
            filled = 0
        shards[-1][key] = value.detach().cpu().contiguous()
        filled += size
    return shards


def has_checkpoint(folder: str | Path) -> bool:
    """Whether ``folder`` holds a checkpoint."""
    return (Path(folder) / _RECORD).is_file()


def read_record(folder: str | Path) -> dict[str, Any]:
    """What ``save_checkpoint`` was given to keep beside the tensors, and where these are.

    Raises:
        InputError: It cannot be read, or is none of ``save_checkpoint``.
    """
    path = Path(folder) / _RECORD
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(path, "file", f"cannot be read ({error})", _FIX) from error
    if not isinstance(record, dict):
        raise InputError(path, "file", f"holds a {type(record).__name__}, not a dict", _FIX)
    kinds = {"step": int, "codes_initialised": bool, "files": list}
    for key, kind in kinds.items():
        if not isinstance(record.get(key), kind):
            raise InputError(path, key, repr(record.get(key)), _FIX)
    strange = [name for name in record["files"] if not (isinstance(name, str) and _SHARD.fullmatch(name))]
    if strange:
        raise InputError(path, "files", repr(strange), _FIX)
    return record


def load_checkpoint(folder: str | Path, model: Tokenizer, optimizer: torch.optim.Optimizer) -> None:
    """Restore model, codebook statistics and optimiser in place.

    Raises:
        InputError: A file is missing or damaged, or belongs to another model.
    """
    folder = Path(folder)
    record = read_record(folder)
    tensors: dict[str, Tensor] = {}
    for name in record["files"]:
        tensors |= _read_shard(folder / name)
    own = model.state_dict()
    parameters = dict(model.named_parameters())
    expected = {f"model.{name}": value for name, value in own.items()}
    state = model.quantizer.training_state()
    expected |= {"codes.sum": state["sum"], "codes.count": state["count"]}
    if record["step"] > 0:
        expected |= {f"{key}.{name}": value for name, value in parameters.items() for key in _MOMENTS}
    wrong = sorted(
        key
        for key in expected.keys() | tensors.keys()
        if key not in expected or key not in tensors or tensors[key].shape != expected[key].shape
    )
    if wrong:
        found = f"missing, unexpected or of another shape than in the model: {', '.join(wrong[:3])}"
        found += f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise InputError(folder, "tensors", found, _FIX)
    model.load_state_dict({name: tensors[f"model.{name}"] for name in own})
    model.quantizer.load_training_state(
        {
            "sum": tensors["codes.sum"],
            "count": tensors["codes.count"],
            "initialised": record["codes_initialised"],
        }
    )
    step = torch.tensor(float(record["step"]))
    moments = {
        index: {"step": step.clone(), **{key: tensors[f"{key}.{name}"] for key in _MOMENTS}}
        for index, name in enumerate(parameters if record["step"] > 0 else ())
    }
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})


def _read_shard(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(path, "file", "not found", _FIX)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(path, "file", f"damaged ({error})", _FIX) from error
