"""Metrics against scipy and cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.linalg import orthogonal_procrustes
from scipy.spatial import procrustes
from scipy.spatial.transform import Rotation

from depthfit.evaluation import metrics


@pytest.fixture
def joints() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(5, 24, 3)) * 0.4


def test_offset_of_50_mm_on_all_but_the_root_is_50_mm(joints):
    moved = joints + np.array([0.03, 0.0, 0.04])
    np.testing.assert_allclose(metrics.mpjpe(moved, joints), 0, atol=1e-9)
    moved[:, 0] = joints[:, 0]
    np.testing.assert_allclose(metrics.mpjpe(moved, joints), 50 * 23 / 24)
    np.testing.assert_allclose(metrics.mean_distance(moved, joints), 50 * 23 / 24)


def test_alignment_undoes_a_similarity(joints):
    rotation = Rotation.random(5, random_state=1).as_matrix()
    moved = 1.3 * joints @ rotation.transpose(0, 2, 1) + [1.0, -2.0, 5.0]
    np.testing.assert_allclose(metrics.similarity_align(moved, joints), joints, atol=1e-12)
    assert (metrics.mpjpe(moved, joints) > 100).all()


def test_alignment_equals_scipy(joints):
    """scipy's disparity is the squared error with the truth scaled to unit norm, reflections allowed: with
    small noise the best orthogonal matrix is a rotation and the two agree."""
    noisy = joints @ Rotation.random(random_state=2).as_matrix() + 0.02 * np.random.default_rng(3).normal(
        size=joints.shape
    )
    aligned = metrics.similarity_align(noisy, joints)
    for ours, true, raw in zip(aligned, joints, noisy, strict=True):
        centred = true - true.mean(0)
        rotation, scale = orthogonal_procrustes(raw - raw.mean(0), centred)
        best = (raw - raw.mean(0)) @ rotation * scale / ((raw - raw.mean(0)) ** 2).sum() + true.mean(0)
        np.testing.assert_allclose(ours, best, atol=1e-10)
        _, _, disparity = procrustes(true, raw)
        assert ((ours - true) ** 2).sum() / (centred**2).sum() == pytest.approx(disparity)


def test_a_mirrored_body_is_not_forgiven(joints):
    mirrored = joints * [-1.0, 1.0, 1.0]
    error = metrics.pa_mpjpe(mirrored, joints)
    _, scipy_allows_it, disparity = procrustes(joints[0], mirrored[0])
    assert disparity == pytest.approx(0, abs=1e-12)
    assert scipy_allows_it.shape == (24, 3)
    assert (error > 50).all()


def test_batch_axes_are_kept(joints):
    other = joints + np.random.default_rng(4).normal(size=joints.shape)
    whole = metrics.pa_mpjpe(np.stack([joints, other]), np.stack([other, joints]))
    assert whole.shape == (2, 5)
    np.testing.assert_allclose(whole[0, 3], metrics.pa_mpjpe(joints[3], other[3]))


def test_vertex_error_is_relative_to_the_pelvis():
    mesh = np.random.default_rng(5).normal(size=(2, 50, 3))
    pelvis, moved = np.zeros((2, 3)), np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 9.0]])
    np.testing.assert_allclose(metrics.vertex_error(mesh + moved[:, None], moved, mesh, pelvis), 0, atol=1e-9)
    np.testing.assert_allclose(metrics.vertex_error(mesh + np.array([0, 0.05, 0]), pelvis, mesh, pelvis), 50)


def test_camera_errors():
    assert metrics.log_error(2000.0, 1000.0) == pytest.approx(np.log(2))
    assert metrics.percent_error(900.0, 1000.0) == pytest.approx(10)
    np.testing.assert_allclose(metrics.pelvis_error([[0, 0.3, 4.4]], [[0, 0, 4]]), [500])


def test_reprojection_is_in_person_sizes():
    truth = np.array([[0.0, 0.0], [50.0, 200.0], [20.0, 100.0]])
    assert metrics.reprojection_error(truth + np.array([6.0, 8.0]), truth) == pytest.approx(10 / 200)


def test_share_worse_forgives_ties():
    assert metrics.share_worse([1.0, 2.0, 3.0, 5.0], [1.0, 1.0, 4.0, 4.0], 1e-3) == 0.5
    assert metrics.share_worse([1.0, 2.0, 3.0, 5.0], [1.0, 1.0, 4.0, 4.0], 1.0) == 0


def test_coverage_of_honest_and_of_too_narrow_intervals():
    error = np.random.default_rng(6).normal(size=20000) * 0.1
    assert metrics.interval_coverage(error, 0.1, 0.68) == pytest.approx(0.68, abs=0.01)
    assert metrics.interval_coverage(error, 0.1, 0.95) == pytest.approx(0.95, abs=0.01)
    assert metrics.interval_coverage(error, 0.05, 0.95) < 0.7
    assert np.isnan(metrics.interval_coverage(error, np.nan, 0.95))


def test_bootstrap_agrees_with_the_normal_approximation():
    values = np.random.default_rng(7).normal(10, 2, size=400)
    low, high = metrics.bootstrap_interval(values)
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.05)
    assert high == pytest.approx(values.mean() + half, abs=0.05)


def test_bootstrap_draws_images_not_people():
    """Four equal people an image carry the information of one: the interval is that of 100, not of 400."""
    image_values = np.random.default_rng(8).normal(10, 2, size=100)
    values, images = np.repeat(image_values, 4), np.repeat(np.arange(100), 4)
    low, high = metrics.bootstrap_interval(values, images)
    assert high - low == pytest.approx(2 * 1.96 * image_values.std() / 10, rel=0.15)


def test_shapes_that_differ_are_named():
    with pytest.raises(ValueError, match=r"\(24, 3\).*\(17, 3\)"):
        metrics.mpjpe(np.zeros((24, 3)), np.zeros((17, 3)))


def test_aligned_vertex_error_undoes_a_similarity():
    mesh = np.random.default_rng(9).normal(size=(3, 60, 3))
    rotation = Rotation.random(3, random_state=4).as_matrix()
    moved = 0.7 * mesh @ rotation.transpose(0, 2, 1) + [1.0, 2.0, 3.0]
    np.testing.assert_allclose(metrics.pa_vertex_error(moved, mesh), 0, atol=1e-9)
    bent = mesh.copy()
    bent[:, 0] += 1.0
    assert (metrics.pa_vertex_error(bent, mesh) > 1).all()
    # Aligned by joints that are right, only the bent vertex errs: 1 m x sqrt(3) over 60 vertices.
    joints = np.random.default_rng(10).normal(size=(3, 24, 3))
    found = metrics.pa_vertex_error(bent, mesh, joints, joints)
    np.testing.assert_allclose(found, 1000 * np.sqrt(3) / 60)
    turned = 0.7 * joints @ rotation.transpose(0, 2, 1) + [1.0, 2.0, 3.0]
    np.testing.assert_allclose(metrics.pa_vertex_error(moved, mesh, turned, joints), 0, atol=1e-9)


def test_bootstrap_equals_scipy_s():
    values = np.random.default_rng(10).gamma(2.0, 5.0, size=80)
    low, high = metrics.bootstrap_interval(values, resamples=4000)
    theirs = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=4000, rng=np.random.default_rng(1)
    ).confidence_interval
    assert (low, high) == pytest.approx(theirs, abs=0.25)


def test_bootstrap_of_a_mean_is_that_of_any_statistic():
    rng = np.random.default_rng(11)
    values, groups = rng.normal(size=50), rng.integers(0, 12, 50)
    short = metrics.bootstrap_interval(values, groups)
    slow = metrics.bootstrap_interval(values, groups, statistic=lambda v: float(np.mean(v)))
    assert short == pytest.approx(slow, abs=0.1)


def test_one_group_has_no_interval():
    """Frames of one video do not tell how far the mean of another would be: no width is no certainty."""
    values = np.random.default_rng(13).normal(size=50)
    assert np.isnan(metrics.bootstrap_interval(values, np.zeros(50))).all()
    assert np.isnan(
        metrics.bootstrap_interval(values, np.zeros(50), statistic=lambda v: float(np.max(v)))
    ).all()
    found = metrics.paired_difference(values, values + 1, 1e-3, np.zeros(50))
    assert found.mean == pytest.approx(-1)
    assert np.isnan([found.low, found.high]).all()


def test_paired_difference_sees_what_two_intervals_do_not():
    """Errors that vary by 30 mm between people, and 2 mm less after refinement for everyone."""
    rng = np.random.default_rng(12)
    initial = rng.normal(80, 30, 200)
    refined = initial - 2 + rng.normal(0, 1, 200)
    found = metrics.paired_difference(refined, initial, 1e-3)
    assert found.low < found.mean < found.high < 0
    assert found.mean == pytest.approx((refined - initial).mean())
    assert found.worse == pytest.approx((refined > initial).mean())
    theirs = stats.ttest_rel(refined, initial).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.04)
    with pytest.raises(ValueError, match="nobody"):
        metrics.paired_difference([], [], 1e-3)
