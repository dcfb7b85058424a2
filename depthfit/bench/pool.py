"""Make and fit parts of a benchmark in several processes; what is done is not done again."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import torch
from rich.progress import track

from depthfit.bench.fitting import Workbench
from depthfit.bench.splits import Part
from depthfit.bench.variants import FITS
from depthfit.evidence.scene import read_scene
from depthfit.fit.config import FitConfig
from depthfit.run.device import choose_device
from depthfit.run.output import write_rows
from depthfit.synth import make_scene


@dataclass(frozen=True)
class Job:
    """What is done with every part.

    Attributes:
        out: Folder; scenes and fits of a part lie in a folder of its name.
        fit: Settings that all fits start from.
        device: Where to compute.
        seed: Of the initialiser.
    """

    out: str
    fit: FitConfig = field(default_factory=FitConfig)
    device: str = "auto"
    seed: int = 1

    def scene(self, part: Part) -> Path:
        """Folder of the part's scene."""
        return Path(self.out) / part.name / "scene"

    def fits(self, part: Part, key: str) -> Path:
        """fits.npz of the part under the fit ``key``."""
        return Path(self.out) / part.name / f"{key}.npz"


_BENCH: dict[str, Workbench] = {}
"""One a process: body, tokenizer and fitters are made once."""


Work = Sequence[tuple[Part, Sequence[str]]]


def make_parts(parts: Sequence[Part], job: Job, workers: int) -> None:
    """Make the scenes that are missing, in ``workers`` processes (one: in this one)."""
    todo = [part for part in parts if not job.scene(part).is_dir()]
    _each(_make, [(part, job) for part in todo], workers, "Making scenes")


def fit_parts(work: Work, job: Job, workers: int, batch: int) -> None:
    """Fit parts in the ways named beside them, ``batch`` or more people at once, in ``workers`` processes."""
    todo = [(part, tuple(k for k in keys if not job.fits(part, k).is_file())) for part, keys in work]
    groups: list[tuple[list[Part], tuple[str, ...]]] = []
    room = 0
    for part, keys in todo:
        if not keys:
            continue
        if room <= 0 or groups[-1][1] != keys:
            groups.append(([], keys))
            room = batch
        groups[-1][0].append(part)
        room -= part.people
    _each(_fit, [(parts, keys, job) for parts, keys in groups], workers, "Fitting")


def _each(task: Callable[..., None], calls: Sequence[tuple[Any, ...]], workers: int, title: str) -> None:
    if workers <= 1:
        for call in track(calls, description=title):
            task(*call)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread) as pool:
        futures = [pool.submit(task, *call) for call in calls]
        for future in track(as_completed(futures), total=len(futures), description=title):
            future.result()


def _make(part: Part, job: Job) -> None:
    make_scene(part.scene, job.scene(part), progress=False)


def _fit(parts: Sequence[Part], keys: Sequence[str], job: Job) -> None:
    bench = _workbench(job)
    images = []
    for part in parts:
        scene = read_scene(job.scene(part), part.scene.keypoint_format)
        images.append(bench.read(scene, scene.names))
    for key in keys:
        rows, _ = bench.fit(FITS[key], [image for part in images for image in part])
        # Rows come in the order of the images; names repeat from part to part.
        rest = iter(rows)
        for part, own in zip(parts, images, strict=True):
            count = sum(len(image.people) for image in own)
            write_rows(job.fits(part, key), list(islice(rest, count)), {})


def _workbench(job: Job) -> Workbench:
    name = repr(job)
    if name not in _BENCH:
        _BENCH.clear()
        _BENCH[name] = Workbench(job.fit, choose_device(job.device), job.seed)
    return _BENCH[name]


def _one_thread() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
