"""``depthfit eval FITS TRUTH``: what the settings ask for, on tables that are known."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from depthfit.bench.scoring import EvalConfig, run_eval
from depthfit.joints import KEYPOINTS

PEOPLE = 3


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Three people side by side in one image, fitted to a tenth of a millimetre and numbered backwards."""
    rng = np.random.default_rng(0)
    place = np.array([[[-1.5, 0, 5]], [[0, 0, 5]], [[1.5, 0, 5]]])
    points = rng.normal(0, 0.3, (PEOPLE, len(KEYPOINTS), 3)) + place
    K = np.tile(np.array([[600.0, 0, 400], [0, 600, 300], [0, 0, 1]]), (PEOPLE, 1, 1))
    truth = {
        "imgname": np.full(PEOPLE, "a.png"), "person": np.array([1, 2, 3]), "focal": K[:, 0, 0], "K": K,
        "joints": rng.normal(0, 0.3, (PEOPLE, 24, 3)) + place,
        "keypoints_3d": points, "keypoint_names": np.array(KEYPOINTS),
    }  # fmt: skip
    xy = points @ K.transpose(0, 2, 1)
    fits = {
        "imgname": truth["imgname"], "person": np.array([3, 2, 1]), "focal": truth["focal"], "K": K,
        "joints": truth["joints"] + 1e-4, "initial_joints": truth["joints"], "initial_focal": truth["focal"],
        "keypoints_2d": xy[..., :2] / xy[..., 2:], "keypoint_names": truth["keypoint_names"],
        "initial_keypoints_2d": xy[..., :2] / xy[..., 2:],
    }  # fmt: skip
    np.savez(tmp_path / "truth.npz", **truth)
    np.savez(tmp_path / "fits.npz", **fits)
    return tmp_path / "fits.npz", tmp_path / "truth.npz"


@pytest.mark.parametrize(
    ("init", "matching", "used"),
    [
        ("keypoints", "auto", "overlap"),
        ("predictions", "auto", "person"),
        ("keypoints", "person", "person"),
        ("predictions", "overlap", "overlap"),
    ],
)
def test_people_numbered_by_a_detector_are_found_by_place(files, init, matching, used):
    fits, truth = files
    (fits.parent / "summary.json").write_text(json.dumps({"init": init}))
    summary = run_eval(str(fits), str(truth), EvalConfig(matching=matching))
    assert summary["matching"] == used
    assert (summary["pelvis_mm"]["mean"] < 1) == (used == "overlap")
    with (fits.parent / "eval" / "rows.csv").open() as file:
        assert {row["matching"] for row in csv.DictReader(file)} == {used}


def test_the_default_is_auto(files):
    fits, truth = files
    (fits.parent / "summary.json").write_text(json.dumps({"init": "keypoints"}))
    assert run_eval(str(fits), str(truth), EvalConfig())["pelvis_mm"]["mean"] < 1
