"""Tables of rows on disk: the parts of a chunk (npz) and the index of a shard (Parquet)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from depthfit.atomic import atomic_path
from depthfit.errors import InputError
from depthfit.pseudo.outcome import ARRAYS, FLAGS, NUMBERS, TEXT, WHOLE

COLUMNS = (*TEXT, *FLAGS, *WHOLE, *NUMBERS, *ARRAYS)
Table = dict[str, np.ndarray]


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """Rows as columns of fixed types."""
    out: Table = {}
    for name in COLUMNS:
        values = [row[name] for row in rows]
        if name in TEXT:
            out[name] = np.array(values, dtype=np.str_)
        elif name in FLAGS:
            out[name] = np.array(values, dtype=np.bool_)
        elif name in WHOLE:
            out[name] = np.array(values, dtype=np.int64)
        else:
            out[name] = np.array(values, dtype=np.float32).reshape(len(rows), *ARRAYS.get(name, ()))
    return out


def rows(columns: Table) -> list[dict[str, Any]]:
    """Columns as rows, in Python's own types where they are single values."""
    plain = {k: v.tolist() if v.ndim == 1 else list(v) for k, v in columns.items()}
    return [dict(zip(plain, values, strict=True)) for values in zip(*plain.values(), strict=True)]


def write_part(path: Path, people: Sequence[dict[str, Any]]) -> int:
    """Write a chunk's rows atomically; returns the bytes."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **table(people))  # type: ignore[arg-type]
    return path.stat().st_size


def read_part(path: Path) -> list[dict[str, Any]]:
    """Rows of a part.

    Raises:
        OSError, ValueError, KeyError, zipfile.BadZipFile: It is damaged.
    """
    with np.load(path, allow_pickle=False) as data:
        return rows({name: data[name] for name in COLUMNS})


def arrow() -> Any:
    """The module pyarrow.

    Raises:
        InputError: It is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        fix = 'Install it: pip install "depthfit[pseudo]".'
        raise InputError("pyarrow", "module", "not installed; the index is written with it", fix) from error
    return pyarrow


def write_index(path: Path, people: Sequence[dict[str, Any]], provenance: dict[str, Any]) -> None:
    """Write a shard's rows as Parquet; the provenance is in the schema's metadata. Not atomic."""
    pa = arrow()
    columns: dict[str, Any] = {}
    for name, values in table(people).items():
        if values.ndim == 1:
            columns[name] = pa.array(_utf8(values) if name in TEXT else values)
        else:
            flat = pa.array(values.reshape(-1))
            columns[name] = pa.FixedSizeListArray.from_arrays(flat, int(np.prod(values.shape[1:])))
    whole = pa.table(columns).replace_schema_metadata({"depthfit": json.dumps(provenance)})
    pa.parquet.write_table(whole, path, compression="zstd")


def _utf8(values: np.ndarray) -> list[str]:
    """Text as Parquet takes it: lone surrogates, in a message of an error, are written out."""
    return [value.encode("utf-8", "backslashreplace").decode() for value in values.tolist()]


def read_index(path: Path) -> list[dict[str, Any]]:
    """Rows of an index."""
    found = arrow().parquet.read_table(path)
    columns: Table = {}
    for name in COLUMNS:
        column = found.column(name).combine_chunks()
        if name in ARRAYS:
            columns[name] = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, *ARRAYS[name])
        else:
            columns[name] = column.to_numpy(zero_copy_only=False)
    return rows(columns)
