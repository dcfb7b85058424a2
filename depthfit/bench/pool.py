"""Make and fit parts of a benchmark in several processes; what is done is not done again."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

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


def run_parts(work: Sequence[tuple[Part, Sequence[str]]], job: Job, workers: int) -> None:
    """Make every part's scene where it is missing, and fit it in the ways named beside it.

    Args:
        work: Parts with names of fits.
        job: The rest.
        workers: Processes; with one, all is done in this one.
    """
    todo = [(part, [k for k in keys if not job.fits(part, k).is_file()]) for part, keys in work]
    todo = [(part, keys) for part, keys in todo if keys]
    if workers <= 1:
        for part, keys in track(todo, description="Fitting"):
            do_part(part, keys, job)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread) as pool:
        futures = [pool.submit(do_part, part, keys, job) for part, keys in todo]
        for future in track(as_completed(futures), total=len(futures), description="Fitting"):
            future.result()


def do_part(part: Part, keys: Sequence[str], job: Job) -> None:
    """Make and fit one part."""
    folder = job.scene(part)
    if not folder.is_dir():
        make_scene(part.scene, folder, progress=False)
    bench = _workbench(job)
    scene = read_scene(folder, part.scene.keypoint_format)
    images = bench.read(scene, scene.names)
    for key in keys:
        rows, _ = bench.fit(FITS[key], images)
        write_rows(job.fits(part, key), rows, {})


def _workbench(job: Job) -> Workbench:
    name = repr(job)
    if name not in _BENCH:
        _BENCH.clear()
        _BENCH[name] = Workbench(job.fit, choose_device(job.device), job.seed)
    return _BENCH[name]


def _one_thread() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
