"""A run over training tars, whole and damaged, held against an independent reader of the official formats."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import subprocess
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

import depthfit
from depthfit.body.load import load_body
from depthfit.errors import InputError
from depthfit.pseudo.check import check
from depthfit.pseudo.part import read_index
from depthfit.pseudo.provenance import model_files
from depthfit.pseudo.records import OUTCOMES
from depthfit.pseudo.runner import StorageError
from depthfit.pseudo.synthetic import write_tars
from tests.pseudo.conftest import read_tar, refine, settings
from tests.pseudo.official_reader import people, samples, training_people

Run = tuple[Path, dict[str, Any]]


def rows(out: Path) -> dict[tuple[str, str, int], dict[str, Any]]:
    """Every row of the index by (shard, image, person)."""
    found = {}
    for path in sorted((out / "index").glob("*.parquet")):
        for row in read_index(path):
            key = (path.stem, row["key"], row["person"])
            assert key not in found
            found[key] = row
    return found


def label_of(records: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    return [r["data"] for r in records if r["key"] == key]


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two people's dicts hold the same, type by type."""
    return pickle.dumps(a) == pickle.dumps(b) or all(
        np.array_equal(a[k], b[k]) for k in a if k != "extra_info"
    )


def test_every_person_has_exactly_one_outcome(damaged_run: Run) -> None:
    out, summary = damaged_run
    found = Counter(row["outcome"] for row in rows(out).values())
    assert sum(found.values()) == summary["people"]
    assert {k: v for k, v in summary["outcomes"].items() if v} == dict(found)
    assert set(found) <= set(OUTCOMES)


def test_people_whose_focal_nothing_tells_have_a_reason_where_it_is_to_be_held(
    scene: Path, tmp_path: Path
) -> None:
    write_tars(scene, tmp_path / "tars", "coco17", images_a_tar=6, depth=False)
    summary = refine(tmp_path / "tars", tmp_path / "out", "fit.camera.freeze_focal=true")
    assert summary["outcomes"]["failed"] == summary["people"] == 12
    assert summary["reasons"] == {"evidence_unusable": 12}
    assert "camera.freeze_focal" in next(iter(rows(tmp_path / "out").values()))["reason"]


def test_each_damage_ends_as_its_own_reason(damaged_run: Run) -> None:
    out, summary = damaged_run
    table = rows(out)

    def outcome(shard: str, key: str, person: int) -> tuple[str, str]:
        row = table[shard, key, person]
        return row["outcome"], row["reason"].split(":")[0]

    assert outcome("000000", "00000", 1) == ("refined", "")
    assert outcome("000000", "00000", 2) == ("original", "keypoints"), "three points do not make a fit"
    assert outcome("000001", "00003", 1) == ("failed", "image_unreadable")
    assert outcome("000001", "00003", 2) == ("failed", "image_unreadable")
    assert outcome("000001", "00004", 1) == ("failed", "label_unreadable")
    assert ("000001", "00004", 2) not in table, "a label that cannot be read counts as one"
    assert outcome("000001", "00005", 1) == ("failed", "evidence_not_finite")
    assert outcome("000001", "00005", 2) == ("failed", "label_not_finite")
    assert outcome("000002", "x/00003", 1) == ("refined", "")
    # The damaged header was that of the image; label, masks and depth stand behind it.
    assert outcome("000002", "x/00004", 1) == ("failed", "image_missing")
    assert outcome("000002", "x/00005", 1) == ("failed", "evidence_unusable")
    assert list(summary["faults"]) == ["000002"]
    assert "no tar members" in summary["faults"]["000002"][0]


def test_a_hostile_label_ran_nothing(damaged_run: Run) -> None:
    assert not Path("hostile_pickle_ran").exists()


def test_the_training_loader_gets_the_refined_label(damaged_run: Run, damaged: Path) -> None:
    out, _ = damaged_run
    table = rows(out)
    written = list(training_people(out / "shards" / "000000.tar"))
    source = list(training_people(damaged / "000000.tar"))
    assert [r["key"] for r in written] == [r["key"] for r in source], "nobody is filtered who was not before"
    taken = [row for (shard, _, _), row in table.items() if shard == "000000" and row["reason"] == ""]
    assert len(written) == len(taken) == 5, "the one with three keypoints is filtered from both"
    for record, row in zip(written, taken, strict=True):
        sample = record["sample"]
        pose = np.concatenate([sample["global_orient"].ravel(), sample["body_pose"].ravel()])
        np.testing.assert_array_equal(pose, row["pose"])
        np.testing.assert_array_equal(sample["betas"], row["betas"])
        assert sample["has_body_pose"] == sample["has_betas"] == 1
    for before, after in zip(source, written, strict=True):
        for name in ("keypoints_2d", "keypoints_3d", "box_center", "crop"):
            np.testing.assert_array_equal(before["sample"][name], after["sample"][name])


