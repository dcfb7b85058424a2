"""The clock adds up, and the functions that it watches are those of a fit."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from depthfit.bench import speed
from depthfit.bench.clock import StageClock
from depthfit.bench.speed import STAGES, WATCHED, SpeedConfig, run_speed
from depthfit.synth import SynthConfig, make_scene


def test_inner_stages_are_taken_off_outer_ones() -> None:
    clock = StageClock(torch.device("cpu"))
    module = SimpleNamespace(inner=lambda: time.sleep(0.04))

    def outer() -> None:
        time.sleep(0.02)
        module.inner()
        module.inner()

    module.outer = outer
    began, inner = time.perf_counter(), module.inner
    with clock.watching([(module, "inner", "inner"), (module, "outer", "outer")]):
        module.outer()
    total = time.perf_counter() - began
    assert clock.seconds["inner"] >= 0.08
    assert 0.02 <= clock.seconds["outer"] < 0.06
    assert sum(clock.seconds.values()) == pytest.approx(total, abs=0.005)
    assert (module.inner, module.outer) == (inner, outer)


def test_functions_come_back_also_after_an_error() -> None:
    def fail() -> None:
        raise RuntimeError("as it should")

    module, clock = SimpleNamespace(fail=fail), StageClock(torch.device("cpu"))
    with pytest.raises(RuntimeError, match="as it should"), clock.watching([(module, "fail", "stage")]):
        module.fail()
    assert module.fail is fail
    assert set(clock.seconds) == {"stage"}


def test_a_table_has_every_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "QUICK_IMAGES", 1)
    config = SpeedConfig(out=str(tmp_path), quick=True)
    config.fit.solver.rounds, config.fit.solver.steps, config.fit.solver.grid = 1, 1, 32
    config.fit.solver.hypotheses, config.fit.pose.space = False, "tokens"
    small = SynthConfig(seed=1, images=1, people_weights=(1.0,), width=320, height=240)
    make_scene(small, tmp_path / "speed_1_1")
    before = [getattr(owner, name) for owner, name, _ in WATCHED]
    table = run_speed(config)
    cells = {line.split("|")[1].strip(): line.split("|")[2] for line in table.splitlines() if "|" in line}
    assert all(float(cells[stage]) > 0 for stage in STAGES)
    assert float(cells["all"]) == pytest.approx(sum(float(cells[stage]) for stage in STAGES), abs=0.01)
    assert (tmp_path / "speed.md").read_text() == table + "\n"
    assert [getattr(owner, name) for owner, name, _ in WATCHED] == before
