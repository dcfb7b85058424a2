"""Stages of ``depthfit bench perception`` with tiny networks, and the table of ``depthfit bench masks``."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers", reason='needs pip install "depthfit[perception]"')

from depthfit.bench import network_stages
from depthfit.bench.masks import MaskBenchConfig, MaskScore, mask_table, run_masks
from depthfit.bench.random_models import NETWORKS, full_size
from depthfit.bench.stage import PerceptionConfig
from depthfit.perception.hub import transformers_class
from depthfit.synth import SynthConfig
from tests.perception.networks import TINY

CPU = torch.device("cpu")


@pytest.mark.parametrize("stage", sorted(NETWORKS))
def test_a_stage_runs_and_says_what_it_did(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_stages, "WIDTH", 96)
    monkeypatch.setattr(network_stages, "HEIGHT", 72)
    monkeypatch.setattr(network_stages, "BOX", (10.0, 5.0, 60.0, 70.0))
    settings = {key: value for key, value in TINY[stage].items() if key != "processor"}
    monkeypatch.setattr(network_stages, "full_size", lambda _: settings)
    processor = network_stages.processor_class
    monkeypatch.setattr(
        network_stages, "processor_class", lambda name: lambda: processor(name)(**TINY[stage]["processor"])
    )
    functions = {
        "detector": network_stages.detector_stage,
        "keypoints": network_stages.keypoint_stage,
        "masks": network_stages.mask_stage,
        "depth": network_stages.depth_stage,
    }
    rows = list(functions[stage](PerceptionConfig(batches=[1, 2], images=3), CPU))
    assert [(row.batch, row.images) for row in rows] == [(1, 3), (2, 4)]
    assert all(row.precision == "float32" and row.seconds > 0 and row.parameters > 1000 for row in rows)


@pytest.mark.parametrize(
    ("stage", "millions"), [("detector", 43), ("keypoints", 889), ("masks", 641), ("depth", 952)]
)
def test_full_size_networks_have_the_parameters_of_the_published_ones(stage: str, millions: int) -> None:
    config, network, _ = NETWORKS[stage]
    with torch.device("meta"):
        made = transformers_class(network)(transformers_class(config)(**full_size(stage)))
    assert sum(p.numel() for p in made.parameters()) / 1e6 == pytest.approx(millions, rel=0.03)


def test_masks_of_a_few_synthetic_people(tmp_path: Path) -> None:
    synth = SynthConfig(seed=5, images=1, people_weights=(1.0,), width=320, height=240, token_probs=False)
    table = run_masks(MaskBenchConfig(synth, str(tmp_path)))
    assert "| alone in the image | 1 | 0.9" in table
    assert (tmp_path / "masks.md").read_text() == table + "\n"


def test_people_are_grouped_by_how_much_is_hidden() -> None:
    scores = [MaskScore(1, 1.0, 0.9, 1, 1), MaskScore(2, 1.0, 0.8, 1, 1), MaskScore(2, 0.6, 0.4, 1, 1)]
    lines = mask_table(scores).splitlines()[2:]
    assert [line.split(" | ")[2] for line in lines] == ["0.900", "0.800", "0.400", "0.700"]
