"""Where a network's files are: the folder that was named, the models folder, the hub's cache, the hub."""

from __future__ import annotations

import importlib
import importlib.util
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from depthfit.errors import InputError

_log = logging.getLogger(__name__)
CONFIG, PROCESSOR, WEIGHTS = "config.json", "preprocessor_config.json", "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
"""Stands for ``WEIGHTS`` where they are split over several files."""
HUB = "https://huggingface.co"


@dataclass(frozen=True)
class HubModel:
    """A network in the layout of the hub.

    Attributes:
        name: ``owner/name`` on the hub, or a folder.
        files: What it needs.
    """

    name: str
    files: tuple[str, ...] = (CONFIG, PROCESSOR, WEIGHTS)

    def place(self, models: Path) -> Path:
        """The folder for files that are fetched by hand."""
        return models / self.name.rsplit("/", 1)[-1]

    def lacking(self, folder: Path) -> list[str]:
        """Its files that ``folder`` does not hold."""
        return [
            file
            for file in self.files
            if not (folder / file).is_file() and not (file == WEIGHTS and (folder / WEIGHTS_INDEX).is_file())
        ]

    def find(self, models: Path) -> Path | None:
        """The folder that holds the files on this machine: named, among ``models``, or the hub's cache.

        Raises:
            InputError: A folder was named, and it or one of its files is not there.
        """
        named = Path(self.name)
        if named.is_dir() or named.is_absolute() or self.name.startswith(".") or self.name.count("/") != 1:
            lacking = self.lacking(named)
            if lacking:
                found = f"not there: {', '.join(lacking)}" if named.is_dir() else "no such folder"
                fix = "Name a folder in the hub's layout, or owner/name of a model on the hub."
                raise InputError(named, "model", found, fix)
            return named
        if not self.lacking(self.place(models)):
            return self.place(models)
        if importlib.util.find_spec("huggingface_hub") is None:  # then there is no cache either
            return None
        cached = self._snapshot(cached=True)
        return cached if cached is not None and not self.lacking(cached) else None

    def fetch(self, models: Path) -> Path:
        """The folder that holds the files, brought from the hub if they are not on this machine.

        Raises:
            InputError: They are not, and cannot be brought: names the files and the folder for them.
        """
        here = self.find(models)
        if here is not None:
            return here
        _log.warning("%s is not on this machine; fetching it from %s", self.name, HUB)
        try:
            folder = self._snapshot(cached=False)
        except (
            OSError,
            ValueError,
            RuntimeError,
        ) as error:  # what the hub's client raises, its own among them
            raise self._unreachable(models, f"the hub cannot be reached ({first_line(error)})") from error
        assert folder is not None
        lacking = self.lacking(folder)
        if lacking:
            raise self._unreachable(models, f"the hub has no {', '.join(lacking)} for it")
        return folder

    def _snapshot(self, cached: bool) -> Path | None:
        hub = _import("huggingface_hub")
        try:
            folder = hub.snapshot_download(
                self.name, local_files_only=cached, allow_patterns=["*.json", "*.safetensors"]
            )
        except hub.errors.LocalEntryNotFoundError:
            if cached:
                return None
            raise
        return Path(folder)

    def _unreachable(self, models: Path, found: str) -> InputError:
        place = self.place(models)
        fix = f"Fetch {', '.join(self.files)} from {HUB}/{self.name} by hand and put them into {place}."
        return InputError(self.name, "model", f"neither in {place} nor in the hub's cache, and {found}", fix)


def load_network(
    class_name: str, folder: Path, device: torch.device, dtype: torch.dtype = torch.float32
) -> Any:
    """A network of ``transformers`` in evaluation mode, with every weight from the file.

    Raises:
        InputError: The files cannot be read, are another network's, or lack weights.
    """
    cls = transformers_class(class_name)
    # Its progress bars, of milliseconds mostly, would break those of the stages.
    _import("transformers.utils.logging").disable_progress_bar()
    try:
        model, info = cls.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:  # each version raises other kinds for the same faults of a file
        fix = f"Fetch the files of this folder again; they must be those of a {class_name}."
        raise InputError(folder, "weights", f"cannot be loaded ({first_line(error)})", fix) from error
    missing = sorted(info["missing_keys"]) + sorted(str(key) for key in info["mismatched_keys"])
    if missing:
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        fix = f"A part of the network would stay random: fetch the weights of a {class_name}."
        raise InputError(folder, "weights", f"lacking, or of another shape: {shown}", fix)
    if info["unexpected_keys"]:
        _log.warning("%s: %d weights that the network does not use", folder, len(info["unexpected_keys"]))
    return model.to(device=device, dtype=dtype).eval().requires_grad_(False)


def load_processor(class_name: str, folder: Path) -> Any:
    """An image processor of ``transformers`` with the settings in ``folder``; none needs torchvision.

    Raises:
        InputError: Its settings cannot be read.
    """
    try:
        return processor_class(class_name).from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        fix = "Fetch the file again."
        raise InputError(folder / PROCESSOR, "settings", first_line(error), fix) from error


def processor_class(name: str) -> Any:
    """The variant of an image processor that does without torchvision, in any version of ``transformers``."""
    # Since version 5 the plain name stands for torchvision's variant, and another class does without.
    return getattr(_import("transformers"), f"{name}Pil", None) or transformers_class(name)


def transformers_class(name: str) -> Any:
    """A class of ``transformers``.

    Raises:
        InputError: The package is not installed, or too old.
    """
    package = _import("transformers")
    found = getattr(package, name, None)
    if found is None:
        fix = 'Run pip install -U "transformers>=4.57".'
        raise InputError("transformers", name, f"version {package.__version__} does not have it", fix)
    return found


def half_on(device: torch.device) -> torch.dtype:
    """16-bit floats on a GPU, 32-bit ones elsewhere."""
    return torch.float16 if device.type == "cuda" else torch.float32


def _import(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        fix = 'Run pip install "depthfit[perception]".'
        raise InputError(package, "package", "not installed", fix) from error


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
