"""Memory that runs out, in the libraries that ask for it and in a fit; nothing is mocked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from depthfit.run.halving import is_out_of_memory
from tests.pseudo.small_memory import ALL

ROOT = Path(__file__).parents[2]
HUGE = 1 << 58
"""Bytes that no address space holds."""
linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc and limits memory")


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python on one thread: each thread has a stack and an arena of its own."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )


def raised(work: Callable[[], object]) -> Exception:
    with pytest.raises(Exception) as found:  # noqa: PT011 - which one it is, is the question
        work()
    assert isinstance(found.value, Exception)
    return found.value


WANTS: dict[str, Callable[[], object]] = {
    "python": lambda: bytearray(HUGE),
    "numpy": lambda: np.empty(HUGE, np.uint8),
    "torch": lambda: torch.empty(HUGE, dtype=torch.uint8),
    "std::vector in torch": lambda: torch.zeros(1).expand(1 << 50).unbind(),
    "opencv": lambda: cv2.resize(np.zeros((2, 2), np.float64), (1 << 28, 1 << 27)),
}


@pytest.mark.parametrize("work", WANTS.values(), ids=WANTS.keys())
def test_what_asks_for_too_much_is_out_of_memory(work: Callable[[], object]) -> None:
    error = raised(work)
    assert is_out_of_memory(error), repr(error)


BUGS: dict[str, Callable[[], object]] = {
    "torch": lambda: torch.zeros(2) @ torch.zeros(3),
    "numpy": lambda: np.zeros(2) @ np.zeros(3),
    "opencv": lambda: cv2.resize(np.zeros((2, 2)), (0, 0)),
    "python": lambda: {}["can't allocate memory"],
}


@pytest.mark.parametrize("work", BUGS.values(), ids=BUGS.keys())
def test_other_errors_are_not(work: Callable[[], object]) -> None:
    error = raised(work)
    assert not is_out_of_memory(error), repr(error)


@linux
def test_a_vector_in_opencv_is_out_of_memory() -> None:
    """Its containers fail with C++'s own exception, for which nothing short of a limit is enough."""
    code = (
        "import resource, numpy as np, cv2\n"
        "from depthfit.run.halving import is_out_of_memory\n"
        "cv2.setNumThreads(1)\n"
        "dots = np.uint8(255) * (np.indices((2000, 2000)).sum(0) % 2).astype(np.uint8)\n"
        "size = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (size + (20 << 20), resource.RLIM_INFINITY))\n"
        "try:\n"
        "    cv2.findContours(dots, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)\n"
        "except cv2.error as error:\n"
        "    print(error, is_out_of_memory(error))\n"
    )
    done = python("-c", code)
    assert done.stdout == "std::bad_alloc True\n", done.stderr


@pytest.mark.faults
@linux
def test_memory_that_runs_out_in_a_fit_halves_the_batch(tars: Path, tmp_path: Path) -> None:
    done = python("-m", "tests.pseudo.small_memory", str(tars / "000000.tar"), str(tmp_path))
    assert done.returncode == 0, done.stderr
    sizes = json.loads(done.stdout)
    assert sizes["some"] < sizes["room"] < sizes["whole"]
    whole, squeezed = (np.load(tmp_path / f"{name}.npz") for name in ("whole", "squeezed"))
    assert whole["halvings"] == 0
    assert squeezed["halvings"] > 0
    assert "out of memory with" in done.stderr
    assert len(squeezed["status"]) == len(whole["status"]) == 2 * ALL, "two in each image"
    assert not squeezed["reason"].astype(bool).any(), "nobody failed"
    assert squeezed["status"].tolist() == whole["status"].tolist()
    np.testing.assert_allclose(squeezed["pose"], whole["pose"], atol=1e-2)
