"""An output folder belongs to one run at a time."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from depthfit.errors import InputError

LOCK = ".lock"
"""The file in the folder that is locked; it stays, and means nothing without its lock."""


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold an output folder, which is made if need be. The lock goes with the process, however it ends.

    Raises:
        InputError: Another run holds it, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / LOCK, "a+")  # noqa: SIM115 - closed below; a with block would hide the error's text
    except OSError as error:
        fix = "Give a folder that can be written."
        raise InputError(folder, "output", f"cannot be written ({error.strerror})", fix) from error
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            fix = "Wait for it, stop it, or give another folder."
            raise InputError(folder, "output", f"in use by {file.read().strip()}", fix) from error
        except OSError as error:
            fix = "Its file system has to know flock: mount it so, or give another folder."
            raise InputError(folder, "output", f"cannot be locked ({error.strerror})", fix) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
    finally:
        file.close()
