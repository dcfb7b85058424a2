"""Read pickles that strangers wrote without running what is in them.

A pickle may name any callable of any module. Here every (module, name) pair must be on a list of exact
pairs: numpy arrays, scipy sparse matrices and chumpy nodes as data, plain containers, and what the caller
adds. Anything else is refused before it is imported. Neither scipy nor chumpy takes part: their objects
become records, which :func:`as_array` evaluates.
"""

from __future__ import annotations

import copyreg
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from depthfit.errors import InputError

_PYTHON2_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}
_PYTHON2_TYPES = {("builtins", "unicode"): ("builtins", "str"), ("builtins", "long"): ("builtins", "int")}
_SPARSE_FORMATS = {"csc": sparse.csc_matrix, "csr": sparse.csr_matrix, "coo": sparse.coo_matrix}


class Record:
    """An object of a class that is kept as data: the name of its class and its pickled attributes."""

    __slots__ = ("attributes",)
    module = ""

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise TypeError(f"state of {type(self).__name__} is a {type(state).__name__}, not a dict")
        self.attributes = state

    @property
    def class_name(self) -> str:
        return f"{self.module}.{type(self).__name__}"


class ChumpyNode(Record):
    """A node of chumpy's expression graph."""

    __slots__ = ()


class SparseRecord(Record):
    """A scipy sparse matrix."""

    __slots__ = ()


def _encode_latin1(text: str, encoding: str = "latin1") -> bytes:
    """``_codecs.encode``, which old protocols use for bytes, without the other codecs."""
    if encoding.lower().replace("-", "") not in ("latin1", "iso88591"):
        raise ValueError(f"bytes in the encoding {encoding!r}")
    return text.encode("latin1")


def _numpy_functions() -> dict[str, Callable[..., Any]]:
    """numpy's own rebuilding functions, taken from what its objects pickle to."""
    return {
        "_reconstruct": np.empty(1).__reduce__()[0],
        "scalar": np.float64(0).__reduce__()[0],
        "_frombuffer": np.empty(1).__reduce_ex__(5)[0],
    }


def _allowed() -> tuple[dict[tuple[str, str], type], dict[tuple[str, str], Callable[..., Any]]]:
    plain = (object, dict, list, tuple, set, frozenset, int, float, complex, bool, str, bytes, bytearray)
    classes: dict[tuple[str, str], type] = {("builtins", c.__name__): c for c in plain}
    classes["collections", "OrderedDict"] = OrderedDict
    classes["numpy", "ndarray"] = np.ndarray
    classes["numpy", "dtype"] = np.dtype
    functions: dict[tuple[str, str], Callable[..., Any]] = {
        ("copyreg", "_reconstructor"): copyreg._reconstructor,  # type: ignore[attr-defined]
        ("_codecs", "encode"): _encode_latin1,
    }
    numpy_functions = _numpy_functions()
    for core in ("numpy.core", "numpy._core"):
        functions[f"{core}.multiarray", "_reconstruct"] = numpy_functions["_reconstruct"]
        functions[f"{core}.multiarray", "scalar"] = numpy_functions["scalar"]
        functions[f"{core}.numeric", "_frombuffer"] = numpy_functions["_frombuffer"]
    return classes, functions


_CLASSES, _FUNCTIONS = _allowed()
_SPARSE = {
    (module, f"{kind}_{container}")
    for kind in _SPARSE_FORMATS
    for container in ("matrix", "array")
    for module in ("scipy.sparse", f"scipy.sparse.{kind}", f"scipy.sparse._{kind}")
}


