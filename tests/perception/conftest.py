"""Tiny networks on disk, written once."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("transformers", reason='needs pip install "depthfit[perception]"')


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder that holds the tiny networks of all stages."""
    from tests.perception.networks import write_tiny

    folder = tmp_path_factory.mktemp("networks") / "models"
    write_tiny(folder)
    return folder
