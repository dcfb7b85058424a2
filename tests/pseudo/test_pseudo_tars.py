"""Tars as byte ranges, the pickles in them, and the labels in those."""

from __future__ import annotations

import io
import pickle
import pickletools
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest

from depthfit.errors import InputError
from depthfit.joints import KEYPOINTS
from depthfit.pseudo import pickles
from depthfit.pseudo.labels import keypoints_44, refined_entry, subject, to_44
from depthfit.pseudo.synthetic import label_entry
from depthfit.pseudo.tars import read_member, scan, split_name
from tests.pseudo.conftest import Trap, read_tar, write_tar

CONTENTS = [("a/1.jpg", b"x" * 700), ("a/1.data.pyd", b"y" * 512), ("b.c.d", b""), ("n" * 180 + ".png", b"z")]


def test_scan_finds_what_tarfile_finds(tmp_path: Path) -> None:
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        path = tmp_path / f"{form}.tar"
        with tarfile.open(path, "w", format=form) as archive:
            for name, data in CONTENTS:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        members, faults = scan(path)
        assert not faults
        with path.open("rb") as file:
            assert [(m.name, read_member(file, m)) for m in members] == CONTENTS
        ends = [m.stop for m in members]
        assert [m.start for m in members] == [0, *ends[:-1]], "headers and padding belong to a member"


def test_scan_goes_on_behind_a_damaged_header(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "t.tar", [(f"{k}.jpg", bytes([k]) * 600) for k in range(5)])
    content = bytearray(path.read_bytes())
    start = scan(path)[0][2].start
    content[start : start + 512] = b"?" * 512
    path.write_bytes(content)
    with tarfile.open(path) as archive:
        assert len(archive.getnames()) == 2, "Python's reader loses the rest and says nothing"
    members, faults = scan(path)
    assert [m.name for m in members] == ["0.jpg", "1.jpg", "3.jpg", "4.jpg"]
    assert len(faults) == 1
    assert str(start) in faults[0]


@pytest.mark.parametrize("cut", [3072, 2000, 1536, 1500, 700, 100, 0])
def test_scan_tells_of_a_tar_that_is_cut_short(tmp_path: Path, cut: int) -> None:
    path = write_tar(tmp_path / "t.tar", [(f"{k}.jpg", b"." * 600) for k in range(2)])
    path.write_bytes(path.read_bytes()[:cut])
    members, faults = scan(path)
    assert len(members) == (cut + 424) // 1536, "the last one's padding may be missing"
    assert "cut short" in faults[-1]


def test_keys_are_webdatasets() -> None:
    assert split_name("a.b/c.data.pyd") == ("a.b/c", "data.pyd")
    assert split_name("0001.JPG") == ("0001", "jpg")


def test_a_hostile_pickle_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="exec"):
        pickles.loads(pickle.dumps([Trap()]), "label")
    assert not list(tmp_path.iterdir())


def test_pickles_name_no_module_that_numpy_1_lacks() -> None:
    loss = np.empty((), dtype=object)
    loss[()] = {"reprojection_loss": np.float64(3)}
    value = [
        {"a": np.arange(6.0).reshape(2, 3), "b": np.float32(1), "c": loss, "d": "numpy._core.multiarray"}
    ]
    data = pickles.dumps(value)
    named = [str(arg) for op, arg, _ in pickletools.genops(data) if op.name in ("GLOBAL", "STACK_GLOBAL")]
    assert named
    assert not [name for name in named if "_core" in name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for back in (pickle.loads(data), pickles.loads(data, "label")):
            np.testing.assert_array_equal(back[0]["a"], value[0]["a"])
            assert back[0]["c"].shape == ()
            assert back[0]["c"].item() == {"reprojection_loss": 3}
            assert back[0]["d"] == "numpy._core.multiarray"


def test_keypoints_survive_the_44_points_and_back() -> None:
    rng = np.random.default_rng(0)
    points = np.zeros((44, 3))
    points[:25] = rng.uniform(0.4, 1, (25, 3)) * [500, 400, 1]
    person = keypoints_44(points)
    assert person is not None
    np.testing.assert_allclose(to_44(person)[:25], points[:25], rtol=1e-6)
    assert person.confidence[KEYPOINTS.index("right_ankle")] == pytest.approx(points[11, 2])


def test_the_second_half_fills_what_the_first_lacks() -> None:
    points = np.zeros((44, 3))
    points[25] = (10, 20, 0.9)
    points[[11, 12]] = [(1, 2, 0.2), (3, 4, 0.31)]
    person = keypoints_44(points)
    assert person is not None
    found = {KEYPOINTS[k]: tuple(person.xy[k]) for k in np.flatnonzero(person.found)}
    assert found == {"right_ankle": (10, 20), "left_hip": (3, 4)}, "points below 0.3 are missing"


def _entry() -> dict:
    points = keypoints_44(np.full((44, 3), 0.5))
    return label_entry(np.zeros(72), np.zeros(10), points, np.zeros(2), 100.0, 0)


def test_a_refined_entry_changes_pose_shape_flags_and_loss_alone() -> None:
    entry = {**_entry(), "has_betas": np.array(0.0, np.float64), "has_body_pose": np.float32(0)}
    out = refined_entry(entry, np.full(72, 0.1), np.full(10, 0.2))
    assert set(out) == set(entry)
    for name in ("keypoints_2d", "keypoints_3d", "center", "scale"):
        assert out[name] is entry[name]
    assert out["body_pose"].dtype == np.float32
    assert out["has_body_pose"].copy() > 0
    assert out["has_betas"].dtype == np.float64
    loss = out["extra_info"]["fitting_loss"]
    assert loss.shape == ()
    assert loss.item() == {"total_loss": 1000.0}
    assert entry["extra_info"]["fitting_loss"].item()["reprojection_loss"] == 1000.0, (
        "the source's is not touched"
    )


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"keypoints_2d": np.full((44, 3), np.nan)}, "evidence_not_finite"),
        ({"betas": np.full(10, np.inf)}, "label_not_finite"),
        ({"body_pose": np.zeros(66)}, "label_unusable"),
        ({"keypoints_2d": None}, "label_unusable"),
        ({"keypoints_2d": np.zeros((44, 3))}, "no_keypoints"),
    ],
)
def test_a_person_who_cannot_be_used_says_why(fields: dict, word: str) -> None:
    found = subject(1, {**_entry(), **fields}, "label")
    assert found.failure.startswith(word)
    assert found.finite == (word == "no_keypoints")


def test_read_tar_of_the_fixture(tars: Path) -> None:
    names = [name for name, _ in read_tar(tars / "000000.tar")]
    assert names[:4] == ["00000.jpg", "00000.data.pyd", "00000.detection.npz", "00000.depth.npz"]
