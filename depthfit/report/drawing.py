"""An overlay as a job that any process can do, and a process that does such jobs.

``python -m depthfit.report.drawing`` draws what it is given on its standard input, one at a time, and answers
each on its standard output with ``None`` or (what was raised, where).
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import cv2
import torch
from torch import Tensor

from depthfit.atomic import atomic_path
from depthfit.errors import DepthfitError
from depthfit.evidence.files import read_rgb
from depthfit.report.bodies import PersonView
from depthfit.report.overlay import DepthView, draw_overlay
from depthfit.report.summary import PersonSummary


@dataclass(frozen=True)
class OverlayJob:
    """A picture to draw: where it goes, the photograph's file, and the rest as ``draw_overlay`` takes it."""

    path: Path
    photo: Path
    faces: Tensor
    before: Sequence[PersonView]
    after: Sequence[PersonView]
    summaries: Sequence[PersonSummary]
    keypoint_names: Sequence[str]
    depth: DepthView | None

    def draw(self) -> None:
        """Draw and write it.

        Raises:
            InputError: The photograph cannot be read.
            OSError: The picture cannot be written.
        """
        picture = draw_overlay(
            read_rgb(self.photo),
            self.faces,
            self.before,
            self.after,
            self.summaries,
            self.keypoint_names,
            self.depth,
        )
        with atomic_path(self.path) as temporary:
            ok, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
            if not ok:
                raise OSError(f"OpenCV could not encode {self.path}")
            temporary.write_bytes(data.tobytes())


def serve(jobs: BinaryIO, answers: BinaryIO) -> None:
    """Do jobs until there are no more."""
    while True:
        try:
            job: OverlayJob = pickle.load(jobs)
        except EOFError:
            return
        answers.write(_answer(job))
        answers.flush()


def _answer(job: OverlayJob) -> bytes:
    try:
        job.draw()
    # Whatever it is, it is raised where the picture was asked for.
    except Exception as error:
        where = traceback.format_exc()
        try:
            return pickle.dumps((error, where))
        except Exception:
            return pickle.dumps((DepthfitError(f"{job.path}: {error!r}"), where))
    return pickle.dumps(None)


def main() -> None:
    """One thread a process: there is a process for each core. SIGTERM ends it without leaving half a file."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as answers:
        # What a library may print must not get among the answers.
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
