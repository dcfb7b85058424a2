"""Runs that stop, go on, or start with other settings; and that batches do not matter."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from depthfit import __version__
from depthfit.errors import InputError
from depthfit.evidence.cameras import CameraPrior
from depthfit.evidence.keypoints import KeypointPerson
from depthfit.evidence.scene import ImageEvidence
from depthfit.fit import Fitter
from depthfit.report.drawing import OverlayJob
from depthfit.run import output, scene_fit
from depthfit.run.scene_fit import _LeftOut, _places, _SceneRun, batch_size
from tests.evidence.scene_files import mark_predictions
from tests.run.conftest import fit, rows

QUICK = ("pose.space=rotations", "solver.rounds=1", "solver.polish=0", "solver.steps=1", "solver.grid=32")


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in sorted((folder / "parts").iterdir())}


@pytest.fixture(scope="module")
def fitted(scene: Path) -> Path:
    fit(scene, scene.parent / "quick", *QUICK)
    return scene.parent / "quick"


@pytest.fixture
def done(fitted: Path, tmp_path: Path) -> Path:
    """A finished run of the test's own."""
    return Path(shutil.copytree(fitted, tmp_path / "out"))


def test_what_is_done_is_not_done_again_unless_asked(
    scene: Path, done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, first = times(done), rows(done)
    with monkeypatch.context() as patch:
        patch.setattr(Fitter, "fit", None)
        fit(scene, done, *QUICK)
    assert times(done) == before
    again = rows(done)
    for name, value in first.items():
        assert np.array_equal(value, again[name], equal_nan=value.dtype.kind == "f"), name
    fit(scene, done, *QUICK, "overwrite=true")
    assert all(after > before[name] for name, after in times(done).items())


def test_other_settings_do_not_mix_into_a_folder(scene: Path, done: Path) -> None:
    before = times(done)
    with pytest.raises(InputError, match="other settings") as caught:
        fit(scene, done, *QUICK, "depth.samples=81", "seed=4")
    assert caught.value.field == "depth.samples, seed"
    with pytest.raises(InputError, match=r"output\.mesh"):
        fit(scene, done, *QUICK, "output.mesh=true")
    other = scene.parent / "other"
    if not other.is_dir():
        shutil.copytree(scene, other)
    with pytest.raises(InputError, match="scene"):
        fit(other, done, *QUICK)
    assert times(done) == before
    # How it is computed is not a setting of the result.
    fit(scene, done, *QUICK, "batch=1")
    fit(scene, done, *QUICK, "depth.samples=81", "overwrite=true")
    assert times(done) != before


def test_versions_do_not_mix_into_a_folder(scene: Path, done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = times(done)
    for module in (output, scene_fit):
        monkeypatch.setattr(module, "__version__", "9.9.9")
    with monkeypatch.context() as patch:
        patch.setattr(Fitter, "fit", None)
        whole = fit(scene, done, *QUICK)
    # Nothing was left to do, and what is there is not this version's.
    assert {whole.summary["depthfit"]} == set(rows(done)["depthfit_version"]) == {__version__}
    assert times(done) == before
    (done / "parts" / "00001.npz").unlink()
    with pytest.raises(InputError, match=rf"depthfit_version: .*{re.escape(__version__)}, 9\.9\.9"):
        fit(scene, done, *QUICK)
    assert not (done / "parts" / "00001.npz").exists()
    again = fit(scene, done, *QUICK, "overwrite=true")
    assert {again.summary["depthfit"]} == set(rows(done)["depthfit_version"]) == {"9.9.9"}
    (done / "parts" / "00001.npz").unlink()
    assert fit(scene, done, *QUICK).summary["depthfit"] == "9.9.9"


def test_a_stopped_run_goes_on_where_it_was(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = Fitter.fit, []

    def stop_at_second(self: Fitter, images: list) -> list:
        calls.append([image.name for image in images])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, images)

    monkeypatch.setattr(Fitter, "fit", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        fit(scene, tmp_path, *QUICK, "batch=1")
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["00000.npz"]
    fit(scene, tmp_path, *QUICK, "batch=1")
    assert calls == [["00000"], ["00001"], ["00001"], ["00002"]]
    assert set(rows(tmp_path)["imgname"]) == {"00000.png", "00001.png", "00002.png"}


def test_a_stopped_overwriting_leaves_no_old_results(
    scene: Path, done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(self: Fitter, images: list) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Fitter, "fit", stop)
        with pytest.raises(KeyboardInterrupt):
            fit(scene, done, *QUICK, "depth.samples=81", "overwrite=true")
    assert list(done.rglob("*.npz")) == []
    fit(scene, done, *QUICK, "depth.samples=81")
    assert len(rows(done)["person"]) == 5


def test_a_kill_in_the_middle_of_writing_leaves_no_half_file(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(file: object, **table: object) -> None:
        file.write(b"PK\x03\x04 half of it")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(output.np, "savez_compressed", half)
        with pytest.raises(KeyboardInterrupt):
            fit(scene, tmp_path, *QUICK, "batch=1")
    assert list(tmp_path.rglob("*.npz")) == []
    fit(scene, tmp_path, *QUICK)
    assert len(rows(tmp_path)["person"]) == 5


def test_a_batch_that_does_not_fit_into_memory_is_halved(
    scene: Path, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, sizes = Fitter.fit, []

    def small(self: Fitter, images: list) -> list:
        sizes.append(len(images))
        if len(images) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(self, images)

    monkeypatch.setattr(Fitter, "fit", small)
    fit(scene, tmp_path / "halved", *QUICK)
    assert sizes == [3, 2, 1, 1, 1]
    whole, halved = rows(done), rows(tmp_path / "halved")
    assert np.array_equal(whole["imgname"], halved["imgname"])
    np.testing.assert_allclose(whole["joints"], halved["joints"], atol=1e-4)


def test_an_image_that_does_not_fit_into_memory_is_left_out(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Fitter.fit

    def picky(self: Fitter, images: list) -> list:
        if "00001" in [image.name for image in images]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(self, images)

    with monkeypatch.context() as patch:
        patch.setattr(Fitter, "fit", picky)
        summary = fit(scene, tmp_path, *QUICK)
    assert list(summary.skipped) == ["00001"]
    assert "00001.png: people: no memory" in summary.skipped["00001"]
    assert set(rows(tmp_path)["imgname"]) == {"00000.png", "00002.png"}
    # It is not taken for done.
    assert not fit(scene, tmp_path, *QUICK).skipped
    assert set(rows(tmp_path)["imgname"]) == {"00000.png", "00001.png", "00002.png"}


@pytest.mark.parametrize("init", ["predictions", "keypoints"])
def test_images_whose_focal_nothing_tells_are_left_out_where_it_is_to_be_held(
    scene: Path, tmp_path: Path, init: str
) -> None:
    blind = tmp_path / "scene"
    shutil.copytree(scene, blind, ignore=shutil.ignore_patterns("depth"))
    # Keypoints alone take long to start from: one image less is enough of them.
    known = {"00001": {"focal_px": 300.0}} if init == "predictions" else {}
    (blind / "cameras.json").write_text(json.dumps(known))
    held = (*QUICK, f"init={init}", "camera.freeze_focal=true")
    summary = fit(blind, tmp_path / "held", *held)
    assert sorted(summary.skipped) == [n for n in ("00000", "00001", "00002") if n not in known]
    assert all("cameras.json, EXIF" in reason for reason in summary.skipped.values())
    assert {(Path(row["imgname"]).stem, round(row["focal"], 3)) for row in summary.rows} == {
        (name, 300.0) for name in known
    }


def test_a_run_says_that_smpls_shapes_are_not_the_open_bodys(
    scene: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = fit(scene, tmp_path / "own", *QUICK)
    assert own.summary["betas_left_out"] is None
    assert rows(tmp_path / "own")["betas_predicted"].all()
    assert not caplog.records
    foreign = Path(shutil.copytree(scene, tmp_path / "scene"))
    mark_predictions(foreign, "tokenhmr")
    summary = fit(foreign, tmp_path / "out", *QUICK).summary
    assert [record.message for record in caplog.records] == [f"predictions.npz: {summary['betas_left_out']}"]
    assert "TokenHMR's predictions are SMPL's, and not used: open-neutral" in summary["betas_left_out"]
    before, after = rows(tmp_path / "own"), rows(tmp_path / "out")
    assert not after["betas_predicted"].any()
    assert not after["initial_betas"].any()
    assert before["initial_betas"].any()
    np.testing.assert_allclose(before["initial_body_pose"], after["initial_body_pose"], atol=1e-5)
    # A run that does not start from them says nothing of them. (This one leaves out everybody, and is quick.)
    shutil.rmtree(foreign / "depth")
    alone = fit(foreign, tmp_path / "alone", *QUICK, "init=keypoints", "camera.freeze_focal=true")
    assert alone.summary["betas_left_out"] is None


def test_any_other_error_of_a_fit_is_raised(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(self: Fitter, images: list) -> list:
        raise ValueError("no such thing")

    monkeypatch.setattr(Fitter, "fit", wrong)
    with pytest.raises(ValueError, match="no such thing"):
        fit(scene, tmp_path, *QUICK)


def test_fits_that_wait_for_their_pictures_are_not_lost(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped at the first picture; the next run fits nothing and draws the same pictures."""
    asked: list[OverlayJob] = []

    def draw(job: OverlayJob) -> None:
        asked.append(job)
        job.path.parent.mkdir(exist_ok=True)
        job.path.touch()

    def stop(job: OverlayJob) -> None:
        raise KeyboardInterrupt

    settings = (*QUICK, "output.overlays=true")
    monkeypatch.setattr(_SceneRun, "_drawers", lambda self, images: 0)
    monkeypatch.setattr(OverlayJob, "draw", draw)
    whole = fit(scene, tmp_path / "whole", *settings)
    wanted, asked[:] = list(asked), []
    monkeypatch.setattr(OverlayJob, "draw", stop)
    with pytest.raises(KeyboardInterrupt):
        fit(scene, tmp_path / "stopped", *settings)
    monkeypatch.setattr(OverlayJob, "draw", draw)
    monkeypatch.setattr(Fitter, "fit", None)
    again = fit(scene, tmp_path / "stopped", *settings)
    assert again.summary == whole.summary
    assert [job.path.name for job in asked] == [job.path.name for job in wanted]
    for ours, theirs in zip(asked, wanted, strict=True):
        assert ours.photo == theirs.photo
        assert ours.depth is not None
        assert theirs.depth is not None
        assert ours.depth.focal == pytest.approx(theirs.depth.focal)
        assert ours.depth.log_scale == pytest.approx(theirs.depth.log_scale)
        for found, right in zip([*ours.before, *ours.after], [*theirs.before, *theirs.after], strict=True):
            for field in dataclasses.fields(right):
                one, two = getattr(found, field.name), getattr(right, field.name)
                torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-4, equal_nan=True, check_dtype=False)
        for summary, other in zip(ours.summaries, theirs.summaries, strict=True):
            assert (summary.name, summary.status) == (other.name, other.status)
            assert summary.focal == pytest.approx(other.focal)
            assert summary.reprojection == pytest.approx(other.reprojection)
    asked.clear()
    fit(scene, tmp_path / "stopped", *settings)
    assert not asked, "what is drawn is not drawn again"


def test_processes_draw_every_overlay(scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_SceneRun, "_drawers", lambda self, images: 2)
    monkeypatch.setattr(OverlayJob, "draw", None)
    fit(scene, tmp_path, *QUICK, "output.overlays=true")
    drawn = sorted(path.stem for path in (tmp_path / "overlays").iterdir())
    assert (
        drawn == sorted(path.stem for path in (tmp_path / "parts").iterdir()) == ["00000", "00001", "00002"]
    )


@pytest.mark.parametrize(
    ("device", "wanted", "people"), [("cpu", None, 16), ("cuda", None, 256), ("cuda", 3, 3)]
)
def test_a_batch_is_larger_on_a_gpu(device: str, wanted: int | None, people: int) -> None:
    assert batch_size(wanted, torch.device(device)) == people


@pytest.mark.parametrize(
    ("size", "people", "places"), [((640, 480), 0, 1), ((640, 480), 3, 3), ((6000, 4000), 3, 5)]
)
def test_large_images_fill_a_batch_sooner_and_empty_ones_fill_it_too(
    size: tuple[int, int], people: int, places: int
) -> None:
    camera = CameraPrior(500.0, 0.1, (0.0, 0.0), "test")
    found = (KeypointPerson(np.zeros((27, 2)), np.ones(27)),) * people
    evidence = ImageEvidence("a", Path("a.png"), size, found, None, None, camera, np.arange(0), None, ())
    assert _places(evidence) == places
    assert _places(_LeftOut("a", "torn")) == 0


@pytest.mark.parametrize("space", ["rotations", "tokens"])
def test_a_fit_does_not_depend_on_its_batch(scene: Path, tmp_path: Path, space: str) -> None:
    for batch in (1, 16):
        quick = ("solver.rounds=1", "solver.polish=0", "solver.steps=1", "output.overlays=false")
        fit(scene, tmp_path / str(batch), f"pose.space={space}", f"batch={batch}", *quick)
    one, many = rows(tmp_path / "1"), rows(tmp_path / "16")
    assert np.array_equal(one["status"], many["status"])
    for name in ("joints", "transl", "betas", "global_orient"):
        np.testing.assert_allclose(one[name], many[name], atol=1e-4, err_msg=name)
    np.testing.assert_allclose(np.log(one["focal"] / many["focal"]), 0, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["scene=nowhere"], "no such folder"),
        (["init=oracle"], "predictions, keypoints"),
        (["batch=0"], "above zero"),
        (["solver.rounds=0"], r"solver\.rounds: 0\. Use at least 1"),
        (["solver.polish=-1"], r"solver\.polish: -1\. Use zero or more"),
        (["solver.steps=-1"], r"solver\.steps: -1"),
        (["solver.grid=0"], r"solver\.grid: 0"),
        (["device=abacus"], "auto, cpu or cuda"),
        (["models.body=nowhere.pkl"], "nowhere.pkl"),
    ],
)
def test_a_run_that_cannot_start_says_why_and_writes_nothing(
    scene: Path, tmp_path: Path, settings: list[str], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        fit(scene, tmp_path / "out", *settings)
    assert not (tmp_path / "out").exists()


def test_damaged_results_and_a_folder_that_cannot_be_made_are_named(
    scene: Path, done: Path, tmp_path: Path
) -> None:
    part = next(iter((done / "parts").glob("*.npz")))
    content = part.read_bytes()
    part.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=f"{part.name}: file: damaged"):
        fit(scene, done, *QUICK)
    part.write_bytes(content)
    (done / "config.yaml").write_text("a: [")
    with pytest.raises(InputError, match=r"config\.yaml: config: not YAML"):
        fit(scene, done, *QUICK)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"output\.dir: cannot be made"):
        fit(scene, tmp_path / "file", *QUICK)