class RestrictedUnpickler(pickle.Unpickler):
    """An unpickler that knows the classes of this module's list and the caller's ``extra`` alone.

    Args:
        file: Open binary file.
        source: What to name in errors.
        extra: Further (module, name) -> class or function to use for it.
    """

    def __init__(
        self, file: BinaryIO, source: str | Path, extra: Mapping[tuple[str, str], Any] | None = None
    ) -> None:
        # latin1 is what Python 3 needs to read the byte strings of Python 2's numpy arrays.
        super().__init__(file, encoding="latin1")
        self._source, self._extra = source, dict(extra or {})

    def find_class(self, module: str, name: str) -> Any:
        key = (_PYTHON2_MODULES.get(module, module), name)
        key = _PYTHON2_TYPES.get(key, key)
        if key in self._extra:
            return self._extra[key]
        if key in _CLASSES:
            return _CLASSES[key]
        if key in _FUNCTIONS:
            function = _FUNCTIONS[key]
            # A pickle can set attributes on what it is handed, so it gets a function of its own.
            return lambda *args: function(*args)
        if key in _SPARSE:
            return type(name, (SparseRecord,), {"__slots__": (), "module": module})
        if module.split(".")[0] == "chumpy":
            return type(name, (ChumpyNode,), {"__slots__": (), "module": module})
        raise InputError(
            self._source,
            "pickle",
            f"names {module}.{name}, which is not plain data",
            "Refused: reading it could run code. Save plain numpy arrays instead.",
        )

    def persistent_load(self, pid: Any) -> NoReturn:
        raise InputError(self._source, "pickle", f"persistent id {pid!r}", "Save plain numpy arrays instead.")


def safe_load(file: str | Path | BinaryIO, extra: Mapping[tuple[str, str], Any] | None = None) -> Any:
    """Read one pickle; scipy and chumpy objects come back as records for :func:`as_array`.

    Args:
        file: A path or an open binary file. Python 2's pickles are read as latin1.
        extra: Further (module, name) -> class or function, such as ``("yacs.config", "CfgNode")``.

    Raises:
        InputError: The file is missing, is no pickle, or names anything that is not on the list.
    """
    if isinstance(file, (str, Path)):
        try:
            with open(file, "rb") as handle:
                return _load(handle, file, extra)
        except OSError as error:
            raise InputError(file, "file", f"cannot be opened ({error})", "Check the path.") from error
    return _load(file, getattr(file, "name", "pickle"), extra)


def _load(file: BinaryIO, source: str | Path, extra: Mapping[tuple[str, str], Any] | None) -> Any:
    try:
        return RestrictedUnpickler(file, source, extra).load()
    except InputError:
        raise
    except Exception as error:  # a damaged pickle can raise nearly anything
        found = f"cannot be read ({type(error).__name__}: {error})"
        raise InputError(source, "pickle", found, "Check that the file is a whole pickle.") from error


def as_array(value: Any, source: str | Path, field: str) -> NDArray:
    """A dense numeric array from an array, a sparse matrix record or a chumpy node.

    A chumpy leaf holds its array as ``x``; its ``Select`` picks from the flattened operand ``a``.

    Raises:
        InputError: Any other chumpy node, or contents that are no numbers.
    """
    try:
        array = _evaluate(value)
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError) as error:
        found = f"cannot be evaluated ({type(error).__name__}: {error})"
        raise InputError(source, field, found, "Save it as a plain numpy array.") from error
    if array.dtype.kind not in "buif":
        found = f"holds {_describe(value)} of type {array.dtype}, not numbers"
        raise InputError(source, field, found, "Save it as a plain numpy array.")
    return array


def _evaluate(value: Any) -> NDArray:
    if isinstance(value, SparseRecord):
        return _dense(value)
    if not isinstance(value, ChumpyNode):
        return np.asarray(value)
    kind, held = type(value).__name__, value.attributes
    if kind == "Ch":
        return _evaluate(held["x"])
    if kind == "Select":
        picked = _evaluate(held["a"]).ravel()[_evaluate(held["idxs"])]
        shape = held.get("preferred_shape")
        return picked if shape is None else picked.reshape(tuple(int(n) for n in shape))
    raise TypeError(f"unknown chumpy node {value.class_name}")


def _dense(record: SparseRecord) -> NDArray:
    held = record.attributes
    kind = type(record).__name__[:3]
    shape = tuple(int(n) for n in held["_shape"])
    if kind == "coo":
        row, column = held["coords"] if "coords" in held else (held["row"], held["col"])
        return sparse.coo_matrix((held["data"], (row, column)), shape=shape).toarray()
    matrix = _SPARSE_FORMATS[kind]((held["data"], held["indices"], held["indptr"]), shape=shape)
    matrix.check_format(full_check=True)
    return matrix.toarray()


def _describe(value: Any) -> str:
    return value.class_name if isinstance(value, Record) else type(value).__name__
