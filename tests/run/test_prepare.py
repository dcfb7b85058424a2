"""From photographs to a scene folder, with tiny networks of the real classes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("transformers", reason='needs pip install "depthfit[perception]"')

from depthfit.cli.main import main
from depthfit.errors import InputError
from depthfit.evidence.keypoints import KeypointPerson
from depthfit.evidence.scene import read_scene
from depthfit.joints import COCO17, KEYPOINTS
from depthfit.run.prepare import people as people_stage
from depthfit.run.prepare import surfaces as surface_stage
from tests.run.photo_files import HEIGHT, WIDTH, pixels, points, prepare, write_photo


def forbid(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on no network may be loaded."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a network was loaded though there is nothing to do")

    for network in (people_stage.PersonDetector, people_stage.PoseEstimator, surface_stage.PersonSegmenter):
        monkeypatch.setattr(network, "load", refuse)
    monkeypatch.setattr(surface_stage, "load_depth_pro", refuse)


def test_every_part_of_the_scene_is_made_and_readable(photos: Path, models: Path, tmp_path: Path) -> None:
    summary = prepare(photos, tmp_path / "scene", models)
    assert summary.images == ["p0", "p1"]
    assert not summary.left_out
    assert [stage.stage for stage in summary.stages] == [
        "photographs",
        "boxes",
        "keypoints",
        "depth",
        "masks",
    ]
    assert summary.people == {"p0": 2, "p1": 2}
    scene = read_scene(tmp_path / "scene")
    assert not scene.strangers
    for name in scene.names:
        evidence = scene.read(name)
        assert len(evidence.people) == 2
        assert evidence.depth is not None
        assert evidence.depth.metres.shape == (HEIGHT, WIDTH)
        assert evidence.camera.source == "depth"
        assert evidence.camera.focal_px == pytest.approx(evidence.depth.focal_px)
        assert (photos / f"{name}.png").read_bytes() == evidence.path.read_bytes()


def test_a_second_run_loads_nothing_and_a_new_photograph_is_added(
    photos: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = tmp_path / "scene"
    prepare(photos, scene, models)
    before = {path: path.stat().st_mtime_ns for path in (scene / "depth").iterdir()}
    write_photo(photos, "p2.png", pixels(2))
    again = prepare(photos, scene, models)
    assert [stage.done for stage in again.stages[1:]] == [1, 1, 1, 1]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    forbid(monkeypatch)
    third = prepare(photos, scene, models)
    assert [stage.done for stage in third.stages[1:]] == [0, 0, 0, 0]
    assert third.people == {"p0": 2, "p1": 2, "p2": 2}


def test_a_stopped_run_goes_on(
    photos: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, real, seen = tmp_path / "scene", surface_stage.estimate_depth, []

    def stops(network: Any, images: Any, focals: Any) -> Any:
        if seen:
            raise KeyboardInterrupt
        seen.append(1)
        return real(network, images, focals)

    monkeypatch.setattr(surface_stage, "estimate_depth", stops)
    with pytest.raises(KeyboardInterrupt):
        prepare(photos, scene, models)
    assert len(list((scene / "depth").iterdir())) == 1
    monkeypatch.setattr(surface_stage, "estimate_depth", real)
    summary = prepare(photos, scene, models)
    assert {stage.stage: stage.done for stage in summary.stages}["depth"] == 1
    assert len(list((scene / "depth").iterdir())) == 2


def test_results_of_other_settings_are_not_mixed(photos: Path, models: Path, tmp_path: Path) -> None:
    scene = tmp_path / "scene"
    prepare(photos, scene, models, "depth.source=none", "masks.source=none")
    with pytest.raises(
        InputError, match=r"boxes were made with other settings \(min_score\).*overwrite=true"
    ):
        prepare(photos, scene, models, "boxes.min_score=0.6", "depth.source=none", "masks.source=none")
    summary = prepare(
        photos,
        scene,
        models,
        "boxes.min_score=0.999",
        "depth.source=none",
        "masks.source=none",
        "overwrite=true",
    )
    assert summary.people == {"p0": 0, "p1": 0}
    later = prepare(photos, scene, models, "boxes.min_score=0.999", "masks.source=none")
    assert {stage.stage: stage.done for stage in later.stages}["depth"] == 2


def test_what_others_made_is_used_and_kept(
    photos: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = tmp_path / "scene"
    (scene / "depth").mkdir(parents=True)
    (scene / "masks").mkdir()
    np.savez(scene / "depth" / "p0.npz", depth=np.full((HEIGHT, WIDTH), 3.0, np.float32))
    cv2.imwrite(str(scene / "masks" / "p0.png"), np.eye(HEIGHT, WIDTH, dtype=np.uint8))
    kept = {path: path.read_bytes() for path in (scene / "depth" / "p0.npz", scene / "masks" / "p0.png")}
    for settings in ((), ("overwrite=true",)):
        prepare(photos, scene, models, *settings)
        assert {path: path.read_bytes() for path in kept} == kept
        assert (scene / "depth" / "p1.npz").is_file()


def test_no_person_found(photos: Path, models: Path, tmp_path: Path) -> None:
    summary = prepare(photos, tmp_path / "scene", models, "boxes.min_score=0.9999")
    assert summary.notes["p0"] == ["no person found"]
    assert not (tmp_path / "scene" / "masks").exists()
    assert read_scene(tmp_path / "scene").read("p0").people == ()
    assert json.loads((tmp_path / "scene" / "boxes.json").read_text()) == {"p0.png": [], "p1.png": []}


# -- sources


def test_no_model_is_needed_for_given_keypoints(
    photos: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid(monkeypatch)
    entries = [
        {"image_id": f"p{k}.png", "category_id": 1, "keypoints": points(), "score": 1.7} for k in (0, 1)
    ]
    (tmp_path / "alphapose-results.json").write_text(json.dumps(entries))
    source = f"keypoints.source={tmp_path / 'alphapose-results.json'}"
    settings = (source, "depth.source=none", "masks.source=none")
    summary = prepare(photos, tmp_path / "scene", tmp_path / "no_models", *settings)
    assert summary.people == {"p0": 1, "p1": 1}
    (person,) = read_scene(tmp_path / "scene").read("p1").people
    np.testing.assert_allclose(person.xy[:17], np.reshape(points(), (17, 3))[:, :2], atol=1e-3)
    ((box,),) = [json.loads((tmp_path / "scene" / "boxes.json").read_text())["p0.png"]]
    x, y = np.reshape(points(), (17, 3))[:, :2].T
    assert box[0] < x.min() < x.max() < box[2]
    assert box[1] < y.min() < y.max() < box[3]


def test_halpe_points_of_alphapose(photos: Path, models: Path, tmp_path: Path) -> None:
    entries = [{"image_id": "p0.png", "category_id": 1, "keypoints": points(count=136), "score": 2.0}]
    (tmp_path / "a.json").write_text(json.dumps(entries))
    settings = (f"keypoints.source={tmp_path / 'a.json'}", "depth.source=none", "masks.source=none")
    prepare(photos, tmp_path / "scene", models, *settings)
    (person,) = read_scene(tmp_path / "scene").read("p0").people
    big_toe = KEYPOINTS.index("right_big_toe")
    np.testing.assert_allclose(person.xy[big_toe], np.reshape(points(count=136), (136, 3))[21, :2], atol=1e-3)


def test_openpose_files_are_taken_as_they_are(photos: Path, models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "openpose"
    folder.mkdir()
    content = {"people": [{"pose_keypoints_2d": points(count=25)}]}
    (folder / "p0_keypoints.json").write_text(json.dumps(content))
    settings = (
        f"keypoints.source={folder}",
        "keypoints.format=body25",
        "depth.source=none",
        "masks.source=none",
    )
    summary = prepare(photos, tmp_path / "scene", models, *settings)
    assert summary.keypoint_format == "body25"
    assert summary.people == {"p0": 1, "p1": 0}
    copied = tmp_path / "scene" / "keypoints" / "p0_keypoints.json"
    assert copied.read_bytes() == (folder / "p0_keypoints.json").read_bytes()
    assert not (tmp_path / "scene" / "keypoints.json").exists()
    assert prepare(photos, tmp_path / "scene", models, *settings).people == summary.people
    (folder / "p0_keypoints.json").unlink()
    with pytest.raises(InputError, match="none belongs to an image"):
        prepare(photos, tmp_path / "other", models, *settings)


@pytest.mark.parametrize("form", ["scene", "coco"])
def test_boxes_from_a_file(form: str, photos: Path, models: Path, tmp_path: Path) -> None:
    if form == "scene":
        content: Any = {"p0.png": [[10, 5, 60, 70]], "p1": []}
    else:
        content = [{"image_id": "p0.png", "category_id": 1, "bbox": [10, 5, 50, 65], "score": 0.9}]
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    settings = (f"boxes.source={tmp_path / 'boxes.json'}", "depth.source=none", "masks.source=none")
    summary = prepare(photos, tmp_path / "scene", models, *settings)
    assert summary.people == {"p0": 1, "p1": 0}
    made = json.loads((tmp_path / "scene" / "boxes.json").read_text())
    assert made["p0.png"] == [[10.0, 5.0, 60.0, 70.0]]


def test_given_keypoints_go_with_the_boxes_they_lie_in(photos: Path, models: Path, tmp_path: Path) -> None:
    scene = tmp_path / "scene"
    scene.mkdir()
    boxes = {"p0.png": [[70, 0, 95, 30], [15, 5, 65, 65]], "p1.png": []}
    (scene / "boxes.json").write_text(json.dumps(boxes))
    entries = [{"image_id": "p0.png", "category_id": 1, "keypoints": points(), "score": 1.0}]
    (scene / "keypoints.json").write_text(json.dumps(entries))
    for more in ((), (), ("overwrite=true",)):
        prepare(photos, scene, models, "depth.source=none", "masks.source=none", *more)
        assert json.loads((scene / "boxes.json").read_text()) == boxes
        assert json.loads((scene / "keypoints.json").read_text()) == entries
    record = json.loads((scene / ".prepare" / "keypoints" / "p0.json").read_text())
    found = [np.array(rows)[:, 2].any() for rows in record["people"]]
    assert found == [False, True]


def test_a_known_focal_scales_the_depth(photos: Path, models: Path, tmp_path: Path) -> None:
    (tmp_path / "cameras.json").write_text(json.dumps({"p0": {"focal_px": 500.0}}))
    settings = ("masks.source=none", "boxes.min_score=0.9999")
    prepare(photos, tmp_path / "free", models, *settings)
    prepare(photos, tmp_path / "known", models, f"cameras={tmp_path / 'cameras.json'}", *settings)
    free, known = (read_scene(tmp_path / name).read("p0") for name in ("free", "known"))
    assert free.depth is not None
    assert known.depth is not None
    assert known.camera.source == "cameras.json"
    assert known.depth.focal_px == pytest.approx(500.0)
    sure = (free.depth.metres < 1e3) & (known.depth.metres < 1e3)
    assert free.depth.focal_px is not None
    ratio = (known.depth.metres / free.depth.metres)[sure]
    np.testing.assert_allclose(ratio, 500.0 / free.depth.focal_px, rtol=1e-4)


def test_masks_from_the_depth_edge_where_they_are_asked_for(models: Path, tmp_path: Path) -> None:
    alone = tmp_path / "models"
    shutil.copytree(models, alone, ignore=shutil.ignore_patterns("sam*"))
    write_photo(tmp_path / "photos", "p.png", pixels(0, 320, 400))
    from tests.perception.test_perception_depth_mask import background, stand

    depth = background()
    person, drawn = stand(depth, 0.0, 3.0, lift=0.5)
    scene = tmp_path / "scene"
    (scene / "depth").mkdir(parents=True)
    np.savez(scene / "depth" / "p.npz", depth=depth.astype(np.float32))
    entry = {"image_id": "p.png", "category_id": 1, "keypoints": flat(person), "score": 1.0}
    (scene / "keypoints.json").write_text(json.dumps([entry]))
    without = prepare(tmp_path / "photos", scene, alone)
    assert without.stages[-1].source.startswith("none: SAM is not here")
    assert read_scene(scene).read("p").labels is None
    summary = prepare(tmp_path / "photos", scene, alone, "masks.source=depth")
    assert summary.stages[-1].source == "depth"
    labels = read_scene(scene).read("p").labels
    assert labels is not None
    assert ((labels == 1) & drawn).sum() / ((labels == 1) | drawn).sum() > 0.95


def flat(person: KeypointPerson) -> list[float]:
    return np.column_stack([person.xy, person.confidence])[: len(COCO17)].flatten().tolist()


def test_a_mask_that_would_need_depth_is_said(photos: Path, models: Path, tmp_path: Path) -> None:
    summary = prepare(photos, tmp_path / "scene", models, "depth.source=none", "masks.source=depth")
    assert "no mask: it is made from the depth map" in summary.notes["p0"][0]


# -- command line


def test_prepare_at_the_command_line(
    photos: Path, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = str(tmp_path / "scene")
    arguments = ["prepare", str(photos), scene, f"folder={models}", "depth.source=none"]
    assert main([*arguments, "masks.source=none"]) == 0
    out = capsys.readouterr().out
    assert "4 people in 2 images" in out
    assert f"next: depthfit fit scene={scene}" in out
    (photos / "bad.jpg").write_bytes(b"x")
    assert main([*arguments, "masks.source=none"]) == 1
    assert "left out bad" in capsys.readouterr().err
    assert main(["prepare", str(photos)]) == 2
    assert main(["prepare", "--help"]) == 0


def test_run_goes_from_photographs_to_fits(models: Path, tmp_path: Path) -> None:
    write_photo(tmp_path / "photos", "p.jpg", pixels(3, 120, 160))
    entries = [{"image_id": "p.jpg", "category_id": 1, "keypoints": points(), "score": 1.0}]
    (tmp_path / "keypoints.json").write_text(json.dumps(entries))
    out = tmp_path / "out"
    fast = (
        "solver.rounds=1",
        "solver.steps=1",
        "solver.grid=40",
        "solver.hypotheses=false",
        "depth.samples=40",
    )
    arguments = ["run", str(tmp_path / "photos"), str(out), f"folder={models}", "device=cpu"]
    settings = [f"prepare.keypoints.source={tmp_path / 'keypoints.json'}", *(f"fit.{s}" for s in fast)]
    assert main([*arguments, *settings]) == 0
    with np.load(out / "fits.npz") as fits:
        assert fits["imgname"].tolist() == ["p.jpg"]
    assert (out / "scene" / "depth" / "p.npz").is_file()
    assert main([*arguments, "fit.device=cpu", "prepare.overwrite=true"]) == 1
    assert main([*arguments, "fit.scene=elsewhere"]) == 1
