"""Noise models: measured statistics against the levels asked for."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import stats
from scipy.fft import dctn

from depthfit.joints import COCO17, OKS_SIGMA
from depthfit.synth import noise as models
from depthfit.synth.config import NoiseConfig

SILENT = NoiseConfig(
    keypoint_factor=0, keypoint_outliers=0, focal_log=0, depth_log_scale=0, depth_warp=0, depth_pixel=0,
    depth_boundary_px=0, mask_px=0, mask_bites=0,
)  # fmt: skip


def _with(**levels: float) -> NoiseConfig:
    return dataclasses.replace(SILENT, **levels)


def _disc(radius: float = 60.0, size: tuple[int, int] = (200, 240)) -> np.ndarray:
    rows, columns = np.ogrid[: size[0], : size[1]]
    return (np.hypot(rows - 100, columns - 120) < radius).astype(np.uint8)


def _detect(noise: NoiseConfig, visible: bool = True, people: int = 400, area: float = 10000.0) -> np.ndarray:
    rng = np.random.default_rng(0)
    points = rng.uniform(400, 600, size=(17, 2))
    found = [
        models.detect_keypoints(rng, points, COCO17, area, np.full(17, visible), (1000, 1000), noise)
        for _ in range(people)
    ]
    error = np.array(found) - np.concatenate([points, np.zeros((17, 1))], -1)
    error[..., :2] /= np.array([OKS_SIGMA[name] for name in COCO17])[:, None] * np.sqrt(area)
    return error


def test_keypoint_spread_in_oks_units():
    error = _detect(_with(keypoint_factor=0.35))
    assert error[..., :2].std() == pytest.approx(0.35, rel=0.03)
    np.testing.assert_allclose(error[..., :2].std((0, 2)), 0.35, rtol=0.15)
    assert _detect(_with(keypoint_factor=0.35), area=2500.0)[..., :2].std() == pytest.approx(0.35, rel=0.03)


def test_hidden_points_err_more_and_say_so():
    seen, hidden = _detect(_with(keypoint_factor=0.35)), _detect(_with(keypoint_factor=0.35), visible=False)
    assert hidden[..., :2].std() == pytest.approx(2 * seen[..., :2].std(), rel=0.05)
    assert hidden[..., 2].mean() < 0.65 * seen[..., 2].mean()


def test_confidence_tells_of_the_error():
    error = _detect(_with(keypoint_factor=0.35))
    size = np.linalg.norm(error[..., :2], axis=-1).ravel()
    rank = stats.spearmanr(size, error[..., 2].ravel()).statistic
    assert -0.6 < rank < -0.15


def test_share_of_outliers():
    error = np.abs(_detect(_with(keypoint_outliers=0.1), people=1000)[..., :2]).max(-1)
    # Without other noise, only lost and swapped points move; nose and a few lost ones move very little.
    assert (error > 1e-9).mean() == pytest.approx(0.1, abs=0.012)


def test_points_outside_the_image_are_not_trusted():
    points = np.array([[-50.0, 100.0], [100.0, 100.0]])
    found = models.detect_keypoints(
        np.random.default_rng(0), points, ("nose", "neck"), 1e4, np.ones(2, bool), (200, 200), NoiseConfig()
    )
    assert found[0, 2] <= 0.05
    assert found[0, 0] >= 0
    assert found[1, 2] > 0.6


@pytest.mark.parametrize("length", [15.0, 60.0])
def test_field_is_a_gaussian_process(length):
    rng = np.random.default_rng(1)
    fields = np.array([models.smooth_field(rng, (90, 130), length) for _ in range(600)])
    assert fields.mean() == pytest.approx(0, abs=0.1)
    assert fields.std() == pytest.approx(1, abs=0.05)
    lag = int(length)
    correlation = (fields[:, :, lag:] * fields[:, :, :-lag]).mean() / (fields**2).mean()
    assert correlation == pytest.approx(np.exp(-0.5), abs=0.05)
    correlation = (fields[:, lag:] * fields[:, :-lag]).mean() / (fields**2).mean()
    assert correlation == pytest.approx(np.exp(-0.5), abs=0.05)
    assert stats.kstest(fields[:, 45, 65] / fields.std(), "norm").pvalue > 0.001


def test_field_is_not_held_by_a_few_cosines():
    """The limb-sized half of the warp must not lie in a low-order cosine basis of a fit."""
    rng = np.random.default_rng(2)
    power = np.mean(
        [dctn(models.smooth_field(rng, (96, 128), 12.0), norm="ortho") ** 2 for _ in range(20)], 0
    )
    assert power[:3, :3].sum() / power.sum() < 0.55


def test_depth_without_noise_is_exact():
    z = np.random.default_rng(3).uniform(1, 5, size=(60, 80))
    depth, focal = models.estimate_depth(np.random.default_rng(0), z, 900.0, 20.0, SILENT)
    np.testing.assert_allclose(depth, z, rtol=1e-6)
    assert focal == pytest.approx(900)


def test_focal_error_enters_depth_one_to_one():
    z = np.full((40, 50), 3.0)
    for seed in range(5):
        depth, focal = models.estimate_depth(
            np.random.default_rng(seed), z, 900.0, 20.0, _with(focal_log=0.22)
        )
        np.testing.assert_allclose(depth / focal, z / 900, rtol=1e-5)


def test_image_errors_have_their_spread_and_a_tail():
    rng = np.random.default_rng(4)
    z = np.full((8, 8), 3.0)
    drawn = [models.estimate_depth(rng, z, 900.0, 20.0, _with(focal_log=0.22)) for _ in range(4000)]
    focal = np.log([f / 900 for _, f in drawn])
    assert focal.std() == pytest.approx(0.22, rel=0.05)
    scale = [np.log(models.estimate_depth(rng, z, 900.0, 20.0, _with(depth_log_scale=0.1))[0][0, 0] / 3)
             for _ in range(4000)]  # fmt: skip
    assert np.std(scale) == pytest.approx(0.1, rel=0.05)
    assert stats.kurtosis(scale) > 0.3


def test_warp_and_pixel_noise():
    rng = np.random.default_rng(5)
    z = np.full((120, 160), 3.0)
    errors = np.array(
        [
            np.log(models.estimate_depth(rng, z, 900.0, 20.0, _with(depth_warp=0.03))[0] / 3)
            for _ in range(200)
        ]
    )
    assert np.sqrt((errors**2).mean()) == pytest.approx(0.03, rel=0.1)
    # Half of the variance is of limb size, and so varies within the image.
    assert 0.5 < errors.var((1, 2)).mean() / (errors**2).mean() < 0.95
    pixel = np.log(models.estimate_depth(rng, z, 900.0, 20.0, _with(depth_pixel=0.01))[0] / 3)
    assert pixel.std() == pytest.approx(0.01, rel=0.05)


def test_boundaries_mix_within_their_band_and_in_inverse_depth():
    z = np.full((50, 100), 6.0)
    z[:, 50:] = 2.0
    depth, _ = models.estimate_depth(np.random.default_rng(0), z, 900.0, 20.0, _with(depth_boundary_px=2.5))
    mixed = np.flatnonzero((depth[25] > 2.06) & (depth[25] < 5.8))
    assert set(range(48, 52)) <= set(mixed)
    assert mixed.min() >= 46
    assert mixed.max() <= 53
    assert 1 / depth[25, 49] + 1 / depth[25, 50] == pytest.approx(1 / 2 + 1 / 6, rel=1e-4)


def test_masks():
    disc = _disc()
    np.testing.assert_array_equal(models.segment(np.random.default_rng(0), disc, 1, SILENT), disc)
    radius = [np.sqrt(models.segment(np.random.default_rng(i), disc, 1, _with(mask_px=2.0)).sum() / np.pi)
              for i in range(30)]  # fmt: skip
    assert np.mean(radius) == pytest.approx(60, abs=0.5)
    changed = models.segment(np.random.default_rng(1), disc, 1, _with(mask_px=2.0)) != disc
    rows, columns = np.nonzero(changed)
    distance = np.abs(np.hypot(rows - 100, columns - 120) - 60)
    assert changed.sum() > 100
    assert distance.max() < 8
    bitten = models.segment(np.random.default_rng(2), disc, 1, _with(mask_bites=1.0))
    assert 20 < (disc & ~bitten.astype(bool)).sum() < 1000
    assert not (bitten.astype(bool) & ~disc.astype(bool)).any()


def test_masks_of_neighbours_do_not_overlap_or_vanish():
    labels = np.zeros((100, 120), np.uint8)
    labels[20:80, 20:60], labels[20:80, 60:100] = 1, 2
    out = models.segment(np.random.default_rng(0), labels, 2, NoiseConfig())
    assert set(np.unique(out)) == {0, 1, 2}
    for k in (1, 2):
        assert (out == k)[labels == k].mean() > 0.9
