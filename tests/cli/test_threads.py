"""Commands leave cores to others while their threads wait."""

from __future__ import annotations

import os

import pytest

from depthfit.cli.main import SPIN_COUNT, main


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, str(SPIN_COUNT)),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        # Which says how long to wait itself: a count would win over it.
        ({"OMP_WAIT_POLICY": "active"}, None),
    ],
)
def test_threads_that_wait_do_not_hold_the_cores_unless_the_user_says_so(
    given: dict[str, str], wanted: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # So that the test's end takes away what the command set.
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert main(["--version"]) == 0
    assert os.environ.get("GOMP_SPINCOUNT") == wanted