def test_a_refined_person_passes_filters_that_the_old_label_did_not(tars: Path, tmp_path: Path) -> None:
    from tests.pseudo.conftest import edit_label, write_tar

    members = read_tar(tars / "000000.tar")
    loss = np.empty((), dtype=object)
    loss[()] = {"reprojection_loss": 99999.0}
    for name, _ in [m for m in members if m[0].endswith("data.pyd")]:
        key = name.removesuffix(".data.pyd")
        edit_label(members, key, 0, extra_info={"fitting_loss": loss, "detection_npz_idx": 0})
    write_tar(tmp_path / "in" / "000000.tar", members)
    assert len(list(training_people(tmp_path / "in" / "000000.tar"))) == 3
    refine(tmp_path / "in", tmp_path / "out")
    assert len(list(training_people(tmp_path / "out" / "shards" / "000000.tar"))) == 6


def test_what_is_not_refined_is_as_it_was(damaged_run: Run, damaged: Path) -> None:
    out, _ = damaged_run
    before, after = (list(people(p)) for p in (damaged / "000000.tar", out / "shards" / "000000.tar"))
    kept_before, kept_after = label_of(before, "00000")[1], label_of(after, "00000")[1]
    assert same(kept_before, kept_after)
    bytes_before, bytes_after = (
        {(s["__key__"], k): v for s in samples(p) for k, v in s.items() if k not in ("__key__", "data.pyd")}
        for p in (damaged / "000000.tar", out / "shards" / "000000.tar")
    )
    assert bytes_before == bytes_after, "images, masks and depth are copied byte by byte"


def test_an_image_that_cannot_be_read_is_left_out(damaged_run: Run) -> None:
    out, _ = damaged_run
    assert list(samples(out / "shards" / "000001.tar")) == []
    keys = [s["__key__"] for s in samples(out / "shards" / "000002.tar")]
    assert keys == ["x/00003", "x/00005"]
    assert not list(people(out / "shards" / "000001.tar"))


def test_a_shard_without_changes_is_the_sources_file(tars: Path, tmp_path: Path) -> None:
    path = tars / "000001.tar"
    refine(path, tmp_path / "out", "gate.min_keypoints=99")
    assert (tmp_path / "out" / "shards" / path.name).read_bytes() == path.read_bytes()


