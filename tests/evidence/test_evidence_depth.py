from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy import ndimage

from depthfit.errors import InputError
from depthfit.evidence import depth as dm

SIZE = (64, 48)


def ramp(height: int = 48, width: int = 64) -> np.ndarray:
    return (2 + np.arange(height * width, dtype=np.float32) / 1000).reshape(height, width)


def test_npz_with_and_without_focal(tmp_path):
    metres = ramp()
    metres[0, :3] = [0, np.inf, np.nan]
    np.savez(tmp_path / "a.npz", depth=metres.astype(np.float64), focallength_px=np.float32(700))
    np.savez_compressed(tmp_path / "b.npz", depth=metres)
    a, b = (dm.read_depth(tmp_path / f"{n}.npz", SIZE) for n in "ab")
    assert a.metres[0, :3].tolist() == [0, 0, 0]
    np.testing.assert_array_equal(a.metres.ravel()[3:], metres.ravel()[3:])
    assert (a.focal_px, b.focal_px) == (700, None)
    assert a.metres.dtype == np.float32


def test_png_is_millimetres(tmp_path):
    pixels = np.full((48, 64), 2345, np.uint16)
    pixels[0, :2] = [0, 65535]
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    read = dm.read_depth(tmp_path / "a.png", SIZE)
    assert read.metres[5, 5] == pytest.approx(2.345)
    assert read.metres[0, :2].tolist() == [0, 0]


def test_exr_reads_the_depth_channel(tmp_path):
    exr = pytest.importorskip("OpenEXR")
    metres = ramp()
    header = {"type": exr.scanlineimage, "compression": exr.ZIP_COMPRESSION}
    exr.File(header, {"A": np.ones_like(metres), "Z": metres}).write(str(tmp_path / "a.exr"))
    exr.File(header, {"RGB": np.stack([metres] * 3, -1)}).write(str(tmp_path / "b.exr"))
    for name in "ab":
        np.testing.assert_array_equal(dm.read_depth(tmp_path / f"{name}.exr", SIZE).metres, metres)
    exr.File(header, {"A": metres}).write(str(tmp_path / "c.exr"))
    with pytest.raises(InputError, match="channels A"):
        dm.read_depth(tmp_path / "c.exr", SIZE)
    (tmp_path / "d.exr").write_bytes(b"garbage")
    with pytest.raises(InputError, match="not a readable EXR"):
        dm.read_depth(tmp_path / "d.exr", SIZE)


def test_exr_without_its_library_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "OpenEXR", None)
    with pytest.raises(InputError, match="pip install OpenEXR"):
        dm.read_depth(tmp_path / "a.exr", SIZE)


def test_smaller_depth_is_sampled_by_scale(tmp_path):
    small = np.arange(12, dtype=np.float32).reshape(3, 4) + 1
    np.savez(tmp_path / "a.npz", depth=small, focallength_px=50.0)
    read = dm.read_depth(tmp_path / "a.npz", SIZE)
    assert read.scale.tolist() == [1 / 16, 1 / 16]
    assert read.focal_px == 800  # in pixels of the image, 16 to one of the map
    rows, columns = np.mgrid[:48, :64]
    sampled = read.sample(np.stack([columns, rows], -1))
    np.testing.assert_array_equal(sampled, np.kron(small, np.ones((16, 16))))
    points = np.array([[3.25, 40.0], [-0.5, 47.5]])
    np.testing.assert_allclose(read.to_image(read.to_native(points)), points)
    assert read.sample(np.array([[-20.0, 5], [5, 300]])).tolist() == [0, 0]


def save_png(path, pixels):
    cv2.imwrite(str(path), pixels)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-40])


@pytest.mark.parametrize(
    ("write", "field", "found", "fix"),
    [
        (lambda p: np.savez(p, deph=ramp()), "depth", "missing; the file has deph", "'depth'"),
        (lambda p: np.savez(p, depth=ramp()[None]), "depth", "shape (1, 48, 64)", "(H, W)"),
        (lambda p: np.savez(p, depth=np.ones((48, 64), int)), "depth", "dtype int64", "float metres"),
        (lambda p: np.savez(p, depth=-ramp()), "depth", "negative", "0 = no reading"),
        (lambda p: np.savez(p, depth=0 * ramp()), "depth", "not one reading", "delete the file"),
        (lambda p: np.savez(p, depth=1000 * ramp()), "depth", "nearest reading is", "divide millimetres"),
        (lambda p: np.savez(p, depth=ramp(48, 48)), "depth", "48 x 48, which is not the aspect", "whole"),
        (lambda p: np.savez(p, depth=ramp(64, 48)), "depth", "48 x 64", "lies on its side"),
        (lambda p: np.savez(p, depth=np.array([None])), "depth", "cannot be read", "plain numeric"),
        (
            lambda p: np.savez(p, depth=ramp(), focallength_px=np.nan),
            "focallength_px",
            "nan is not a number above zero",
            "one number",
        ),
        (
            lambda p: np.savez(p, depth=ramp(), focallength_px=[1.0, 2]),
            "focallength_px",
            "shape (2,)",
            "one number",
        ),
        (lambda p: (np.savez(p, depth=ramp()), truncate(p)), "file", "not a complete npz", "cut short"),
        (lambda p: p.write_bytes(b""), "file", "not a complete npz", "numpy.savez"),
    ],
)
def test_bad_npz_files_are_explained(tmp_path, write, field, found, fix):
    path = tmp_path / "bad.npz"
    write(path)
    with pytest.raises(InputError) as error:
        dm.read_depth(path, SIZE)
    assert (error.value.source, error.value.field) == (str(path), field)
    assert found in error.value.found
    assert fix in error.value.fix


