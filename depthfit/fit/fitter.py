"""Fit a batch of images: stages, hypotheses, verdict, uncertainty."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from depthfit import so3
from depthfit.body.bones import with_bones
from depthfit.body.model import Body
from depthfit.body.points import LandmarkTable, landmark_table
from depthfit.camera import image_center, intrinsics, project
from depthfit.fit.adapter import Prediction
from depthfit.fit.associate import MeshTopology, mesh_topology
from depthfit.fit.config import FitConfig
from depthfit.fit.graphs import RoundGraphs
from depthfit.fit.inputs import ImageInput, PersonInput
from depthfit.fit.posterior import Posterior, posterior
from depthfit.fit.problem import Batch, make_batch, pose_priors, pose_space, step_layout
from depthfit.fit.result import BodyResult, PersonFit
from depthfit.fit.search import SCHEDULES
from depthfit.fit.search import solve as search
from depthfit.fit.space import TokenSpace
from depthfit.fit.stages import Scheduler, Solved
from depthfit.fit.verdict import VERDICTS, Measures, judge, measure
from depthfit.joints import NUM_BODY_JOINTS, NUM_JOINTS
from depthfit.kernels import use_triton
from depthfit.solver.schur import scatter_sum
from depthfit.state import FitState
from depthfit.struct import where
from depthfit.tokens.vqvae import Tokenizer


@dataclass
class Fitted:
    """A batch after its fit, still as tensors.

    Attributes:
        batch: What was fitted; before: the prediction under its best camera; after: the fit.
        verdict: (N,) indices into ``VERDICTS``.
        final: After, with refused people put back to their prediction.
    """

    batch: Batch
    scheduler: Scheduler
    before: Solved
    after: Solved
    measures: tuple[Measures, Measures]
    deviations: Posterior
    verdict: Tensor
    final: FitState


class Fitter:
    """Fits people in images with one body, one tokenizer and one set of settings.

    Args:
        body: The body model to fit.
        tokenizer: Needed where ``config.pose.space`` is ``tokens``; elsewhere it names the fitted pose's
            codes.
        config: The settings.
        device: Where to compute.
    """

    def __init__(
        self, body: Body, tokenizer: Tokenizer | None, config: FitConfig, device: torch.device | str = "cpu"
    ) -> None:
        self.device = torch.device(device)
        self.body: Body = body.to(self.device)
        self.tokenizer = None if tokenizer is None else tokenizer.to(self.device)
        self.config = config
        self.model = with_bones(self.body, config.body.bone_sigma)
        """The body with the nuisance shapes of a fit; results are of ``body``."""
        self.table: LandmarkTable = landmark_table(self.model)
        self.topology: MeshTopology = mesh_topology(self.body, config.solver.grid)
        self.pose_priors = pose_priors(config, self.body.v_template)
        self._graphs = RoundGraphs()

    @torch.no_grad()
    def fit(self, images: list[ImageInput]) -> list[list[PersonFit]]:
        """Fit images together; images do not influence each other.

        Returns:
            For each image, its people's fits in order. Every image must have a person with at least one
            detected keypoint each.
        """
        fitted = self.solve(images)
        people = [(i, image, person) for i, image in enumerate(images) for person in image.people]
        results: list[list[PersonFit]] = [[] for _ in images]
        initial = self._initial_states(fitted.batch, [p for _, _, p in people])
        for n, (i, _, _) in enumerate(people):
            results[i].append(self._result(fitted, initial, n))
        return results

    @torch.no_grad()
    def solve(self, images: list[ImageInput]) -> Fitted:
        """The fit as tensors."""
        scheduler = self.scheduler(images)
        batch = scheduler.batch
        start = scheduler.start()
        before = scheduler.judged(scheduler.camera(start, SCHEDULES[0]))
        after = search(scheduler, start)
        measures = (measure(before, batch), measure(after, batch))
        verdict = judge(*measures, batch, self.config)
        deviations = posterior(after.fit, after.state)
        final = self._put_back(scheduler, before.state, after.state, verdict)
        return Fitted(batch, scheduler, before, after, measures, deviations, verdict, final)

    @torch.no_grad()
    def vertices(self, result: BodyResult) -> np.ndarray:
        """(V, 3) m of a result's body, camera frame."""
        arrays = (result.root, result.pose, result.betas, result.transl)
        root, pose, betas, transl = (torch.from_numpy(a).to(self.body.v_template)[None] for a in arrays)
        return (self.body.forward(root, pose, betas)[1] + transl[:, None])[0].cpu().numpy()

    @torch.no_grad()
    def describe(self, prediction: Prediction, size: tuple[int, int]) -> BodyResult:
        """A prediction under its own camera, in an image of ``size`` (width, height) px."""
        body = (prediction.transl, prediction.root, prediction.pose, prediction.betas)
        given = (image_center(*size), torch.tensor(prediction.focal), *body)
        return self._body_result(*(value.to(self.body.v_template) for value in given))

    def scheduler(self, images: list[ImageInput]) -> Scheduler:
        """The stages over a batch."""
        if not self.config.camera.shared:
            images = [replace(image, people=[person]) for image in images for person in image.people]
        layout = step_layout(self.model, self.config)
        batch = make_batch(images, self.model, self.config, layout, self.device)
        space = pose_space(images, batch, self.tokenizer, self.config)
        return Scheduler(
            self.model,
            self.table,
            self.topology,
            batch,
            space,
            self.pose_priors,
            layout,
            self.config,
            self._graphs if use_triton(batch.center) else None,
        )

    def _put_back(self, scheduler: Scheduler, before: FitState, after: FitState, verdict: Tensor) -> FitState:
        """Refused people get their prediction back, placed under the camera that the others agreed on."""
        group = scheduler.batch.group
        refused = verdict != 0
        if not refused.any():
            return after
        some = scatter_sum((~refused).long(), group, scheduler.batch.num_images) > 0
        images = where(some, after.images, before.images)
        mixed = FitState(where(refused, before.people, after.people), images)
        placed = scheduler.place(mixed)
        return FitState(where(refused, placed.people, after.people), images)

    def _initial_states(self, batch: Batch, people: list[PersonInput]) -> tuple[Tensor, Tensor]:
        """The predictions' own focal (N,) and translation (N, 3)."""
        focal = torch.tensor([p.focal for p in people]).to(batch.center)
        return focal, torch.stack([p.transl for p in people]).to(batch.center)

    def _result(self, fitted: Fitted, initial: tuple[Tensor, Tensor], n: int) -> PersonFit:
        batch, people, images = fitted.batch, fitted.final.people, fitted.final.images
        image = batch.group[n]
        center = batch.center[n]
        own = self._body_result(
            center, initial[0][n], initial[1][n], batch.root[n], batch.pose[n], batch.betas[n]
        )
        focal = images.log_focal[image].exp()
        refined = self._body_result(
            center, focal, people.transl[n], people.root[n], people.pose[n], people.betas[n]
        )
        before, after = fitted.measures
        accepted = int(fitted.verdict[n]) == 0
        space = fitted.scheduler.space
        tokens = torch.zeros(0, dtype=torch.int64)
        if isinstance(space, TokenSpace):
            tokens = space.tokenizer.quantise(people.tokens[n : n + 1])[0]
        elif self.tokenizer is not None:
            six = so3.to_6d(people.pose[n : n + 1, :NUM_BODY_JOINTS]).to(self.tokenizer.codebook.dtype)
            tokens = self.tokenizer.quantise(self.tokenizer.encode(six))[0]
        return PersonFit(
            status=VERDICTS[int(fitted.verdict[n])].value,
            accepted=accepted,
            initial=own,
            refined=refined,
            tokens=tokens.cpu().numpy().astype("int16"),
            log_scale=float(images.log_scale[image]),
            focal_std_log=float(fitted.deviations.log_focal[n]),
            distance_std_log=float(fitted.deviations.log_distance[n]),
            joints_std=fitted.deviations.joints[n].cpu().numpy(),
            reprojection=(
                _median_error(batch, n, own.keypoints_2d),
                _median_error(batch, n, refined.keypoints_2d),
            ),
            depth_residual=(
                float(before.depth_residual[n]),
                float((after if accepted else before).depth_residual[n]),
            ),
            cost_before={k: float(v[n]) for k, v in before.costs.items()},
            cost_after={k: float(v[n]) for k, v in after.costs.items()},
            iterations=int(fitted.after.steps[image]),
        )

    def _body_result(
        self, center: Tensor, focal: Tensor, transl: Tensor, root: Tensor, pose: Tensor, betas: Tensor
    ) -> BodyResult:
        betas = betas[: self.body.num_betas]
        shape = torch.nn.functional.pad(betas, (0, self.model.num_betas - len(betas)))
        skeleton = self.model.skeleton(root[None], pose[None], shape[None])
        points = self.table.positions(skeleton, pose[None], shape[None])[0] + transl
        pixels = project(points, intrinsics(focal, center))
        return BodyResult(
            focal=float(focal),
            center=center.cpu().numpy(),
            transl=transl.cpu().numpy(),
            root=root.cpu().numpy(),
            pose=pose.cpu().numpy(),
            betas=betas.cpu().numpy(),
            joints=points[:NUM_JOINTS].cpu().numpy(),
            keypoints_3d=points[NUM_JOINTS:].cpu().numpy(),
            keypoints_2d=pixels[NUM_JOINTS:].cpu().numpy(),
        )


def _median_error(batch: Batch, n: int, pixels: object) -> float:
    xy = torch.as_tensor(pixels).to(batch.targets.xy)
    seen = batch.targets.sigma[n].isfinite()
    if not seen.any():
        return math.nan
    return float((xy - batch.targets.xy[n]).norm(dim=-1)[seen].median())
