"""Where a fit starts from: initialisers, reached by name through one registry.

An initialiser is a function ``(evidence, context) -> list[Prediction]``: the people of one image. A regressor
is a large network that is better run over a whole folder at once: a run has it write the scene's
predictions.npz first, and then starts from those.
"""

from __future__ import annotations

from collections.abc import Callable

from baselines.context import InitContext
from baselines.hmr.release import Release
from baselines.hmr2 import HMR2
from baselines.keypoints import from_keypoints
from baselines.predictions import foreign_betas, from_predictions
from baselines.tokenhmr import TOKENHMR
from depthfit.errors import InputError
from depthfit.evidence.scene import ImageEvidence
from depthfit.fit.adapter import Prediction

Initialiser = Callable[[ImageEvidence, InitContext], list[Prediction]]
REGRESSORS: dict[str, Release] = {release.name: release for release in (TOKENHMR, HMR2)}
INITIALISERS: dict[str, Initialiser] = {
    "predictions": from_predictions,
    "keypoints": from_keypoints,
    **dict.fromkeys(REGRESSORS, from_predictions),
}


def initialiser(name: str) -> Initialiser:
    """The initialiser of that name.

    Raises:
        InputError: There is none.
    """
    if name not in INITIALISERS:
        raise InputError("init", "name", repr(name), f"Use one of: {', '.join(INITIALISERS)}.")
    return INITIALISERS[name]


__all__ = ["INITIALISERS", "REGRESSORS", "InitContext", "Initialiser", "foreign_betas", "initialiser"]
