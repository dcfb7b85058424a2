"""Fit a batch of images: stages, hypotheses, verdict, uncertainty."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
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
from depthfit.fit.posterior import Posterior, posterior, unrefined
from depthfit.fit.problem import Batch, make_batch, pose_priors, pose_space, step_layout
from depthfit.fit.result import BodyResult, PersonFit
from depthfit.fit.search import WIDE
from depthfit.fit.search import solve as search
from depthfit.fit.space import TokenSpace
from depthfit.fit.stages import Scheduler, Solved
from depthfit.fit.verdict import VERDICTS, Measures, judge, measure
from depthfit.joints import NUM_BODY_JOINTS, NUM_JOINTS
from depthfit.kernels import triton_kernels, use_triton
from depthfit.solver.schur import scatter_sum
from depthfit.state import FitState
from depthfit.struct import where
from depthfit.tokens.vqvae import Tokenizer

MOST_PEOPLE, MOST_PEOPLE_BY_TOKENS = 1024, 64
"""People solved together: they take about 4 MiB each, and 60 MiB with the tokens' charts."""


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

    Raises:
        InputError: A setting cannot be used.
    """

    def __init__(
        self, body: Body, tokenizer: Tokenizer | None, config: FitConfig, device: torch.device | str = "cpu"
    ) -> None:
        config.validate()
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
        results: list[list[PersonFit]] = []
        for chunk in self._chunks(images):
            fitted = self.solve(chunk)
            fits = iter(self._results(fitted, [person for image in chunk for person in image.people]))
            results += [[next(fits) for _ in image.people] for image in chunk]
        return results

    def _chunks(self, images: list[ImageInput]) -> list[list[ImageInput]]:
        """Images in groups whose people fit into memory together; an image's people stay together."""
        most = MOST_PEOPLE_BY_TOKENS if self.config.pose.space == "tokens" else MOST_PEOPLE
        chunks: list[list[ImageInput]] = []
        people = 0
        for image in images:
            if not chunks or people + len(image.people) > most:
                chunks.append([])
                people = 0
            chunks[-1].append(image)
            people += len(image.people)
        return chunks

    @torch.no_grad()
    def solve(self, images: list[ImageInput]) -> Fitted:
        """The fit as tensors."""
        with self._kernels():
            return self._solve(images)

    @contextmanager
    def _kernels(self) -> Iterator[None]:
        """Kernels within the block if the settings ask for them. They run on the current device."""
        cuda = self.device.type == "cuda"
        here = torch.cuda.device(self.device) if cuda else nullcontext()
        with here, triton_kernels(cuda and self.config.solver.kernels):
            yield

    def _solve(self, images: list[ImageInput]) -> Fitted:
        scheduler = self.scheduler(images)
        batch = scheduler.batch
        start = scheduler.start()
        before = scheduler.judged_camera(start, WIDE)
        after = search(scheduler, start)
        measures = (measure(before, batch), measure(after, batch))
        verdict = judge(*measures, batch, self.config)
        deviations = posterior(after.fit, after.state)
        final = self._put_back(scheduler, before.state, after.state, verdict)
        refused = verdict != 0
        if refused.any():
            kept = unrefined(after.fit, final, deviations, refused)
            deviations = where(refused, kept, deviations)
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
        return self._body_results(*(value.to(self.body.v_template)[None] for value in given))[0]

    def scheduler(self, images: list[ImageInput]) -> Scheduler:
        """The stages over a batch."""
        if not self.config.camera.shared:
            images = [replace(image, people=[person]) for image in images for person in image.people]
        layout = step_layout(self.model, self.config)
        batch = make_batch(images, self.model, self.config, layout, self.device)
        space = pose_space(images, batch, self.tokenizer, self.config)
        with self._kernels():
            graphs = self._graphs if use_triton(batch.center) else None
        return Scheduler(
            self.model,
            self.table,
            self.topology,
            batch,
            space,
            self.pose_priors,
            layout,
            self.config,
            graphs,
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

    def _results(self, fitted: Fitted, people: list[PersonInput]) -> list[PersonFit]:
        """Everybody's, brought from the device in one piece."""
        batch, final, images = fitted.batch, fitted.final.people, fitted.final.images
        focal = torch.tensor([p.focal for p in people]).to(batch.center)
        transl = torch.stack([p.transl for p in people]).to(batch.center)
        initial = self._body_results(batch.center, focal, transl, batch.root, batch.pose, batch.betas)
        focal = images.log_focal.exp()[batch.group]
        body = (final.transl, final.root, final.pose, final.betas)
        refined = self._body_results(batch.center, focal, *body)
        targets, deviations = batch.targets.to("cpu"), fitted.deviations.to("cpu")
        before, after = (_on_cpu(measures) for measures in fitted.measures)
        tokens = self._tokens(fitted).cpu().numpy().astype("int16")
        log_scale = images.log_scale[batch.group].tolist()
        steps = fitted.after.steps[batch.group].tolist()
        results = []
        for n, verdict in enumerate(fitted.verdict.tolist()):
            accepted = verdict == 0
            errors = [
                _median_error(targets.xy[n], targets.sigma[n], body[n].keypoints_2d)
                for body in (initial, refined)
            ]
            results.append(
                PersonFit(
                    status=VERDICTS[verdict].value,
                    accepted=accepted,
                    initial=initial[n],
                    refined=refined[n],
                    tokens=tokens[n],
                    log_scale=log_scale[n],
                    focal_std_log=float(deviations.log_focal[n]),
                    distance_std_log=float(deviations.log_distance[n]),
                    joints_std=deviations.joints[n].numpy(),
                    reprojection=(errors[0], errors[1]),
                    depth_residual=(
                        float(before.depth_residual[n]),
                        float((after if accepted else before).depth_residual[n]),
                    ),
                    cost_before={k: float(v[n]) for k, v in before.costs.items()},
                    cost_after={k: float(v[n]) for k, v in after.costs.items()},
                    iterations=steps[n],
                )
            )
        return results

    def _tokens(self, fitted: Fitted) -> Tensor:
        """(N, T) codes, T = 0 without a tokenizer."""
        people, space = fitted.final.people, fitted.scheduler.space
        if isinstance(space, TokenSpace):
            return space.tokenizer.quantise(people.tokens)
        if self.tokenizer is None:
            return fitted.batch.group.new_zeros(len(fitted.batch.group), 0)
        six = so3.to_6d(people.pose[:, :NUM_BODY_JOINTS]).to(self.tokenizer.codebook.dtype)
        return self.tokenizer.quantise(self.tokenizer.encode(six))

    def _body_results(
        self, center: Tensor, focal: Tensor, transl: Tensor, root: Tensor, pose: Tensor, betas: Tensor
    ) -> list[BodyResult]:
        """Of N people under a camera each."""
        betas = betas[:, : self.body.num_betas]
        shape = torch.nn.functional.pad(betas, (0, self.model.num_betas - betas.shape[1]))
        skeleton = self.model.skeleton(root, pose, shape)
        points = self.table.positions(skeleton, pose, shape) + transl[:, None]
        pixels = project(points, intrinsics(focal, center))
        tensors = (center, transl, root, pose, betas, points, pixels)
        arrays = [tensor.cpu().numpy() for tensor in tensors]
        return [
            BodyResult(
                focal=f,
                center=c,
                transl=t,
                root=r,
                pose=p,
                betas=b,
                joints=xyz[:NUM_JOINTS],
                keypoints_3d=xyz[NUM_JOINTS:],
                keypoints_2d=xy[NUM_JOINTS:],
            )
            for f, c, t, r, p, b, xyz, xy in zip(focal.tolist(), *arrays, strict=True)
        ]


def _on_cpu(measures: Measures) -> Measures:
    costs = {name: cost.cpu() for name, cost in measures.costs.items()}
    return replace(measures, depth_residual=measures.depth_residual.cpu(), costs=costs)


def _median_error(xy: Tensor, sigma: Tensor, pixels: np.ndarray) -> float:
    """px, over detected points (K,)."""
    seen = sigma.isfinite()
    if not seen.any():
        return math.nan
    return float((torch.from_numpy(pixels).to(xy) - xy).norm(dim=-1)[seen].median())
