"""Tables and plots of the splits and of the paradox, from figures made up."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import cv2
import pytest

from depthfit.bench.cells import log_cell
from depthfit.bench.paradox import paradox_table, plot_paradox
from depthfit.bench.split_plots import plot_sweeps, sweep_figure
from depthfit.bench.split_scores import Figures
from depthfit.bench.split_tables import (
    best_rival,
    camera_table,
    markdown,
    mpjpe_table,
    overall_table,
    target_table,
)
from depthfit.bench.splits import SWEEPS


def _figures(mpjpe: float, **changes: float) -> Figures:
    coverage = {name: {"68%": 0.7, "95%": 0.9} for name in ("focal", "distance", "joints")}
    made = Figures(
        people=8,
        missing=0,
        prediction=80.0,
        mpjpe=mpjpe,
        seen_prediction=70.0,
        seen_mpjpe=mpjpe / 2,
        low=mpjpe - 2,
        high=mpjpe + 2,
        pa=30.0,
        focal=0.05,
        distance=0.06,
        worse=0.0,
        accepted=1.0,
        coverage=coverage,
        reprojection=0.01,
        initial_reprojection=0.04,
    )
    return dataclasses.replace(made, **changes)


def _splits(**mpjpe: float) -> dict[str, Figures]:
    return {name: _figures(value) for name, value in mpjpe.items()}


FITS = {
    "smplify": _splits(far=120.0, all=120.0),
    "free_focal": _splits(far=50.0, all=50.0),
    "true_focal": _splits(far=45.0, all=45.0),
    "no_masks": _splits(far=42.0, all=42.0),
    "joint": _splits(far=40.0, all=30.0),
}


def test_the_best_rival_knows_no_truth_and_is_no_joint_fit() -> None:
    assert best_rival(FITS, "far") == ("2D only, free focal", 50.0)
    assert best_rival({"joint": FITS["joint"]}, "far") is None


def test_rows_say_what_was_measured() -> None:
    lines = mpjpe_table(FITS).splitlines()
    assert lines[0] == "| fit | far (8) | all (8) |"
    assert lines[2] == "| prediction | 80.0 | 80.0 |"
    assert lines[-1] == "| joint, with masks | 40.0 | 30.0 |"
    row = target_table("joint", FITS, {"far": 0.025, "all": 0.02}).splitlines()[2]
    assert row.split(" | ")[1:4] == ["40.0 [38.0, 42.0]", "50%", "71%"]
    assert "2.5%" in row
    one_image = _figures(40.0, low=math.nan, high=math.nan)
    row = target_table("joint", {"joint": {"all": one_image}}, {"all": 0.02}).splitlines()[2]
    assert row.split(" | ")[1] == "40.0", "one image has no interval"


def test_what_was_not_asked_for_has_no_table() -> None:
    floors = {"far": 0.02, "all": 0.02}
    text = markdown({"joint": FITS["joint"]}, {}, {}, floors, {})
    assert "SMPLify" not in text
    assert "against" not in text
    assert "Ablations" not in text
    full = markdown(FITS, {"half": FITS}, {"focal": {"joint": {0.1: _figures(40.0)}}}, floors, FITS)
    for part in ("errors of the evidence: half", "against focal", "Ablations"):
        assert part in full


def test_a_large_log_error_is_a_factor_and_no_per_cent() -> None:
    """The regressor's focal of 5000/256 px a pixel is 20 times the lens's: |log| 3.0 is not 300 %."""
    assert [log_cell(error) for error in (0.0, 0.074, 0.499, 0.5)] == ["0.0%", "7.4%", "49.9%", "x1.6"]
    assert [log_cell(math.log(factor)) for factor in (2.0, 9.9, 20.2, 300.0)] == [
        "x2.0",
        "x9.9",
        "x20",
        "x300",
    ]
    far = {"default_focal": {"far": _figures(60.0, focal=3.005, distance=2.939)}}
    assert camera_table(far).splitlines()[2] == "| 2D only, default focal | x20 / x19 |"
    assert "| x20 | x19 |" in overall_table(far)
    assert "| x20 | x19 | 2.0% |" in target_table("default_focal", far, {"far": 0.02})


def test_plots_are_pictures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    curves = {
        name: {
            key: {value: _figures(30.0 + n + 5 * k) for n, value in enumerate(sweep.values)}
            for k, key in enumerate(("camsmplify", "true_focal", "no_masks", "joint"))
        }
        for name, sweep in SWEEPS.items()
    }
    plot_sweeps(curves, tmp_path / "sweeps.png")
    steps = {key: {n: _figures(80.0 - n) for n in (1, 2, 8)} for key in ("smplify", "joint")}
    plot_paradox(steps, tmp_path / "paradox.png")
    for name, width in (("sweeps", 1650), ("paradox", 935)):
        picture = cv2.imread(str(tmp_path / f"{name}.png"))
        assert picture is not None
        assert picture.shape[1] == width
        assert (picture < 200).any()


def test_sweeps_show_every_point() -> None:
    """Axes are shared by columns: the range of the first one is not that of all."""
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    near = {"joint": {0.1: _figures(40.0, distance=0.05), 0.2: _figures(42.0, distance=0.06)}}
    far = {
        "joint": {0.1: _figures(117.0, distance=0.32, prediction=292.0), 0.2: _figures(20.0, distance=0.01)}
    }
    figure = sweep_figure({"depth_scale": near, "prediction": far, "focal": near})
    drawn = 0
    for axes in figure.axes:
        low, high = axes.get_ylim()
        for line in axes.get_lines():
            heights = [float(y) for y in line.get_ydata()]
            assert all(low < y < high for y in heights), (heights, low, high)
            drawn += len(heights)
    assert drawn == 3 * 2 * 3, "prediction, MPJPE and distance of two values in three sweeps"


def test_the_curve_starts_at_the_prediction() -> None:
    text = paradox_table({"joint": {1: _figures(60.0), 4: _figures(40.0, reprojection=0.005)}})
    assert text.splitlines()[2] == "| joint, with masks | 4.00% / 80.0 | 1.00% / 60.0 | 0.50% / 40.0 |"
