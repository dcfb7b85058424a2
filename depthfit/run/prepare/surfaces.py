"""How far things are and where people end: the stages that make depth maps and masks."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from depthfit.atomic import atomic_path
from depthfit.evidence.depth import DEPTH_SUFFIXES, read_depth
from depthfit.evidence.files import read_rgb
from depthfit.perception.batches import THREADS, in_threads
from depthfit.perception.depth_mask import depth_masks
from depthfit.perception.depth_pro import DepthEstimate, estimate_depth, load_depth_pro, write_depth
from depthfit.perception.hub import HubModel
from depthfit.perception.sam import PersonSegmenter
from depthfit.run.prepare.state import Preparation, StageReport

DEPTH, MASKS = "depth", "masks"
KNOWN_CAMERAS = ("cameras.json", "exif")
"""Cameras whose focal length takes the place of the depth network's."""
WAITING = 2 * THREADS
"""Depth maps that may wait to be written."""


def estimate_depths(run: Preparation) -> None:
    """``depth/NAME.npz`` of every image that has no depth file yet.

    Raises:
        InputError: Depth Pro cannot be had.
    """
    config = run.config.depth
    if config.source == "none":
        return

    def work(todo: list[str]) -> None:
        without = [name for name in todo if depth_file(run, name) is None]
        for name in set(todo) - set(without):
            run.records.write(DEPTH, name, {"made": False})
        if not without:
            return
        scene, focals = run.scene(), dict[str, float | None]()
        for name in without:
            with run.reporting(name):
                camera = scene.read(name).camera
                focals[name] = camera.focal_px if camera.source in KNOWN_CAMERAS else None
        network = load_depth_pro(config.model, run.models, run.device)

        def compute(names: list[str]) -> list[DepthEstimate | str]:
            images = in_threads(read_rgb, [scene.images[name] for name in names])
            return estimate_depth(network, images, [focals[name] for name in names])

        def write(name: str, estimate: DepthEstimate) -> None:
            write_depth(run.root / DEPTH / f"{name}.npz", estimate)
            run.records.write(DEPTH, name, {"made": True, "fov_degrees": estimate.fov_degrees})

        # Compressing a map takes longer than a GPU takes to make one.
        with ThreadPoolExecutor(THREADS) as pool:
            writing = deque[Future[None]]()
            for name, estimate in run.batches(list(focals), compute, "Depth"):
                if isinstance(estimate, str):
                    run.note(name, f"no depth: {estimate}")
                else:
                    writing.append(pool.submit(write, name, estimate))
                while len(writing) > WAITING:
                    writing.popleft().result()
            for written in writing:
                written.result()

    run.stage(DEPTH, config.source, {"model": config.model}, work)


def depth_file(run: Preparation, name: str) -> Path | None:
    """The image's depth map, whoever made it."""
    files = (run.root / DEPTH / f"{name}{suffix}" for suffix in DEPTH_SUFFIXES)
    return next((path for path in files if path.is_file()), None)


def segment_people(run: Preparation) -> None:
    """``masks/NAME.png`` of every image with people that has no mask yet; k = the k-th box.

    Raises:
        InputError: SAM was asked for and cannot be had.
    """
    config = run.config.masks
    source = config.source
    if source == "auto":
        source = "none" if HubModel(config.model).find(run.models) is None else "sam"
        if source == "none":
            words = "none: SAM is not here, the fit takes the depth map's edges"
            run.summary.stages.append(StageReport(MASKS, words, 0, 0, 0.0))
    if source == "none":
        return

    def work(todo: list[str]) -> None:
        for name in todo:
            if _mask_file(run, name).is_file():
                run.records.write(MASKS, name, {"made": False})
        todo = [name for name in todo if not _mask_file(run, name).is_file()]
        peopled = [name for name in todo if len(run.found(name).boxes)]
        for name in set(todo) - set(peopled):
            run.records.write(MASKS, name, {"made": True, "pixels": []})
        if peopled:
            (_by_sam if source == "sam" else _by_depth)(run, peopled)

    settings = {"model": config.model} if source == "sam" else {"depth": run.config.depth.source}
    run.stage(MASKS, source, settings, work)


def _by_sam(run: Preparation, todo: list[str]) -> None:
    files = run.scene().images
    segmenter = PersonSegmenter.load(HubModel(run.config.masks.model).fetch(run.models), run.device)

    def compute(names: list[str]) -> list[np.ndarray]:
        people = [run.found(name) for name in names]
        images = in_threads(read_rgb, [files[name] for name in names])
        return segmenter(images, [p.boxes for p in people], [p.people or () for p in people])

    for name, labels in run.batches(todo, compute, "Masks"):
        _write(run, name, labels)


def _by_depth(run: Preparation, todo: list[str]) -> None:
    files = run.scene().images

    def compute(names: list[str]) -> list[np.ndarray | None]:
        return [_depth_labels(run, name, files[name]) for name in names]

    for name, labels in run.batches(todo, compute, "Masks"):
        if labels is not None:
            _write(run, name, labels)


def _depth_labels(run: Preparation, name: str, image: Path) -> np.ndarray | None:
    path = depth_file(run, name)
    if path is None:
        run.note(name, "no mask: it is made from the depth map, and there is none")
        return None
    height, width = read_rgb(image).shape[:2]
    with run.reporting(name):
        depth = read_depth(path, (width, height))
        return depth_masks(depth, run.found(name).people or (), (width, height))
    return None


def _write(run: Preparation, name: str, labels: np.ndarray) -> None:
    """A mask file, unless nobody was found in the image; and who was not."""
    pixels = [int((labels == k).sum()) for k in range(1, len(run.found(name).boxes) + 1)]
    for k, count in enumerate(pixels, start=1):
        if not count:
            run.note(name, f"no mask of person {k}: nothing at that person's place stands out")
    if any(pixels):
        ok, data = cv2.imencode(".png", labels)
        if not ok:
            raise OSError(f"OpenCV could not encode the mask of {name}")
        with atomic_path(_mask_file(run, name)) as temporary:
            temporary.write_bytes(data.tobytes())
    run.records.write(MASKS, name, {"made": True, "pixels": pixels})


def _mask_file(run: Preparation, name: str) -> Path:
    return run.root / MASKS / f"{name}.png"
