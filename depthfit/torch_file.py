"""Read torch files that strangers wrote: tensors and plain data, no code.

torch's own restricted unpickler does the reading. Training programs also store their settings, as objects
of yacs or of omegaconf; to those names it is given stand-ins that hold what they are given and do nothing.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from depthfit.errors import InputError


def _stand_in(module: str, name: str, make: Callable[..., Any] | None = None) -> type:
    """A class that torch's unpickler takes for ``module.name``: it knows a class by the name it carries."""
    body: dict[str, Any] = {"__module__": module}
    if make is not None:
        body["__new__"] = lambda cls, *args: make(*args)
    return type(name, (), body)


_STAND_INS = [
    # An ordered dictionary is one of the few things that the unpickler lets grow and carry attributes.
    _stand_in("yacs.config", "CfgNode", OrderedDict),
    *(
        _stand_in(f"omegaconf.{module}", name)
        for module, name in (
            ("dictconfig", "DictConfig"),
            ("listconfig", "ListConfig"),
            ("base", "Metadata"),
            ("base", "ContainerMetadata"),
            ("nodes", "AnyNode"),
        )
    ),
    _stand_in("typing", "Any"),
    _stand_in("collections", "defaultdict", lambda *_: defaultdict(dict)),
    # omegaconf stores types of its containers, yacs empty sets; Python 2's names are those of protocol 2.
    *(
        _stand_in(module, name, make)
        for module in ("builtins", "__builtin__")
        for name, make in (("dict", dict), ("list", list), ("int", int), ("long", int), ("str", str))
    ),
    _stand_in("__builtin__", "set", set),
]


_ASKS = re.compile(r"GLOBAL|Unsupported|Can only")
"""In torch's words for a file that names a function or class which is not on its list."""


def load_torch_file(path: Path, fix: str) -> Any:
    """The content of a file of ``torch.save``, on the CPU; tensors stay in the file until they are used.

    Objects of yacs come as ordered dictionaries, those of omegaconf as objects without behaviour.

    Args:
        path: The file.
        fix: What to tell a user whose file cannot be read: which file to give instead.

    Raises:
        InputError: The file is missing, damaged, no torch file, or needs to run code.
    """
    if not path.is_file():
        raise InputError(path, "file", "not found", fix)
    zipped = zipfile.is_zipfile(path)
    if zipped:
        _check_sums(path, fix)
    try:
        with _known_to_torch(_STAND_INS):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except (
        UnpicklingError,
        RuntimeError,
        EOFError,
        AttributeError,
        LookupError,
        ValueError,
        OSError,
    ) as error:
        raise InputError(path, "pickle", _reason(error), fix) from error


def _check_sums(path: Path, fix: str) -> None:
    """A damaged weight is a number like any other: only the archive's check sums tell."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError) as error:
        raise InputError(path, "file", f"damaged ({error})", f"Download it again. {fix}") from error
    if damaged is not None:
        raise InputError(path, damaged, "damaged: its check sum is wrong", f"Download it again. {fix}")


@contextmanager
def _known_to_torch(classes: list[Any]) -> Iterator[None]:
    """Let torch's restricted unpickler make these classes too (torch 2.4 has no context manager for it)."""
    before = torch.serialization.get_safe_globals()
    torch.serialization.add_safe_globals(classes)
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def _reason(error: Exception) -> str:
    """What torch found wrong, without its advice to switch the protection off."""
    asks = next((line.strip() for line in str(error).splitlines() if _ASKS.search(line)), None)
    return f"needs to run code ({asks})" if asks else "not a whole torch file"
