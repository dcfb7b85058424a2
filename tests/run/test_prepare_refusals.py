"""Settings and machines with which no photograph can be prepared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers", reason='needs pip install "depthfit[perception]"')

from depthfit.errors import InputError
from tests.run.photo_files import prepare


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("init=nlf", "Use one of: keypoints, tokenhmr, hmr2"),
        ("depth.source=midas", "Use one of: depth_pro, none"),
        ("masks.source=grabcut", "Use one of: auto, sam, depth, none"),
        ("batch=0", "whole number above zero"),
        ("keypoints.source=nowhere.json", "no such file or folder: nowhere.json"),
        ("boxes.source=keypoints", "to be found in boxes"),
    ],
)
def test_settings_that_cannot_be_used(
    setting: str, words: str, photos: Path, models: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=words):
        prepare(photos, tmp_path / "scene", models, setting)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_here(photos: Path, models: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"torch sees no CUDA device here: use device=cpu"):
        prepare(photos, tmp_path / "scene", models, "device=cuda")


def test_a_hub_out_of_reach_says_what_to_fetch_and_where_to_put_it(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def unreachable(name: str, local_files_only: bool, **_: Any) -> str:
        if local_files_only:
            raise huggingface_hub.errors.LocalEntryNotFoundError("nothing cached")
        raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    models = tmp_path / "models"
    with pytest.raises(InputError) as caught:
        prepare(photos, tmp_path / "scene", models)
    message = str(caught.value)
    assert "the hub cannot be reached (no route to host)" in message
    assert "https://huggingface.co/PekingU/rtdetr_r50vd_coco_o365" in message
    assert f"put them into {models / 'rtdetr_r50vd_coco_o365'}" in message


def test_a_regressor_that_is_not_here_is_named_before_it_is_needed(
    photos: Path, models: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"tokenhmr_model_latest\.ckpt.*tokenhmr\.is\.tue\.mpg\.de"):
        prepare(photos, tmp_path / "scene", models, "init=tokenhmr")
    assert not (tmp_path / "scene").exists()
