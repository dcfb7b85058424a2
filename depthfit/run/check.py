"""``depthfit check``: which models of others are here, whether they can be used, and what needs them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from baselines import REGRESSORS
from baselines.hmr.release import MEAN_PARAMS, TOKENIZER, RegressorFiles, Release, find_files, load_regressor
from depthfit.body.load import SMPL_VERTICES, load_body
from depthfit.errors import InputError
from depthfit.evaluation.protocol import read_regressor
from depthfit.evidence.files import npz_array, open_npz
from depthfit.perception import depth_pro, detector, sam, vitpose
from depthfit.perception.batches import free_memory
from depthfit.perception.hub import HUB, HubModel, load_network, load_processor
from depthfit.tokens.load import load_tokenizer

CPU = torch.device("cpu")
OWN_CACHE = Path.home() / ".cache" / "4DHumans"
"""Where 4D-Humans' own program keeps its files, SMPL's neutral one among them."""


@dataclass
class CheckConfig:
    """Settings of ``depthfit check``.

    Attributes:
        folder: Where models that were fetched by hand are looked for, at any depth.
        load: Also read every file that is found in full. False only says what is there.
    """

    folder: str = "models"
    load: bool = True


@dataclass(frozen=True)
class Asset:
    """A model of somebody else.

    Attributes:
        name: Its file, or its name on the hub.
        purpose: What it is for.
        places: Where it is looked for.
        page: Where its owners give it.
        licence: Theirs, in short; the page has its words.
        without: What works without it.
        find: The file or folder here, or ``None``.
        load: Reads it; raises InputError if it cannot be used.
    """

    name: str
    purpose: str
    places: str
    page: str
    licence: str
    without: str
    find: Callable[[], Path | None]
    load: Callable[[Path], object]


@dataclass(frozen=True)
class AssetState:
    """What was found of an asset: the path, and what is wrong with it; ``None`` where nothing is."""

    asset: Asset
    path: Path | None
    fault: str | None


def check_assets(config: CheckConfig) -> list[AssetState]:
    """Look for every asset, and read what is there, one after another."""
    return [_state(asset, config.load) for asset in assets(Path(config.folder))]


def assets(folder: Path) -> list[Asset]:
    """All assets, as they are looked for below ``folder``."""
    bodies = [_smpl(folder, gender) for gender in ("neutral", "male", "female")]
    regressors = [_regressor(folder, release) for release in REGRESSORS.values()]
    return [
        *bodies,
        *regressors,
        _tokenizer(folder),
        _mean_person(folder),
        *_joint_regressors(folder),
        *_networks(folder),
    ]


def report(states: list[AssetState], config: CheckConfig) -> str:
    """The states in words."""
    lines = []
    for state in states:
        asset = state.asset
        if state.fault is not None:
            found = f"cannot be used: {state.fault}"
        elif state.path is None:
            found = "not found"
        else:
            found = f"{'well-formed' if config.load else 'found'}: {state.path}"
        lines += [
            f"{asset.name}: {found}",
            f"    for          {asset.purpose}",
            f"    looked for   {asset.places}",
            f"    owner        {asset.page}",
            f"    licence      {asset.licence}",
            f"    without it   {asset.without}",
        ]
    lines += ["", *_packages()]
    usable = sum(state.path is not None and state.fault is None for state in states)
    return "\n".join([*lines, "", f"{usable} of {len(states)} are here. None is needed for the demo."])


def _state(asset: Asset, load: bool) -> AssetState:
    path = None
    try:
        path = asset.find()
        if path is not None and load:
            asset.load(path)
    except InputError as error:
        return AssetState(asset, path, str(error))
    finally:
        free_memory(CPU)
    return AssetState(asset, path, None)


def _below(name: str, *folders: Path) -> Path | None:
    """The first file of that name in or below folders."""
    return next((path for folder in folders for path in sorted(folder.rglob(name))), None)


def _smpl(folder: Path, gender: str) -> Asset:
    name = f"SMPL_{gender.upper()}.pkl"
    page = "https://smpl.is.tue.mpg.de" if gender != "neutral" else "https://smplify.is.tue.mpg.de"
    purpose = (
        "SMPL results instead of the open body's: models.body=FILE, or configs/smpl.yaml and models/smpl/"
    )
    if gender != "neutral":
        purpose = f"true bodies of {gender} people in 3DPW, EMDB and the like (PVE): eval"
    return Asset(
        name,
        purpose,
        f"{folder}/**/{name}, {OWN_CACHE}/**/{name}",
        page,
        "SMPL model licence: non-commercial research; registration",
        "the open body, and every command but scoring of SMPL data sets",
        lambda: _below(name, folder, OWN_CACHE),
        lambda path: load_body(path),
    )


def _regressor(folder: Path, release: Release) -> Asset:
    def load(_: Path) -> object:
        return load_regressor(release, find_files(release, RegressorFiles(folder=str(folder))), CPU)

    def find() -> Path | None:
        return _below(release.checkpoint, folder, *([release.home] if release.home else []))

    licence = "non-commercial research (MPI)" if release.tokens else "MIT for the code; its body is SMPL"
    also = " with tokenizer.pth" if release.tokens else ""
    return Asset(
        f"{release.title} ({release.checkpoint}, model_config.yaml{also})",
        f"predictions to start a fit from: init={release.name}",
        f"{folder}/**" + (f", {release.home}/**" if release.home else ""),
        release.page,
        licence,
        "init=keypoints, the other regressor, or any predictions.npz",
        find,
        load,
    )


def _tokenizer(folder: Path) -> Asset:
    return Asset(
        TOKENIZER,
        "what TokenHMR's tokens stand for: init=tokenhmr, and models.tokenizer=FILE",
        f"{folder}/**/{TOKENIZER}",
        REGRESSORS["tokenhmr"].page,
        "non-commercial research (MPI)",
        "the open tokenizer",
        lambda: _below(TOKENIZER, folder),
        lambda path: load_tokenizer(path),
    )


def _mean_person(folder: Path) -> Asset:
    def load(path: Path) -> object:
        with open_npz(path) as archive:
            return [npz_array(path, archive, field) for field in ("pose", "shape", "cam")]

    return Asset(
        MEAN_PARAMS,
        "the mean person of a regressor's checkpoint that does not hold it",
        f"{folder}/**/{MEAN_PARAMS}, {OWN_CACHE}/**/{MEAN_PARAMS}",
        REGRESSORS["hmr2"].page,
        "as HMR2.0",
        "the released checkpoints, which hold it",
        lambda: _below(MEAN_PARAMS, folder, OWN_CACHE),
        load,
    )


def _joint_regressors(folder: Path) -> list[Asset]:
    def asset(name: str, source: str, purpose: str, release: str) -> Asset:
        return Asset(
            name,
            f"eval with regressors.{source}=FILE: {purpose}",
            f"{folder}/**/{name}, {OWN_CACHE}/**/{name}",
            REGRESSORS[release].page,
            "as SMPL",
            "the protocols that take joints from the body itself",
            lambda: _below(name, folder, OWN_CACHE),
            lambda path: read_regressor(path, source, SMPL_VERTICES),
        )

    return [
        asset("SMPL_to_J19.pkl", "j19", "3DPW's 14 joints as TokenHMR and HMR2.0 score them", "hmr2"),
        asset("J_regressor_h36m.npy", "h36m", "Human3.6M's 14 joints", "tokenhmr"),
    ]


def _networks(folder: Path) -> list[Asset]:
    def network(
        title: str, model: HubModel, cls: str, processor: str | None, purpose: str, licence: str, without: str
    ) -> Asset:
        def load(path: Path) -> None:
            load_network(cls, path, CPU)
            if processor is not None:
                load_processor(processor, path)

        return Asset(
            f"{title} ({model.name})",
            purpose,
            f"{model.place(folder)}, the hub's cache",
            f"{HUB}/{model.name}",
            licence,
            without,
            lambda: model.find(folder),
            load,
        )

    return [
        _depth_pro(folder),
        network(
            "ViTPose++ huge",
            HubModel(vitpose.REPO),
            "VitPoseForPoseEstimation",
            "VitPoseImageProcessor",
            "2D keypoints: prepare",
            "Apache-2.0",
            "keypoints.source=FILE: OpenPose, AlphaPose or COCO",
        ),
        network(
            "RT-DETR R50",
            HubModel(detector.REPO),
            "RTDetrForObjectDetection",
            "RTDetrImageProcessor",
            "people's boxes: prepare",
            "Apache-2.0",
            "boxes.source=FILE, or boxes from keypoints that are given",
        ),
        network(
            "SAM ViT-H",
            HubModel(sam.REPO),
            "SamModel",
            "SamImageProcessor",
            "people's masks: prepare",
            "Apache-2.0",
            "the fit takes the depth map's edges; masks.source=depth, or masks/ by others",
        ),
    ]


def _depth_pro(folder: Path) -> Asset:
    def find() -> Path | None:
        found = depth_pro.find_depth_pro(depth_pro.REPO, folder)
        return None if found is None else found[1]

    return Asset(
        f"Depth Pro ({depth_pro.REPO}, or {depth_pro.PACKAGE_FILE} with the package depth_pro)",
        "metric depth and focal length: prepare",
        f"{depth_pro.hub_model().place(folder)}, the hub's cache, {folder / depth_pro.PACKAGE_FILE}",
        f"{HUB}/{depth_pro.REPO}, {depth_pro.PACKAGE_PAGE}",
        "Apple's model licence: research",
        "depth/ by any other estimator, or no depth: depth.source=none",
        find,
        lambda path: depth_pro.load_depth_pro(str(path), folder, CPU),
    )


def _packages() -> list[str]:
    """Which optional packages are installed."""
    lines = []
    for module, purpose in (
        ("transformers", 'the networks of prepare: pip install "depthfit[perception]"'),
        ("depth_pro", f"Depth Pro by its owners: {depth_pro.PACKAGE_PAGE}"),
        ("pytorch3d", "a second backend of the rasteriser"),
        ("OpenEXR", 'depth in EXR files: pip install "depthfit[exr]"'),
    ):
        if importlib.util.find_spec(module) is None:
            lines.append(f"package {module}: not installed ({purpose})")
        else:
            lines.append(f"package {module}: {importlib.metadata.version(module)} ({purpose})")
    return lines
