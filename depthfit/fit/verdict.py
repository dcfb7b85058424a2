"""Do no harm: a fit that the evidence does not support is refused, and says why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from depthfit.fit.config import FitConfig
from depthfit.fit.nuisance import CORRELATION
from depthfit.fit.problem import Batch
from depthfit.fit.stages import Solved
from depthfit.joints import NUM_JOINTS
from depthfit.residuals.keypoints import projection


class FitStatus(str, Enum):
    """How a person's fit ended."""

    REFINED = "refined"
    FEW_KEYPOINTS = "few_keypoints"
    NOT_LOWER = "cost_not_lower"
    FAR_FROM_PRIOR = "far_from_prior"
    FAR_FOCAL = "far_focal"
    REPROJECTION = "high_reprojection"
    DEPTH = "high_depth_residual"
    SOLVER = "solver_failed"
    NO_EVIDENCE = "no_evidence"

    @property
    def sentence(self) -> str:
        """The status in words."""
        return _SENTENCES[self]


_SENTENCES = {
    FitStatus.REFINED: "refined",
    FitStatus.FEW_KEYPOINTS: "kept as predicted: too few keypoints were detected",
    FitStatus.NOT_LOWER: "kept as predicted: the fit explains the evidence no better",
    FitStatus.FAR_FROM_PRIOR: "kept as predicted: the fit is too far from the prediction to be believed",
    FitStatus.FAR_FOCAL: "kept as predicted: the image's focal ended too far from what is known of it",
    FitStatus.REPROJECTION: "kept as predicted: the fit's keypoints still miss the detections",
    FitStatus.DEPTH: "kept as predicted: the fit's surface still misses the depth map",
    FitStatus.SOLVER: "kept as predicted: the solver found no finite cost",
    FitStatus.NO_EVIDENCE: "kept as predicted: no detected keypoints were matched to this person",
}
VERDICTS = (
    FitStatus.REFINED,
    FitStatus.FEW_KEYPOINTS,
    FitStatus.NOT_LOWER,
    FitStatus.FAR_FROM_PRIOR,
    FitStatus.FAR_FOCAL,
    FitStatus.REPROJECTION,
    FitStatus.DEPTH,
    FitStatus.SOLVER,
)
"""In order of precedence, the last first; :func:`judge` returns indices into this."""


@dataclass(frozen=True)
class Measures:
    """What the verdict is made from, (N,) each.

    Attributes:
        reprojection: px, median over detected keypoints; infinite without any.
        depth_residual: Median absolute log-depth residual of the samples, beyond the map's scale and its
            smooth error; zero where there are none.
        prior_rms: Of the pose prior's residual, in sigmas.
        focal_sigmas: Departure of the image's log focal from its prior, in the prior's sigmas.
        cost: Robust cost of the person, priors included.
        costs: The same by term.
    """

    reprojection: Tensor
    depth_residual: Tensor
    prior_rms: Tensor
    focal_sigmas: Tensor
    cost: Tensor
    costs: dict[str, Tensor]


def measure(solved: Solved, batch: Batch) -> Measures:
    """Measure a solved state under its own associations."""
    fit, people = solved.fit, solved.state.people
    costs = solved.person_costs
    skeleton = fit.skeleton(people)
    points = fit.table.positions(skeleton, people.pose, people.betas)
    focal = solved.state.images.log_focal.exp()[batch.group]
    world = points[:, NUM_JOINTS:] + people.transl[:, None]
    xy, _ = projection(world, focal, batch.center)
    seen = batch.targets.sigma.isfinite()
    error = torch.where(seen, (xy - batch.targets.xy).norm(dim=-1), torch.nan)
    reprojection = torch.where(seen.any(-1), error.nanmedian(-1).values, torch.inf)
    depth = fit.depth_error(solved.state)
    live = fit.matches.depth.weight > 0
    residual = torch.where(live, depth.abs(), torch.nan).nanmedian(-1).values.nan_to_num(0.0)
    total = torch.stack(list(costs.values())).sum(0)
    prior = fit.image_prior
    # The fit's own sigma is narrower: its rows are correlated, which the posterior makes up for.
    known = CORRELATION * prior.log_focal_sigma
    away = (solved.state.images.log_focal - prior.log_focal).abs() / known
    rms = (2 * costs["pose_prior"] / 63).sqrt()
    return Measures(reprojection, residual, rms, away[batch.group], total, costs)


def judge(before: Measures, after: Measures, batch: Batch, config: FitConfig) -> Tensor:
    """(N,) int64 indices into ``VERDICTS``; zero means accepted."""
    verdict = config.verdict
    out = torch.zeros_like(batch.group)
    if verdict.use:
        high = after.reprojection > verdict.max_reprojection * batch.size
        out[high] = VERDICTS.index(FitStatus.REPROJECTION)
        out[after.depth_residual > verdict.max_depth_residual] = VERDICTS.index(FitStatus.DEPTH)
        out[after.focal_sigmas > verdict.max_focal_sigmas] = VERDICTS.index(FitStatus.FAR_FOCAL)
        out[after.prior_rms > verdict.max_prior_rms] = VERDICTS.index(FitStatus.FAR_FROM_PRIOR)
        out[~(after.cost < before.cost)] = VERDICTS.index(FitStatus.NOT_LOWER)
        few = batch.targets.sigma.isfinite().sum(-1) < verdict.min_keypoints
        out[few] = VERDICTS.index(FitStatus.FEW_KEYPOINTS)
    # Not a policy but a fact: there is nothing finite to accept.
    out[~after.cost.isfinite()] = VERDICTS.index(FitStatus.SOLVER)
    return out
