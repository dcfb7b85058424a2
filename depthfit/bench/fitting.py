"""Fit synthetic people in several ways: what is read once serves all of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from baselines import InitContext, initialiser
from depthfit.bench.variants import Variant
from depthfit.body.load import load_body
from depthfit.evidence.scene import ImageEvidence, Scene
from depthfit.fit.adapter import Prediction, image_input
from depthfit.fit.config import FitConfig
from depthfit.fit.fitter import Fitter
from depthfit.fit.inputs import ImageInput
from depthfit.run.output import person_row
from depthfit.tokens.load import load_tokenizer

Row = dict[str, Any]


@dataclass(frozen=True)
class ReadyImage:
    """An image's evidence, its people who have keypoints, and the true focal in px."""

    evidence: ImageEvidence
    people: list[Prediction]
    true_focal: float


class Workbench:
    """Body, tokenizer and one fitter for each way, shared by all images.

    Args:
        base: Settings that every way starts from.
        device: Where to compute.
        seed: Of the initialiser.
    """

    def __init__(self, base: FitConfig, device: torch.device, seed: int) -> None:
        self.base = base
        self.context = InitContext(load_body(), load_tokenizer(), base, device, seed)
        self.fitters: dict[Variant, Fitter] = {}

    def read(self, scene: Scene, names: Sequence[str]) -> list[ReadyImage]:
        """Images of a synthetic scene, with the simulated regressor's people; without people, left out."""
        focals = true_focals(scene.root / "ground_truth.npz")
        start, images = initialiser("predictions"), []
        for name in names:
            evidence = scene.read(name)
            people = [p for p in start(evidence, self.context) if p.detection is not None]
            if people:
                images.append(ReadyImage(evidence, people, focals[name]))
        return images

    def fit(
        self, variant: Variant, images: Sequence[ReadyImage], vertices: bool = False
    ) -> tuple[list[Row], float]:
        """Rows of fits.npz for everybody in ``images``, fitted as one batch, and the seconds that it took.

        Args:
            variant: The way.
            images: Of :meth:`read`.
            vertices: Put meshes into the rows.
        """
        config = self.fitter(variant).config
        evidence = [variant.evidence(image.evidence, image.true_focal) for image in images]
        inputs = [image_input(e, i.people, config) for e, i in zip(evidence, images, strict=True)]
        people = [(image.evidence.path.name, image.people) for image in images]
        return self.fit_inputs(variant, inputs, people, vertices)

    def fit_inputs(
        self,
        variant: Variant,
        inputs: list[ImageInput],
        people: Sequence[tuple[str, Sequence[Prediction]]],
        vertices: bool = False,
    ) -> tuple[list[Row], float]:
        """:meth:`fit` of inputs made before; ``people`` are their file names and predictions."""
        fitter = self.fitter(variant)
        began = time.perf_counter()
        fits = fitter.fit(inputs) if inputs else []
        seconds, rows = time.perf_counter() - began, list[Row]()
        for (name, predictions), results in zip(people, fits, strict=True):
            for prediction, result in zip(predictions, results, strict=True):
                row = person_row(name, prediction, result)
                if vertices:
                    row["vertices"] = fitter.vertices(result.refined)
                    row["initial_vertices"] = fitter.vertices(result.initial)
                rows.append(row)
        return rows, seconds

    def fitter(self, variant: Variant) -> Fitter:
        """The fitter of one way, made at its first use."""
        if variant not in self.fitters:
            body, tokenizer = self.context.body, self.context.tokenizer
            settings = variant.settings(self.base)
            self.fitters[variant] = Fitter(body, tokenizer, settings, self.context.device)
        return self.fitters[variant]


def true_focals(ground_truth: Path) -> dict[str, float]:
    """px of each image, by its name without ending."""
    with np.load(ground_truth) as data:
        return {Path(n).stem: float(f) for n, f in zip(data["imgname"], data["focal"], strict=True)}
