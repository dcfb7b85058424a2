"""Parts of a benchmark that are prepared and fitted together, in this process and in others."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from depthfit.bench import pool
from depthfit.bench.fitting import Workbench
from depthfit.bench.pool import Job, Pipeline, grouped
from depthfit.bench.split_prepare import prepare, prepared
from depthfit.bench.split_report import comparable
from depthfit.bench.splits import Part, split_parts
from depthfit.bench.variants import FITS, variants
from depthfit.evaluation.score import FIT_FIELDS, load_table
from depthfit.evidence.scene import read_scene
from depthfit.fit.adapter import image_input
from depthfit.fit.config import FitConfig
from depthfit.synth import make_scene

KEYS = ["joint", "no_masks", "free_focal", "joint_true_focal", "prior_none"]


def _parts() -> list[Part]:
    """Three people who stand near each other in two images, and one far away."""
    parts = [split_parts([name], 8, 100, "one")[0] for name in ("several", "far")]
    small = dataclasses.replace
    scenes = [small(p.scene, width=320, height=240, images=2 if p.group == "several" else 1) for p in parts]
    return [small(part, scene=scene) for part, scene in zip(parts, scenes, strict=True)]


def _quick() -> FitConfig:
    config = FitConfig()
    config.solver.rounds, config.solver.hypotheses, config.solver.grid = 1, False, 32
    config.solver.polish = 0
    return config


def _same(ours: Any, theirs: Any, name: str) -> None:
    if isinstance(ours, torch.Tensor):
        assert ours.dtype == theirs.dtype, name
        assert torch.equal(ours.nan_to_num(-7.0), theirs.nan_to_num(-7.0)), name
    elif dataclasses.is_dataclass(ours):
        for f in dataclasses.fields(ours):
            _same(getattr(ours, f.name), getattr(theirs, f.name), f"{name}.{f.name}")
    elif isinstance(ours, list):
        assert len(ours) == len(theirs), name
        for mine, other in zip(ours, theirs, strict=True):
            _same(mine, other, name)
    else:
        assert ours == theirs, name


def test_prepared_inputs_are_those_of_the_adapter_to_the_last_bit(tmp_path: Path) -> None:
    part, base = _parts()[0], FitConfig()
    scene = read_scene(make_scene(part.scene, tmp_path / "scene", progress=False), part.scene.keypoint_format)
    images = Workbench(base, torch.device("cpu"), 1).read(scene, scene.names)
    prepare(images, variants(KEYS), base, tmp_path / "prepared")
    for key in KEYS:
        found = prepared(tmp_path / "prepared", key)
        for image, own in zip(images, found, strict=True):
            evidence = FITS[key].evidence(image.evidence, image.true_focal)
            _same(own.input, image_input(evidence, image.people, FITS[key].settings(base)), key)
            assert own.name == image.evidence.path.name
            assert [p.person for p in own.people] == [p.person for p in image.people]
    # Each content lies in the file once: depth, where it counts, two kinds of labels, a person's tokens.
    pixels, people = 320 * 240, sum(len(image.people) for image in images)
    size = (tmp_path / "prepared" / "maps.bin").stat().st_size
    assert size < len(images) * pixels * (4 + 1 + 1 + 1) + people * 160 * 2048 * 4 + 64 * 100


def test_parts_get_their_own_people_wherever_they_are_fitted(tmp_path: Path) -> None:
    parts, base = _parts(), _quick()
    job, keys = Job(str(tmp_path), base, "cpu", 1), ["identity", "free_focal"]
    calls: list[int] = []
    pipeline = Pipeline(job, 1, 2, batch=32)
    pipeline.run([[(part, keys) for part in parts]], lambda: calls.append(1))
    assert calls == [1]
    assert pipeline.troubles == []
    assert not list(tmp_path.glob(".prepared*"))
    bench = Workbench(base, torch.device("cpu"), 1)
    for part in parts:
        scene = read_scene(job.scene(part), part.scene.keypoint_format)
        for key in keys:
            # Fitted alone: people of other images do not matter.
            rows, _ = bench.fit(FITS[key], bench.read(scene, scene.names))
            table = load_table(job.fits(part, key), FIT_FIELDS)
            assert [str(n) for n in table["imgname"]] == [row["imgname"] for row in rows]
            assert np.allclose(table["joints"], [row["joints"] for row in rows], atol=1e-3)


def test_groups_fill_the_batch_and_leave_out_what_is_done(tmp_path: Path) -> None:
    job, parts = Job(str(tmp_path), device="cpu"), split_parts(["everyday", "hard"], 512, 1, "one")
    work = [(part, ["identity", "joint"]) for part in parts]
    assert [sum(p.people for p in g.parts) for g in grouped(work, job, 100)] == [128, 128]
    for key in ("identity", "joint"):
        _touch(job.fits(parts[0], key))
    _touch(job.fits(parts[1], "joint"))
    groups = grouped(work, job, 100)
    assert [(len(g.parts), g.keys) for g in groups] == [
        (1, ("identity",)),
        (4, ("identity", "joint")),
        (2, ("identity", "joint")),
    ]


def test_a_fit_that_fails_is_told_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(bench: Any, variant: Any, inputs: Sequence[Any], people: Sequence[Any]) -> Any:
        if variant == FITS["identity"]:
            raise RuntimeError("CUDA out of memory")
        return fit_inputs(bench, variant, inputs, people)

    fit_inputs = Workbench.fit_inputs
    monkeypatch.setattr(Workbench, "fit_inputs", fails)
    part = _parts()[1]
    job, keys = Job(str(tmp_path), _quick(), "cpu", 1), ["identity", "free_focal"]
    pipeline = Pipeline(job, 1, 1, batch=32)
    pipeline.run([[(part, keys)]], lambda: None)
    assert len(pipeline.troubles) == 1
    assert "identity" in pipeline.troubles[0]
    assert "out of memory" in pipeline.troubles[0]
    assert comparable([part], keys, job) == ([part], ["free_focal"])


def test_fits_that_will_not_come_are_off_the_progress_bar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(part: Part, *more: Any) -> None:
        raise RuntimeError(f"no room for {part.name}")

    steps: list[float] = []
    totals: list[float] = []
    monkeypatch.setattr(pool, "_prepare", fails)
    monkeypatch.setattr(pool, "_begin", lambda job: None)
    monkeypatch.setattr(pool.Progress, "add_task", lambda bar, text, total: totals.append(total))
    monkeypatch.setattr(pool.Progress, "advance", lambda bar, task, count: steps.append(count))
    pipeline = Pipeline(Job(str(tmp_path), device="cpu"), 1, 1, batch=1000)
    pipeline.run([[(part, KEYS) for part in _parts()]], lambda: None)
    assert len(pipeline.troubles) == 2
    assert sum(steps) == sum(totals) == len(KEYS)


def test_a_table_compares_fits_of_the_same_people(tmp_path: Path) -> None:
    job, parts = Job(str(tmp_path), device="cpu"), split_parts(["everyday"], 512, 1, "one")
    assert len(parts) == 4
    for key, count in (("identity", 4), ("joint", 3), ("no_masks", 3), ("smplify", 0)):
        for part in parts[:count]:
            _touch(job.fits(part, key))
    found = comparable(parts, ["identity", "joint", "no_masks", "smplify"], job)
    assert found == (parts[:3], ["identity", "joint", "no_masks"])
    assert comparable(parts, ["smplify"], job) == ([], [])


def test_a_process_that_is_gone_fails_its_work_alone() -> None:
    with pool._processes(1) as executor:
        assert isinstance(pool._submit(executor, _die).exception(), pool.BrokenExecutor)
        assert isinstance(pool._submit(executor, _die).exception(), pool.BrokenExecutor)


def _die() -> None:
    os._exit(1)


def _touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
