"""The table of stages, and random files of full formats."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from baselines import REGRESSORS
from baselines.hmr.backbone import BackboneSize
from baselines.hmr.decoder import DecoderSize
from baselines.hmr.release import RegressorFiles, find_files, load_regressor
from depthfit.bench import perception, regressor_stage
from depthfit.bench.perception import run_perception
from depthfit.bench.regressor_stage import random_network, write_random_release
from depthfit.bench.stage import PerceptionConfig, StageRow, measure
from depthfit.errors import InputError

CPU = torch.device("cpu")
BACKBONE, DECODER = BackboneSize(32, 1, 2), DecoderSize(16, 1, 2, 8, 16)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regressor_stage, "BackboneSize", lambda: BACKBONE)


def test_the_table_has_a_line_for_each_network_and_batch(tmp_path: Path, small: None) -> None:
    config = PerceptionConfig(["regressor"], [1, 2], images=2, device="cpu", out=str(tmp_path))
    table = run_perception(config)
    cells = [
        [c.strip() for c in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")
    ]
    assert [row[:2] + row[3:5] for row in cells[2:]] == [
        ["regressor", title, "float32", batch] for title in ("TokenHMR", "HMR2.0") for batch in ("1", "2")
    ]
    assert all(float(row[5]) > 0 and row[7].endswith("GiB") for row in cells[2:])
    assert (tmp_path / "perception.md").read_text() == table + "\n"


def test_whole_batches_are_counted_and_the_first_call_is_not() -> None:
    calls: list[int] = []
    images, seconds = measure(CPU, 4, 10, lambda: calls.append(1))
    assert (images, len(calls)) == (12, 4)
    assert seconds >= 0


def test_other_stages_find_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = StageRow("depth", "D", 2_000_000, "float16", 4, 8, 2.0, 3 * 2**30)
    monkeypatch.setitem(perception.STAGES, "depth", lambda config, device: iter([row]))
    config = PerceptionConfig(["depth"], device="cpu", out=str(tmp_path))
    assert "| depth | D | 2 M | float16 | 4 | 4 | 0.25 | 3.00 GiB |" in run_perception(config)
    for changes, match in (({"stages": ["dept"]}, "Stages are .*regressor"), ({"batches": []}, "above zero")):
        with pytest.raises(InputError, match=match):
            run_perception(replace(config, **changes))


@pytest.mark.parametrize("name", REGRESSORS)
def test_random_files_load_as_official_ones_and_stand_before_the_camera(
    name: str, tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(regressor_stage, "DecoderSize", lambda: replace(DECODER, width=1024))
    monkeypatch.setattr("baselines.hmr.release.BackboneSize", lambda: BACKBONE)
    release = REGRESSORS[name]
    write_random_release(release, tmp_path)
    regressor = load_regressor(release, find_files(release, RegressorFiles(folder=str(tmp_path))), CPU)
    output = regressor(torch.rand(2, 3, 256, 256))
    np.testing.assert_allclose(output.camera.numpy(), [[0.9, 0, 0]] * 2, atol=0.1)
    # Upright in a camera whose y axis points down, and facing it.
    assert float(output.root[:, 1, 1].max()) < -0.9
    assert float(output.root[:, 2, 2].max()) < -0.9


def test_random_weights_follow_the_seed() -> None:
    first, again, other = (
        random_network(True, CPU, torch.float32, seed, BACKBONE, DECODER).state_dict() for seed in (1, 1, 2)
    )
    key = "backbone.blocks.0.attn.qkv.weight"
    assert torch.equal(first[key], again[key])
    assert not torch.equal(first[key], other[key])
