"""Where a fit starts from: initialisers, reached by name through one registry.

An initialiser is a function ``(evidence, context) -> list[Prediction]``: the people of one image.
"""

from __future__ import annotations

from collections.abc import Callable

from baselines.context import InitContext
from baselines.keypoints import from_keypoints
from baselines.predictions import from_predictions
from depthfit.errors import InputError
from depthfit.evidence.scene import ImageEvidence
from depthfit.fit.adapter import Prediction

Initialiser = Callable[[ImageEvidence, InitContext], list[Prediction]]
INITIALISERS: dict[str, Initialiser] = {"predictions": from_predictions, "keypoints": from_keypoints}


def initialiser(name: str) -> Initialiser:
    """The initialiser of that name.

    Raises:
        InputError: There is none.
    """
    if name not in INITIALISERS:
        raise InputError("init", "name", repr(name), f"Use one of: {', '.join(INITIALISERS)}.")
    return INITIALISERS[name]


__all__ = ["INITIALISERS", "InitContext", "Initialiser", "initialiser"]
