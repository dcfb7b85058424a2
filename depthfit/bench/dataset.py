"""``depthfit eval DATASET``: scenes of a public data set, fitted and scored, baseline and refined together.

Everything is kept and gone on from: scenes/ (linked images, labels), fits/ (one output folder a scene), and
eval/PROTOCOL/ (tables, plots, rows, worst people), which is made anew from the saved fits at every call.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from baselines import REGRESSORS
from baselines.hmr.release import find_files
from depthfit.atomic import atomic_path
from depthfit.bench.scoring import RegressorFiles, build_scoring, mask_reader, true_masks
from depthfit.datasets import DETECTIONS_ARE_LABELS, PROTOCOLS, SPLITS, DatasetSource, open_dataset
from depthfit.datasets.labels import Reader
from depthfit.datasets.write import KEYPOINT_FORMAT, SceneOptions, is_written, write_scene
from depthfit.errors import InputError, check_choice
from depthfit.evaluation.people import BodySet
from depthfit.evaluation.published import PublishedRow, published
from depthfit.evaluation.score import (
    FIT_FIELDS,
    NOT_BY_PERSON,
    TRUTH_FIELDS,
    Scores,
    load_table,
    score_tables,
)
from depthfit.report.score_report import fit_fields, jsonable, stamp_of, write_report
from depthfit.report.score_tables import stamp_of_all
from depthfit.run import RunConfig, fit_scene

_log = logging.getLogger(__name__)
IMAGES = ("link", "copy")


@dataclass
class DatasetConfig(RunConfig):
    """Settings of ``depthfit eval DATASET``; beside them, those of a fit (models.body, init, device ...).

    Attributes:
        root: Folder of the data set.
        labels: File of labels, for data sets that have one.
        split: 3dpw: train, validation, test; emdb: emdb1, emdb2. null is test, emdb1.
        every: Take every so many frames.
        sequences: Names of scenes to take; empty = all.
        protocol: Names of protocols; empty = those of the data set.
        keypoints2d: dataset (detections that come with it), evidence (yours), or truth (labelled or projected
            keypoints: an upper bound).
        intrinsics: estimated, or known (the true ones are given to the fit).
        evidence: Folder with SCENE/keypoints, depth, masks and predictions.npz of your own.
        images: link or copy.
        matching: auto (by overlap when init=keypoints, else by number), person or overlap.
        true_body: Bodies of the ground truth; null is models.body.
        masks: Folder of true masks SCENE/NAME.png, named as the scenes' images (0 = nobody, k = person k of
            the scene's ground_truth.npz), for the IoU of silhouettes.
        iou: Also the IoU with evidence/SCENE/masks: how well a fit meets the masks that it was given.
        regressors: Files of joint regressors, for protocols that need one.
    """

    root: str | None = None
    labels: str | None = None
    split: str | None = None
    every: int = 1
    sequences: list[str] = field(default_factory=list)
    protocol: list[str] = field(default_factory=list)
    keypoints2d: str = "dataset"
    intrinsics: str = "estimated"
    evidence: str | None = None
    images: str = "link"
    matching: str = "auto"
    true_body: str | None = None
    masks: str | None = None
    iou: bool = False
    regressors: RegressorFiles = field(default_factory=RegressorFiles)


@dataclass(frozen=True)
class DatasetResult:
    """What a run over a data set gave.

    Attributes:
        scores: By protocol.
        tables: The Markdown report of each protocol.
        failed: Scenes that could not be made or fitted, with the reason.
        left_out: Images that a fit left out, with the reason.
    """

    scores: dict[str, Scores]
    tables: dict[str, Path]
    failed: dict[str, str]
    left_out: dict[str, str]


def run_dataset(name: str, config: DatasetConfig) -> DatasetResult:
    """Make the scenes of data set ``name``, fit them, and score them under each protocol.

    A scene that cannot be made or fitted is reported and left out; the others finish. A second call does
    what is missing and scores anew.

    Raises:
        InputError: A setting is wrong, or no scene could be used at all.
    """
    if config.root is None:
        raise InputError("command line", "root", "not given", "Name the data set's folder: root=FOLDER.")
    check_choice("command line", "images", config.images, IMAGES)
    if config.masks is not None:
        true_masks(config.masks)
    if config.iou and config.evidence is None:
        fix = "iou=true compares with the masks of evidence=FOLDER; true masks are masks=FOLDER."
        raise InputError("command line", "evidence", "not given", fix)
    if config.init in REGRESSORS:
        # Found out here, not after the first scene was made.
        find_files(REGRESSORS[config.init], config.regressor)
    bodies = BodySet(config.models.body, config.models.gender, config.true_body)
    labels = None if config.labels is None else Path(config.labels)
    source = DatasetSource(name, Path(config.root), labels, config.split, config.every)
    scorings = _scorings(name, config, bodies)
    reader = open_dataset(source, lambda gender: bodies.get(gender, truth=True))
    out, failed, left_out = Path(config.output.dir), dict[str, str](), dict[str, str]()
    done = []
    for scene in _chosen(reader, config.sequences):
        try:
            folder = _scene(reader, scene, source, config, bodies)
            result = fit_scene(_fit_config(config, folder, out / "fits" / scene))
        except InputError as error:
            # One bad sequence must not cost the others: it is reported here and in every table.
            _log.error("left out %s: %s", scene, error)
            failed[scene] = str(error)
            continue
        left_out.update(result.skipped)
        done.append(scene)
    if not done:
        reasons = "; ".join(f"{k}: {v}" for k, v in failed.items())
        raise InputError(config.root, "scenes", f"none could be used ({reasons})", "Mend the first.")
    return _score(name, config, scorings, done, failed, left_out)


def _scorings(name: str, config: DatasetConfig, bodies: BodySet) -> dict[str, Any]:
    """Checked before anything is fitted: a missing regressor must not be found out a day later."""
    check_choice("command line", "data set", name, PROTOCOLS)
    ours, theirs = bodies.get().num_vertices, bodies.get(truth=True).num_vertices
    if ours != theirs:
        found = f"{ours} vertices in models.body, {theirs} in true_body"
        raise InputError("command line", "true_body", found, "Both must be of one topology, such as SMPL's.")
    wanted = config.protocol or list(PROTOCOLS[name])
    return {p: build_scoring(p, bodies, config.regressors, config.matching, config.init) for p in wanted}


def _chosen(reader: Reader, wanted: Sequence[str]) -> list[str]:
    names = reader.names()
    for scene in wanted:
        if scene not in names:
            raise InputError("command line", "sequences", repr(scene), f"Known: {', '.join(names)}.")
    return [scene for scene in names if not wanted or scene in wanted]


def _scene(reader: Reader, name: str, source: DatasetSource, config: DatasetConfig, bodies: BodySet) -> Path:
    options = SceneOptions(config.keypoints2d, config.intrinsics, config.evidence, config.images == "copy")
    origin = {
        "dataset": source.name,
        "scene": name,
        "root": str(source.root.resolve()),
        "labels": None if source.labels is None else str(source.labels.resolve()),
        "split": source.split,
        "every": source.every,
        "body": str(config.true_body or config.models.body),
    }
    folder = Path(config.output.dir) / "scenes" / name
    if not is_written(folder, origin, options):
        labelled = reader.read(name)
        write_scene(labelled, folder, lambda gender: bodies.get(gender, truth=True), options, origin)
    return folder


def _keypoints_text(name: str, keypoints: str) -> str:
    """Where a fit's 2D is from, and whether its 2D errors are those against that same 2D."""
    own = keypoints == "truth" or (keypoints == "dataset" and name in DETECTIONS_ARE_LABELS)
    return f"2D from {keypoints}" + ("; reference of 2D errors = the fit's own 2D" if own else "")


