"""Load and save pose tokenizers: depthfit's own safetensors and TokenHMR's ``tokenizer.pth``.

An official file is a pickle with settings in yacs' ``CfgNode`` beside the tensors. No code of it runs: see
:mod:`depthfit.torch_file`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from depthfit.errors import InputError
from depthfit.tokens.vqvae import CODE_DIM, NUM_CODES, NUM_TOKENS, OFFICIAL_WIDTH, Tokenizer
from depthfit.torch_file import load_torch_file

OPEN = "open"
OPEN_FILE = Path(__file__).parent.parent / "assets" / "open_tokenizer.safetensors"
_FORMAT = "depthfit-tokenizer-1"

_OFFICIAL = {
    "CODE_DIM": CODE_DIM,
    "NB_CODE": NUM_CODES,
    "DOWN_T": 1,
    "WIDTH": None,
    "DEPTH": 2,
    "DILATION_RATE": 3,
    "TOKEN_SIZE_MUL": 4,
    "TOKEN_SIZE_DIV": 4,
    "ROT_TYPE": "rot6d",
    "QUANTIZER": "ema_reset",
    "NB_JOINTS": 21,
}
"""Settings under ``ARCH`` that make up the network (or are a data setting, where the release keeps it)."""


def load_tokenizer(name_or_path: str | Path = OPEN) -> Tokenizer:
    """A tokenizer in evaluation mode, float32, without gradients.

    Args:
        name_or_path: ``open`` for the shipped one, a ``.safetensors`` file of ``save_tokenizer``, or
            TokenHMR's ``tokenizer.pth`` (also called ``best_net.pth``).

    Raises:
        InputError: The file is missing, needs to run code, has other settings, or lacks or adds weights, or
            some are not finite.
    """
    path = OPEN_FILE if str(name_or_path) == OPEN else Path(name_or_path)
    if not path.is_file():
        raise InputError(
            path, "file", "not found", "Give 'open', a .safetensors file or TokenHMR's tokenizer.pth"
        )
    if path.suffix == ".safetensors":
        width, state = _read_safetensors(path)
    else:
        width, state = _read_official(path)
    tokenizer = Tokenizer(width)
    _check_tensors(path, state)
    _check_keys(path, state, tokenizer.state_dict())
    tokenizer.load_state_dict({key: value.float() for key, value in state.items()})
    tokenizer.quantizer.initialised = True
    return tokenizer.eval().requires_grad_(False)


def save_tokenizer(tokenizer: Tokenizer, path: str | Path, metadata: Mapping[str, Any]) -> None:
    """Write weights as float16 safetensors; ``metadata`` is stored as JSON text per key."""
    state = {key: value.detach().cpu().half().contiguous() for key, value in tokenizer.state_dict().items()}
    header = {"format": _FORMAT, "width": str(tokenizer.width)}
    header |= {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
    save_file(state, path, metadata=header)


def tokenizer_metadata(path: str | Path = OPEN_FILE) -> dict[str, str]:
    """What ``save_tokenizer`` stored beside the weights."""
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


def _read_safetensors(path: Path) -> tuple[int, dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        raise InputError(path, "file", f"not safetensors ({error})", "Download the file again") from error
    if metadata.get("format") != _FORMAT or not metadata.get("width", "").isdigit():
        raise InputError(path, "metadata", str(metadata), "Give a file written by `depthfit tokenizer train`")
    return int(metadata["width"]), state


def _read_official(path: Path) -> tuple[int, dict[str, Tensor]]:
    fix = "Give TokenHMR's tokenizer.pth; files that need to run code are not opened"
    content = load_torch_file(path, fix)
    if not isinstance(content, dict) or not {"net", "hparams"} <= content.keys():
        found = str(sorted(content)) if isinstance(content, dict) else type(content).__name__
        raise InputError(path, "keys", found, "Expected 'net' and 'hparams', as TokenHMR writes them")
    width, net = _check_settings(path, content["hparams"]), content["net"]
    if not isinstance(net, dict):
        raise InputError(path, "net", f"a {type(net).__name__}, not a dict of weights", fix)
    return width, {key: value for key, value in net.items() if "body_model" not in str(key)}


def _check_settings(path: Path, settings: Any) -> int:
    """Width of the network; every setting that is present must be the supported one."""
    arch = settings.get("ARCH") if isinstance(settings, dict) else None
    if not isinstance(arch, dict) or "WIDTH" not in arch:
        raise InputError(path, "hparams.ARCH.WIDTH", "missing", "Give TokenHMR's tokenizer.pth")
    for key, expected in _OFFICIAL.items():
        value = arch.get(key, expected)
        value = value[0] if isinstance(value, list | tuple) and len(value) == 1 else value
        if expected is not None and value != expected:
            fix = f"Only {expected!r} is supported, the setting of TokenHMR's release"
            raise InputError(path, f"hparams.ARCH.{key}", repr(value), fix)
    width = arch["WIDTH"]
    if not isinstance(width, int) or width < 1:
        raise InputError(path, "hparams.ARCH.WIDTH", repr(width), f"The release has {OFFICIAL_WIDTH}")
    return width


def _check_tensors(path: Path, state: Mapping[Any, Any]) -> None:
    fix = "Give the file as it was published or written: this one is damaged or of another kind"
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise InputError(path, str(key), f"a {type(value).__name__}, not a named tensor", fix)
        if not value.isfinite().all():
            raise InputError(path, key, "holds values that are not finite", fix)


def _check_keys(path: Path, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    wrong = [
        f"{key} {tuple(found[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in sorted(expected.keys() & found.keys())
        if found[key].shape != expected[key].shape
    ]
    if missing or extra or wrong:
        problem = f"missing {missing}, unexpected {extra}, wrong shapes {wrong}"
        fix = f"The file must hold the {NUM_TOKENS}-token network; see the table of formats in the README"
        raise InputError(path, "weights", problem, fix)
