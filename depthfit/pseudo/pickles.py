"""Pickles that the training environments of 4D-Humans and TokenHMR can read."""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import Any

from depthfit.body.unpickle import safe_load
from depthfit.errors import InputError

PROTOCOL = 3
"""The highest in which a class is named by plain text, and the lowest that knows bytes."""
NEW_NUMPY, OLD_NUMPY = "numpy._core.", "numpy.core."


def dumps(value: Any) -> bytes:
    """Pickle arrays so that numpy 1 and 2 read them: numpy 2 names a module that numpy 1 does not have."""
    data = pickle.dumps(value, protocol=PROTOCOL)
    out, done = bytearray(), 0
    for opcode, argument, position in pickletools.genops(data):
        if opcode.name == "GLOBAL" and str(argument).startswith(NEW_NUMPY):
            assert position is not None
            start = position + 1
            out += data[done:start] + OLD_NUMPY.encode()
            done = start + len(NEW_NUMPY)
    return bytes(out + data[done:])


def loads(data: bytes, source: str) -> Any:
    """Read a pickle of plain data that can be written again; nothing in it is run.

    Args:
        data: The pickle.
        source: What to name in errors.

    Raises:
        InputError: It is no pickle, or holds anything that is not plain data.
    """
    try:
        value = safe_load(io.BytesIO(data))
    except InputError as error:
        raise InputError(source, error.field, error.found, error.fix) from error
    try:
        pickle.dumps(value, protocol=PROTOCOL)
    # Records of matrices, lists a thousand deep: found here, where they are one image's fault.
    except (pickle.PicklingError, AttributeError, TypeError, RecursionError) as error:
        found = f"holds what is not plain data ({type(error).__name__}: {error})"
        raise InputError(source, "pickle", found, "Save plain numpy arrays instead.") from error
    return value
