"""The crop against figures of the official code, and against what a crop is."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from baselines.hmr.crop import IMAGE_MEAN, IMAGE_STD, crop_person
from depthfit.camera import full_image_translation, regressor_focal
from tests.baselines.hmr.networks import FIGURES, NAMES
from tests.baselines.hmr.seeded import BOXES, IMAGE_SIZE, image, probe

PROBES = 96


@pytest.mark.parametrize("name", BOXES)
def test_crops_are_those_of_the_official_code(name: str) -> None:
    official, crop = FIGURES["crops"][name], crop_person(image(*IMAGE_SIZE), np.array(BOXES[name]))
    assert crop.pixels.dtype == np.float32
    assert crop.pixels.shape == (3, 256, 256)
    found, expected = np.array(probe(crop.pixels, PROBES)), np.array(official["pixels"])
    # Where nothing is blurred, OpenCV interpolates 8-bit pixels, each of its versions with its own rounding:
    # the figures were made with version 5.
    exact = "blurred" in name or "far" in name or cv2.__version__.startswith("5.")
    np.testing.assert_allclose(found[:PROBES], expected[:PROBES], atol=1e-4 if exact else 0.1, rtol=0)
    np.testing.assert_allclose(found[PROBES:], expected[PROBES:], atol=1e-4 if exact else 0.1, rtol=0)
    assert crop.size == pytest.approx(official["size"], rel=1e-6)
    # The official numbers count pixel edges, ours pixel centres.
    assert crop.center + 0.5 == pytest.approx(official["center"], rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_full_image_translations_are_those_of_the_official_code(name: str) -> None:
    crops = [crop_person(image(*IMAGE_SIZE), np.array(box)) for box in BOXES.values()]
    camera = torch.tensor(FIGURES[name]["camera"])[[0, 1, 2, 0, 1]]
    height, width = IMAGE_SIZE
    found = full_image_translation(
        camera,
        torch.from_numpy(np.stack([c.center for c in crops])),
        torch.tensor([c.size for c in crops]),
        torch.tensor([float(width), float(height)]).expand(5, 2),
        regressor_focal(width, height).expand(5),
    )
    np.testing.assert_allclose(found.numpy(), FIGURES[name]["translation"], atol=1e-4, rtol=1e-6)


def test_a_crop_at_full_scale_is_the_image_itself() -> None:
    """Its centre, pixel number 128 of the crop, is the box's; beyond the border it is black."""
    pixels = image(300, 400)
    crop = crop_person(pixels, np.array([104.0, 22.0, 296.0, 278.0]))
    assert crop.size == 256
    assert crop.center == pytest.approx([199.5, 149.5])
    expected = (pixels[22:278, 72:328] / 255 - IMAGE_MEAN) / IMAGE_STD
    np.testing.assert_allclose(crop.pixels, expected.transpose(2, 0, 1), atol=1e-5)
    outside = crop_person(pixels, np.array([-500.0, 22.0, -308.0, 278.0]))
    black = -np.array(IMAGE_MEAN) / IMAGE_STD
    np.testing.assert_allclose(
        outside.pixels, np.broadcast_to(black[:, None, None], (3, 256, 256)), atol=1e-5
    )


def test_a_blurred_crop_has_no_aliases() -> None:
    """Stripes finer than the crop can show become grey, and a large image costs no more than its part."""
    stripes = np.zeros((3000, 3000, 3), np.uint8)
    stripes[:, ::2] = 255
    crop = crop_person(stripes, np.array([500.0, 500.0, 2000.0, 2500.0]))
    grey = (0.5 - np.array(IMAGE_MEAN)) / IMAGE_STD
    np.testing.assert_allclose(crop.pixels[:, 40:-40, 40:-40].mean((1, 2)), grey, atol=0.02)
    assert crop.pixels[:, 40:-40, 40:-40].std((1, 2)).max() < 0.02


@pytest.mark.parametrize("box", [(5.0, 5.0, 5.0, 5.0), (9.0, 9.0, 2.0, 2.0), (0.0, 0.0, np.nan, 4.0)])
def test_an_empty_box_is_refused(box: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="empty box"):
        crop_person(image(20, 20), np.array(box))
