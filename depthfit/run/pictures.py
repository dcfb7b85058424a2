"""Overlays and meshes of a fitted image."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch

from depthfit.evidence.scene import ImageEvidence
from depthfit.export import write_glb, write_obj
from depthfit.fit.adapter import Prediction
from depthfit.fit.fitter import Fitter
from depthfit.fit.result import BodyResult, PersonFit
from depthfit.joints import KEYPOINTS
from depthfit.report.bodies import PersonView
from depthfit.report.drawing import OverlayJob
from depthfit.report.overlay import DepthView
from depthfit.report.summary import PersonSummary


def person_summary(
    name: str, person: int, fit: PersonFit, mpjpe: tuple[float, float] | None
) -> PersonSummary:
    """The person in words and numbers, for pictures and tables."""
    known = np.isfinite(fit.focal_std_log)
    has_depth = np.isfinite(fit.depth_residual[1]) and fit.depth_residual[1] > 0
    return PersonSummary(
        name=f"{name} #{person}",
        status=fit.status,
        accepted=fit.accepted,
        focal=(fit.initial.focal, fit.refined.focal),
        focal_std_log=fit.focal_std_log if known else None,
        distance=(float(fit.initial.transl[2]), float(fit.refined.transl[2])),
        distance_std_log=fit.distance_std_log if known else None,
        reprojection=fit.reprojection if np.isfinite(fit.reprojection[1]) else None,
        depth_residual=fit.depth_residual if has_depth else None,
        mpjpe=mpjpe,
    )


def overlay_path(out: Path, name: str) -> Path:
    """Where the overlay of an image goes."""
    return out / "overlays" / f"{name}.png"


def overlay_job(
    out: Path, evidence: ImageEvidence, fitter: Fitter, predictions: list[Prediction], fits: list[PersonFit]
) -> OverlayJob:
    """What ``overlays/NAME.png`` is to be drawn from."""
    depth = None
    if evidence.depth is not None:
        focal = evidence.depth.focal_px
        refined = fits[0].refined.focal
        # A metric map has no focal of its own: under the refined one it reads as it is.
        depth = DepthView(
            evidence.depth.metres, refined if focal is None else focal, fits[0].log_scale, evidence.labels
        )
    return OverlayJob(
        overlay_path(out, evidence.name),
        evidence.path,
        fitter.body.faces.cpu(),
        [_view(fitter, f.initial, p) for f, p in zip(fits, predictions, strict=True)],
        [_view(fitter, f.refined, p) for f, p in zip(fits, predictions, strict=True)],
        [person_summary(evidence.name, p.person, f, None) for f, p in zip(fits, predictions, strict=True)],
        KEYPOINTS,
        depth,
    )


def write_meshes(
    out: Path, name: str, fitter: Fitter, predictions: list[Prediction], fits: list[PersonFit]
) -> None:
    """Write ``NAME_k.obj`` and ``NAME_k.glb`` of every refined body, camera frame."""
    faces = fitter.body.faces.cpu()
    for prediction, fit in zip(predictions, fits, strict=True):
        vertices = torch.from_numpy(fitter.vertices(fit.refined))
        write_obj(out / f"{name}_{prediction.person}.obj", vertices, faces)
        write_glb(out / f"{name}_{prediction.person}.glb", vertices, faces)


def meshes_of(out: Path, names: Collection[str]) -> list[Path]:
    """Files that :func:`write_meshes` wrote of these images."""
    meshes = [path for path in out.glob("*_*") if path.suffix in (".obj", ".glb")] if out.is_dir() else []
    found = [(path, re.fullmatch(r"(.+)_\d+", path.stem)) for path in meshes]
    return [path for path, match in found if match is not None and match[1] in names]


def _view(fitter: Fitter, body: BodyResult, prediction: Prediction) -> PersonView:
    detection = prediction.detection
    shape = body.keypoints_2d.shape
    xy = np.full(shape, np.nan) if detection is None else detection.xy
    confidence = np.zeros(shape[0]) if detection is None else detection.confidence
    K = [[body.focal, 0, body.center[0]], [0, body.focal, body.center[1]], [0, 0, 1]]
    return PersonView(
        torch.from_numpy(fitter.vertices(body)),
        torch.tensor(K, dtype=torch.float32),
        torch.from_numpy(body.keypoints_2d),
        torch.from_numpy(xy).float(),
        torch.from_numpy(confidence).float(),
    )
