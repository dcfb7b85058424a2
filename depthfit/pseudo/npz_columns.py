"""Columns of an npz that others wrote: read without running pickles, and copied byte by byte."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from depthfit.body.unpickle import safe_load
from depthfit.errors import InputError


def column_names(path: Path) -> list[str]:
    """Names of the arrays.

    Raises:
        InputError: The file is no npz.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(path, "file", f"not a complete npz ({error})", "Write or copy it again.") from error


def read_column(path: Path, name: str) -> np.ndarray:
    """One array; one of Python objects goes through the restricted unpickler.

    Raises:
        InputError: It is missing, damaged, or names anything that is not plain data.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            data = archive.read(f"{name}.npy")
        stream = io.BytesIO(data)
        version = npy.read_magic(stream)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        _, _, dtype = read_header(stream)
        if dtype.hasobject:
            return np.asarray(safe_load(stream))
        return np.asarray(npy.read_array(io.BytesIO(data), allow_pickle=False))
    except KeyError as error:
        raise InputError(path, name, "missing", "The npz needs this array.") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(path, name, f"cannot be read ({error})", "Write or copy the file again.") from error


def raw_column(path: Path, name: str) -> bytes:
    """The array as it is in the file."""
    with zipfile.ZipFile(path) as archive:
        return archive.read(f"{name}.npy")


def encode(array: np.ndarray) -> bytes:
    """An array of numbers or text as a member of an npz."""
    out = io.BytesIO()
    npy.write_array(out, array, allow_pickle=False)
    return out.getvalue()


def write_columns(path: Path, columns: dict[str, bytes]) -> None:
    """Write an npz of encoded arrays."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in columns.items():
            archive.writestr(f"{name}.npy", data)
