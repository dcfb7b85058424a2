"""``depthfit bench numerics``: what it calls agreement is agreement."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from depthfit.bench.numerics import HELD, WHOLE, NumericsConfig, _agreement, compare, run_numerics
from depthfit.bench.speed_scenes import read_inputs, scene_folders
from depthfit.fit import FitConfig, ImageInput


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[ImageInput]:
    folders = scene_folders(tmp_path_factory.mktemp("numerics"), 101, 2, mixed=False)
    return read_inputs(folders, FitConfig(), 0)


def test_one_smooth_function_has_one_minimum_in_both_precisions(inputs: list[ImageInput]) -> None:
    config = FitConfig()
    config.solver.rounds = 2
    found = compare(inputs, config, torch.device("cpu"), steps=30)
    assert 0 < found[HELD].joints_p99_mm < 0.3
    assert found[HELD].focal_max < 1e-3
    assert found[HELD].verdicts is None
    assert found[WHOLE].verdicts == 1.0
    assert found[WHOLE].joints_median_mm <= found[WHOLE].joints_p99_mm <= found[WHOLE].joints_max_mm


def test_the_report_is_written(tmp_path: Path) -> None:
    config = NumericsConfig(out=str(tmp_path), images=1, seed=101, steps=4)
    config.fit.solver.rounds = 1
    config.scene = replace(config.scene, width=320, height=240)
    text = run_numerics(config)
    saved = json.loads((tmp_path / "numerics.json").read_text())
    assert f"| {WHOLE} | {saved[WHOLE]['joints_median_mm']:.4f} |" in text
    assert (tmp_path / "numerics.md").read_text() == text + "\n"


def test_differences_are_quantiles_over_all_joints_in_mm() -> None:
    """101 joints of 101 people: 0 to 100 mm apart; and their focals by 0 to 10 %."""

    def state(apart: float) -> Any:
        steps = torch.linspace(0, 1, 101)[:, None, None]
        joints = torch.cat([steps, torch.zeros(101, 1, 2)], -1) * 0.1 * apart
        people = SimpleNamespace(root=joints, pose=None, betas=None)
        return SimpleNamespace(
            people=people, images=SimpleNamespace(log_focal=steps.flatten().double() * 0.1 * apart)
        )

    stages: Any = SimpleNamespace(
        body=SimpleNamespace(skeleton=lambda root, pose, betas: SimpleNamespace(position=root))
    )
    found = _agreement(stages, state(0.0), stages, state(1.0), 0.5)
    joints = (found.joints_median_mm, found.joints_p99_mm, found.joints_max_mm)
    assert joints == pytest.approx((50.0, 99.0, 100.0), abs=1e-3)
    assert (found.focal_p99, found.focal_max, found.verdicts) == pytest.approx((0.099, 0.1, 0.5), abs=1e-6)
