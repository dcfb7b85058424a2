"""Contents that no loader expects: each costs its own image or person, never the run, never others."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import tarfile
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

from depthfit.errors import DepthfitError, InputError
from depthfit.pseudo import runner, stages, target_tars
from depthfit.pseudo.check import check
from depthfit.pseudo.layout import read_plan
from depthfit.pseudo.part import read_index
from depthfit.pseudo.records import Chunk, ChunkRef, Unit
from depthfit.pseudo.runner import plan_unit
from depthfit.pseudo.source_tars import TarSource
from depthfit.pseudo.stages import FitStage, GateStage, Job, ReadStage, WriteStage
from depthfit.pseudo.tars import scan
from depthfit.run.halving import DeviceError
from tests.pseudo.conftest import Members, edit_label, read_tar, refine, replace, settings, write_tar
from tests.pseudo.official_reader import people
from tests.pseudo.test_pseudo_sources import coco_file


@pytest.fixture
def members(tars: Path) -> Members:
    """Of a tar with one image of two people."""
    return read_tar(tars / "000000.tar")[:4]


def run(folder: Path, members: Members, *more: str) -> tuple[Path, dict[str, Any], list[dict[str, Any]]]:
    """(shard, summary, index) of a run over a tar of ``members``, which is whole."""
    write_tar(folder / "in" / "a.tar", members)
    summary = refine(folder / "in", folder / "out", *more)
    assert check(str(folder / "out"), str(folder / "in")) == []
    assert sum(summary["outcomes"].values()) == summary["people"]
    return folder / "out" / "shards" / "a.tar", summary, read_index(folder / "out" / "index" / "a.parquet")


RAGGED: list[Any] = [[1, 2], [3]]
UNUSABLE: dict[str, dict[str, Any]] = {
    "ragged points": {"keypoints_2d": RAGGED},
    "ragged pose": {"body_pose": RAGGED},
    "text as points": {"keypoints_2d": np.full((44, 3), "1")},
    "ragged flag": {"has_body_pose": RAGGED},
}


@pytest.mark.parametrize("fields", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_an_odd_label_costs_its_own_person(fields: Any, members: Members, tmp_path: Path) -> None:
    edit_label(members, "00000", 0, **fields)
    shard, summary, rows = run(tmp_path, members)
    assert [row["outcome"] for row in rows] == ["failed", "refined"]
    assert summary["reasons"] == {"label_unusable": 1}
    assert len(list(people(shard))) == 1


def test_an_odd_index_of_a_mask_is_none(members: Members, tmp_path: Path) -> None:
    edit_label(members, "00000", 0, extra_info={"detection_npz_idx": RAGGED})
    _, _, (first, second) = run(tmp_path, members)
    assert "mask" not in first["evidence"]
    assert "mask" in second["evidence"]


def test_masks_of_text_spoil_the_evidence_and_not_the_labels(members: Members, tmp_path: Path) -> None:
    data = io.BytesIO()
    np.savez(data, masks=np.full((2, 192, 256), "a"))
    replace(members, "00000.detection.npz", data.getvalue())
    shard, summary, rows = run(tmp_path, members)
    assert [row["reason"].split(":")[0] for row in rows] == ["evidence_unusable"] * 2
    assert summary["written"] == 2
    assert read_tar(shard) == members


def test_what_cannot_be_written_again_is_refused_where_it_is_read(members: Members, tmp_path: Path) -> None:
    good = [(name.replace("00000", "good"), data) for name, data in members]
    edit_label(members, "00000", 0, matrix=sparse.eye(3).tocsc())
    _, summary, _ = run(tmp_path, members + good)
    assert summary["reasons"] == {"label_unreadable": 1}
    assert summary["outcomes"]["refined"] == 2


def test_whole_numbers_are_no_type_for_a_refined_body(members: Members, tmp_path: Path) -> None:
    """Labels that are only placeholders are integers at times; radians would be cut to 0 and 1."""
    nothing = {"body_pose": np.zeros(72, np.int64), "betas": np.zeros(10, np.int64)}
    edit_label(members, "00000", 0, **nothing, has_body_pose=np.float32(0))
    shard, _, rows = run(tmp_path, members, "fit.solver.steps=2")
    assert rows[0]["outcome"] == "refined"
    written = next(people(shard))["data"]
    np.testing.assert_array_equal(written["body_pose"], rows[0]["pose"])
    np.testing.assert_array_equal(written["betas"], rows[0]["betas"])
    assert np.abs(rows[0]["betas"]).max() % 1


def test_an_image_with_nobody_stays_and_counts_nobody(members: Members, tmp_path: Path) -> None:
    empty = [(name.replace("00000", "empty"), data) for name, data in members[:2]]
    replace(empty, "empty.data.pyd", pickle.dumps([]))
    shard, summary, _ = run(tmp_path, members + empty)
    assert summary["people"] == 2
    assert read_tar(shard)[-2:] == empty
    _, summary, rows = run(tmp_path / "alone", empty)
    assert summary["people"] == len(rows) == 0


def test_names_in_other_encodings_and_the_same_name_twice(members: Members, tmp_path: Path) -> None:
    odd = [(name.replace("00000", "a\udce9"), data) for name, data in members]
    between = [(name.replace("00000", "b"), data) for name, data in members]
    shard, summary, rows = run(tmp_path, members + odd + between + members)
    keys = ["00000", "a\\udce9", "b", "00000 (2)"]
    assert [(row["key"], row["person"]) for row in rows] == [(key, n) for key in keys for n in (1, 2)]
    assert summary["outcomes"]["refined"] == 8
    assert [name for name, _ in read_tar(shard)] == [name for name, _ in members + odd + between + members]


def test_a_tar_that_cannot_be_opened_stops_the_run_and_loses_nobody(tars: Path, tmp_path: Path) -> None:
    shutil.copytree(tars, tmp_path / "in")
    link = tmp_path / "in" / "zzz.tar"
    link.symlink_to(tmp_path / "later.tar")
    with pytest.raises(InputError, match=r"zzz\.tar.*cannot be read"):
        refine(tmp_path / "in", tmp_path / "out")
    shutil.copy(tars / "000000.tar", tmp_path / "later.tar")
    assert refine(tmp_path / "in", tmp_path / "out")["people"] == 18
    assert check(str(tmp_path / "out"), str(tmp_path / "in")) == []


def test_a_source_that_goes_away_stops_the_run_and_fails_nobody(tars: Path, tmp_path: Path) -> None:
    """A server that is gone for a minute is not the people's fault: they are read again later."""
    shutil.copytree(tars, tmp_path / "in")
    source = TarSource(str(tmp_path / "in"), None, 16)
    job = Job(source, settings(), str(tmp_path / "out"))
    first, second = source.units()
    for unit in (first, second):
        plan_unit(job, unit)
    away = tmp_path / "away.tar"
    Path(second.path).rename(away)
    chunk = Chunk(ChunkRef(second.name, 0))
    for stage in (ReadStage(job), FitStage(job), GateStage(job), WriteStage(job)):
        chunk = stage(chunk)
    assert "No such file" in chunk.storage_error
    assert chunk.rows == []
    assert not job.layout.part(chunk.ref).exists()
    away.rename(second.path)
    assert refine(tmp_path / "in", tmp_path / "out")["outcomes"]["failed"] == 0


