"""Overlays drawn by processes of their own: the same pictures, and errors that arrive."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from depthfit.errors import DepthfitError, InputError
from depthfit.report.drawing import OverlayJob
from depthfit.report.processes import Drawers
from tests.report.test_report_overlay import NAMES, SIZE, ball, depth_map, summary, view


@pytest.fixture
def job(tmp_path: Path) -> OverlayJob:
    photo = tmp_path / "photo.png"
    cv2.imwrite(str(photo), np.random.default_rng(0).integers(0, 255, (*SIZE, 3), np.uint8))
    before, after = [view(50.0, 2500.0)], [view(3.0, 150.0)]
    return OverlayJob(
        tmp_path / "0.png", photo, ball(3.0)[1], before, after, [summary()], NAMES, depth_map(0.1)
    )


def place(job: OverlayJob, name: str) -> OverlayJob:
    return dataclasses.replace(job, path=job.path.with_name(name))


def test_processes_draw_the_same_picture_and_tell_of_each(job: OverlayJob) -> None:
    job.draw()
    pictures = [place(job, f"{k}.png") for k in range(1, 3)]
    there: list[bool] = []
    with Drawers(2) as drawers:
        for picture in pictures:
            drawers.draw(picture, lambda path=picture.path: there.append(path.is_file()))
        drawers.finish()
        assert there == [True] * len(pictures)
    for picture in pictures:
        assert picture.path.read_bytes() == job.path.read_bytes()


def test_an_error_in_a_process_is_raised_with_its_file(job: OverlayJob) -> None:
    lost = dataclasses.replace(job, photo=job.photo.with_name("gone.jpg"))
    told: list[str] = []
    with Drawers(1) as drawers:
        drawers.draw(lost, lambda: told.append("lost"))
        drawers.draw(job, lambda: told.append("good"))
        with pytest.raises(InputError, match=r"gone\.jpg") as caught:
            drawers.finish()
    assert "read_rgb" in str(caught.value.__cause__), "where it was raised"
    assert told == ["good"], "an image without its overlay is not done"


def test_a_process_that_dies_is_an_error_not_a_wait(job: OverlayJob) -> None:
    with Drawers(1) as drawers:
        drawers._all[0].kill()
        drawers.draw(job, lambda: None)
        with pytest.raises(DepthfitError, match=r"0\.png: the process that drew it ended with status -9"):
            drawers.finish()


def test_a_job_that_cannot_be_handed_over_leaves_the_process_to_the_next(job: OverlayJob) -> None:
    # What comes before the function is more than a pipe's buffer holds.
    big = dataclasses.replace(job, faces=torch.zeros(100_000, 3), summaries=[lambda: None])  # type: ignore[list-item]
    with Drawers(1) as drawers:
        drawers.draw(big, lambda: None)
        drawers.draw(job, lambda: None)
        with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
            drawers.finish()
        drawers.finish()
    assert job.path.is_file()


def test_what_breaks_off_the_run_ends_the_processes(job: OverlayJob) -> None:
    def run() -> None:
        with Drawers(2) as drawers:
            started.append(drawers)
            for k in range(4):
                drawers.draw(place(job, f"{k}.png"), lambda: None)
            raise KeyboardInterrupt

    started: list[Drawers] = []
    with pytest.raises(KeyboardInterrupt):
        run()
    assert all(process.poll() is not None for process in started[0]._all)
    assert not list(job.path.parent.glob(".*.png")), "no half picture"
