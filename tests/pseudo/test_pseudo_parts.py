"""The gate, the halving of batches, the manifest, tables on disk, and the simulation of a cluster."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from depthfit.evidence.cameras import prior_camera
from depthfit.evidence.keypoints import KeypointPerson
from depthfit.evidence.scene import ImageEvidence
from depthfit.fit import FitConfig
from depthfit.fit.result import BodyResult, PersonFit
from depthfit.joints import KEYPOINTS
from depthfit.pseudo.config import GateConfig, PolicyConfig, PseudoConfig, fingerprint
from depthfit.pseudo.cost import Costs, ModelConfig, gpu_seconds, manifest_cost, rates, simulate
from depthfit.pseudo.gate import LIMITS, decide, doubts
from depthfit.pseudo.layout import Layout, read_plan, write_plan
from depthfit.pseudo.manifest import Manifest
from depthfit.pseudo.observe import queues, stage_figures
from depthfit.pseudo.outcome import NUMBERS, TEXT, failed_row, fitted_row
from depthfit.pseudo.part import read_index, read_part, table, write_index, write_part
from depthfit.pseudo.records import (
    DROPPED,
    ORIGINAL,
    REFINED,
    Item,
    ItemRef,
    Subject,
    Unit,
    UnitPlan,
    cut_chunks,
)
from depthfit.pseudo.stages import FitStage
from depthfit.run.halving import OUT_OF_MEMORY, DeviceError, HalvingFitter, is_out_of_memory

GOOD: dict[str, Any] = {limit.column: 50.0 if limit.least else 0.0 for limit in LIMITS}
GOOD |= {"accepted": True, "status": "refined"}


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.setting)
def test_each_limit_refuses_beyond_itself_and_says_so(limit: Any) -> None:
    gate = GateConfig(**{limit.setting: 10.0})
    at, beyond = {**GOOD, limit.column: 10.0}, {**GOOD, limit.column: 9.99 if limit.least else 10.01}
    assert doubts(at, gate) == []
    (reason,) = doubts(beyond, gate)
    assert reason.startswith(limit.column)
    assert limit.unit in reason
    assert doubts({**GOOD, limit.column: np.nan}, gate), "what is not known is not believed"
    assert decide(beyond, gate, PolicyConfig())[0] == ORIGINAL
    assert decide(beyond, gate, PolicyConfig(doubtful="drop"))[0] == DROPPED
    assert decide(at, gate, PolicyConfig()) == (REFINED, [])


def test_a_refused_fit_is_never_refined() -> None:
    row = {**GOOD, "accepted": False, "status": "cost_not_lower"}
    assert decide(row, GateConfig(use=False), PolicyConfig()) == (ORIGINAL, ["verdict: cost_not_lower"])
    assert decide(row, GateConfig(), PolicyConfig(refused="drop"))[0] == DROPPED


def test_a_batch_that_is_too_big_is_halved_and_stays_small() -> None:
    sizes: list[int] = []

    def fit(batch: list[int]) -> list[int]:
        sizes.append(len(batch))
        if len(batch) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [2 * n for n in batch]

    fitter: HalvingFitter[int, int] = HalvingFitter(fit)
    assert fitter(list(range(10))) == [2 * n for n in range(10)]
    sizes.clear()
    assert fitter(list(range(7))) == [2 * n for n in range(7)]
    assert max(sizes) <= 3, "a size that failed is not tried again"
    assert fitter.halvings == 2


def test_one_image_alone_can_be_too_big_or_wrong() -> None:
    def fit(batch: list[int]) -> list[int]:
        if 3 in batch:
            raise torch.OutOfMemoryError
        if 5 in batch:
            raise ValueError("no such thing")
        return batch

    result = HalvingFitter(fit)(list(range(8)))
    assert result[3] == OUT_OF_MEMORY
    assert result[5] == "fit_error: ValueError: no such thing"
    assert [r for n, r in enumerate(result) if n not in (3, 5)] == [0, 1, 2, 4, 6, 7]


@pytest.mark.skipif(not hasattr(torch, "AcceleratorError"), reason="this torch does not name such errors")
def test_a_device_that_has_failed_fails_nobody() -> None:
    """Every fit after it raises as well: a bad GPU would eat chunk after chunk."""
    asked: list[int] = []

    def fit(batch: list[int]) -> list[int]:
        asked.append(len(batch))
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nCompile with ...")

    with pytest.raises(DeviceError, match=r"illegal memory access was encountered\. What is finished"):
        HalvingFitter(fit)(list(range(8)))
    assert asked == [8], "smaller batches are not tried"
    assert is_out_of_memory(torch.AcceleratorError("CUDA error: out of memory")), "this one passes"


def _entry(unit: str) -> dict[str, Any]:
    return {"unit": unit, "people": 1, "files": {}}


def test_a_torn_line_is_not_counted_and_is_written_over(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    manifest = Manifest(layout)
    for unit in "abc":
        manifest.append(_entry(unit))
    whole = layout.manifest.read_bytes()
    for cut in (1, 20, 60):
        layout.manifest.write_bytes(whole[:-cut])
        again = Manifest(layout)
        assert set(again.entries) == {"a", "b"}
        again.append(_entry("c"))
        assert layout.manifest.read_bytes() == whole


def test_a_changed_line_is_not_believed(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    Manifest(layout).append(_entry("a"))
    layout.manifest.write_bytes(layout.manifest.read_bytes().replace(b'"people": 1', b'"people": 7'))
    assert not Manifest(layout).entries


def test_a_shard_whose_file_is_short_is_not_done(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    (tmp_path / "f").write_bytes(b"12345")
    manifest = Manifest(layout)
    manifest.append({**_entry("a"), "files": {"f": {"bytes": 5, "sha256": ""}}})
    assert manifest.is_done("a")
    (tmp_path / "f").write_bytes(b"1234")
    assert not manifest.is_done("a")


def test_rows_survive_part_and_index(tmp_path: Path) -> None:
    rows = [failed_row(Item(f"ä{k}", [], None), k, "no_keypoints") for k in range(3)]
    for row in rows:
        row["pose"] = np.arange(72, dtype=np.float32) + row["person"]
    write_part(tmp_path / "p.npz", rows)
    write_index(tmp_path / "i.parquet", rows, {"a": 1})
    wanted = table(rows)
    for back in (read_part(tmp_path / "p.npz"), read_index(tmp_path / "i.parquet")):
        for name, column in table(back).items():
            np.testing.assert_array_equal(column, wanted[name], err_msg=name)
    import pyarrow.parquet

    metadata = pyarrow.parquet.read_schema(tmp_path / "i.parquet").metadata
    assert json.loads(metadata[b"depthfit"]) == {"a": 1}


def test_plans_survive_the_disk_and_cut_no_image(tmp_path: Path) -> None:
    items = [ItemRef(str(k), k % 4, [k], "") for k in range(20)]
    chunks = cut_chunks(items, 5)
    assert [i for first, last in chunks for i in range(first, last)] == list(range(20))
    assert all(sum(items[i].people for i in range(a, b)) >= 5 for a, b in chunks[:-1])
    plan = UnitPlan(Unit("u", "/x"), tuple(items), chunks, ("torn",))
    write_plan(tmp_path / "u.json.gz", plan)
    assert read_plan(tmp_path / "u.json.gz") == plan


def test_the_fingerprint_is_of_what_labels_depend_on() -> None:
    base = fingerprint(PseudoConfig())
    assert fingerprint(PseudoConfig(engine="ray", workers=9, device="cuda")) == base
    assert fingerprint(PseudoConfig(gate=GateConfig(max_prior=1.5))) != base


def test_simulation_of_hand_worked_pipelines() -> None:
    one = {"read": 1, "fit": 1, "gate": 1, "write": 1}
    same = [{"read": 1.0, "fit": 3.0, "gate": 0.0, "write": 0.0}] * 4
    assert simulate(same, one) == pytest.approx(1 + 4 * 3), "the slow stage never waits after the first"
    assert simulate(same, {**one, "fit": 2}) == pytest.approx(2 + 2 * 3), "two start at 1 and 2 and go on"
    assert simulate(same, {**one, "fit": 9}) == pytest.approx(4 + 3), "reading sets the pace"
    slow_end = [{"read": 0.0, "fit": 1.0, "gate": 0.0, "write": 5.0}] * 3
    assert simulate(slow_end, one) == pytest.approx(1 + 15)


def test_rates_of_a_big_run_by_hand() -> None:
    seconds = {"read": 0.01, "perceive": 9.0, "fit": 9.0, "gate": 0.0, "write": 0.01}
    costs = Costs(seconds, bytes_in=4e5, bytes_moved=1e6, shard=1.9e5, index=1e4, people_per_image=2.0)
    config = ModelConfig(fit_people_per_s=100, perceive_images_per_s=10, cpus_per_gpu=8, chunk=100)
    assert gpu_seconds(costs, ModelConfig()) == 18.0
    assert rates(costs, config, 16) == {
        "GPU": pytest.approx(16 / (1 / 100 + 1 / (10 * 2))),
        "read, gate, write": pytest.approx(16 * 8 / 0.02),
        "storage": pytest.approx(1e9 / (2 * 4e5 + 1.9e5 + 1e4)),
        "network": pytest.approx(2 * 1e9 / 1e6),
        "driver": pytest.approx(1000 / 20 * 100),
    }


def test_queues_and_rates_of_a_hand_made_log() -> None:
    def line(read_end: float, fit: tuple[float, float]) -> dict[str, Any]:
        spans = {
            "read": (0.0, read_end, "a"),
            "fit": (*fit, "b"),
            "gate": (9.0, 9.0, "c"),
            "write": (9, 9, "c"),
        }
        return {"people": 2, "times": spans}

    log = [line(1, (1, 4)), line(2, (4, 8))]
    assert queues(log)["fit"] == {"mean": pytest.approx(2 / 3), "most": 1.0}, "the second waited 2 s of 3"
    assert stage_figures(log)["fit"]["s_per_person"] == pytest.approx(7 / 4)
    assert stage_figures(log)["fit"]["people_per_s"] == pytest.approx(4 / 7)


def test_appending_costs_the_same_at_the_end() -> None:
    cost = manifest_cost(20_000)
    assert cost["append_ms"] < 20 * cost["first_ms"] + 5
    assert cost["bytes"] / 20_000 < 2000


def _evidence() -> ImageEvidence:
    size = (100, 60)
    camera = prior_camera(size)
    return ImageEvidence("a", Path("a.png"), size, (), None, None, camera, np.arange(0), None, ())


def test_a_persons_row_is_in_the_units_of_the_gate() -> None:
    points = np.full((len(KEYPOINTS), 2), 30.0, np.float32)
    # The last pixel ends half a pixel after its centre.
    points[:5] = [[99.4, 59.4], [70, 30], [-0.4, -0.4], [99.6, 30], [70, 59.6]]
    turns = np.tile(np.eye(3, dtype=np.float32), (23, 1, 1))
    transl = np.array([0.1, 0.2, 3.0], np.float32)
    joints = np.zeros((24, 3), np.float32)
    betas = np.array([-2.5, 1, *[0] * 8], np.float32)
    body = BodyResult(
        600.0, np.array([49.5, 29.5]), transl, turns[0], turns, betas, joints, points[:, [0, 0, 1]], points
    )
    fit = PersonFit(
        status="refined",
        accepted=True,
        initial=body,
        refined=body,
        tokens=np.zeros(0, np.int16),
        log_scale=0.0,
        focal_std_log=0.1,
        distance_std_log=0.05,
        joints_std=np.array([9.0, *[0.02] * 23], np.float32),
        reprojection=(5.0, 1.0),
        depth_residual=(0.04, 0.02),
        cost_before={},
        cost_after={"pose_prior": 126.0},
        iterations=3,
    )
    detection = KeypointPerson(np.full((len(KEYPOINTS), 2), 20.0), np.full(len(KEYPOINTS), 0.5))
    prediction: Any = SimpleNamespace(person=2, detection=detection)
    given: Any = (
        SimpleNamespace(log_depth=None),
        SimpleNamespace(box=torch.tensor([10.0, 10, 30, 60]), outline=None),
    )
    row = fitted_row(
        Item("k", [], _evidence()), prediction, given, fit, np.array([0.0, -0.2, 0.5]), FitConfig()
    )
    assert (row["key"], row["person"], row["evidence"], row["width"], row["height"]) == (
        "k",
        2,
        "keypoints",
        100,
        60,
    )
    expected = {
        "reprojection": 2.0, "initial_reprojection": 10.0, "depth_residual": 2.0,
        "initial_depth_residual": 4.0,
        "joint_sd": 20.0, "focal_sd": 10.0, "distance_sd": 5.0, "prior": 2.0, "beta": 2.5,
        "inside": 100 * (1 - 2 / len(KEYPOINTS)), "focal": 600.0, "initial_focal": 600.0,
    }  # fmt: skip
    assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(row["smpl_transl"], [0.1, 0.4, 2.5], rtol=1e-6)
    assert row.keys() == failed_row(Item("k", [], None), 2, "").keys()
    assert set(NUMBERS) | set(TEXT) < row.keys()


def test_who_fails_for_a_reason_of_their_own_keeps_it_where_the_image_has_one_too() -> None:
    stage = object.__new__(FitStage)
    stage.config = PseudoConfig()
    stage.config.fit.camera.freeze_focal = True
    subjects = [Subject(1, None, None, failure="label_not_finite"), Subject(2, None, None)]
    first, second = stage._starts(Item("k", subjects, _evidence()))
    assert first == "label_not_finite"
    assert str(second).startswith("evidence_unusable")
