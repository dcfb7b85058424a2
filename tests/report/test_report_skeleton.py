from __future__ import annotations

import numpy as np

from depthfit.report.bodies import draw_misses, draw_skeleton


def test_points_behind_the_camera_are_not_drawn() -> None:
    names = ("left_shoulder", "left_elbow", "left_wrist")
    points = np.array([[10.0, 10], [30, 10], [np.nan, np.nan]])
    shown = np.ones(3, bool)
    picture = np.zeros((20, 60, 3), np.uint8)
    draw_skeleton(picture, points, shown, names)
    draw_misses(picture, points + 2, points, shown)
    assert picture[10, 12:28].any(-1).all()
    assert not picture[:, 40:].any()
