"""Settings of a scoring, and the scoring they ask for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from depthfit.errors import InputError, check_choice
from depthfit.evaluation.errors import Scoring
from depthfit.evaluation.people import BodySet
from depthfit.evaluation.protocol import REGRESSOR_ROWS, protocol, read_regressor
from depthfit.evaluation.score import score
from depthfit.evidence.files import decode_image, read_bytes
from depthfit.evidence.mask import read_mask
from depthfit.report.score_report import overlays_beside, run_summary, stamp_of, write_report
from depthfit.run.prepare.config import KEYPOINTS

MATCHINGS = ("auto", "person", "overlap")


@dataclass
class RegressorFiles:
    """Joint regressors, for protocols that need one.

    Attributes:
        j19: SMPL_to_J19.pkl (or npy), (19, V): protocol tokenhmr14.
        h36m: J_regressor_h36m.npy, (17, V): protocol h36m14.
    """

    j19: str | None = None
    h36m: str | None = None


@dataclass
class EvalConfig:
    """Settings of ``depthfit eval FITS TRUTH``.

    Attributes:
        out: Folder of the tables; null is ``eval`` beside the fits.
        protocol: smpl24, tokenhmr14, h36m14, emdb24, tokenhmr-emdb24 or image2d.
        body: Pose both sides again with this body (open, a SMPL file, or a folder of SMPL_{GENDER}.pkl), the
            truth only where its meshes are not stored; null takes joints and vertices as they are stored.
        gender: Of the fit's body.
        true_body: Of the ground truth; null is the same.
        matching: auto (overlap when summary.json beside the fits says init: keypoints, else person), person
            (by number) or overlap (by keypoints in the image).
        masks: Folder of true masks NAME.png (0 = nobody, k = person k of the truth), for the IoU of
            silhouettes.
        regressors: Files of joint regressors.
    """

    out: str | None = None
    protocol: str = "smpl24"
    body: str | None = None
    gender: str = "neutral"
    true_body: str | None = None
    matching: str = "auto"
    masks: str | None = None
    regressors: RegressorFiles = field(default_factory=RegressorFiles)


def build_scoring(
    name: str,
    bodies: BodySet | None,
    regressors: RegressorFiles,
    matching: str,
    init: str | None,
    masks: Callable[[str], np.ndarray | None] | None = None,
) -> Scoring:
    """The scoring of protocol ``name``.

    Args:
        init: Of the fit, ``None`` = not recorded. Detectors number people in their own order, so that
            ``auto`` matches those of ``keypoints`` by overlap.

    Raises:
        InputError: There is no such protocol or matching, or what it needs is not named.
    """
    wanted, regressor = protocol(name), None
    check_choice("command line", "matching", matching, MATCHINGS)
    if matching == "auto":
        matching = "overlap" if init == KEYPOINTS else "person"
    if wanted.source in REGRESSOR_ROWS:
        path = regressors.j19 if wanted.source == "j19" else regressors.h36m
        if path is None:
            fix = f"Protocol {name} needs a joint regressor: regressors.{wanted.source}=FILE."
            raise InputError("command line", f"regressors.{wanted.source}", "not given", fix)
        if bodies is None:
            fix = f"Protocol {name} regresses joints from meshes: name the body."
            raise InputError("command line", "body", "not given", fix)
        regressor = read_regressor(path, wanted.source, bodies.get().num_vertices)
    if wanted.source == "body" and bodies is None:
        fix = f"Protocol {name} regresses joints from meshes: name the body."
        raise InputError("command line", "body", "not given", fix)
    return Scoring(wanted, bodies, regressor, matching, masks)


def true_masks(folder: str) -> Path:
    """The folder, which must be there: of a name mistyped, nothing would be scored.

    Raises:
        InputError: It is not.
    """
    if not Path(folder).is_dir():
        raise InputError(folder, "masks", "no such folder", "Name the folder of true masks.")
    return Path(folder)


def mask_reader(folder: Path) -> Callable[[str], np.ndarray | None]:
    """Image name -> labels (H, W) of ``folder/NAME.png``, or ``None``."""

    def read(name: str) -> np.ndarray | None:
        path = folder / f"{Path(name).stem}.png"
        if not path.is_file():
            return None
        height, width = decode_image(path, read_bytes(path), cv2.IMREAD_UNCHANGED).shape[:2]
        return read_mask(path, (width, height))

    return read


def run_eval(fits_npz: str, truth_npz: str, config: EvalConfig) -> dict[str, object]:
    """Score a saved fit, write the report, and return the summary.

    Raises:
        InputError: A file or setting cannot be used.
    """
    bodies = None if config.body is None else BodySet(config.body, config.gender, config.true_body)
    masks = None if config.masks is None else mask_reader(true_masks(config.masks))
    fits = Path(fits_npz)
    init = run_summary(fits).get("init")
    scoring = build_scoring(config.protocol, bodies, config.regressors, config.matching, init, masks)
    scores = score(fits_npz, truth_npz, scoring)
    out = fits.parent / "eval" if config.out is None else Path(config.out)
    true_body = "as stored" if config.body is None else str(config.true_body or config.body)
    stamp = stamp_of(
        fits, str(truth_npz), config.protocol, true_body=true_body, matching=scores.summary["matching"]
    )
    write_report(out, scores, stamp, overlays_beside(fits))
    return scores.summary
