"""Public data sets with ground truth: readers of their own file formats, and scene folders made of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from depthfit.datasets.coco import Coco
from depthfit.datasets.emdb import EMDB
from depthfit.datasets.label_files import Bedlam, HumanData, TokenHMR3DPW
from depthfit.datasets.labels import Bodies, Reader
from depthfit.datasets.threedpw import ThreeDPW
from depthfit.errors import InputError, check_choice

WITH_LABEL_FILE: dict[str, Callable[[Path, Path, Bodies, int], Reader]] = {
    "3dpw-tokenhmr": TokenHMR3DPW,
    "bedlam": Bedlam,
    "humandata": HumanData,
}
PROTOCOLS = {
    "3dpw": ("tokenhmr14", "h36m14"),
    "3dpw-tokenhmr": ("tokenhmr14", "h36m14"),
    "emdb": ("emdb24", "tokenhmr-emdb24"),
    "bedlam": ("smpl24",),
    "humandata": ("smpl24",),
    "coco": ("image2d",),
}
"""Data sets, and the protocols in which their results are usually given."""
SPLITS = {"3dpw": "test", "emdb": "emdb1"}
"""The split that is read if none is named, and of which published figures are."""
DETECTIONS_ARE_LABELS = ("3dpw-tokenhmr",)
"""Data sets whose 2D detections are all the 2D labels that they have."""


@dataclass(frozen=True)
class DatasetSource:
    """Where a data set is, and which part of it is read.

    Attributes:
        name: One of ``PROTOCOLS``.
        root: Its folder (of the images, where labels are a file).
        labels: The file of labels (for BEDLAM also their folder), where the data set has one.
        split: 3dpw: train, validation, test; emdb: emdb1, emdb2. ``None`` takes test, emdb1.
        every: Take every so many frames.
    """

    name: str
    root: Path
    labels: Path | None = None
    split: str | None = None
    every: int = 1


def open_dataset(source: DatasetSource, bodies: Bodies) -> Reader:
    """The reader of a data set; ``bodies`` gives SMPL by gender.

    Raises:
        InputError: There is no such data set, or its labels are not named.
    """
    name, root, every = source.name, source.root, source.every
    check_choice("command line", "data set", name, PROTOCOLS)
    if name == "3dpw":
        return ThreeDPW(root, bodies, source.split or SPLITS[name], every)
    if name == "emdb":
        return EMDB(root, bodies, source.split or SPLITS[name], every)
    if source.labels is None:
        raise InputError(
            "command line", "labels", "not given", f"{name} needs its file of labels: labels=..."
        )
    if name == "coco":
        return Coco(root, source.labels, every)
    return WITH_LABEL_FILE[name](root, source.labels, bodies, every)