def test_dropped_people_are_out_and_the_others_in(damaged: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    shutil.copy(damaged / "000000.tar", tmp_path / "in")
    summary = refine(tmp_path / "in", tmp_path / "out", "policy.doubtful=drop")
    assert summary["outcomes"]["dropped"] == 1
    records = list(people(tmp_path / "out" / "shards" / "000000.tar"))
    assert Counter(r["key"] for r in records) == {"00000": 1, "00001": 2, "00002": 2}
    assert summary["written"] == 5


def test_the_refined_camera_projects_the_body_onto_the_keypoints(damaged_run: Run) -> None:
    """By smplx's rule, with its own translation; the fit is coarse, so half of the people within 8 %."""
    out, _ = damaged_run
    body, errors = load_body(), []
    for row in rows(out).values():
        if row["outcome"] != "refined":
            continue
        turns = Rotation.from_rotvec(row["pose"].reshape(24, 3)).as_matrix().astype(np.float32)
        betas = torch.tensor(row["betas"])[None]
        tensors = torch.from_numpy(turns)[None]
        skeleton, vertices = body.forward(tensors[:, 0], tensors[:, 1:], betas)
        placed = (
            body.keypoints(skeleton, vertices)[0] + skeleton.rest[0, 0] + torch.tensor(row["smpl_transl"])
        )
        xy = placed[:, :2] / placed[:, 2:] * row["focal"] + torch.tensor(row["center"])
        seen = row["detected"][:, 2] > 0
        errors.append(float(np.median(np.linalg.norm(xy.numpy() - row["detected"][:, :2], axis=1)[seen])))
        size = np.ptp(row["detected"][seen, :2], axis=0).max()
        errors[-1] /= size
    assert np.median(errors) < 0.08


def test_provenance_is_in_every_changed_shard_and_index(damaged_run: Run) -> None:
    import pyarrow.parquet

    out, summary = damaged_run
    with tarfile.open(out / "shards" / "000000.tar") as archive:
        held = json.loads(archive.pax_headers["comment"])
    index, other = (
        json.loads(pyarrow.parquet.read_schema(out / "index" / f"{n:06d}.parquet").metadata[b"depthfit"])
        for n in (0, 1)
    )
    assert held == index
    assert held["fingerprint"] == summary["fingerprint"]
    assert str(out.parent) not in json.dumps(held), "paths of one's own machine stay there"
    for name, digest in held["model_files"].items():
        assets = Path(depthfit.__file__).parent / "assets"
        assert digest == hashlib.sha256((assets / name.partition(": ")[2]).read_bytes()).hexdigest()
    assert [name.partition(":")[0] for name in held["model_files"]] == ["body", "pose prior", "tokenizer"]
    assert held["settings"]["fit"]["pose"]["population"] == "auto"
    assert held["evidence_allowed"] == ["keypoints", "depth", "contour (auto)"]
    assert held["evidence_used"] == {"keypoints+depth+mask": 6}
    assert other["evidence_used"] == {}, "nobody of that shard could be fitted"
    assert summary["evidence"] == Counter(row["evidence"] for row in rows(out).values() if row["evidence"])


def test_a_prior_that_is_not_used_is_no_model_file() -> None:
    without = settings("fit.pose.population=none")
    assert [name.partition(":")[0] for name in model_files(without)] == ["body", "tokenizer"]


def test_the_body_that_is_loaded_is_the_one_that_is_hashed(tmp_path: Path) -> None:
    for ending in ("npz", "pkl"):
        (tmp_path / f"SMPL_NEUTRAL.{ending}").write_bytes(ending.encode())
    (tmp_path / "SMPL_NEUTRAL.md").touch()
    config = settings(f"models.body={tmp_path}")
    with pytest.raises(InputError, match=r"SMPL_NEUTRAL\.pkl"):
        load_body(config.models.body)
    assert "body: SMPL_NEUTRAL.pkl" in model_files(config)
    (tmp_path / "SMPL_NEUTRAL.pkl").unlink()
    (tmp_path / "SMPL_NEUTRAL.npz").unlink()
    with pytest.raises(InputError, match="holds neither"):
        model_files(config)


def test_evidence_that_is_switched_off_is_not_said_to_be_used(tars: Path, tmp_path: Path) -> None:
    """Depth is then read for the edges that it shows, if for anything."""
    more = ("fit.depth.use=false", "fit.contour.source=auto")
    summary = refine(tars / "000000.tar", tmp_path / "out", *more)
    assert summary["evidence"] == {"keypoints+mask": 6}
    card = (tmp_path / "out" / "README.md").read_text()
    assert "- keypoints+mask: 6 people" in card
    assert "Allowed: keypoints, contour (auto)." in card


def test_card_and_report_say_what_is_there(damaged_run: Run) -> None:
    out, summary = damaged_run
    card = (out / "README.md").read_text()
    assert f"| failed | {summary['outcomes']['failed']} |" in card
    assert "not of SMPL" in card
    assert "the source's own stays where it and the image can be read" in card
    report = (out / "report.html").read_text()
    assert "image_unreadable" in report
    pictures = list((out / "report").glob("*.jpg"))
    assert pictures
    assert all(f"report/{p.name}" in report for p in pictures)


def test_check_finds_nothing_and_then_what_was_changed(
    damaged_run: Run, damaged: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(damaged_run[0], copy)
    assert check(str(copy), str(damaged)) == []
    shard = copy / "shards" / "000000.tar"
    content = bytearray(shard.read_bytes())
    content[5000] ^= 1
    shard.write_bytes(content)
    assert check(str(copy)) == ["shards/000000.tar: not what was written"]


def test_a_second_run_changes_nothing_and_other_settings_are_refused(
    damaged_run: Run, damaged: Path, tmp_path: Path
) -> None:
    out = tmp_path / "copy"
    shutil.copytree(damaged_run[0], out)
    before = (out / "manifest.jsonl").read_bytes()
    assert refine(damaged, out, "chunk=5")["shards_made_now"] == 0
    assert (out / "manifest.jsonl").read_bytes() == before
    with pytest.raises(InputError, match="labels of others"):
        refine(damaged, out, "chunk=5", "gate.max_prior=1.5")


def test_only_what_is_missing_is_made_again(damaged_run: Run, damaged: Path, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    shutil.copytree(damaged_run[0], out)
    wanted = (out / "shards" / "000002.tar").read_bytes()
    (out / "shards" / "000002.tar").unlink()
    (out / "receipts.jsonl").unlink()
    summary = refine(damaged, out, "chunk=5")
    assert summary["shards_made_now"] == 1
    assert (out / "shards" / "000002.tar").read_bytes() == wanted, "and comes out the same"
    assert summary["outcomes"] == damaged_run[1]["outcomes"]
    lines = (out / "receipts.jsonl").read_text().splitlines()
    units = {json.loads(line)["chunk"].split("/")[0] for line in lines}
    assert units == {"000002"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """A file system of 600 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(folder)]
    try:
        made = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount command here")
    if made.returncode:
        pytest.skip(f"cannot mount a small disk here: {made.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def remount(folder: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", str(folder)], check=True)


def test_a_full_disk_stops_the_run_and_room_lets_it_go_on(small_disk: Path, tars: Path) -> None:
    with pytest.raises(StorageError, match="No space left"):
        refine(tars, small_disk / "out")
    assert not (small_disk / "out" / "summary.json").exists()
    remount(small_disk, "size=50m")
    summary = refine(tars, small_disk / "out")
    assert summary["people"] == sum(summary["outcomes"].values()) == 12
    assert check(str(small_disk / "out"), str(tars)) == []
    left = [p.name for p in (small_disk / "out").rglob(".*") if p.is_file() and p.name != ".lock"]
    assert left == []


def test_a_read_only_output_is_refused_before_any_work(small_disk: Path, tars: Path) -> None:
    remount(small_disk, "ro")
    with pytest.raises(InputError, match="cannot be written"):
        refine(tars, small_disk / "out")
