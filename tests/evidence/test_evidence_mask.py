from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy import ndimage

from depthfit.errors import InputError
from depthfit.evidence import mask as mk

SIZE = (160, 120)


def disc(center: tuple[float, float], radius: float, size: tuple[int, int] = SIZE) -> np.ndarray:
    y, x = np.mgrid[: size[1], : size[0]]
    return (x - center[0]) ** 2 + (y - center[1]) ** 2 < radius**2


# --- contours -----------------------------------------------------------------------------------


@pytest.mark.parametrize("radius", [6.0, 20.0, 50.0])
def test_contour_of_a_circle(radius):
    center = np.array([80.3, 58.7])
    contour = mk.mask_contour(disc((80.3, 58.7), radius).astype(np.uint8) * 3, 3, count=100)
    offset = contour.points - center
    distance = np.linalg.norm(offset, axis=-1)
    assert abs(distance.mean() - radius) < 0.05 + 0.5 / radius  # not half a pixel inside
    assert np.abs(distance - radius).max() < 0.4
    cosine = (offset / distance[:, None] * contour.normals).sum(-1)
    assert cosine.min() > np.cos(np.radians(8))
    gaps = np.linalg.norm(contour.points - np.roll(contour.points, 1, axis=0), axis=-1)
    assert gaps == pytest.approx(2 * np.pi * radius / 100, rel=0.05)
    assert contour.valid.all()


def test_contour_of_a_rectangle_lies_between_the_pixels():
    labels = np.zeros((100, 120), np.uint8)
    labels[20:60, 30:90] = 1
    contour = mk.mask_contour(labels, 1, count=200)
    x, y = contour.points.T
    left = (np.abs(x - 29.5) < 1) & (y > 25) & (y < 54)
    top = (np.abs(y - 19.5) < 1) & (x > 35) & (x < 84)
    bottom = (np.abs(y - 59.5) < 1) & (x > 35) & (x < 84)
    np.testing.assert_allclose(x[left], 29.5, atol=0.02)
    np.testing.assert_allclose(y[top], 19.5, atol=0.02)
    np.testing.assert_allclose(y[bottom], 59.5, atol=0.02)
    for side, normal in ((left, [-1, 0]), (top, [0, -1]), (bottom, [0, 1])):
        assert side.sum() > 20
        np.testing.assert_allclose(contour.normals[side] - normal, 0, atol=0.02)


def test_inner_contours_belong_to_the_outline_and_their_normals_point_into_the_hole():
    labels = (disc((80.3, 58.7), 50) & ~disc((80.3, 58.7), 20)).astype(np.uint8)
    contour = mk.mask_contour(labels, 1, count=280)
    offset = contour.points - [80.3, 58.7]
    distance = np.linalg.norm(offset, axis=-1)
    inner = distance < 35
    assert inner.sum() == pytest.approx(80, abs=4)  # by arc length: 20 of 70
    np.testing.assert_allclose(distance[inner], 20, atol=0.4)
    np.testing.assert_allclose(distance[~inner], 50, atol=0.4)
    outward = (offset * contour.normals).sum(-1) / distance
    assert (outward[~inner] > 0.98).all()
    assert (outward[inner] < -0.98).all()


def test_the_image_border_is_no_outline():
    labels = np.zeros((100, 120), np.uint8)
    labels[40:, 30:90] = 1  # cut off below
    contour = mk.mask_contour(labels, 1)
    at_border = contour.points[:, 1] > 98
    assert at_border.sum() > 50
    assert not contour.valid[at_border].any()
    assert contour.valid[contour.points[:, 1] < 97.5].all()


def test_points_beside_another_person_are_invalid():
    labels = np.zeros((100, 120), np.uint8)
    labels[20:80, 30:60] = 1
    labels[30:70, 61:90] = 2  # one free pixel between them
    contour = mk.mask_contour(labels, 1)
    x, y = contour.points.T
    beside = (x > 59) & (y > 30) & (y < 69)
    assert beside.sum() > 30
    assert not contour.valid[beside].any()
    away = (x < 55) | (y < 26) | (y > 74)
    assert contour.valid[away].all()
    alone = mk.mask_contour(np.where(labels == 1, labels, 0), 1)
    assert alone.valid.all()
    np.testing.assert_array_equal(alone.points, contour.points)


def test_nobody_there_gives_points_that_count_nothing():
    contour = mk.mask_contour(np.zeros((10, 12), np.uint8), 1, count=17)
    assert contour.points.shape == contour.normals.shape == (17, 2)
    assert not contour.valid.any()


