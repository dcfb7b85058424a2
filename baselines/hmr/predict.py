"""From crops of many people to ``predictions.npz``, in batches."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
import torch

from baselines.hmr.crop import Crop
from baselines.hmr.regressor import Regressor
from depthfit.evidence.predictions import Predictions
from depthfit.evidence.token_probs import TOKEN_SHAPE

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Person:
    """One person to predict: the image file's name, a number from 1, and the crop."""

    imgname: str
    person: int
    crop: Crop


class PredictionTable:
    """Predictions that grow batch by batch. Token probabilities wait in a file: they are 0.65 MB a person."""

    def __init__(self, regressor: Regressor, name: str, folder: Path) -> None:
        self.regressor, self.name = regressor, name
        self._columns: dict[str, list[np.ndarray]] = {}
        self._people: list[Person] = []
        self._spool: IO[bytes] | None = None
        if regressor.tokenizer is not None:
            self._spool = TemporaryFile(dir=folder)  # noqa: SIM115 - closed by ``close``

    def __enter__(self) -> PredictionTable:
        return self

    def __exit__(self, *_: object) -> None:
        if self._spool is not None:
            self._spool.close()

    def __len__(self) -> int:
        return len(self._people)

    def add(self, people: list[Person]) -> None:
        """Predict a batch. People whose camera does not look at them are left out, with a warning."""
        crops = np.stack([person.crop.pixels for person in people])
        output = self.regressor(torch.from_numpy(crops).to(self.regressor.device))
        scale = output.camera[:, 0]
        usable = scale.isfinite() & (scale > 0) & output.pose.flatten(1).isfinite().all(1)
        for person, good in zip(people, usable.tolist(), strict=True):
            if not good:
                _log.warning("%s: person %d left out: no usable prediction", person.imgname, person.person)
        output = output[usable]
        self._people += [p for p, good in zip(people, usable.tolist(), strict=True) if good]
        columns = {"pred_cam": output.camera, "root": output.root, "pose": output.pose, "betas": output.betas}
        for field, values in columns.items():
            self._columns.setdefault(field, []).append(values.cpu().numpy())
        if self._spool is not None:
            assert output.token_probs is not None
            self._spool.write(output.token_probs.half().cpu().numpy().tobytes())

    def predictions(self) -> Predictions:
        """All people so far; the token probabilities are mapped from the waiting file."""
        columns: dict[str, Any] = {field: np.concatenate(parts) for field, parts in self._columns.items()}
        probs = None
        if self._spool is not None:
            self._spool.flush()
            probs = np.memmap(self._spool, np.float16, "r", shape=(len(self), *TOKEN_SHAPE))
        return Predictions(
            imgname=np.array([p.imgname for p in self._people]),
            person=np.array([p.person for p in self._people]),
            box_center=np.stack([p.crop.center for p in self._people]),
            box_size=np.array([p.crop.size for p in self._people], np.float32),
            token_probs=probs,
            regressor=self.name,
            **columns,
        )


def batched(people: Iterable[Person], size: int) -> Iterator[list[Person]]:
    """Lists of up to ``size`` people."""
    source = iter(people)
    while batch := list(islice(source, size)):
        yield batch
