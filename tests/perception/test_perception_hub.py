from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from depthfit.errors import InputError
from depthfit.perception.detector import PersonDetector
from depthfit.perception.hub import (
    CONFIG,
    PROCESSOR,
    WEIGHTS,
    HubModel,
    load_network,
    load_processor,
    transformers_class,
)
from depthfit.perception.vitpose import PoseEstimator
from tests.perception.networks import FOLDERS, write_tiny

CPU = torch.device("cpu")
NOWHERE = "http://127.0.0.1:9"
"""The discard port: nobody listens there."""


@pytest.fixture
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's client with an empty cache and no hub."""
    import huggingface_hub

    download = huggingface_hub.snapshot_download
    cache = tmp_path / "cache"

    def without(name: str, **settings: object) -> str:
        return download(name, cache_dir=cache, endpoint=NOWHERE, etag_timeout=1, **settings)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", without)
    return cache


def test_the_models_folder_comes_before_the_hub(models: Path, no_hub: Path) -> None:
    model = HubModel("facebook/sam-vit-huge")
    assert model.find(models) == models / "sam-vit-huge"
    assert model.fetch(models) == models / "sam-vit-huge"


def test_the_hubs_cache_is_used(models: Path, no_hub: Path) -> None:
    commit = "0123456789" * 4
    snapshot = no_hub / "models--a--b" / "snapshots" / commit
    snapshot.parent.mkdir(parents=True)
    shutil.copytree(models / FOLDERS["masks"], snapshot)
    refs = no_hub / "models--a--b" / "refs"
    refs.mkdir()
    (refs / "main").write_text(commit)
    assert HubModel("a/b").find(models) == snapshot


def test_without_the_hubs_client_there_is_nothing_in_its_cache(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "huggingface_hub" else real(name)
    )
    assert HubModel("facebook/sam-vit-huge").find(models) is not None
    assert HubModel("facebook/sam-vit-huge").find(tmp_path) is None
    with pytest.raises(InputError, match=r"not installed.*pip install \"depthfit\[perception\]\""):
        HubModel("facebook/sam-vit-huge").fetch(tmp_path)


def test_hub_out_of_reach_names_files_page_and_folder(tmp_path: Path, no_hub: Path) -> None:
    model = HubModel("facebook/sam-vit-huge")
    assert model.find(tmp_path / "models") is None
    with pytest.raises(InputError) as caught:
        model.fetch(tmp_path / "models")
    message = str(caught.value)
    for words in (
        f"{CONFIG}, {PROCESSOR}, {WEIGHTS}",
        "https://huggingface.co/facebook/sam-vit-huge",
        str(tmp_path / "models" / "sam-vit-huge"),
        "cannot be reached",
    ):
        assert words in message


def test_a_folder_that_lacks_files_names_them(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / FOLDERS["masks"], tmp_path / "sam")
    (tmp_path / "sam" / WEIGHTS).unlink()
    with pytest.raises(InputError, match=f"not there: {WEIGHTS}"):
        HubModel(str(tmp_path / "sam")).find(models)
    with pytest.raises(InputError, match="no such folder"):
        HubModel(str(tmp_path / "other")).fetch(models)


def test_weights_cut_short(models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sam"
    shutil.copytree(models / FOLDERS["masks"], folder)
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"weights: cannot be loaded.*Fetch the files"):
        load_network("SamModel", folder, CPU)


def test_a_config_that_is_none(models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sam"
    shutil.copytree(models / FOLDERS["masks"], folder)
    (folder / CONFIG).write_text("{")
    with pytest.raises(InputError, match="cannot be loaded"):
        load_network("SamModel", folder, CPU)
    (folder / PROCESSOR).write_text("{")
    with pytest.raises(InputError, match=PROCESSOR):
        load_processor("SamImageProcessor", folder)


def test_no_part_of_a_network_stays_random(models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pose"
    shutil.copytree(models / FOLDERS["keypoints"], folder)
    weights = load_file(folder / WEIGHTS)
    del weights["head.conv.weight"]
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacking, or of another shape: head\.conv\.weight"):
        load_network("VitPoseForPoseEstimation", folder, CPU)


def test_weights_of_another_network(models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(models / FOLDERS["masks"], folder)
    shutil.copy(models / FOLDERS["keypoints"] / WEIGHTS, folder / WEIGHTS)
    with pytest.raises(InputError, match="lacking"):
        load_network("SamModel", folder, CPU)


def test_a_config_of_another_size(models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pose"
    shutil.copytree(models / FOLDERS["keypoints"], folder)
    config = json.loads((folder / CONFIG).read_text())
    config["backbone_config"]["hidden_size"] = 32
    (folder / CONFIG).write_text(json.dumps(config))
    with pytest.raises(InputError, match="weights"):
        load_network("VitPoseForPoseEstimation", folder, CPU)


def test_a_detector_that_knows_no_people(tmp_path: Path) -> None:
    write_tiny(tmp_path, "detector", id2label={0: "cat", 1: "dog"})
    with pytest.raises(InputError, match="no class 'person' among 2"):
        PersonDetector.load(tmp_path / FOLDERS["detector"], CPU)


def test_a_head_of_other_points(tmp_path: Path) -> None:
    write_tiny(tmp_path, "keypoints", num_labels=21)
    with pytest.raises(InputError, match="a head of 21 points"):
        PoseEstimator.load(tmp_path / FOLDERS["keypoints"], CPU)


def test_a_class_that_an_old_version_lacks() -> None:
    with pytest.raises(InputError, match=r"does not have it\. Run pip install -U"):
        transformers_class("NoSuchNetwork")