@pytest.mark.parametrize(
    ("pixels", "found"),
    [
        (np.ones((48, 64), np.uint8), "8 bits, 1 channel"),
        (np.ones((48, 64, 3), np.uint8), "8 bits, 3 channel"),
        (np.ones((48, 64, 3), np.uint16), "16 bits, 3 channel"),
    ],
)
def test_a_picture_of_depth_is_not_depth(tmp_path, pixels, found):
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    with pytest.raises(InputError, match="16-bit PNG") as error:
        dm.read_depth(tmp_path / "a.png", SIZE)
    assert found in error.value.found


def test_truncated_png_is_explained(tmp_path, capfd):
    pixels = np.random.default_rng(0).integers(1, 60000, (48, 64)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    truncate(tmp_path / "a.png")
    with pytest.raises(InputError, match="cannot be decoded"):
        dm.read_depth(tmp_path / "a.png", SIZE)


# --- discontinuities ----------------------------------------------------------------------------

CENTER, RADIUS = np.array([80.3, 60.7]), 35.0


def disc(near: float = 2.0, far: float = 4.0) -> np.ndarray:
    y, x = np.mgrid[:120, :160]
    inside = (x - CENTER[0]) ** 2 + (y - CENTER[1]) ** 2 < RADIUS**2
    return np.where(inside, near, far).astype(np.float32)


def test_valid_mask_keeps_its_distance_from_jumps_and_holes_are_no_jumps():
    metres = disc()
    metres[5:8, 5:8] = 0
    y, x = np.mgrid[:120, :160]
    off_edge = np.abs(np.hypot(x - CENTER[0], y - CENTER[1]) - RADIUS)
    kept = dm.valid_mask(metres, erode_px=3.0)
    assert not kept[off_edge < 2.5].any()
    expected = (off_edge > 6) & (metres > 0)
    assert kept[expected].all()
    assert not kept[metres == 0].any()
    assert kept[4, 4]
    assert dm.valid_mask(metres, erode_px=8.0).sum() < kept.sum()


def test_valid_mask_agrees_with_scipy_morphology():
    rng = np.random.default_rng(0)
    metres = np.exp(ndimage.gaussian_filter(rng.normal(0, 1, (80, 90)), 3) * 3).astype(np.float32)
    span = ndimage.maximum_filter(np.log(metres), 3) - ndimage.minimum_filter(np.log(metres), 3)
    far = ndimage.distance_transform_edt(span <= 0.2) > 2.0
    assert 0.05 < far.mean() < 0.95
    np.testing.assert_array_equal(dm.valid_mask(metres, 2.0, 0.2), far)


def test_valid_mask_of_a_slope_and_of_a_plane_keeps_all():
    assert dm.valid_mask(np.full((20, 20), 3.0, np.float32)).all()
    slope = np.exp(0.02 * np.arange(40))[None].repeat(30, 0).astype(np.float32)
    assert dm.valid_mask(slope).all()


@pytest.mark.parametrize("blur", [0.0, 1.2])
@pytest.mark.parametrize(("near", "far"), [(2.0, 4.0), (3.0, 3.4)])
def test_depth_edges_of_a_disc(blur, near, far):
    metres = disc(near, far)
    if blur:  # as networks do: in inverse depth
        metres = 1 / cv2.GaussianBlur(1 / metres, (0, 0), blur)
    edges = dm.depth_edges(metres)
    offset = edges.points - CENTER
    distance = np.linalg.norm(offset, axis=-1)
    assert len(distance) > 0.9 * 2 * np.pi * RADIUS
    assert np.abs(distance - RADIUS).mean() < 0.2
    assert abs((distance - RADIUS).mean()) < 0.05
    assert np.abs(distance - RADIUS).max() < 0.6
    cosine = (offset / distance[:, None] * edges.normals).sum(-1)
    assert np.degrees(np.arccos(cosine.clip(-1, 1))).mean() < 6
    assert cosine.min() > np.cos(np.radians(20))
    np.testing.assert_allclose(np.linalg.norm(edges.normals, axis=-1), 1, atol=1e-6)
    assert np.median(edges.jump) == pytest.approx(np.log(far / near), rel=0.2)
    angle = np.sort(np.arctan2(offset[:, 1], offset[:, 0]))
    assert np.diff(angle).max() < np.radians(6)  # no part of the outline is missed


def test_depth_edges_lie_half_way_between_the_pixels_and_point_to_the_far_side():
    metres = np.full((20, 30), 5.0, np.float32)
    metres[:, :12] = 3.0
    edges = dm.depth_edges(metres)
    np.testing.assert_allclose(edges.points[:, 0], 11.5, atol=1e-5)
    np.testing.assert_allclose(edges.normals, np.tile([1.0, 0], (len(edges.normals), 1)), atol=1e-6)
    assert len(edges.points) >= 16


def test_slopes_small_steps_and_holes_are_no_edges():
    floor_row = np.arange(1, 121, dtype=np.float32)[:, None]
    floor = np.where(floor_row > 20, 600 * 1.5 / floor_row, 0) * np.ones((1, 60), np.float32)
    assert len(dm.depth_edges(floor.astype(np.float32)).points) == 0
    assert len(dm.depth_edges(disc(3.0, 3.1)).points) == 0
    x = np.arange(100, dtype=np.float32)
    rippled = np.exp(0.03 * x + 0.01 * np.sin(x / 3))[None].repeat(30, 0)  # 12 % over 4 px, yet no edge
    assert len(dm.depth_edges(rippled).points) == 0
    holes = np.where(disc() < 3, 0, disc())
    assert len(dm.depth_edges(holes).points) == 0
    assert len(dm.depth_edges(np.zeros((20, 20), np.float32)).points) == 0
