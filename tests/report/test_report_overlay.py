"""The overlay's parts against what geometry says they must show."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from depthfit.camera import project
from depthfit.raster import rasterize
from depthfit.report import DepthView, PersonSummary, PersonView, draw_overlay
from depthfit.report.bodies import COOL, WARM, draw_people, scaled_intrinsics, scaled_points
from depthfit.report.side_view import draw_side_view

NAMES = ("nose", "left_wrist", "right_wrist")
SIZE = (96, 128)


def ball(z: float, x: float = 0.0) -> tuple[Tensor, Tensor]:
    """An octahedron of radius 0.4 m at (x, 0, z), counter-clockwise from outside."""
    axes = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
    faces = [[a, b, c] for a in (0, 1) for b in (2, 3) for c in (4, 5)]
    corners = axes[torch.tensor(faces)]
    inward = torch.linalg.det(corners) < 0
    triangles = torch.tensor(faces)
    triangles[inward] = triangles[inward].flip(-1)
    return 0.4 * axes + torch.tensor([x, 0.0, z]), triangles


def camera(focal: float) -> Tensor:
    return torch.tensor([[focal, 0, (SIZE[1] - 1) / 2], [0, focal, (SIZE[0] - 1) / 2], [0, 0, 1]])


def view(z: float, focal: float, x: float = 0.0) -> PersonView:
    vertices, _ = ball(z, x)
    K = camera(focal)
    projected = project(vertices[:3], K)
    detected = projected.clone()
    detected[1] = math.nan
    return PersonView(vertices, K, projected, detected, torch.tensor([1.0, 0.0, 0.5]))


def summary(accepted: bool = True) -> PersonSummary:
    return PersonSummary("a #1", "converged", accepted, (2500.0, 150.0), 0.05, (50.0, 3.0), 0.05, (9.0, 1.0))


def overlay(people: int = 1, depth: DepthView | None = None, size: tuple[int, int] = SIZE) -> np.ndarray:
    places = [0.0, -0.5, 0.5][:people]
    before = [view(50.0, 2500.0, 16 * x) for x in places]
    after = [view(3.0, 150.0, x) for x in places]
    image = np.full((*size, 3), 128, np.uint8)
    return draw_overlay(image, ball(3.0)[1], before, after, [summary()] * people, NAMES, depth)


def depth_map(error: float = 0.0, focal: float = 200.0, log_scale: float = 0.1) -> DepthView:
    """The estimator's map of the refined ball if its log residual were ``error`` everywhere."""
    vertices, faces = ball(3.0)
    z = rasterize(vertices[None], faces, camera(150.0)[None], SIZE).depth[0].double().numpy()
    known = np.isfinite(z)
    depth = np.where(known, z, 0.0) * focal / 150.0 * math.exp(-log_scale - error)
    return DepthView(depth, focal, log_scale)


def count(picture: np.ndarray, color: tuple[int, int, int], tolerance: int = 6) -> int:
    return int((np.abs(picture.astype(int) - color).max(-1) <= tolerance).sum())


