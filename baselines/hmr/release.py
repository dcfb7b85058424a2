"""Released models: their files, where those are looked for, and how one becomes a regressor."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from baselines.hmr.backbone import BackboneSize
from baselines.hmr.checkpoint import load_network
from baselines.hmr.model_config import read_model_config
from baselines.hmr.regressor import Network, Regressor
from depthfit.errors import InputError
from depthfit.tokens.load import load_tokenizer

MODEL_CONFIG, MEAN_PARAMS, TOKENIZER = "model_config.yaml", "smpl_mean_params.npz", "tokenizer.pth"
PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass
class RegressorFiles:
    """Where a regressor's official files are.

    Attributes:
        folder: Folder that holds them, at any depth.
        checkpoint: The .ckpt file, if it is not found by its official name in the folder.
        config: Its model_config.yaml, if that is neither beside it nor one folder up.
        tokenizer: TokenHMR's tokenizer.pth, if it is not in the folder. HMR2.0 has none.
        mean_params: smpl_mean_params.npz, if it is not in the folder. Checkpoints normally hold its numbers.
    """

    folder: str = "models"
    checkpoint: str | None = None
    config: str | None = None
    tokenizer: str | None = None
    mean_params: str | None = None


@dataclass(frozen=True)
class Release:
    """A published regressor.

    Attributes:
        name: As in ``init=NAME``; title: as its authors write it.
        tokens: Whether it predicts pose tokens (and needs their tokenizer).
        checkpoint: Official name of its checkpoint.
        page: Where its owners give the files.
        home: A folder in which its own program keeps them, searched after the user's; or ``None``.
    """

    name: str
    title: str
    tokens: bool
    checkpoint: str
    page: str
    home: Path | None = None


@dataclass(frozen=True)
class FoundFiles:
    """The files of one regressor; ``tokenizer`` and ``mean_params`` may be ``None`` where not needed."""

    checkpoint: Path
    config: Path
    tokenizer: Path | None
    mean_params: Path | None


def find_files(release: Release, files: RegressorFiles) -> FoundFiles:
    """The files of a release: those that are named, and the others by their official names.

    Raises:
        InputError: One that is needed is not there, or there are several of one name.
    """
    checkpoint = _locate(release, files, "checkpoint", release.checkpoint)
    if checkpoint is None:
        raise _missing(release, files, "checkpoint", release.checkpoint)
    beside = [folder / MODEL_CONFIG for folder in (checkpoint.parent, checkpoint.parent.parent)]
    config = Path(files.config) if files.config else next((p for p in beside if p.is_file()), beside[0])
    if not config.is_file():
        raise _missing(release, files, "config", MODEL_CONFIG, f"{beside[0]} or {beside[1]}")
    tokenizer = None
    if release.tokens:
        tokenizer = _locate(release, files, "tokenizer", TOKENIZER, checkpoint)
        if tokenizer is None:
            raise _missing(release, files, "tokenizer", TOKENIZER)
    mean_params = _locate(release, files, "mean_params", MEAN_PARAMS, checkpoint)
    return FoundFiles(checkpoint, config, tokenizer, mean_params)


def _locate(
    release: Release, files: RegressorFiles, setting: str, name: str, beside: Path | None = None
) -> Path | None:
    """The named file, or the one of that name in the folders; of several, the nearest to ``beside``."""
    given = getattr(files, setting)
    if given:
        if not Path(given).is_file():
            raise _missing(release, files, setting, name)
        return Path(given)
    for folder in _folders(release, files):
        found = sorted(folder.rglob(name))
        if beside is not None and found:
            shared = [_shared_folders(path, beside) for path in found]
            found = [path for path, n in zip(found, shared, strict=True) if n == max(shared)]
        if len(found) > 1:
            several = ", ".join(map(str, found))
            raise InputError(folder, name, f"several: {several}", f"Name the one to use: {setting}=FILE.")
        if found:
            return found[0]
    return None


def _shared_folders(one: Path, other: Path) -> int:
    pairs = zip(one.absolute().parts, other.absolute().parts, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _folders(release: Release, files: RegressorFiles) -> list[Path]:
    return [Path(files.folder), *([release.home] if release.home is not None else [])]


def _missing(
    release: Release, files: RegressorFiles, setting: str, name: str, looked: str | None = None
) -> InputError:
    given = getattr(files, setting)
    looked = looked or " nor in ".join(map(str, _folders(release, files)))
    found = f"no such file: {given}" if given else f"not found in {looked}"
    fix = f"Its owners give it on {release.page}. Put it there, or name it: {setting}=FILE."
    return InputError(release.title, name, found, fix)


def load_regressor(
    release: Release,
    files: FoundFiles,
    device: torch.device,
    precision: str = "auto",
    backbone: BackboneSize | None = None,
) -> Regressor:
    """Load a release's files onto a device.

    Args:
        precision: Of the backbone: float32, float16 or bfloat16; ``auto`` is float16 on a GPU (in which both
            releases were trained) and float32 elsewhere. The head is float32 always.
        backbone: Its size, ViT-H unless given.

    Raises:
        InputError: A file cannot be used, or the precision is not for this device.
    """
    dtype = choose_precision(precision, device)
    size = backbone or BackboneSize()
    decoder = read_model_config(files.config, release.tokens, size)
    tokenizer = None if files.tokenizer is None else load_tokenizer(files.tokenizer).to(device)
    network = load_network(files.checkpoint, size, decoder, release.tokens, files.mean_params)
    return Regressor(place(network, device, dtype), tokenizer)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """The dtype of that name; ``auto`` takes the device's.

    Raises:
        InputError: There is none, or the device does not compute in it.
    """
    if name == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    if name not in PRECISIONS:
        raise InputError("command line", "precision", repr(name), f"Use auto, {', '.join(PRECISIONS)}.")
    if device.type == "cpu" and name != "float32":
        raise InputError("command line", "precision", name, "On a CPU, use precision=float32 or auto.")
    return PRECISIONS[name]


def place(network: Network, device: torch.device, dtype: torch.dtype) -> Network:
    """Move a network to a device, the matrices of its backbone in ``dtype``, piece by piece.

    Norms and embeddings stay float32, and so does all that is added up between the layers.
    """
    for module in network.backbone.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.to(device=device, dtype=dtype)
    return network.to(device)
