"""Evidence that changed between runs, and people whom a run does not fit."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from depthfit.cli.fit import report
from depthfit.errors import InputError
from depthfit.evidence.scene import ImageEvidence, Scene, read_scene
from depthfit.fit import Fitter
from depthfit.report.drawing import OverlayJob
from depthfit.run import RunConfig, output, scene_fit
from depthfit.run.scene_fit import _SceneRun
from tests.run.conftest import fit, rows
from tests.run.test_scene_fit import QUICK, times


def test_an_image_whose_evidence_changed_is_fitted_again(
    scene: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = Path(shutil.copytree(scene, tmp_path / "scene"))
    out = tmp_path / "out"
    fit(own, out, *QUICK)
    before = times(out)
    with np.load(own / "predictions.npz") as data:
        table = {key: data[key] for key in data.files}
    changed = Path(str(table["imgname"][0])).stem
    table["betas"][0] += 1
    np.savez(own / "predictions.npz", **table)
    fit(own, out, *QUICK)
    after = times(out)
    assert {name for name in before if after[name] != before[name]} == {f"{changed}.npz"}
    assert "its evidence changed" in caplog.text
    for part in ("images", "depth", "masks"):
        (path,) = (own / part).glob(f"{changed}.*")
        os.utime(path, ns=(0, 0))
        before = after
        fit(own, out, *QUICK)
        after = times(out)
        assert {name for name in before if after[name] != before[name]} == {f"{changed}.npz"}, part


def test_an_image_is_not_fitted_again_into_results_of_another_version(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, out = Path(shutil.copytree(scene, tmp_path / "scene")), tmp_path / "out"
    fit(own, out, *QUICK)
    before = times(out)
    path = min((own / "images").iterdir())
    os.utime(path, ns=(0, 0))
    for module in (output, scene_fit):
        monkeypatch.setattr(module, "__version__", "9.9.9")
    with pytest.raises(InputError, match="several versions"):
        fit(own, out, *QUICK)
    assert times(out) == before


def test_a_scene_with_nothing_to_start_from_is_an_error(scene: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(scene / "images", bare / "images")
    for settings in ((), ("init=keypoints",)):
        with pytest.raises(InputError, match="no predictions to start from") as caught:
            fit(bare, tmp_path / "out", *QUICK, *settings)
        assert "depthfit prepare" in caught.value.fix
    assert not (tmp_path / "out").exists()


def predictions(scene: Path) -> dict[str, np.ndarray]:
    with np.load(scene / "predictions.npz") as data:
        return {key: data[key] for key in data.files}


@pytest.fixture
def own(scene: Path, tmp_path: Path) -> Path:
    """A scene of the test's own."""
    return Path(shutil.copytree(scene, tmp_path / "scene"))


def one_dry_run(monkeypatch: pytest.MonkeyPatch, own: Path, out: Path, *settings: str) -> None:
    """A run that is stopped before its first fit."""

    def stop(self: Fitter, images: list) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Fitter, "fit", stop)
        with pytest.raises(KeyboardInterrupt):
            fit(own, out, *settings)