@pytest.mark.parametrize("thickness", [1, 2, 3])
def test_thin_parts_have_finite_points_and_true_normals_where_valid(thickness):
    labels = np.zeros((100, 120), np.uint8)
    labels[20:80, 50 : 50 + thickness] = 1
    contour = mk.mask_contour(labels, 1)
    assert np.isfinite(contour.points).all()
    assert (np.abs(contour.points[:, 0] - (50 + (thickness - 1) / 2)) < thickness / 2 + 0.6).all()
    sides = contour.valid & (contour.points[:, 1] > 24) & (contour.points[:, 1] < 75)
    if thickness > 1:
        assert sides.sum() > 150
    outward = np.sign(contour.points[sides, 0] - (50 + (thickness - 1) / 2))
    np.testing.assert_allclose(contour.normals[sides, 0], outward, atol=0.05)


def test_points_of_a_ragged_mask_stay_beside_its_pixels():
    labels = (np.random.default_rng(0).uniform(size=(60, 60)) < 0.4).astype(np.uint8)
    points = mk.mask_contour(labels, 1, count=2000).points
    to_pixel = ndimage.distance_transform_edt(mk.remove_specks(labels == 1) == 0)
    assert ndimage.map_coordinates(to_pixel, points[:, ::-1].T, order=1, mode="nearest").max() < 1.2


def test_a_single_pixel_is_survived():
    labels = np.zeros((9, 9), np.uint8)
    labels[4, 4] = 1
    assert np.isfinite(mk.mask_contour(labels, 1).points).all()


def test_specks_and_pinholes_are_removed():
    clean = disc((80, 60), 40)
    dirty = clean.copy()
    dirty[3, 3] = dirty[100:103, 5:8] = True
    dirty[60, 80] = False
    np.testing.assert_array_equal(mk.remove_specks(dirty), clean)
    two = clean & ~disc((80, 60), 15) | disc((20, 20), 12)
    np.testing.assert_array_equal(mk.remove_specks(two), two)
    full = np.ones((5, 5), bool)
    np.testing.assert_array_equal(mk.remove_specks(full), full)
    assert not mk.remove_specks(~full).any()


def test_the_contour_runs_midway_between_the_pixels():
    mask = disc((80.3, 58.7), 30)
    points = mk.mask_contour(mask.astype(np.uint8), 1).points
    inside, outside = ndimage.distance_transform_edt(mask), ndimage.distance_transform_edt(~mask)
    at = ndimage.map_coordinates(np.where(mask, 0.5 - inside, outside - 0.5), points[:, ::-1].T, order=1)
    assert np.abs(at).max() < 0.5
    assert abs(at.mean()) < 0.1


# --- reading ------------------------------------------------------------------------------------


def test_labels_are_read_as_they_are(tmp_path):
    labels = np.zeros((120, 160), np.uint8)
    labels[5:9, 5:9], labels[50:60, 50:70] = 2, 1
    cv2.imwrite(str(tmp_path / "a.png"), labels)
    read = mk.read_mask(tmp_path / "a.png", SIZE)
    np.testing.assert_array_equal(read, labels)
    assert (mk.person_area(read, 1), mk.person_area(read, 2), mk.person_area(read, 3)) == (200, 16, 0)


@pytest.mark.parametrize(
    ("pixels", "field", "found", "fix"),
    [
        (np.ones((120, 160), np.uint16), "pixels", "16 bits, 1 channel", "8-bit PNG"),
        (np.ones((120, 160, 3), np.uint8), "pixels", "8 bits, 3 channel", "without a palette"),
        (np.ones((160, 120), np.uint8), "size", "120 x 160, but the image is 160 x 120", "upright"),
        (disc((80, 60), 9).astype(np.uint8) * 255, "pixels", "0 and 255", "write 1"),
    ],
)
def test_bad_masks_are_explained(tmp_path, pixels, field, found, fix):
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), pixels)
    with pytest.raises(InputError) as error:
        mk.read_mask(path, SIZE)
    assert (error.value.source, error.value.field) == (str(path), field)
    assert found in error.value.found
    assert fix in error.value.fix


def test_a_mask_that_is_no_image_is_explained(tmp_path):
    (tmp_path / "a.png").write_bytes(b"not a png")
    with pytest.raises(InputError, match="cannot be decoded"):
        mk.read_mask(tmp_path / "a.png", SIZE)