@pytest.mark.skipif(not hasattr(torch, "AcceleratorError"), reason="this torch does not name such errors")
def test_a_start_on_a_failed_device_fails_nobody(
    tars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(stages, "starts", broken)
    with pytest.raises(DeviceError, match="unspecified launch failure"):
        refine(tars, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.npz"))


def test_a_source_that_changed_is_not_read_by_its_old_plan(tars: Path, tmp_path: Path) -> None:
    job = Job(TarSource(str(tmp_path), None, 16), settings(), str(tmp_path / "out"))
    members = read_tar(tars / "000000.tar")
    path = write_tar(tmp_path / "a.tar", members)
    unit = Unit("a", str(path))
    assert plan_unit(job, unit) == plan_unit(job, unit)
    plan = read_plan(job.layout.plan("a"))
    write_tar(path, members[4:])
    with pytest.raises(InputError, match="changed since the run began"):
        plan_unit(job, unit)
    with pytest.raises(InputError, match="changed since it was planned"):
        target_tars.write_shard(plan, [[{"outcome": "refined", "written": True}]] * 3, tmp_path / "b", {})


def test_another_source_of_the_same_name_is_refused(tars: Path, tmp_path: Path) -> None:
    """Train and validation sets lie in folders of one name, with shards of one name."""
    for split in ("train", "val"):
        shutil.copytree(tars, tmp_path / split / "tars")
    refine(tmp_path / "train" / "tars", tmp_path / "out", "gate.min_keypoints=99")
    with pytest.raises(InputError, match="source_path"):
        refine(tmp_path / "val" / "tars", tmp_path / "out", "gate.min_keypoints=99")


def test_where_most_fits_raise_nothing_is_counted_as_done(
    members: Members, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also not the small shards that were finished before there were enough errors to tell."""
    for k in range(4):
        write_tar(tmp_path / "in" / f"{k:06d}.tar", members)

    def broken(self: FitStage, images: list[Any]) -> Any:
        raise RuntimeError("a broken driver")

    with monkeypatch.context() as patch:
        patch.setattr(FitStage, "_fit_images", broken)
        patch.setattr(runner, "MIN_ERRORS", 7)
        with pytest.raises(DepthfitError, match="not counted as done"):
            refine(tmp_path / "in", tmp_path / "out")
    summary = refine(tmp_path / "in", tmp_path / "out")
    assert summary["outcomes"] == {"refined": 8, "original": 0, "dropped": 0, "failed": 0}
    assert check(str(tmp_path / "out"), str(tmp_path / "in")) == []


def test_a_mistake_in_the_settings_can_be_mended(scene: Path, tmp_path: Path) -> None:
    """Nothing has been made yet, so that nothing can be mixed."""
    with pytest.raises(InputError, match="Set keypoint_format to"):
        refine(scene, tmp_path / "out")
    summary = refine(scene, tmp_path / "out", "keypoint_format=coco17", "gate.min_keypoints=99")
    assert summary["outcomes"]["original"] == summary["people"] == 12
    with np.load(tmp_path / "out" / "labels.npz") as data:
        assert data["gtkps"].shape == (0, 44, 3)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| original | 12 | 100.0% | none: only the source has it |" in card
    with pytest.raises(InputError, match="labels of others"):
        refine(scene, tmp_path / "out", "keypoint_format=coco17")


def test_a_finished_run_that_grows_is_not_finished_meanwhile(tars: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    shutil.copy(tars / "000000.tar", tmp_path / "in")
    refine(tmp_path / "in", tmp_path / "out", "gate.min_keypoints=99")
    (tmp_path / "in" / "bad.tar").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError):
        refine(tmp_path / "in", tmp_path / "out", "gate.min_keypoints=99")
    assert not (tmp_path / "out" / "summary.json").exists()


@pytest.mark.parametrize("seed", range(20))
def test_scan_of_a_tar_with_random_damage_ends(tars: Path, tmp_path: Path, seed: int) -> None:
    """Headers are where it hurts: sizes that are negative, huge, or of another form."""
    rng = np.random.default_rng(seed)
    content = bytearray((tars / "000000.tar").read_bytes())
    with tarfile.open(tars / "000000.tar") as archive:
        headers = [member.offset for member in archive]
    for start in rng.choice(headers, 4):
        header = bytearray(content[start : start + 512])
        field = (124, 12) if seed % 2 else (int(rng.integers(0, 500)), 12)
        # -1, back to the start, more than there is memory for, more than a number holds.
        sizes = [b"\xff" * 12, b"\xff" * 9 + b"\xf0\0\0", b"\x80" + b"\0" * 5 + b"\xff" * 6]
        values = [*sizes, b"\x80" + b"\xff" * 11, rng.bytes(12)]
        header[field[0] : sum(field)] = values[rng.integers(len(values))]
        if seed % 2:
            header[156] = int(rng.choice(np.frombuffer(b"0xgLK5S", np.uint8)))
        header[148:156] = b" " * 8
        header[148:156] = f"{sum(header):06o}\0 ".encode()
        content[start : start + 512] = header
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    members, faults = scan(path)
    stops = [(member.start, member.stop) for member in members]
    assert all(0 <= start < stop <= len(content) for start, stop in stops)
    assert all(a[1] <= b[0] for a, b in pairwise(stops)), "no byte belongs to two"
    assert faults or len(members) >= len(headers) - 4


def test_members_that_are_no_plain_files_are_copied_as_they_are(members: Members, tmp_path: Path) -> None:
    """A link may state the size of what it points to, which does not follow it."""
    path = write_tar(tmp_path / "in" / "a.tar", members)
    with tarfile.open(path, "a") as archive:
        for kind, size in ((tarfile.LNKTYPE, 70_000), (tarfile.DIRTYPE, 512), (tarfile.SYMTYPE, 99)):
            info = tarfile.TarInfo(f"other{kind.decode()}")
            info.type, info.linkname, info.size = kind, "00000.jpg", size
            archive.addfile(info)
        info = tarfile.TarInfo("last.txt")
        info.size = 4
        archive.addfile(info, io.BytesIO(b"text"))
    assert not scan(path)[1]
    summary = refine(tmp_path / "in", tmp_path / "out")
    assert summary["outcomes"]["refined"] == 2
    assert not summary["faults"]
    written = tmp_path / "out" / "shards" / "a.tar"
    with tarfile.open(path) as before, tarfile.open(written) as after:
        assert after.getnames() == before.getnames()
        assert [m.type for m in after] == [m.type for m in before]
    assert read_tar(written)[-1] == ("last.txt", b"text")


def test_odd_annotations_cost_their_own_images(scene: Path, tmp_path: Path) -> None:
    content = coco_file(scene, tmp_path / "in.json")
    odd = [[[float(n) for n in range(7)]], [["a"] * 6, 7], [[float("inf")] * 6]]
    for number, polygon in zip((0, 2, 4), odd, strict=True):
        content["annotations"][number]["segmentation"] = polygon
    content["annotations"][3]["smpl"] = {"shape": []}
    (tmp_path / "in.json").write_text(json.dumps(content))
    out = tmp_path / "out"
    refine(tmp_path / "in.json", out, f"images={scene / 'images'}")
    reasons = Counter(row["reason"].split(":")[0] for row in read_index(out / "index" / "000000.parquet"))
    assert reasons == {"evidence_unusable": 5, "label_unusable": 1, "no_keypoints": 1}
    assert (out / "annotations.json").read_bytes() == (tmp_path / "in.json").read_bytes()


def test_coco_images_of_one_name_are_refused_before_any_work(scene: Path, tmp_path: Path) -> None:
    """People are told apart by the name of their image; it used to end in an error after the last fit."""
    content = coco_file(scene, tmp_path / "in.json")
    content["images"][1]["file_name"] = content["images"][0]["file_name"]
    (tmp_path / "in.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="twice"):
        refine(tmp_path / "in.json", tmp_path / "out", f"images={scene / 'images'}")
    content["images"][1]["file_name"] = "a\ud800.png"
    (tmp_path / "in.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="Unicode"):
        refine(tmp_path / "in.json", tmp_path / "out", f"images={scene / 'images'}")
