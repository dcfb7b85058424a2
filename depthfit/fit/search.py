"""Which minimum: several ways from the prediction into the evidence, and flipped limbs; the best is kept."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from depthfit.fit import hypotheses
from depthfit.fit.stages import Costs, Schedule, Scheduler, Solved
from depthfit.solver.schur import scatter_sum
from depthfit.state import FitState
from depthfit.struct import scatter

DIRECT, WIDE = Schedule((1.0,)), Schedule((3.0, 3.0, 2.0, 2.0, 1.5))
"""The first is run for everybody, the second where that does not settle. Neither wins always."""
PATIENT = Schedule((3.0, 2.0, 1.5), depth_waits=2)
"""Run where the better of the two still leaves much unexplained: keypoints alone lead at first. Two further
schedules, from a longer and a shorter focal, lowered no error of 128 calibration people."""
UNSETTLED = 0.17
"""Cost a row of depth and outline above which a person is tried again. With 0.22, 1,021 calibration people
ended 0.4 mm worse in five sixths of the time (at one step a round); with 0.12 no better."""
MIN_LIMB_SAMPLES = 8
"""Depth samples that must lie on the lower half of a flipped limb and agree with it."""


def solve(scheduler: Scheduler, start: FitState) -> Solved:
    """The best of several solutions for each image, polished."""
    best = scheduler.everything(start, DIRECT)
    # Keypoints alone do not tell whether somebody is explained.
    images = _images_of(unsettled(best) | ~_has_surface(best), scheduler)
    if len(images):
        best = _try(scheduler, start, best, WIDE, images)
        if scheduler.config.solver.hypotheses:
            best = _try(scheduler, start, best, PATIENT, _images_of(unsettled(best), scheduler))
    if scheduler.config.solver.hypotheses:
        best = _twins(scheduler, best)
    return _polish(scheduler, best)


def _polish(scheduler: Scheduler, best: Solved) -> Solved:
    """Further rounds, all evidence at its own weight, from what won. A try need only go so far that it can be
    told from its rivals: 5 rounds each and 5 for the winner leave 1,021 calibration people at 34.45 mm, in
    0.74 s on a GPU; 8 each and 4 for the winner at 34.51 in 0.85 s, 8 each and none at 34.75 in 0.79 s (with
    a longer :data:`PATIENT`)."""
    rounds = scheduler.config.solver.polish
    if not rounds:
        return best
    group = scheduler.batch.group
    images, rows = (torch.arange(n, device=group.device) for n in (scheduler.batch.num_images, len(group)))
    solved = scheduler.bodies(best.state, Schedule((), contour_waits=0, rounds=rounds))
    return _adopt(best, solved, images, rows, 0.0)


def _twins(scheduler: Scheduler, best: Solved) -> Solved:
    """Try flipped limbs where depth speaks for them."""
    if not scheduler.config.depth.use:
        return best
    body, batch = scheduler.body, scheduler.batch
    flips = hypotheses.contradicted(body, batch, best.state)
    if not flips.any():
        return best
    ray = torch.nn.functional.normalize(best.state.people.transl, dim=-1)
    twins = hypotheses.flip(body, batch.root, batch.pose, batch.betas, ray, flips)
    natural = hypotheses.bends_naturally(body, twins) | ~flips.any(-1)
    flipped = flips.flatten(1).any(-1) & natural.all(-1)
    images = _images_of(flipped, scheduler)
    if not len(images):
        return best
    part, rows = scheduler.subset(images)
    batch, kept = part.batch, best.state.people[rows]
    pose = twins[rows]
    part = part.about(pose, flipped[rows])
    start = part.start()
    moved = start.people.replace(
        root=kept.root,
        betas=kept.betas,
        bearing=kept.bearing,
        log_distance=kept.log_distance,
        clothes=kept.clothes,
    )
    begin = FitState(moved, best.state.images[images])
    solved = part.everything(begin, DIRECT)
    solved = _try(part, begin, solved, WIDE, _images_of(unsettled(solved), part))
    limbs = flips.any(-1).sum(-1) * flipped
    flips_made = scatter_sum(limbs[rows].to(kept.betas.dtype), batch.group, len(images))
    hidden = flipped[rows] & ~_limbs_seen(part, solved, flips[rows])
    handicap = hypotheses.FLIP_COST * flips_made
    handicap[batch.group[hidden]] = torch.inf
    return _adopt(best, solved, images, rows, handicap)


def _limbs_seen(scheduler: Scheduler, solved: Solved, flips: Tensor) -> Tensor:
    """(N,) bool: every flipped limb lies open to the depth map, and agrees with it. A limb that hides in the
    trunk contradicts nothing, which speaks for nothing."""
    samples = solved.fit.matches.depth
    _, depth, _ = solved.fit.evidence(solved.state)
    agree = (samples.weight > 0) & (depth.residual[..., 0].abs() < scheduler.config.depth.robust_sigmas)
    on_part = scheduler.body.weights[samples.corner].mean(-2)  # (N, P, 24)
    count = (agree[..., None] * on_part).sum(1)
    limbs = torch.stack([count[:, joints].sum(-1) for joints in hypotheses.LOWER_PARTS], -1)
    return ((limbs > MIN_LIMB_SAMPLES) | ~flips.any(-1)).all(-1)


def _try(scheduler: Scheduler, start: FitState, best: Solved, schedule: Schedule, images: Tensor) -> Solved:
    """``best`` with what ``schedule`` made better of some images (M,) ascending, from ``start``."""
    if not len(images):
        return best
    part, rows = scheduler.subset(images)
    if part is not scheduler:
        start = FitState(start.people[rows], start.images[images])
    return _adopt(best, part.everything(start, schedule), images, rows, 0.0)


def unsettled(solved: Solved) -> Tensor:
    """(N,) bool: much of the evidence is not explained."""
    costs = solved.person_costs
    rows = _surface_rows(solved)
    explained = (costs["depth"] + costs["contour"]) / rows.clamp(min=1) <= UNSETTLED
    return ~explained & (rows > 0)


def _has_surface(solved: Solved) -> Tensor:
    """(N,) bool: depth or an outline takes part."""
    return _surface_rows(solved) > 0


def _surface_rows(solved: Solved) -> Tensor:
    matches = solved.fit.matches
    return matches.depth.weight.sum(-1) + matches.contour.wanted.sum(-1)


def _images_of(people: Tensor, scheduler: Scheduler) -> Tensor:
    """Ascending indices of the images with somebody in ``people`` (N,) bool."""
    batch = scheduler.batch
    return torch.nonzero(scatter_sum(people.long(), batch.group, batch.num_images))[:, 0]


def _adopt(old: Solved, new: Solved, images: Tensor, rows: Tensor, handicap: Tensor | float) -> Solved:
    """``old`` with the images (M,) of ``new`` that beat it by more than ``handicap``; ``rows`` their
    people."""
    before = old.cost[images]
    # A solution without a finite cost is no rival.
    lower = (new.cost + handicap < before) | ~before.isfinite()
    won = torch.nonzero(lower)[:, 0]
    steps = old.steps.index_add(0, images, new.steps)
    if not len(won):
        return replace(old, steps=steps)
    if len(won) == old.fit.num_images:
        fit = replace(old.fit, matches=new.fit.matches, chart=new.fit.chart, space=new.fit.space)
        # The same people under the same kernels: nothing else that a cost depends on can differ.
        known = new.known if new.fit.robust == old.fit.robust else Costs()
        return Solved(new.state, fit, steps, new.status, known)
    here = torch.nonzero(lower[new.fit.group])[:, 0]
    who, where = rows[here], images[won]
    fit = replace(
        old.fit,
        matches=scatter(who, new.fit.matches[here], old.fit.matches),
        chart=scatter(who, new.fit.chart[here], old.fit.chart),
        space=old.fit.space.adopt(who, new.fit.space[here]),
    )
    state = FitState(
        scatter(who, new.state.people[here], old.state.people),
        scatter(where, new.state.images[won], old.state.images),
    )
    return Solved(state, fit, steps, old.status.index_copy(0, where, new.status[won]))
