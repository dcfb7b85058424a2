"""Token probabilities of a predictions file, read a few rows at a time.

One person's softmax is 0.65 MB, so that a data set's does not fit in memory.
"""

from __future__ import annotations

import struct
import weakref
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from depthfit.errors import InputError

TOKEN_SHAPE = (160, 2048)
"""Tokens, codes: TokenHMR's pose tokenizer."""
SUM_SLACK = 0.02
"""How far a token's probabilities may be off one: 2048 roundings to float16 stay below it."""
_MEMBER = "token_probs.npy"
_LOCAL_HEADER = struct.Struct("<26x2H")
"""Of a zip member: the lengths of its name and its extra field are the last of 30 bytes."""


class TokenProbs:
    """The column ``token_probs`` (N, 160, 2048) of an npz file; indexing reads and checks rows.

    A file written by ``numpy.savez`` is mapped into memory; of a compressed one the rows are unpacked in
    order, so that whoever asks for ascending rows reads the file once.
    """

    def __init__(self, path: Path, count: int) -> None:
        """Check the column's header.

        Raises:
            InputError: the column has another shape than ``count`` people need, or is not float.
        """
        self.path = path
        fix = f"Save float16 softmax values of shape ({count}, 160, 2048)."
        with zipfile.ZipFile(path) as archive, archive.open(_MEMBER) as stream:
            try:
                version = np.lib.format.read_magic(stream)
                reader = {
                    (1, 0): np.lib.format.read_array_header_1_0,
                    (2, 0): np.lib.format.read_array_header_2_0,
                }[version]
                shape, fortran, self.dtype = reader(stream)
            except (ValueError, KeyError) as error:
                raise InputError(path, "token_probs", "not a numpy array", fix) from error
            self._start = stream.tell()
            info = archive.getinfo(_MEMBER)
        if shape != (count, *TOKEN_SHAPE) or self.dtype.kind != "f" or fortran:
            raise InputError(path, "token_probs", f"shape {shape}, dtype {self.dtype}", fix)
        self.shape = shape
        self._mapped = self._map(info) if info.compress_type == zipfile.ZIP_STORED else None
        self._stream: IO[bytes] | None = None

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def in_any_order(self) -> bool:
        """Whether rows may be asked for in any order, and by several threads at once."""
        return self._mapped is not None

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        """Rows ``index`` (M,) int -> (M, 160, 2048) in the file's dtype.

        Raises:
            InputError: a row cannot be read, or is no softmax.
        """
        rows = np.asarray(index, dtype=np.int64)
        values = np.empty((len(rows), *TOKEN_SHAPE), self.dtype)
        for place in np.argsort(rows, kind="stable"):
            values[place] = self._row(int(rows[place]))
            self._check(int(rows[place]), values[place])
        return values

    def _row(self, row: int) -> np.ndarray:
        if self._mapped is not None:
            return self._mapped[row]
        length = int(np.prod(TOKEN_SHAPE)) * self.dtype.itemsize
        try:
            if self._stream is None:
                # Kept open: going on from the last row is what makes ascending reads cheap.
                self._stream = zipfile.ZipFile(self.path).open(_MEMBER)  # noqa: SIM115
                weakref.finalize(self, self._stream.close)
            self._stream.seek(self._start + row * length)
            data = self._stream.read(length)
            return np.frombuffer(data, self.dtype).reshape(TOKEN_SHAPE)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            fix = "Write or copy the file again; it may be cut short."
            raise InputError(self.path, f"token_probs[{row}]", f"cannot be read ({error})", fix) from error

    def _map(self, info: zipfile.ZipInfo) -> np.ndarray:
        """The array of a member that is stored as it is."""
        with self.path.open("rb") as file:
            file.seek(info.header_offset)
            name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
        offset = info.header_offset + _LOCAL_HEADER.size + name + extra + self._start
        return np.memmap(self.path, self.dtype, "r", offset, self.shape)

    def _check(self, row: int, values: np.ndarray) -> None:
        total = values.sum(-1, dtype=np.float64)
        if (values >= 0).all() and (np.abs(total - 1) < SUM_SLACK).all():
            return
        found = f"probabilities below zero or with sums from {total.min():g} to {total.max():g}"
        fix = "Save the softmax over the codes, not the logits."
        raise InputError(self.path, f"token_probs[{row}]", found, fix)