def _references(
    name: str, protocol: str, config: DatasetConfig, failed: dict[str, str]
) -> tuple[tuple[PublishedRow, ...], str]:
    """Published rows to print beside these results, or why there are none although some were published."""
    rows, part = published(name, protocol), []
    if config.split not in (None, SPLITS.get(name)):
        part.append(f"split={config.split}")
    if config.every != 1:
        part.append(f"every={config.every}")
    if config.sequences:
        part.append(f"sequences={','.join(config.sequences)}")
    if failed:
        part.append(f"{len(failed)} scenes left out")
    if not rows or not part:
        return rows, ""
    return (), f"Not printed: they are of the whole test split, this is {', '.join(part)}."


def _fit_config(config: DatasetConfig, scene: Path, out: Path) -> RunConfig:
    """The settings of one scene's fit, without those of the data set."""
    shared = {f.name: getattr(config, f.name) for f in fields(RunConfig)}
    run = RunConfig(**shared)
    keypoints = run.keypoints
    if config.keypoints2d != "evidence":
        keypoints = replace(keypoints, format=KEYPOINT_FORMAT)
    output = replace(run.output, dir=str(out))
    return replace(run, scene=str(scene), keypoints=keypoints, output=output)


def _score(
    name: str,
    config: DatasetConfig,
    scorings: dict[str, Any],
    scenes: list[str],
    failed: dict[str, str],
    left_out: dict[str, str],
) -> DatasetResult:
    out = Path(config.output.dir)
    fits = stack([load_table(out / "fits" / s / "fits.npz", FIT_FIELDS) for s in scenes])
    truth = stack([load_table(out / "scenes" / s / "ground_truth.npz", TRUTH_FIELDS) for s in scenes])
    where = {image.name: scene for scene in scenes for image in (out / "scenes" / scene / "images").iterdir()}
    masks = None if config.masks is None else _masks(Path(config.masks), ".", where)
    own_masks = None
    if config.iou and config.evidence is not None:
        own_masks = _masks(Path(config.evidence), "masks", where)
    split = f" {config.split}" if config.split else ""
    scores, tables = {}, {}
    for protocol, scoring in scorings.items():
        found = score_tables(fits, truth, replace(scoring, masks=masks, own_masks=own_masks), out / "fits")
        found.summary["failed"], found.summary["left_out"] = failed, left_out
        stamp = stamp_of(
            out / "fits" / scenes[0] / "fits.npz",
            f"{name}{split}, {len(scenes)} scenes, every {config.every}",
            protocol,
            true_body=f"{config.true_body or config.models.body}, gendered as labelled",
            camera=f"{config.intrinsics} intrinsics",
            keypoints=_keypoints_text(name, config.keypoints2d),
            matching=scoring.matching,
        )

        def overlay(image: str) -> Path | None:
            path = out / "fits" / where[image] / "overlays" / f"{Path(image).stem}.png"
            return path if path.is_file() else None

        rows, remark = _references(name, protocol, config, failed)
        stamps = {s: replace(stamp, **fit_fields(out / "fits" / s / "fits.npz")) for s in scenes}
        folder = write_report(
            out / "eval" / protocol,
            found,
            stamp_of_all(list(stamps.values())),
            overlay,
            rows,
            {image: stamps[scene] for image, scene in where.items()},
            remark,
        )
        scores[protocol], tables[protocol] = found, folder / "table.md"
    with atomic_path(out / "eval" / "summary.json") as temporary:
        content = {p: s.summary for p, s in scores.items()}
        temporary.write_text(json.dumps(jsonable(content), indent=2) + "\n")
    return DatasetResult(scores, tables, failed, left_out)


def _masks(folder: Path, part: str, where: dict[str, str]) -> Callable[[str], np.ndarray | None]:
    """Image name -> labels of ``folder/SCENE/part/NAME.png``; ``where`` = scene of each image."""
    readers = {scene: mask_reader(folder / scene / part) for scene in set(where.values())}
    return lambda image: readers[where[image]](image)


def stack(tables: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """One table of several; columns that not all have are left out, those not by person are the first's."""
    shared = [name for name in tables[0] if all(name in table for table in tables)]
    return {
        name: tables[0][name] if name in NOT_BY_PERSON else np.concatenate([t[name] for t in tables])
        for name in shared
    }
