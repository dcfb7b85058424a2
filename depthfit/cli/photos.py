"""``depthfit run``: from a folder of photographs to fits, ``prepare`` and ``fit`` in one."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from depthfit.cli.fit import report
from depthfit.cli.help import lacks_names, settings, wants_help
from depthfit.cli.prepare import print_summary, stage_line
from depthfit.errors import InputError
from depthfit.run import RunConfig, fit_scene, load_config
from depthfit.run.device import choose_device, peak_memory, start_peak
from depthfit.run.prepare import PrepareConfig, prepare_scene
from depthfit.run.prepare.config import KEYPOINTS
from depthfit.run.prepare.state import StageReport


@dataclass
class PhotosConfig:
    """Settings of ``depthfit run``.

    Attributes:
        init: What the fit starts from: keypoints, tokenhmr or hmr2.
        folder: Where models that were fetched by hand are looked for.
        device: ``auto``, ``cpu`` or ``cuda``.
        overwrite: Do again what is done.
        prepare: Settings of ``depthfit prepare``.
        fit: Settings of ``depthfit fit``.
    """

    init: str = KEYPOINTS
    folder: str = "models"
    device: str = "auto"
    overwrite: bool = False
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    fit: RunConfig = field(default_factory=RunConfig)


USAGE = """usage: depthfit run IMAGES OUT [init=keypoints|tokenhmr|hmr2] [config.yaml] [key=value ...]

Prepares IMAGES into OUT/scene and fits them into OUT: fits.npz, summary.json, config.yaml, overlays/.
Settings of the two halves are those of depthfit prepare and depthfit fit behind prepare. and fit., as in
prepare.depth.source=none or fit.output.mesh=true.

settings and their defaults:
"""
SHARED = ("init", "device", "overwrite")


def run(arguments: Sequence[str]) -> int:
    """Prepare and fit; exit status 1 if an image was left out."""
    if wants_help(arguments) or not arguments:
        print(USAGE + settings(PhotosConfig))
        return 0
    if lacks_names(arguments, "run", ("IMAGES", "OUT")):
        return 2
    config = _halves(load_config(arguments[2:], PhotosConfig), Path(arguments[1]))
    prepared = prepare_scene(arguments[0], str(config.fit.scene), config.prepare)
    print_summary(prepared)
    if prepared.keypoint_format is not None:
        config.fit.keypoints.format = prepared.keypoint_format
    began, device = time.perf_counter(), choose_device(config.device)
    start_peak(device)
    result = fit_scene(config.fit)
    seconds, source = time.perf_counter() - began, f"{len(result.rows)} people"
    done = result.summary["images"] - len(result.skipped)
    print(stage_line(StageReport("fit", source, done, 0, seconds, peak_memory(device))))
    report(Console(width=None if sys.stdout.isatty() else 140), result, config.fit)
    return 1 if prepared.left_out or result.skipped else 0


def _halves(config: PhotosConfig, out: Path) -> PhotosConfig:
    """The settings of both halves, with those that they share and the folders between them."""
    defaults = PhotosConfig()
    for part, half in (("prepare", config.prepare), ("fit", config.fit)):
        for name in (*SHARED, *(("folder",) if part == "prepare" else ())):
            if getattr(half, name) != getattr(getattr(defaults, part), name):
                fix = f"Both halves share it: write {name}=... without {part}."
                raise InputError("command line", f"{part}.{name}", repr(getattr(half, name)), fix)
            setattr(half, name, getattr(config, name))
    if config.fit.scene is not None:
        fix = "The scene is OUT/scene; name OUT on the command line."
        raise InputError("command line", "fit.scene", config.fit.scene, fix)
    config.fit.init = KEYPOINTS if config.init == KEYPOINTS else "predictions"
    config.fit.scene, config.fit.output.dir = str(out / "scene"), str(out)
    return config
