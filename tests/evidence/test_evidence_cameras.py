from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest

from depthfit.errors import InputError
from depthfit.evidence import cameras, exif
from tests.evidence.scene_files import write_json

SIZE = (4000, 3000)
SHORT, LONG, RATIONAL = 3, 4, 5


def tiff(entries: list[tuple[int, int, object]], order: str = "<") -> bytes:
    """A TIFF block whose EXIF directory has ``entries`` (tag, type, value)."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    pointer = struct.pack(order + "H", 1) + struct.pack(order + "HHII", 0x8769, LONG, 1, 26)
    body, extra = struct.pack(order + "H", len(entries)), b""
    at = 26 + 2 + 12 * len(entries) + 4
    for tag, kind, value in entries:
        body += struct.pack(order + "HHI", tag, kind, 1)
        if kind == SHORT:
            body += struct.pack(order + "HH", value, 0)
        elif kind == LONG:
            body += struct.pack(order + "I", value)
        else:
            body += struct.pack(order + "I", at + len(extra))
            extra += struct.pack(order + "II", *value)
    return head + pointer + b"\0" * 4 + body + b"\0" * 4 + extra


def jpeg(block: bytes, size: tuple[int, int] = (8, 6)) -> bytes:
    pixels = cv2.imencode(".jpg", np.zeros((size[1], size[0], 3), np.uint8))[1].tobytes()
    segment = b"Exif\0\0" + block
    return pixels[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + pixels[2:]


def png(block: bytes) -> bytes:
    pixels = cv2.imencode(".png", np.zeros((6, 8, 3), np.uint8))[1].tobytes()
    chunk = b"eXIf" + block
    at = pixels.index(b"IDAT") - 4
    crc = struct.pack(">I", zlib.crc32(chunk))
    return pixels[:at] + struct.pack(">I", len(block)) + chunk + crc + pixels[at:]


PHONE = [(0xA405, SHORT, 26), (0xA002, LONG, 4000), (0xA003, LONG, 3000)]
CAMERA = [
    (0x920A, RATIONAL, (50, 1)),
    (0xA20E, RATIONAL, (400000, 36)),
    (0xA210, SHORT, 4),
    (0xA002, SHORT, 4000),
    (0xA003, SHORT, 3000),
]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("wrap", [jpeg, png])
def test_exif_is_read_in_both_byte_orders_and_both_files(order, wrap):
    said = exif.read_exif_focal(wrap(tiff(PHONE, order)))
    assert said == exif.ExifFocal(26, None, (4000, 3000))
    said = exif.read_exif_focal(wrap(tiff(CAMERA, order)))
    assert said is not None
    assert said.equivalent_mm is None
    assert said.pixels == pytest.approx(50 * 400000 / 36)
    assert cv2.imdecode(np.frombuffer(wrap(tiff(PHONE, order)), np.uint8), 1).shape == (6, 8, 3)


def test_exif_written_by_another_program_is_read():
    image = pytest.importorskip("PIL.Image")
    photo, tags = image.new("RGB", (40, 30)), image.Exif()
    tags[0x010F] = "a maker"
    directory = tags.get_ifd(0x8769)
    directory[0x920A], directory[0xA405], directory[0xA002], directory[0xA003] = 4.25, 26, 40, 30
    for file_format in ("JPEG", "PNG"):
        stream = io.BytesIO()
        photo.save(stream, file_format, exif=tags)
        assert exif.read_exif_focal(stream.getvalue()) == exif.ExifFocal(26, None, (40, 30))


def test_files_without_exif_say_nothing():
    for data in (jpeg(b"")[:2], b"", b"garbage", cv2.imencode(".png", np.zeros((4, 4)))[1].tobytes()):
        assert exif.read_exif_focal(data) is None
    assert exif.read_exif_focal(jpeg(tiff([]))) == exif.ExifFocal(None, None, None)


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"garbage!",
        b"II*\0" + struct.pack("<I", 0xFFFFFFF0),
        b"II*\0" + struct.pack("<IH", 8, 60000),
        b"II*\0" + struct.pack("<IH", 8, 3),
        b"II*\0" + struct.pack("<IHHHII", 8, 1, 0x8769, LONG, 1, 0x7FFFFFFF),
        tiff(CAMERA)[:-20],
    ],
)
def test_hostile_exif_is_an_error_and_never_a_crash(block):
    with pytest.raises(exif.ExifError):
        exif.read_exif_focal(jpeg(block))


def test_a_directory_that_points_at_itself_ends():
    block = b"II*\0" + struct.pack("<IHHHII", 8, 1, 0x8769, LONG, 1, 8)
    assert exif.read_exif_focal(jpeg(block)) == exif.ExifFocal(None, None, None)


def test_random_bytes_in_exif_end_in_an_answer_or_an_exif_error():
    rng = np.random.default_rng(0)
    good = np.frombuffer(tiff(CAMERA), np.uint8)
    for _ in range(2000):
        block = good.copy()
        block[rng.integers(4, len(block), 4)] = rng.integers(0, 256, 4)
        try:
            said = exif.read_exif_focal(jpeg(block.tobytes()))
        except exif.ExifError:
            continue
        if said is not None:
            camera, _ = cameras.exif_camera(said, SIZE)
            assert camera is None or 0.2 * 4000 <= camera.focal_px <= 50 * 4000


def test_exif_focal_by_diagonals_and_by_the_sensor():
    camera, note = cameras.exif_camera(exif.ExifFocal(26, None, (4000, 3000)), SIZE)
    assert note is None
    assert camera is not None
    assert camera.focal_px == pytest.approx(26 * 5000 / 43.2666153)
    assert (camera.source, camera.center) == ("exif", (1999.5, 1499.5))
    camera, _ = cameras.exif_camera(exif.ExifFocal(None, 5555.0, (4000, 3000)), (2000, 1500))
    assert camera is not None
    assert camera.focal_px == pytest.approx(5555 / 2)  # the image was halved since
    turned, _ = cameras.exif_camera(exif.ExifFocal(None, 5555.0, (4000, 3000)), (3000, 4000))
    assert turned is not None
    assert turned.focal_px == pytest.approx(5555)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (exif.ExifFocal(26, None, (4000, 3000)), "cropped"),
        (exif.ExifFocal(60000, None, None), "not believed"),
        (exif.ExifFocal(None, -50.0, None), "not believed"),
    ],
)
def test_exif_that_cannot_hold_is_set_aside_with_a_reason(said, reason):
    size = (3000, 3000) if reason == "cropped" else SIZE
    camera, note = cameras.exif_camera(said, size)
    assert camera is None
    assert note is not None
    assert reason in note
    assert cameras.exif_camera(exif.ExifFocal(None, None, None), SIZE) == (None, None)


# --- cameras.json -------------------------------------------------------------------------------


def test_given_focal_and_given_matrix(tmp_path):
    path = tmp_path / "cameras.json"
    camera = cameras.given_camera(path, "a", {"focal_px": 1234}, SIZE)
    assert camera == cameras.CameraPrior(1234.0, cameras.SIGMA_GIVEN, (1999.5, 1499.5), "cameras.json")
    K = [[1673.73, 0, 534.49], [0, 1673.80, 963.23], [0, 0, 1]]
    camera = cameras.given_camera(path, "a", {"K": K, "sigma_log_focal": 0.003}, (1088, 1920))
    assert camera.focal_px == pytest.approx(1673.765, abs=1e-3)
    assert (camera.center, camera.sigma_log_focal) == ((534.49, 963.23), 0.003)


def matrix(**changes: float) -> list[list[float]]:
    v = {"fx": 900.0, "fy": 900.0, "skew": 0.0, "cx": 5.0, "cy": 6.0, "one": 1.0} | changes
    return [[v["fx"], v["skew"], v["cx"]], [0.0, v["fy"], v["cy"]], [0.0, 0.0, v["one"]]]


@pytest.mark.parametrize(
    ("entry", "field", "found", "fix"),
    [
        (900, "a", "900", "focal_px"),
        ({}, "a", "neither focal_px nor K", "focal_px"),
        ({"focal_px": 9, "K": matrix()}, "a", "both focal_px and K", "Write"),
        ({"focal": 900}, "a.focal", "unknown key", "Did you mean 'focal_px'?"),
        ({"focal_px": 0}, "a.focal_px", "0 is not a number above zero", "Write"),
        ({"focal_px": float("nan")}, "a.focal_px", "nan", "Write"),
        ({"focal_px": "900"}, "a.focal_px", "'900'", "Write"),
        ({"focal_px": True}, "a.focal_px", "True", "Write"),
        ({"focal_px": 9, "sigma_log_focal": -1}, "a.sigma_log_focal", "-1", "standard deviation"),
        ({"K": [[1, 2], [3, 4]]}, "a.K", "shape (2, 2)", "Write"),
        ({"K": [[1, 2], [3]]}, "a.K", "no matrix", "Write"),
        ({"K": matrix(cx=float("inf"))}, "a.K", "not finite", "Write"),
        ({"K": matrix(one=0.0)}, "a.K", "no camera matrix", "Write"),
        ({"K": matrix(fx=-900.0)}, "a.K", "no camera matrix", "Write"),
        ({"K": matrix(fy=950.0)}, "a.K", "fx = 900, fy = 950", "square pixels"),
        ({"K": matrix(skew=30.0)}, "a.K", "skew = 30", "square pixels"),
        ({"focal_px": 35}, "a.focal_px", "35 px for an image of 4000 x 3000", "sensor's width in mm"),
        ({"K": matrix(fx=1.2, fy=1.2, cx=0.5, cy=0.5)}, "a.K", "1.2 px for an image", "pixels of this image"),
    ],
)
def test_bad_entries_are_explained(tmp_path, entry, field, found, fix):
    path = tmp_path / "cameras.json"
    with pytest.raises(InputError) as error:
        cameras.given_camera(path, "a", entry, SIZE)
    assert (error.value.source, error.value.field) == (str(path), field)
    assert found in error.value.found
    assert fix in error.value.fix


def test_cameras_json_must_be_an_object(tmp_path):
    with pytest.raises(InputError, match="a JSON list"):
        cameras.read_cameras(write_json(tmp_path / "cameras.json", [1]))


def test_prior_is_turned_with_the_image_and_looser_than_all_else():
    wide, tall = cameras.prior_camera((4000, 3000)), cameras.prior_camera((3000, 4000))
    assert wide.focal_px == tall.focal_px == pytest.approx(2000 / np.tan(np.radians(27.5)))
    sigmas = [cameras.SIGMA_GIVEN, cameras.SIGMA_EXIF, cameras.SIGMA_DEPTH, cameras.SIGMA_PRIOR]
    assert sigmas == sorted(sigmas)
