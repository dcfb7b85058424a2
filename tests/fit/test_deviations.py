"""Deviations and verdicts where the fit is not simply believed: held focals, refused people, far cameras."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from depthfit import so3
from depthfit.body.load import load_body
from depthfit.body.model import Body
from depthfit.errors import InputError
from depthfit.fit import FitConfig, Fitter, ImageInput, PersonFit
from depthfit.fit.nuisance import COMMON_ERROR
from depthfit.fit.verdict import VERDICTS, FitStatus, Measures, judge
from tests.fit.scenes import exact_config, exact_image

FOCAL_SIGMA = 0.2


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body()


@pytest.fixture(scope="module")
def image(body: Body) -> ImageInput:
    return replace(exact_image(body, 0, focal_error=0.0)[0], log_focal_sigma=FOCAL_SIGMA)


def short_config() -> FitConfig:
    config = exact_config(pose_sigma=0.1, depth_sigma=0.01)
    config.solver.rounds, config.solver.steps, config.pose.root_sigma_rad = 2, 2, 0.1
    return config


def fit(body: Body, config: FitConfig, image: ImageInput) -> PersonFit:
    ((found,),) = Fitter(body, None, config).fit([image])
    return found


def test_a_held_focal_keeps_its_own_deviation(body: Body, image: ImageInput) -> None:
    config = short_config()
    config.camera.freeze_focal = True
    wide = fit(body, config, image)
    sure = fit(body, config, replace(image, log_focal_sigma=1e-3))
    assert wide.focal_std_log == pytest.approx(FOCAL_SIGMA, rel=1e-5)
    assert sure.focal_std_log == pytest.approx(1e-3, rel=1e-5)
    # A dolly zoom: distance and focal err together, beside what the distance errs under the true focal.
    assert wide.distance_std_log**2 - sure.distance_std_log**2 == pytest.approx(
        FOCAL_SIGMA**2 - 1e-6, rel=1e-3
    )
    config.camera.freeze_focal = False
    free = fit(body, config, replace(image, log_focal_sigma=1e-3))
    assert sure.distance_std_log == pytest.approx(free.distance_std_log, rel=0.05)


def test_who_is_refused_has_the_deviations_of_the_prediction(body: Body, image: ImageInput) -> None:
    config = short_config()
    accepted = fit(body, config, image)
    config.verdict.use, config.verdict.max_reprojection = True, 0.0
    refused = fit(body, config, image)
    assert refused.status == FitStatus.REPROJECTION.value
    assert refused.focal_std_log == pytest.approx(FOCAL_SIGMA, rel=1e-5)
    assert refused.distance_std_log > FOCAL_SIGMA
    assert refused.joints_std[0] < 1e-6
    # Draws of the prior, through the body itself.
    generator = torch.Generator().manual_seed(0)
    wide = Fitter(body, None, config)
    scheduler = wide.scheduler([image])
    start = scheduler.start().people
    chart = scheduler.space.chart(start)
    many = 2000
    omega = (chart.basis[0] @ torch.randn(63, many, generator=generator)).T.unflatten(1, (21, 3))
    pose = start.pose.expand(many, -1, -1, -1).clone()
    pose[:, :21] = so3.exp(omega) @ pose[:, :21]
    root = so3.exp(config.pose.root_sigma_rad * torch.randn(many, 3, generator=generator)) @ start.root
    prior = scheduler.batch.person_prior
    betas = start.betas + prior.betas_sigma * torch.randn(many, start.betas.shape[1], generator=generator)
    joints = wide.model.skeleton(root, pose, betas).position
    drawn = joints.var(0).mean(-1).sqrt().numpy()
    heights = body.v_template[:, 1] + torch.einsum("vb,nb->nv", body.shapedirs[:, 1], betas[:, :10])
    spread = float((heights.max(1).values - heights.min(1).values).log().std())
    assert refused.distance_std_log**2 - FOCAL_SIGMA**2 == pytest.approx(spread**2, rel=0.15)
    limbs = drawn > 0.01
    assert limbs.sum() > 10
    ratio = refused.joints_std[limbs] / drawn[limbs]
    # The derivative is the prediction's alone, and turns of 0.15 rad bend its circles.
    assert (abs(ratio - 1) < 0.25).all()
    assert (refused.joints_std[1:] > accepted.joints_std[1:]).all()


def test_a_focal_far_from_what_is_known_is_not_believed(body: Body, image: ImageInput) -> None:
    config = short_config()
    config.verdict.use = True
    for limit, status in ((1e6, FitStatus.REFINED), (0.0, FitStatus.FAR_FOCAL)):
        config.verdict.max_focal_sigmas = limit
        assert fit(body, config, image).status == status.value
    off = replace(image, log_focal=image.log_focal + 0.5, log_focal_sigma=0.02)
    config.verdict.max_focal_sigmas = 4.0
    found = fit(body, config, off)
    away = abs(math.log(found.refined.focal) - off.log_focal) / off.log_focal_sigma
    assert found.accepted == (away <= 4.0)


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("contour", "source", "masks"),
        ("pose", "space", "rotation"),
        ("depth", "samples", 0),
        ("contour", "points", 0),
        ("camera", "focal_px", math.nan),
        ("camera", "focal_px", -5.0),
        ("pose", "sigma_rad", 0.0),
        ("depth", "scale_sigma", math.inf),
        ("body", "height_m", -1.0),
        ("verdict", "max_focal_sigmas", -1.0),
    ],
)
def test_settings_without_a_fit_are_refused_by_name(
    body: Body, section: str, name: str, value: object
) -> None:
    config = FitConfig()
    setattr(getattr(config, section), name, value)
    with pytest.raises(InputError, match=f"{section}.{name}"):
        Fitter(body, None, config)


def test_a_distance_known_by_depth_is_surer_than_the_focal(body: Body, image: ImageInput) -> None:
    """Metric depth tells the distance alone: what the focal errs is undone by the person's own step."""
    found = fit(body, short_config(), replace(image, depth_focal=None))
    assert found.focal_std_log > 0.005
    assert found.distance_std_log < found.focal_std_log / 2


