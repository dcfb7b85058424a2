"""Label files of other programs: npz archives whose arrays may be pickled objects, read as data alone."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthfit.body.unpickle import safe_load
from depthfit.errors import InputError
from depthfit.evidence.files import open_npz

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class LabelArchive:
    """An npz file of labels. Object arrays go through the restricted unpickler: their code is not run.

    Args:
        path: The file.

    Raises:
        InputError: It is no npz archive.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise InputError(self.path, "file", "no such file", "Name the data set's npz of labels.")
        with open_npz(self.path) as archive:
            self.fields = tuple(archive.files)

    def get(self, field: str) -> Any:
        """One array; ``None`` if the file has none of that name."""
        return self.read(field) if field in self.fields else None

    def read(self, field: str) -> Any:
        """One array, or the one object of a 0-d object array.

        Raises:
            InputError: The field is missing, or holds anything but plain data.
        """
        if field not in self.fields:
            found = f"missing; the file has {', '.join(self.fields)}"
            raise InputError(self.path, field, found, "Give the label file in its authors' format.")
        with zipfile.ZipFile(self.path) as archive:
            data = archive.read(f"{field}.npy")
        try:
            return self._parse(field, data)
        except (ValueError, EOFError) as error:
            fix = "Write or copy the file again; it may be cut short."
            raise InputError(self.path, field, f"cannot be read ({error})", fix) from error

    def numbers(self, field: str, *shape: int | None) -> NDArray[np.float64]:
        """A numeric array (N, *shape); ``None`` in ``shape`` is any length.

        Raises:
            InputError: It is missing, not numeric, or of another shape.
        """
        return as_numbers(self.path, field, self.read(field), (None, *shape))

    def names(self, field: str) -> list[str]:
        """A column of strings, which files store as str, bytes or objects."""
        return [v.decode() if isinstance(v, bytes) else str(v) for v in np.ravel(self.read(field)).tolist()]

    def _parse(self, field: str, data: bytes) -> Any:
        stream = io.BytesIO(data)
        version = np.lib.format.read_magic(stream)
        if version not in _HEADERS:
            raise ValueError(f"npy version {version}")
        dtype = _HEADERS[version](stream)[2]
        if not dtype.hasobject:
            return np.load(io.BytesIO(data), allow_pickle=False)
        # np.save pickles the whole array, so what comes back is the array again.
        found = np.asarray(safe_load(stream))
        return found.item() if found.ndim == 0 else found


def as_numbers(
    source: str | Path, field: str, values: Any, shape: tuple[int | None, ...]
) -> NDArray[np.float64]:
    """``values`` as float64 of ``shape``, where ``None`` is any length.

    Raises:
        InputError: They are no numbers, or of another shape.
    """
    wanted = "(" + ", ".join("any" if n is None else str(n) for n in shape) + ")"
    fix = f"It must be numbers of shape {wanted}."
    try:
        # Objects are whole rows: numpy must see them as lists to make one array of them.
        held = isinstance(values, np.ndarray) and values.dtype.hasobject
        array = np.array(values.tolist() if held else values, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(source, field, f"no numbers ({error})", fix) from error
    fits = array.ndim == len(shape) and all(
        w is None or w == n for w, n in zip(shape, array.shape, strict=True)
    )
    if not fits:
        raise InputError(source, field, f"shape {array.shape}", fix)
    return array
