"""An output folder that another process holds."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from depthfit.errors import InputError
from depthfit.lock import LOCK, lock


def test_the_lock_is_another_processs_until_it_ends(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\nfrom depthfit.lock import lock\n"
        f"with lock(pathlib.Path({str(tmp_path / 'new')!r})):\n"
        "    print('held', flush=True)\n    sys.stdin.read()"
    )
    root = Path(__file__).parents[1]
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(InputError, match=f"in use by process {other.pid}"), lock(tmp_path / "new"):
            pass
        other.kill()
    with lock(tmp_path / "new"):
        # It tells of its holder alone.
        assert (tmp_path / "new" / LOCK).read_text() == f"process {os.getpid()} on {socket.gethostname()}\n"
