"""The stage that looks at images: depth where the source has none. It holds a network."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from depthfit.errors import InputError
from depthfit.evidence import cameras
from depthfit.evidence.depth import DepthMap
from depthfit.evidence.scene import ImageEvidence
from depthfit.perception.depth_pro import DepthEstimate, estimate_depth, load_depth_pro
from depthfit.pseudo.layout import cached_plan
from depthfit.pseudo.records import Chunk
from depthfit.pseudo.stages import Job, timed
from depthfit.run.device import choose_device
from depthfit.run.halving import HalvingFitter

_log = logging.getLogger(__name__)
KNOWN_CAMERAS = ("cameras.json", "exif", "cam_int")
"""Cameras whose focal length takes the place of the network's."""
LiveImage = tuple[np.ndarray, float | None]


class PerceiveStage:
    """Depth Pro's depth for images without a depth map.

    The images are read again here, which spares sending them from process to process.
    """

    name = "perceive"

    def __init__(self, job: Job) -> None:
        self.job = job
        settings = job.config.perceive
        network = load_depth_pro(settings.model, Path(settings.folder), choose_device(job.config.device))

        def compute(images: list[LiveImage]) -> list[DepthEstimate | str]:
            pixels, focals = zip(*images, strict=True)
            return estimate_depth(network, list(pixels), list(focals))

        self.halving: HalvingFitter[LiveImage, DepthEstimate | str] = HalvingFitter(compute)
        self.halving.limit = settings.batch

    def __call__(self, chunk: Chunk) -> Chunk:
        return timed(self.name, self._perceive, chunk)

    def _perceive(self, chunk: Chunk) -> None:
        plan = cached_plan(self.job.layout.plan(chunk.ref.unit))
        live: list[tuple[int, ImageEvidence, LiveImage]] = []
        for n, item in enumerate(chunk.items):
            if item.evidence is None or item.evidence.depth is not None:
                continue
            camera = item.evidence.camera
            focal = camera.focal_px if camera.source in KNOWN_CAMERAS else None
            try:
                live.append((n, item.evidence, (self.job.source.pixels(plan, item.key), focal)))
            except InputError as error:
                _log.warning("%s: no depth: %s", item.key, error)
        found = self.halving([image for _, _, image in live])
        for (n, evidence, _), estimate in zip(live, found, strict=True):
            if isinstance(estimate, str):
                # Depth that cannot be had is no evidence; the person's row tells that there was none.
                _log.warning("%s: no depth: %s", chunk.items[n].key, estimate)
            else:
                chunk.items[n].evidence = with_depth(evidence, estimate)


def with_depth(evidence: ImageEvidence, estimate: DepthEstimate) -> ImageEvidence:
    """The evidence with an estimated depth map, and with its focal where no better one is known."""
    height, width = estimate.metres.shape
    scale = np.array([width / evidence.size[0], height / evidence.size[1]])
    focal = estimate.focal_px / float(scale[0])
    depth = DepthMap(estimate.metres.astype(np.float32), scale, focal)
    known = evidence.camera.source != cameras.NOTHING_KNOWN
    camera = evidence.camera if known else cameras.depth_camera(focal, evidence.size)
    return replace(evidence, depth=depth, camera=camera)
