"""Tables, rows, plots and the page of the worst, from scores that are known."""

from __future__ import annotations

import csv
import html
import importlib.util
import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from depthfit.evaluation.errors import Scoring
from depthfit.evaluation.protocol import protocol
from depthfit.evaluation.published import published
from depthfit.evaluation.score import Scores, score_tables
from depthfit.joints import KEYPOINTS
from depthfit.report import score_report
from depthfit.report.score_tables import Stamp, stamp_of_all

PEOPLE = 30
STAMP = Stamp(
    "3dpw <test>", "tokenhmr14", "smpl-neutral", "smpl, gendered", "open", "tokenhmr", "known intrinsics",
    "2D from dataset", "person", "out/config.yaml sha256:0123", "0.1", "0.2",
)  # fmt: skip


@pytest.fixture(scope="module")
def tables() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Person k errs by k + 1 mm after and 2 k mm before the fit, at every joint but the pelvis."""
    rng = np.random.default_rng(0)
    joints = rng.normal(size=(PEOPLE, 24, 3)) * 0.3 + [0.0, 0.0, 4.0]
    truth = {
        "imgname": np.array([f"image_{k:02d}.png" for k in range(PEOPLE)]), "person": np.ones(PEOPLE, int),
        "joints": joints, "focal": np.full(PEOPLE, 1000.0), "K": np.tile(np.eye(3) * 1000, (PEOPLE, 1, 1)),
        "keypoints_3d": rng.normal((0, 0, 9), 1, (PEOPLE, 27, 3)), "keypoint_names": np.array(KEYPOINTS),
    }  # fmt: skip

    def off(millimetres: np.ndarray) -> np.ndarray:
        out = joints.copy()
        out[:, 1:, 0] += millimetres[:, None] / 1000 * 24 / 23
        return out

    k = np.arange(PEOPLE, dtype=float)
    fits = {
        "imgname": truth["imgname"], "person": truth["person"], "status": np.full(PEOPLE, "<done>"),
        "accepted": np.ones(PEOPLE, bool), "joints": off(k + 1), "initial_joints": off(2 * k),
        "focal": truth["focal"] * 1.1, "initial_focal": truth["focal"] * 20,
        "focal_std_log": np.full(PEOPLE, 0.05), "keypoint_names": truth["keypoint_names"],
    }  # fmt: skip
    return fits, truth


@pytest.fixture(scope="module")
def scores(tables) -> Scores:
    fits, truth = tables
    return score_tables(fits, truth, Scoring(), "x")


@pytest.fixture(scope="module")
def one_video(tables) -> Scores:
    fits, truth = tables
    return score_tables(fits, {**truth, "group": np.full(PEOPLE, "video")}, Scoring(), "x")


@pytest.fixture(scope="module")
def folder(scores, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("scores")
    (root / "overlays").mkdir()
    for k in range(0, PEOPLE, 2):
        (root / "overlays" / f"image_{k:02d}.png").write_bytes(b"")
    overlay = score_report.overlays_beside(root / "fits.npz")
    return score_report.write_report(root / "eval", scores, STAMP, overlay, published("3dpw", "tokenhmr14"))


def test_the_table_holds_the_means_their_difference_and_published_rows(folder):
    text = (folder / "table.md").read_text()
    line = next(line for line in text.splitlines() if line.startswith("| MPJPE, mm"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[1].startswith("29.0 [")  # mean of 2 k for k < 30
    assert cells[2].startswith("15.5 [")
    assert cells[3].startswith("-13.5 [")
    assert cells[4] == "3.3%"  # person 0; person 1 has 2 mm either way
    assert "| TokenHMR | 84.6 | 71.0 | 44.3 | as published" in text
    assert "| HMR2.0 | 88.4 | 77.4 | 47.4 | as published" in text
    assert "| refined, this run |  | 15.5 |" in text
    assert "MVE (PVE)" not in text.split("## Beside")[0]  # no mesh, no row
    assert "focal: 0% inside the 68% interval" in text


def test_a_table_of_one_video_has_no_intervals(one_video, tmp_path):
    folder = score_report.write_report(
        tmp_path, one_video, STAMP, lambda name: None, remark="Not printed: half of it."
    )
    text = (folder / "table.md").read_text()
    assert "| MPJPE, mm | 29.0 | 15.5 | -13.5 | 3.3% |" in text
    assert "## Beside published figures\n\nNot printed: half of it.\n" in text
    with (folder / "table.csv").open() as file:
        assert {(line["low"], line["high"]) for line in csv.DictReader(file)} == {("", "")}
    assert json.loads((folder / "scores.json").read_text())["summary"]["mpjpe_mm"]["low"] is None


def test_every_row_is_stamped_and_links_to_its_overlay(folder):
    with (folder / "rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == PEOPLE
    for k, row in enumerate(rows):
        assert float(row["mpjpe_mm"]) == pytest.approx(k + 1)
        assert row["protocol"] == "tokenhmr14"
        assert row["config"] == STAMP.config
        assert (row["body"], row["fitted_with"]) == ("smpl-neutral", "0.1")
        if k % 2 == 0:
            assert (folder / row["overlay"]).resolve() == (folder.parent / "overlays" / f"image_{k:02d}.png")
        else:
            assert row["overlay"] == ""
    with (folder / "table.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert all(line["protocol"] == "tokenhmr14" and line["dataset"] == STAMP.dataset for line in lines)
    published_lines = [line for line in lines if line["of"].startswith("HMR2.0, as published")]
    assert [float(line["mean"]) for line in published_lines] == [88.4, 77.4, 47.4]
    assert all(line["body"] == "" for line in published_lines)  # they were not made with this run's


def test_json_is_json_without_nan(folder):
    content = json.loads((folder / "scores.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert content["stamp"]["protocol"] == "tokenhmr14"
    assert content["summary"]["mpjpe_mm"]["mean"] == pytest.approx(15.5)


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.images: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.images.append(dict(attrs)["src"] or "")


def test_the_page_shows_the_worst_20_first(folder):
    text = (folder / "worst.html").read_text()
    assert html.escape(STAMP.dataset) in text
    assert "<test>" not in text
    assert "<done>" not in text
    worst, grown = text.split("<h2>Made worse by most</h2>")
    order = [f"image_{k:02d}.png #1" for k in range(PEOPLE - 1, PEOPLE - 21, -1)]
    places = [worst.index(f"<figcaption>{name}") for name in order]
    assert places == sorted(places)
    assert worst.count("<figure>") == 20
    assert grown.count("<figure>") == 1
    page = _Page()
    page.feed(text)
    assert len(page.images) == 11
    assert all((folder / source).is_file() for source in page.images)


def test_where_no_joints_are_known_the_page_goes_by_reprojection(tables, tmp_path):
    """COCO: person k is k px off after the fit and 10 px before."""
    fits, truth = tables
    rng = np.random.default_rng(1)
    xy = rng.uniform(0, 100, (PEOPLE, 27, 2))
    off = np.stack([np.arange(PEOPLE), np.zeros(PEOPLE)], 1)[:, None]
    flat = {
        **truth, "joints": np.full((PEOPLE, 24, 3), np.nan), "focal": np.full(PEOPLE, np.nan),
        "keypoints_2d": xy, "keypoints_visible": np.ones((PEOPLE, 27)),
    }  # fmt: skip
    size = np.ptp(xy, axis=1).max(1)
    seen = {**fits, "keypoints_2d": xy + off, "initial_keypoints_2d": xy + np.array([10.0, 0.0])}
    scores = score_tables(seen, flat, Scoring(protocol("image2d")), "x")
    text = (score_report.write_report(tmp_path, scores, STAMP, lambda name: None) / "worst.html").read_text()
    worst, grown = text.split("<h2>Made worse by most</h2>")
    order = np.argsort(-np.arange(PEOPLE) / size)[:20]
    places = [worst.index(f"<figcaption>image_{k:02d}.png #1: reprojection ") for k in order]
    assert places == sorted(places)
    assert f"{100 * 10 / size[order[0]]:.1f} -> {100 * order[0] / size[order[0]]:.1f} % of size" in worst
    assert grown.count("<figure>") == 19  # 11 px and more


@pytest.mark.skipif(not importlib.util.find_spec("matplotlib"), reason="matplotlib is not installed")
def test_plots_are_pictures(folder):
    for name in ("errors", "paired", "coverage"):
        data = (folder / "plots" / f"{name}.png").read_bytes()
        assert data.startswith(b"\x89PNG")
        assert len(data) > 5000


def test_without_matplotlib_the_rest_is_written(scores, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(score_report, "has_matplotlib", lambda: False)
    score_report.write_report(tmp_path, scores, STAMP, lambda name: None)
    assert not (tmp_path / "plots").exists()
    assert (tmp_path / "table.md").is_file()
    assert "matplotlib is not installed" in caplog.text


def test_stamps_come_from_the_run_s_own_files(tmp_path):
    (tmp_path / "summary.json").write_text(json.dumps({"depthfit": "9", "body": "b", "init": "keypoints"}))
    (tmp_path / "config.yaml").write_text("a: 1\n")
    stamp = score_report.stamp_of(tmp_path / "fits.npz", "d", "smpl24", camera="known")
    assert (stamp.fitted_with, stamp.body, stamp.init, stamp.camera) == ("9", "b", "keypoints", "known")
    before = stamp.config
    (tmp_path / "config.yaml").write_text("a: 2\n")
    assert score_report.stamp_of(tmp_path / "fits.npz", "d", "smpl24").config != before
    bare = score_report.stamp_of(tmp_path / "elsewhere" / "fits.npz", "d", "smpl24")
    assert bare.config == bare.body == score_report.UNKNOWN


def test_a_fit_that_left_out_the_predicted_shape_says_so(tmp_path):
    (tmp_path / "summary.json").write_text(json.dumps({"init": "tokenhmr", "betas_left_out": "other body"}))
    assert score_report.stamp_of(tmp_path / "fits.npz", "d", "smpl24").init == "tokenhmr with mean shape"


def test_a_table_of_several_fits_names_what_differs():
    others = [replace(STAMP, config=f"out/{k}.yaml", fitted_with=str(k % 2)) for k in range(4)]
    stamp = stamp_of_all(others)
    assert stamp.fitted_with == "0; 1"
    assert stamp.config == "4 different ones, by person in rows.csv"
    assert replace(stamp, config=STAMP.config, fitted_with=STAMP.fitted_with) == STAMP


def test_published_rows_belong_to_one_protocol():
    assert [row.method for row in published("3dpw", "tokenhmr14")][:2] == ["HMR2.0", "TokenHMR"]
    assert published("3dpw", "h36m14") == ()
    assert published(None, "tokenhmr14") == ()