def test_no_picture_or_mesh_of_other_results_stays(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []

    def draw(job: OverlayJob) -> None:
        drawn.append(job.path.stem)
        job.path.parent.mkdir(exist_ok=True)
        job.path.touch()

    def left() -> set[str]:
        return {p.name for p in (*out.glob("*.obj"), *out.glob("*.glb"), *(out / "overlays").iterdir())}

    monkeypatch.setattr(_SceneRun, "_drawers", lambda self, images: 0)
    monkeypatch.setattr(OverlayJob, "draw", draw)
    out, settings = tmp_path / "out", (*QUICK, "output.overlays=true", "output.mesh=true")
    fit(own, out, *settings)
    whole = left()
    assert {"00000.png", "00000_1.obj", "00000_1.glb"} < whole
    (out / "of_mine_3.obj").touch()
    os.utime(own / "images" / "00000.png", ns=(0, 0))
    drawn.clear()
    one_dry_run(monkeypatch, own, out, *settings)
    assert left() == {n for n in whole if not n.startswith("00000")} | {"of_mine_3.obj"}
    fit(own, out, *settings)
    assert drawn == ["00000"]
    one_dry_run(monkeypatch, own, out, *settings, "overwrite=true")
    assert left() == {"of_mine_3.obj"}


def test_an_image_that_comes_back_has_no_results_of_other_settings(own: Path, tmp_path: Path) -> None:
    out, away = tmp_path / "out", tmp_path / "00001.png"
    fit(own, out, *QUICK)
    shutil.move(own / "images" / "00001.png", away)
    fit(own, out, *QUICK, "depth.samples=81", "overwrite=true")
    shutil.move(away, own / "images" / "00001.png")
    before = times(out)
    assert "00001.npz" not in before
    fit(own, out, *QUICK, "depth.samples=81")
    assert before.items() < times(out).items()


def test_evidence_that_changes_while_it_is_fitted_is_fitted_again(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, original = tmp_path / "out", Scene.read
    (depth,) = (own / "depth").glob("00001.*")

    def read(self: Scene, name: str) -> ImageEvidence:
        evidence = original(self, name)
        # Images are read ahead: another's reading may come before this one's mark is taken.
        if name == "00001":
            os.utime(depth, ns=(0, 0))
        return evidence

    with monkeypatch.context() as patch:
        patch.setattr(Scene, "read", read)
        fit(own, out, *QUICK)
    before = times(out)
    fit(own, out, *QUICK)
    assert [name for name in before if times(out)[name] != before[name]] == ["00001.npz"]


def test_rows_are_those_of_the_predictions_as_they_are_now(own: Path, tmp_path: Path) -> None:
    """Another image comes before those that are fitted."""
    table, out = predictions(own), tmp_path / "out"
    people = len(table["imgname"])
    later = np.flatnonzero(table["imgname"] != "00000.png")
    fewer = {k: v[later] if v.shape[:1] == (people,) else v for k, v in table.items()}
    np.savez(own / "predictions.npz", **fewer)
    fit(own, out, *QUICK)
    before = times(out)
    np.savez(own / "predictions.npz", **table)
    fit(own, out, *QUICK)
    # Nobody was predicted in the first image before, so that it alone is fitted again.
    assert [name for name in before if times(out)[name] != before[name]] == ["00000.npz"]
    found = rows(out)
    assert found["row"].tolist() == list(range(people))
    assert found["imgname"].tolist() == table["imgname"].tolist()
    assert found["person"].tolist() == table["person"].tolist()


@pytest.mark.parametrize("part", ["cameras.json", "keypoints.json", "box_size", "pred_cam", "global_orient"])
def test_every_kind_of_evidence_is_in_the_fingerprint(own: Path, part: str) -> None:
    (own / "cameras.json").write_text(json.dumps({"00001": {"focal_px": 300.0}}))
    shutil.rmtree(own / "keypoints")
    points = [[10.0 + k, 20.0 + k * k, 0.9] for k in range(17)]
    person = {"image_id": "00001.png", "category_id": 1, "keypoints": np.ravel(points).tolist()}
    (own / "keypoints.json").write_text(json.dumps([person]))
    before = read_scene(own)
    if part == "cameras.json":
        (own / part).write_text(json.dumps({"00001": {"focal_px": 301.0}}))
    elif part == "keypoints.json":
        person["keypoints"][0] += 1
        (own / part).write_text(json.dumps([person]))
    else:
        table = predictions(own)
        table[part] = np.where(
            (table["imgname"] == "00001.png").reshape(-1, *[1] * (table[part].ndim - 1)),
            table[part] * 1.01,
            table[part],
        )
        np.savez(own / "predictions.npz", **table)
    after = read_scene(own)
    assert {n for n in before.names if before.fingerprint(n) != after.fingerprint(n)} == {"00001"}


def test_a_mark_of_other_shapes_is_other_evidence(own: Path) -> None:
    before = read_scene(own, "coco17")
    np.savez(own / "predictions.npz", **{**predictions(own), "regressor": np.array("tokenhmr")})
    assert before.fingerprint("00001") != read_scene(own, "coco17").fingerprint("00001")


def test_people_without_a_fit_are_told(
    scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = Path(shutil.copytree(scene, tmp_path / "scene"))
    with np.load(own / "predictions.npz") as data:
        table = {key: data[key] for key in data.files}
    empty, other = (
        Path(str(name)).stem
        for name in dict.fromkeys(table["imgname"].tolist()[:1] + table["imgname"].tolist()[-1:])
    )
    kept = table["imgname"] != f"{empty}.png"
    people = len(table["imgname"])
    fewer = {k: v[kept] if v.shape[:1] == (people,) else v for k, v in table.items()}
    np.savez(own / "predictions.npz", **fewer)
    path = own / "keypoints" / f"{other}_keypoints.json"
    found = json.loads(path.read_text())
    points = np.array(found["people"][0]["pose_keypoints_2d"]).reshape(-1, 3)
    points[:, 0] = 5 + points[:, 0] / 100  # a stranger in the corner
    points[:, 1] = 5 + points[:, 1] / 100
    found["people"].append({"pose_keypoints_2d": points.ravel().tolist()})
    path.write_text(json.dumps(found))
    seen = len(json.loads((own / "keypoints" / f"{empty}_keypoints.json").read_text())["people"])
    result = fit(own, tmp_path / "out", *QUICK)
    for _ in range(2):
        assert result.summary["images_without_people"] == [empty]
        assert result.summary["detections_not_fitted"] == {empty: seen, other: 1}
        # The same from results that are there.
        result = fit(own, tmp_path / "out", *QUICK)
    report(Console(width=200), result, RunConfig())
    said = capsys.readouterr().out
    assert f"nobody was predicted in: {empty}" in said
    assert f"{other} (1)" in said
