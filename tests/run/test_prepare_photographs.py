"""Photographs of all kinds on their way into a scene folder: turned, grey, huge, broken, changed."""

from __future__ import annotations

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("transformers", reason='needs pip install "depthfit[perception]"')

from depthfit.errors import InputError
from depthfit.evidence.scene import read_scene
from tests.run.photo_files import HEIGHT, WIDTH, pixels, prepare, write_photo


def turned_jpeg(image: np.ndarray, orientation: int) -> bytes:
    """A JPEG whose EXIF says that the camera was turned."""
    image_module = pytest.importorskip("PIL.Image")
    out, exif = io.BytesIO(), image_module.Exif()
    exif[0x0112] = orientation
    picture = image_module.fromarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    picture.save(out, "JPEG", quality=95, exif=exif)
    return out.getvalue()


TURNS = {3: cv2.ROTATE_180, 6: cv2.ROTATE_90_COUNTERCLOCKWISE, 8: cv2.ROTATE_90_CLOCKWISE}
"""How the stored pixels of an upright photograph lie for each orientation."""


@pytest.mark.parametrize("orientation", sorted(TURNS))
def test_pixels_and_keypoints_of_a_turned_photograph_share_the_upright_frame(
    orientation: int, models: Path, tmp_path: Path
) -> None:
    upright = pixels(4, HEIGHT, WIDTH)
    folder = tmp_path / "photos"
    write_photo(folder, "plain.png", upright)
    (folder / "turned.jpg").write_bytes(turned_jpeg(cv2.rotate(upright, TURNS[orientation]), orientation))
    scene_folder = tmp_path / "scene"
    prepare(folder, scene_folder, models)
    scene = read_scene(scene_folder)
    turned, plain = scene.read("turned"), scene.read("plain")
    assert turned.size == (WIDTH, HEIGHT)
    assert np.abs(turned.pixels().astype(int) - plain.pixels()).mean() < 4
    assert turned.depth is not None
    assert turned.depth.metres.shape == (HEIGHT, WIDTH)
    boxes = json.loads((scene_folder / "boxes.json").read_text())
    np.testing.assert_allclose(boxes["turned.jpg"], boxes["plain.png"], atol=3)


@pytest.mark.parametrize("kind", ["16 bit", "grey", "grey 16 bit", "alpha", "alpha 16 bit"])
def test_kinds_of_pixels(kind: str, models: Path, tmp_path: Path) -> None:
    image = pixels(5)
    if "grey" in kind:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    if "alpha" in kind:
        image = np.dstack([image, np.full(image.shape[:2], 128, np.uint8)])
    stored = image.astype(np.uint16) * 257 if "16" in kind else image
    write_photo(tmp_path / "photos", "p.png", stored)
    summary = prepare(tmp_path / "photos", tmp_path / "scene", models)
    assert not summary.left_out
    evidence = read_scene(tmp_path / "scene").read("p")
    expected = image if image.ndim == 3 else np.dstack([image] * 3)
    seen = cv2.cvtColor(evidence.pixels(), cv2.COLOR_RGB2BGR)
    assert np.abs(seen.astype(int) - expected[..., :3]).max() <= 1
    assert len(evidence.people) == 2


def test_a_photograph_of_40_megapixels(models: Path, tmp_path: Path) -> None:
    flat = np.full((5200, 7800, 3), 127, np.uint8)
    cv2.circle(flat, (3000, 2500), 900, (30, 90, 200), -1)
    write_photo(tmp_path / "photos", "large.jpg", flat)
    summary = prepare(tmp_path / "photos", tmp_path / "scene", models, "masks.source=depth")
    assert not summary.left_out
    evidence = read_scene(tmp_path / "scene").read("large")
    assert evidence.size == (7800, 5200)
    assert evidence.depth is not None
    assert evidence.depth.metres.shape == (1024, 1536)


def test_what_cannot_be_decoded_is_left_out_with_its_reason(
    photos: Path, models: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (photos / "nonsense.jpg").write_bytes(b"nonsense")
    (photos / "empty.png").write_bytes(b"")
    data = write_photo(tmp_path, "whole.jpg", pixels()).read_bytes()
    (photos / "cut.jpg").write_bytes(data[: len(data) // 2])
    (photos / "raw.heic").write_bytes(b"x")
    (photos / "day1").mkdir()
    summary = prepare(photos, tmp_path / "scene", models, "depth.source=none", "masks.source=none")
    assert summary.images == ["p0", "p1"]
    assert "cannot be decoded" in summary.left_out["nonsense"]
    assert "it is empty" in summary.left_out["empty"]
    assert "end too early" in summary.left_out["cut"]
    assert "not a jpg or png" in summary.left_out["raw.heic"]
    assert "day1/: photographs in folders of it are not read" in caplog.text
    assert set(read_scene(tmp_path / "scene").names) == {"p0", "p1"}


def test_a_folder_without_a_single_photograph(models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    with pytest.raises(InputError, match="no such folder"):
        prepare(folder, tmp_path / "scene", models)
    folder.mkdir()
    with pytest.raises(InputError, match="no jpg or png"):
        prepare(folder, tmp_path / "scene", models)
    (folder / "day1").mkdir()
    with pytest.raises(InputError, match="no jpg or png file, but day1/"):
        prepare(folder, tmp_path / "scene", models)
    (folder / "a.jpg").write_bytes(b"x")
    with pytest.raises(InputError, match=r"not one of them can be used.*cannot be decoded"):
        prepare(folder, tmp_path / "scene", models)
    write_photo(folder, "b.png", pixels())
    write_photo(folder, "b.jpg", pixels())
    with pytest.raises(InputError, match="2 files are named b"):
        prepare(folder, tmp_path / "scene", models)


def test_another_photograph_of_the_same_name(photos: Path, models: Path, tmp_path: Path) -> None:
    settings = ("depth.source=none", "masks.source=none")
    prepare(photos, tmp_path / "scene", models, *settings)
    write_photo(photos, "p0.png", pixels(9))
    assert "differs from" in prepare(photos, tmp_path / "scene", models, *settings).left_out["p0"]
    assert not prepare(photos, tmp_path / "scene", models, *settings, "overwrite=true").left_out
    copy = tmp_path / "scene" / "images" / "p0.png"
    assert copy.read_bytes() == (photos / "p0.png").read_bytes()
