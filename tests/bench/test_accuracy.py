"""The headline figures of the README on the eight people of ``depthfit bench accuracy quick=true``."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from depthfit import __version__
from depthfit.bench.accuracy import COLUMNS, AccuracyConfig, accuracy_figures, run_accuracy
from depthfit.bench.fitting import Workbench
from depthfit.bench.saved_fits import SavedFit
from depthfit.bench.variants import FITS
from depthfit.errors import InputError
from depthfit.evaluation.score import Scores
from depthfit.report import score_report

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def summaries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("bench")
    config = AccuracyConfig(str(out), quick=True, fits=["default_focal", "no_masks", "joint"])
    with pytest.MonkeyPatch.context() as patch:
        # Plots have tests of their own.
        patch.setattr(score_report, "has_matplotlib", lambda: False)
        table = run_accuracy(config)
    assert "joint, with masks" in table
    return json.loads((out / "fits.json").read_text())


def test_the_joint_fit_halves_the_error_of_the_prediction(summaries: dict[str, Any]) -> None:
    """The README's 64 people: 56 % under it. Eight people scatter: their standard error is about 5 %."""
    joint = summaries["joint, with masks"]
    assert joint["people"] == 8
    assert joint["mpjpe_mm"]["mean"] < 0.55 * joint["initial_mpjpe_mm"]["mean"]
    assert joint["pa_mpjpe_mm"]["mean"] < 0.65 * joint["initial_pa_mpjpe_mm"]["mean"]
    assert joint["worse"] == 0


def test_without_masks_too(summaries: dict[str, Any]) -> None:
    """The README's 64 people: 51 % under the prediction (50 asked), 1.6 % worse."""
    fit, joint = summaries["joint, without masks"], summaries["joint, with masks"]
    assert fit["mpjpe_mm"]["mean"] < 0.6 * fit["initial_mpjpe_mm"]["mean"]
    assert fit["mpjpe_mm"]["mean"] < 0.7 * summaries["2D only, default focal"]["mpjpe_mm"]["mean"]
    assert fit["worse"] == 0
    assert fit["initial_mpjpe_mm"] == joint["initial_mpjpe_mm"], "the same people"


def test_the_joint_fit_beats_keypoints_under_the_regressors_focal(summaries: dict[str, Any]) -> None:
    joint, keypoints = summaries["joint, with masks"], summaries["2D only, default focal"]
    assert joint["mpjpe_mm"]["mean"] < 0.7 * keypoints["mpjpe_mm"]["mean"]
    assert keypoints["focal_log"]["median"] > 1


def test_the_camera_is_found(summaries: dict[str, Any]) -> None:
    joint = summaries["joint, with masks"]
    assert joint["focal_log"]["median"] < 0.15
    assert joint["distance_log"]["median"] < 0.15
    assert joint["initial_distance_log"]["median"] > 1


def test_the_report_of_a_fit_is_that_of_eval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row has its stamp and a link to a picture that is there; JSON has no NaN; a second call fits
    nothing, and one with other settings is refused."""
    monkeypatch.setattr(score_report, "has_matplotlib", lambda: False)
    config = AccuracyConfig(str(tmp_path), images=1, seed=101, fits=["identity"])
    config.scene = replace(config.scene, width=320, height=240, token_probs=False, vertices=False)
    table = run_accuracy(config)

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    content = json.loads((tmp_path / "fits.json").read_text(), parse_constant=refuse)
    report = tmp_path / "fits_101_1" / "identity" / "eval"
    (row,) = csv.DictReader((report / "rows.csv").read_text().splitlines())
    assert (report / row["overlay"]).resolve().is_file()
    assert row["overlay"] in (report / "worst.html").read_text()
    rows = list(csv.DictReader((tmp_path / "fits.csv").read_text().splitlines()))
    assert [r["fit"] for r in rows] == ["prediction", FITS["identity"].name]
    assert float(rows[1]["mpjpe_mm"]) == content[FITS["identity"].name]["mpjpe_mm"]["mean"]
    for stamped in (row, *rows, content[FITS["identity"].name]["stamp"]):
        assert stamped["fitted_with"] == stamped["scored_with"] == __version__
        assert (stamped["body"], stamped["protocol"]) == ("open-neutral", "smpl24")
        assert "identity/config.yaml sha256:" in stamped["config"]
        assert stamped["camera"] == "synthetic, with errors"

    def fit_again(*_: object, **__: object) -> None:
        raise AssertionError("fitted again")

    monkeypatch.setattr(Workbench, "fit", fit_again)
    assert run_accuracy(config) == table
    saved = tmp_path / "fits_101_1" / "identity" / "config.yaml"
    settings = saved.read_text()
    saved.unlink()
    with pytest.raises(InputError, match="fits of other settings"):
        run_accuracy(config)
    saved.write_text(settings)
    config.fit.keypoints.noise_factor = 0.7
    with pytest.raises(InputError, match="fits of other settings"):
        run_accuracy(config)


def test_figures_are_of_both_kinds_of_people_and_of_errors_without_sign() -> None:
    def row(name: str, mpjpe: float, log: float) -> dict[str, Any]:
        own = dict.fromkeys(COLUMNS, mpjpe) | {"focal_log": log, "distance_log": -log}
        return {"imgname": name, "person": 1, **own, **{f"initial_{k}": 2 * v for k, v in own.items()}}

    rows = [row("a.png", 10.0, -0.1), row("b.png", 30.0, 0.2), row("c.png", 80.0, -0.3)]
    coverage = {"focal": {"68%": 0.5, "95%": 0.9}, "distance": {"68%": 0.6, "95%": 0.9}}
    scores = {"fit": Scores(rows, {"worse": 0.25, "accepted": 0.75, "coverage": coverage})}
    kinds = {("a", 1): "everyday", ("b", 1): "hard", ("c", 1): "random"}
    prediction, fit = accuracy_figures(scores, kinds)
    everyday, hard, focal = (fit[k] for k in ("mpjpe_everyday_mm", "mpjpe_hard_mm", "focal_log"))
    assert (fit["mpjpe_mm"], everyday, hard) == pytest.approx((40.0, 10.0, 55.0))
    assert (focal, fit["distance_log"], prediction["focal_log"]) == pytest.approx((0.2, 0.2, 0.4))
    assert (fit["focal_68"], fit["distance_68"], fit["worse"], fit["accepted"]) == (0.5, 0.6, 0.25, 0.75)


def test_time_is_told_by_person(tmp_path: Path) -> None:
    bench: Any = SimpleNamespace(context=SimpleNamespace(body=SimpleNamespace(name="open")))
    saved = SavedFit(FITS["identity"], tmp_path, "")
    saved.write([{"imgname": f"{k}.png", "person": 1} for k in range(4)], 8.0, bench)
    assert saved.seconds_per_person() == 2.0


def test_an_unknown_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="rivalry"):
        run_accuracy(AccuracyConfig(str(tmp_path), table="rivalry"))
