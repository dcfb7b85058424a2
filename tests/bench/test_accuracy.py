"""The headline figures of the README on the eight people of ``depthfit bench accuracy quick=true``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from depthfit.bench.accuracy import AccuracyConfig, run_accuracy
from depthfit.errors import InputError

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def summaries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("bench")
    config = AccuracyConfig(str(out), quick=True, fits=["default_focal", "joint"])
    table = run_accuracy(config)
    assert "joint, with masks" in table
    return json.loads((out / "fits.json").read_text())


def test_the_joint_fit_halves_the_error_of_the_prediction(summaries: dict[str, Any]) -> None:
    """The README's 64 people: 60 % under it. Eight people scatter: their standard error is about 5 %."""
    joint = summaries["joint, with masks"]
    assert joint["people"] == 8
    assert joint["mpjpe_mm"]["mean"] < 0.55 * joint["initial_mpjpe_mm"]["mean"]
    assert joint["pa_mpjpe_mm"]["mean"] < 0.65 * joint["initial_pa_mpjpe_mm"]["mean"]
    assert joint["worse"] == 0


def test_the_joint_fit_beats_keypoints_under_the_regressors_focal(summaries: dict[str, Any]) -> None:
    joint, keypoints = summaries["joint, with masks"], summaries["2D only, default focal"]
    assert joint["mpjpe_mm"]["mean"] < 0.7 * keypoints["mpjpe_mm"]["mean"]
    assert keypoints["focal_log"]["median"] > 1


def test_the_camera_is_found(summaries: dict[str, Any]) -> None:
    joint = summaries["joint, with masks"]
    assert joint["focal_log"]["median"] < 0.15
    assert joint["distance_log"]["median"] < 0.15
    assert joint["initial_distance_log"]["median"] > 1


def test_an_unknown_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="rivalry"):
        run_accuracy(AccuracyConfig(str(tmp_path), table="rivalry"))
