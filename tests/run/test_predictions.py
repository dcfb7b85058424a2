"""A regressor's predictions of a scene folder, with small networks in the official file formats."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from baselines.hmr.crop import crop_person
from baselines.hmr.predict import Person, PredictionTable
from baselines.hmr.regressor import Regressor, RegressorOutput
from depthfit.cli.main import main
from depthfit.errors import InputError
from depthfit.evidence.predictions import Predictions, read_predictions, write_predictions
from depthfit.evidence.scene import read_scene
from depthfit.run.config import RegressorConfig, RunConfig
from depthfit.run.predictions import (
    ExportConfig,
    check_tokenizer,
    export_predictions,
    scene_with_predictions,
)
from tests.baselines.hmr.networks import BACKBONE, regressor, write_files
from tests.baselines.hmr.seeded import image
from tests.evidence.scene_files import make_predictions

MASK_BOX = (30, 20, 90, 200)
"""x0, y0, x1, y1 in pixel edges."""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("baselines.hmr.release.BackboneSize", lambda: BACKBONE)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_files(folder / "tokenhmr", "tokenhmr")
    write_files(folder / "hmr2", "hmr2")
    (folder / "tokenhmr" / "model_config.yaml").touch()
    return folder


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """Two images: of the first there is a mask of person 2 and keypoints of another person, of the second
    nothing."""
    root = tmp_path / "scene"
    for folder in ("images", "masks", "keypoints"):
        (root / folder).mkdir(parents=True)
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(root / "images" / name), image(240, 320)[..., ::-1])
    labels = np.zeros((240, 320), np.uint8)
    x0, y0, x1, y1 = MASK_BOX
    labels[y0:y1, x0:x1] = 2
    cv2.imwrite(str(root / "masks" / "a.png"), labels)
    points = [[200.0 + 4 * i, 100.0 + 5 * i, 0.9] if i < 11 else [0.0, 0.0, 0.0] for i in range(17)]
    people = [{"pose_keypoints_2d": [v for point in points for v in point]}]
    (root / "keypoints" / "a_keypoints.json").write_text(json.dumps({"people": people}))
    return root


def settings(models: Path, name: str = "tokenhmr", **changes: object) -> ExportConfig:
    config = ExportConfig(init=name, folder=str(models), device="cpu")
    config.keypoints.format = "coco17"
    return replace(config, **changes)


def written(scene: Path) -> Predictions:
    predictions, bad = read_predictions(scene / "predictions.npz")
    assert bad == {}
    return predictions


@pytest.mark.parametrize("name", ["tokenhmr", "hmr2"])
def test_people_come_from_the_mask_and_the_keypoints_beside_it(scene: Path, models: Path, name: str) -> None:
    summary = export_predictions(scene, settings(models, name, batch=1))
    assert (summary.people, summary.images) == (2, 1)
    assert summary.left_out == {"b": "nobody to predict"}
    found = written(scene)
    assert found.regressor == name
    assert list(zip(found.imgname, found.person, strict=True)) == [("a.png", 2), ("a.png", 3)]
    # The points reach from 200.5 to 240.5 and from 100.5 to 150.5, in pixel edges.
    wide = np.array([196.5, 95.5, 244.5, 155.5])
    crops = [crop_person(image(240, 320), box) for box in (np.array(MASK_BOX, float), wide)]
    output = regressor(name)(torch.from_numpy(np.stack([c.pixels for c in crops])))
    np.testing.assert_allclose(found.box_center, [c.center for c in crops], atol=1e-4)
    np.testing.assert_allclose(found.box_size, [c.size for c in crops], rtol=1e-6)
    for field, expected in (("root", output.root), ("pose", output.pose), ("betas", output.betas)):
        np.testing.assert_allclose(getattr(found, field), expected.numpy(), atol=1e-4, err_msg=field)
    np.testing.assert_allclose(found.pred_cam, output.camera.numpy(), atol=1e-5)
    if output.token_probs is None:
        assert found.token_probs is None
    else:
        assert found.token_probs is not None
        probs = found.token_probs[np.arange(2)].astype(np.float32)
        np.testing.assert_allclose(probs, output.token_probs.numpy(), atol=1e-3)


def test_boxes_in_a_file_come_before_all_else(scene: Path, models: Path) -> None:
    boxes = {"a.png": [[10, 20, 60, 200]], "b": [[0, 0, 320, 240], [5.5, 5, 100, 200]]}
    (scene / "boxes.json").write_text(json.dumps(boxes))
    export_predictions(scene, settings(models, "hmr2"))
    found = written(scene)
    rows = list(zip(found.imgname.tolist(), found.person.tolist(), strict=True))
    assert rows == [("a.png", 1), ("b.png", 1), ("b.png", 2)]
    # The whole image's centre: (W - 1) / 2, (H - 1) / 2 in pixel centres.
    assert found.box_center[1] == pytest.approx([159.5, 119.5])
    assert found.box_size[1] == pytest.approx(320 * 256 / 192)
    for wrong, match in (
        ({"c": [[0, 0, 1, 1]]}, "c: no image of that name"), ({"a": [[0, 0, 1]]}, "not boxes"),
        ({"a": [[0, 0, 1, 1], [4, 4, 2, 9]]}, r"a\[1\]"), ([1], "a list"),
    ):  # fmt: skip
        (scene / "boxes.json").write_text(json.dumps(wrong))
        with pytest.raises(InputError, match=match):
            export_predictions(scene, settings(models, "hmr2", overwrite=True))


def test_a_file_is_replaced_on_demand_and_by_a_whole_one_alone(scene: Path, models: Path) -> None:
    (scene / "predictions.npz").write_bytes(b"of another program")
    with pytest.raises(InputError, match=r"there already.*overwrite=true"):
        export_predictions(scene, settings(models))
    with pytest.raises(InputError, match="no such file"):
        export_predictions(scene, settings(models, checkpoint="missing.ckpt", overwrite=True))
    assert (scene / "predictions.npz").read_bytes() == b"of another program"
    export_predictions(scene, settings(models, overwrite=True))
    assert len(written(scene)) == 2
    assert sorted(path.name for path in scene.iterdir()) == [
        "images",
        "keypoints",
        "masks",
        "predictions.npz",
    ]


def test_a_bad_image_does_not_stop_the_others(scene: Path, models: Path) -> None:
    (scene / "boxes.json").write_text(json.dumps({"a": [[9, 9, 99, 99]], "b": [[9, 9, 99, 99]]}))
    (scene / "images" / "a.png").write_bytes((scene / "images" / "a.png").read_bytes()[:500])
    (scene / "masks" / "a.png").unlink()
    summary = export_predictions(scene, settings(models, "hmr2"))
    assert list(summary.left_out) == ["a"]
    assert "a.png" in summary.left_out["a"]
    assert written(scene).imgname.tolist() == ["b.png"]


def test_without_people_nothing_is_written(scene: Path, models: Path) -> None:
    (scene / "boxes.json").write_text("{}")
    with pytest.raises(InputError, match="nobody to predict in any image"):
        export_predictions(scene, settings(models, "hmr2"))
    assert not (scene / "predictions.npz").exists()


def test_settings_that_cannot_be_used_are_explained(scene: Path, models: Path) -> None:
    for changes, match in (
        ({"init": "cliff"}, "Regressors are tokenhmr, hmr2"), ({"batch": 0}, "above zero"),
        ({"precision": "float16"}, "On a CPU"), ({"device": "cuda"}, "no CUDA device"),
    ):  # fmt: skip
        if changes.get("device") == "cuda" and torch.cuda.is_available():
            continue
        with pytest.raises(InputError, match=match):
            export_predictions(scene, settings(models, **changes))


class _Unsure:
    """A regressor whose second person has a camera that looks away."""

    tokenizer = None
    device = torch.device("cpu")

    def __call__(self, crops: torch.Tensor) -> RegressorOutput:
        count = len(crops)
        camera = torch.tensor([[0.9, 0, 0], [-0.1, 0, 0], [torch.nan, 0, 0]])[:count]
        eye = torch.eye(3).expand(count, 24, 3, 3)
        return RegressorOutput(eye[:, 0], eye[:, 1:], torch.zeros(count, 10), camera, None)


def test_people_without_a_usable_camera_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    crop = crop_person(image(64, 64), np.array([0.0, 0.0, 64.0, 64.0]))
    unsure: Regressor = _Unsure()  # type: ignore[assignment]
    with caplog.at_level(logging.WARNING), PredictionTable(unsure, "hmr2", tmp_path) as table:
        table.add([Person("a.png", k, crop) for k in (1, 2, 3)])
        assert table.predictions().person.tolist() == [1]
    assert "person 2 left out" in caplog.text
    assert "person 3 left out" in caplog.text


def test_a_run_has_the_regressor_write_predictions_once(scene: Path, models: Path) -> None:
    config = RunConfig(scene=str(scene), device="cpu", regressor=RegressorConfig(folder=str(models)))
    config.keypoints.format = "coco17"
    made = scene_with_predictions(read_scene(scene, "coco17"), "hmr2", config)
    assert made.predictions is not None
    assert len(made.predictions) == 2
    config.regressor.folder = "not needed again"
    assert scene_with_predictions(made, "hmr2", config) is made
    with pytest.raises(InputError, match=r"made by hmr2, not by tokenhmr.*init=predictions"):
        scene_with_predictions(made, "tokenhmr", config)
    write_predictions(scene / "predictions.npz", make_predictions(["a.png"], [1]))
    with pytest.raises(InputError, match="made by another program"):
        scene_with_predictions(read_scene(scene, "coco17"), "hmr2", config)


def test_tokens_are_read_with_the_tokenizer_that_they_are_of(scene: Path) -> None:
    people = replace(make_predictions(["a.png"], [1]), regressor="tokenhmr")
    write_predictions(scene / "predictions.npz", people)
    made, config = read_scene(scene, "coco17"), RunConfig(scene=str(scene))
    check_tokenizer(made, config)
    config.pose.space = "tokens"
    with pytest.raises(InputError, match=r"models.tokenizer: open, but .*tokenizer=tokenizer.pth"):
        check_tokenizer(made, config)
    config.models.tokenizer = "tokenizer.pth"
    check_tokenizer(made, config)
    config.models.tokenizer = "open"
    write_predictions(scene / "predictions.npz", replace(people, regressor=None))
    check_tokenizer(read_scene(scene, "coco17"), config)


def test_command(scene: Path, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["init=hmr2", f"folder={models}", "keypoints.format=coco17", "device=cpu"]
    assert main(["predictions", "export", str(scene), *arguments]) == 1
    said = capsys.readouterr()
    assert "predictions.npz: 2 people in 1 images" in said.out
    assert "left out b: nobody to predict" in said.err
    assert main(["predictions", "export", *arguments]) == 2
    assert main(["predictions", "import", str(scene)]) == 2
    assert main(["predictions", "export", str(scene), *arguments]) == 1
    assert "overwrite=true" in capsys.readouterr().err