def test_two_people_tell_a_camera_less_than_twice_as_well_as_one(body: Body, image: ImageInput) -> None:
    config = short_config()
    wide = replace(image, log_focal_sigma=10.0)
    one = fit(body, config, wide)
    ((both, _),) = Fitter(body, None, config).fit([replace(wide, people=wide.people * 2)])
    expected = one.focal_std_log * math.sqrt((1 + COMMON_ERROR) / 2)
    assert both.focal_std_log == pytest.approx(expected, rel=0.05)


def test_bones_that_nobody_predicts_have_the_populations_spread(body: Body, image: ImageInput) -> None:
    fitter = Fitter(body, None, FitConfig())
    sigma = fitter.scheduler([image]).batch.person_prior.betas_sigma
    assert sigma.shape[1] > body.num_betas
    assert (sigma[:, body.num_betas :] == 1).all()
    assert (sigma[:, : body.num_betas] < 0.5).all()


def test_the_priors_measure_is_the_root_mean_square_of_its_residual(body: Body, image: ImageInput) -> None:
    fitter = Fitter(body, None, short_config())
    fitted = fitter.solve([image])
    chart = fitted.scheduler.space.chart(fitted.scheduler.start().people)
    turned = fitted.after.state.people.pose[0, :21] @ image.people[0].pose[:21].mT
    residual = torch.linalg.solve(chart.basis[0], so3.log(turned).flatten())
    assert float(fitted.measures[1].prior_rms) == pytest.approx(
        float(residual.square().mean().sqrt()), rel=1e-2
    )


GOOD = {"reprojection": 0.0, "depth_residual": 0.0, "prior_rms": 0.0, "focal_sigmas": 0.0, "cost": 1.0}
BAD = {"reprojection": 7.0, "depth_residual": 0.09, "prior_rms": 3.1, "focal_sigmas": 4.1, "cost": 2.0}
JUST = {"reprojection": 6.0, "depth_residual": 0.08, "prior_rms": 3.0, "focal_sigmas": 4.0}
JUDGED: list[tuple[dict[str, float], int, FitStatus]] = [
    ({}, 6, FitStatus.REFINED),
    (JUST, 6, FitStatus.REFINED),
    ({"reprojection": 7.0}, 6, FitStatus.REPROJECTION),
    ({"depth_residual": 0.09, "reprojection": 7.0}, 6, FitStatus.DEPTH),
    ({"focal_sigmas": 4.1, "depth_residual": 0.09}, 6, FitStatus.FAR_FOCAL),
    ({"prior_rms": 3.1, "focal_sigmas": 4.1}, 6, FitStatus.FAR_FROM_PRIOR),
    ({"cost": 2.0, "prior_rms": 3.1}, 6, FitStatus.NOT_LOWER),
    (BAD, 5, FitStatus.FEW_KEYPOINTS),
    (BAD | {"cost": math.nan}, 5, FitStatus.SOLVER),
]


def test_a_verdict_has_its_limit_and_the_gravest_is_said() -> None:
    """People of 100 px, judged together by the limits as they are shipped."""

    def measures(cost: float | None) -> Measures:
        columns = {
            name: torch.tensor(
                [
                    (GOOD | changes)[name] if cost is None or name != "cost" else cost
                    for changes, _, _ in JUDGED
                ]
            )
            for name in GOOD
        }
        return Measures(**columns, costs={})

    sigma = torch.full((len(JUDGED), 27), math.inf)
    for row, (_, points, _) in zip(sigma, JUDGED, strict=True):
        row[:points] = 1.0
    batch = SimpleNamespace(
        group=torch.arange(len(JUDGED)),
        size=torch.full((len(JUDGED),), 100.0),
        targets=SimpleNamespace(sigma=sigma),
    )
    found = judge(measures(2.0), measures(None), batch, FitConfig())  # type: ignore[arg-type]
    assert [VERDICTS[k] for k in found.tolist()] == [status for _, _, status in JUDGED]
