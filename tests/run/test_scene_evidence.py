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
from depthfit.run import RunConfig, output, scene_fit
from tests.run.conftest import fit
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
    np.savez(own / "predictions.npz", **{k: v[kept] if len(v) == people else v for k, v in table.items()})
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