@pytest.fixture
def small_panels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of a third of the size, which are drawn faster."""
    monkeypatch.setattr("depthfit.report.overlay._PANEL_HEIGHT", 300)
    monkeypatch.setattr("depthfit.report.overlay._PANEL_WIDTH", 320)


@pytest.mark.parametrize(("people", "size"), [(3, (96, 128)), (1, (240, 100)), (2, (30, 400))])
def test_any_size_gives_one_legible_sheet(people: int, size: tuple[int, int]) -> None:
    sheet = overlay(people, size=size)
    assert sheet.dtype == np.uint8
    assert sheet.shape[0] < 2200
    assert 1000 < sheet.shape[1] < 4000


@pytest.mark.usefixtures("small_panels")
def test_the_depth_panel_is_there_only_with_depth() -> None:
    without, exact = overlay(), overlay(depth=depth_map())
    assert exact.shape[1] > without.shape[1]
    # No residual is the middle of the colour map, over about the ball's area.
    assert count(exact, (247, 247, 247), 4) > 3000
    assert count(exact, (247, 247, 247), 4) > count(without, (247, 247, 247), 4) + 3000


@pytest.mark.usefixtures("small_panels")
@pytest.mark.parametrize(("error", "color"), [(0.3, (178, 24, 43)), (-0.3, (33, 102, 172))])
def test_residuals_take_the_colour_of_their_sign(error: float, color: tuple[int, int, int]) -> None:
    assert count(overlay(depth=depth_map(error)), color, 2) > 3000
    assert count(overlay(depth=depth_map(-error)), color, 2) < 200


@pytest.mark.usefixtures("small_panels")
def test_a_person_s_mask_limits_the_residual() -> None:
    depth = depth_map()
    people = np.zeros(SIZE, np.uint8)
    whole = overlay(depth=DepthView(depth.depth, depth.focal, depth.log_scale, people + 1))
    half = people.copy()
    half[:, : SIZE[1] // 2] = 1
    masked = overlay(depth=DepthView(depth.depth, depth.focal, depth.log_scale, half))
    assert 0.3 < count(masked, (247, 247, 247), 4) / count(whole, (247, 247, 247), 4) < 0.8


def test_lists_of_different_lengths_are_refused() -> None:
    image = np.zeros((*SIZE, 3), np.uint8)
    with pytest.raises(ValueError, match="1 views before, 0 after"):
        draw_overlay(image, ball(3.0)[1], [view(3.0, 150.0)], [], [], NAMES)


def test_resizing_moves_pixels_and_camera_alike() -> None:
    vertices, _ = ball(3.0)
    K = camera(150.0).double()
    once = scaled_points(project(vertices.double(), K), 2.5, 1.5)
    twice = project(vertices.double(), scaled_intrinsics(K, 2.5, 1.5)).numpy()
    np.testing.assert_allclose(once, twice, atol=1e-9)


def test_people_hide_each_other_as_seen_in_full_frames() -> None:
    near, faces = ball(2.0, 0.1)
    far, _ = ball(3.0, -0.2)
    behind, _ = ball(-3.0)
    aside, _ = ball(3.0, 50.0)
    K = camera(150.0)
    drawing = draw_people([far, near, behind, aside], [K] * 4, faces, COOL, SIZE)
    depth = rasterize(torch.stack([far, near]), faces, K.expand(2, 3, 3), SIZE).depth
    expected = torch.where(depth.amin(0).isinf(), -1, depth.argmin(0)).numpy()
    # The drawing looks at a window of the picture, whose rounding may move an edge's pixel.
    assert (drawing.person != expected).mean() < 1e-3
    assert set(np.unique(drawing.person)) == {-1, 0, 1}


def test_side_view_has_z_to_the_right_and_y_down() -> None:
    # A rod from the camera's side above to the far side below.
    start, end = torch.tensor([0.0, -0.5, 2.0]), torch.tensor([0.3, 0.5, 4.0])
    corners, faces = ball(0.0)
    small = 0.2 * corners
    vertices, triangles = torch.cat([small + start, small + end]), torch.cat([faces, faces + 6])
    picture = draw_side_view(
        [vertices + torch.tensor([0.0, 0, 40])], [vertices], triangles, [np.zeros((0, 3))], (800, 1000)
    )
    # Between the legend and the lower labels, only bodies are brighter than the grid.
    rows, columns = np.nonzero(picture[100:740].max(-1) > 90)
    left, right = columns < 500, columns >= 500
    assert left.sum() > 500
    assert right.sum() > 500
    assert rows[left].mean() + 100 < 300
    assert rows[right].mean() + 100 > 500


def test_side_view_puts_readings_on_the_surface_they_read() -> None:
    vertices, faces = ball(3.0)
    tip = np.array([[0.0, 0.0, 2.6]])
    with_tip, without = (
        draw_side_view([vertices], [vertices], faces, [points], (300, 300)) for points in (tip, tip[:0])
    )
    rows, columns = np.nonzero((with_tip != without).any(-1)[90:260])
    leftmost = np.nonzero(without[150].max(-1) > 90)[0].min()
    assert abs(columns.mean() - leftmost) < 4
    assert abs(rows.mean() + 90 - 150) < 3


@pytest.mark.usefixtures("small_panels")
def test_before_is_warm_and_after_is_cool() -> None:
    assert all(r > b for r, _, b in WARM)
    assert all(b > r for r, _, b in COOL)
    sheet = overlay().astype(int)
    half = sheet[: sheet.shape[0] // 2]
    middle = half.shape[1] // 2
    photo, before = half[:, : middle - 20], half[:, middle + 20 :]
    assert ((before[..., 0] - before[..., 2]) > 60).sum() > 3000
    assert ((photo[..., 0] - photo[..., 2]) > 60).sum() < 1000
