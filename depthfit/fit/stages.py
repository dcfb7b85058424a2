"""The schedule: camera from the prediction, then the root, then everything together."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from typing import Protocol

import torch
from torch import Tensor

from depthfit.body.model import Body
from depthfit.body.points import LandmarkTable
from depthfit.fit.associate import MeshTopology, associate
from depthfit.fit.config import FitConfig
from depthfit.fit.initialise import translation
from depthfit.fit.problem import Batch
from depthfit.fit.space import Chart, PoseSpace
from depthfit.fit.system import BodyFit, Matches, RobustScales
from depthfit.joints import NUM_JOINTS
from depthfit.kernels import use_triton
from depthfit.residuals.pose_priors import PosePrior
from depthfit.solver import LevenbergMarquardtConfig, minimize
from depthfit.state import LOG_FOCAL, LOG_SCALE, FitState, ImageState, PersonState, StepLayout


@dataclass(frozen=True)
class Schedule:
    """How evidence comes in over the rounds.

    Attributes:
        widen: Factors on the robust scales of the first rounds. Wide ones let what starts far from its
            evidence still feel it (graduated non-convexity: Blake & Zisserman, "Visual Reconstruction",
            1987); narrow ones keep a good start from being dragged off by what is not the person.
        depth_waits, contour_waits: Rounds with all unknowns free before depth and outline count. A rim that
            is still far off is matched to the wrong side of a limb; keypoints and depth bring it near.
        rounds: Rounds with all unknowns free; ``None``: as many as the settings say.
    """

    widen: tuple[float, ...]
    depth_waits: int = 0
    contour_waits: int = 2
    rounds: int | None = None


CAMERA_ROUNDS, ROOT_ROUNDS = 2, 2
ALL_UNKNOWNS = ("root", "pose", "betas", "bearing", "distance", "clothes", "field")
MAX_CARRIED_DAMPING = 1.0
"""Most damping with which a round begins that follows another."""
CHART_ROUNDS = 3
"""Rounds in a row at the start in which the tokens' chart is made anew; later every second round."""


@dataclass(frozen=True)
class Parts:
    """Which of the focal, the depth scale, the depth and the outline take part in a round."""

    focal: bool = True
    scale: bool = True
    depth: bool = True
    contour: bool = True


@dataclass(frozen=True)
class Plan:
    """What a round frees and sees: the names of the people's unknowns that may move, and the parts."""

    free: tuple[str, ...]
    parts: Parts

    @property
    def moves_pose(self) -> bool:
        return "pose" in self.free


@dataclass(frozen=True)
class Round:
    """One association and what follows it.

    Attributes:
        plan: What it frees and sees.
        widen: Factor on the kernels' scales.
        begins: A stage begins: flat chart, first damping, and steps are counted anew.
        new_chart: A chart is made before.
        solves: Steps follow; else the associations are all that is wanted.
    """

    plan: Plan
    widen: float
    begins: bool = False
    new_chart: bool = False
    solves: bool = True


@dataclass
class Costs:
    """Costs of a state where they have been asked for: by term, (N,) each, and of the images (I,)."""

    people: dict[str, Tensor] | None = None
    images: Tensor | None = None


@dataclass(frozen=True)
class Solved:
    """A state with the problem that it solves.

    Attributes:
        fit: The problem at its last association.
        steps: (I,) accepted steps of the last stage and of what was tried since.
        status: (I,) of the last solve, :class:`depthfit.solver.Status`.
        known: Costs of this state in this problem, kept once they are computed.
    """

    state: FitState
    fit: BodyFit
    steps: Tensor
    status: Tensor
    known: Costs = field(default_factory=Costs)

    @property
    def person_costs(self) -> dict[str, Tensor]:
        """Robust cost of each term, (N,) each."""
        if self.known.people is None:
            self.known.people = self.fit.person_costs(self.state)
        return self.known.people

    @property
    def cost(self) -> Tensor:
        """(I,) robust cost, priors included."""
        if self.known.images is None:
            self.known.images = self.fit.cost(self.state)
        return self.known.images


class Rounds(Protocol):
    """Another way to run rounds than one call after another: recorded, and replayed."""

    def run(self, stages: Scheduler, state: FitState, rounds: list[Round]) -> Solved: ...


@dataclass
class Scheduler:
    """Runs stages over one batch. With ``graphs`` its rounds are recorded once and then replayed."""

    body: Body
    table: LandmarkTable
    topology: MeshTopology
    batch: Batch
    space: PoseSpace
    pose_priors: tuple[PosePrior, ...]
    layout: StepLayout
    config: FitConfig
    graphs: Rounds | None = None

    def start(self) -> FitState:
        """Prediction's pose, prior's camera, translation in closed form."""
        batch, tokens = self.batch, self.space.tokens()
        images = ImageState(
            batch.image_prior.log_focal.clone(), torch.zeros_like(batch.image_prior.log_focal)
        )
        skeleton = self.body.skeleton(batch.root, batch.pose, batch.betas)
        points = self.table.positions(skeleton, batch.pose, batch.betas)[:, NUM_JOINTS:]
        transl = translation(points, batch.targets, images.log_focal.exp()[batch.group], batch.center)
        people = PersonState(
            root=batch.root,
            pose=batch.pose,
            betas=batch.betas,
            bearing=transl[:, :2] / transl[:, 2:],
            log_distance=transl[:, 2].log(),
            clothes=batch.person_prior.clothes.clone(),
            field=torch.zeros_like(batch.person_prior.field_sigma),
            tokens=tokens,
            dual=torch.zeros_like(tokens),
        )
        return FitState(people, images)

    def subset(self, images: Tensor) -> tuple[Scheduler, Tensor]:
        """The stages over some images (M,) ascending alone, and the rows of their people."""
        if len(images) == self.batch.num_images:
            return self, torch.arange(len(self.batch.group), device=images.device)
        batch, rows = self.batch.subset(images)
        return replace(self, batch=batch, space=self.space[rows]), rows

    def about(self, pose: Tensor, which: Tensor) -> Scheduler:
        """The stages with ``pose`` (N, 23, 3, 3) as the prediction of the people in ``which`` (N,)."""
        poses = torch.where(which[:, None, None, None], pose, self.batch.pose)
        return replace(self, batch=self.batch.replace(pose=poses), space=self.space.about(pose, which))

    def camera(self, state: FitState, schedule: Schedule) -> Solved:
        """Translation and depth scale; the prediction's body stays as it is, and so does the focal: a body
        that is still wrong would be explained by a wrong lens."""
        return self._run(state, self._camera(schedule))

    def root(self, state: FitState, schedule: Schedule) -> Solved:
        """Root orientation and clothes too."""
        return self._run(state, self._root(schedule))

    def bodies(self, state: FitState, schedule: Schedule) -> Solved:
        """All unknowns together."""
        return self._run(state, self._bodies(schedule))

    def everything(self, start: FitState, schedule: Schedule) -> Solved:
        """Camera, root and all unknowns."""
        return self._run(start, self._camera(schedule) + self._root(schedule) + self._bodies(schedule))

    def judged_camera(self, start: FitState, schedule: Schedule) -> Solved:
        """The state after :meth:`camera` under all of the evidence, at full weight: what a verdict may
        compare."""
        look = Round(Plan(ALL_UNKNOWNS, Parts()), 1.0, solves=False)
        return self._run(start, [*self._camera(schedule), look])

    def place(self, state: FitState) -> FitState:
        """Translation alone, bodies and cameras held."""
        return self._run(state, self._camera(Schedule(()), scale=False)).state

    def full_problem(self, state: FitState) -> BodyFit:
        """The problem of the last stage, with a fresh chart and associations at ``state``."""
        chart = self.space.chart(state.people)
        return self.problem(state, chart, Plan(ALL_UNKNOWNS, Parts()), self.robust(1.0))

    def problem(self, state: FitState, chart: Chart, plan: Plan, robust: RobustScales) -> BodyFit:
        """The least-squares problem with associations at ``state``."""
        parts = plan.parts
        matches = associate(
            self.body, self.topology, self.batch, state, self.config, parts.depth, parts.contour
        )
        return self.assemble(matches, chart, plan, robust)

    def assemble(self, matches: Matches, chart: Chart, plan: Plan, robust: RobustScales) -> BodyFit:
        """The least-squares problem with given associations."""
        config, parts = self.config, plan.parts
        layout = self.layout if plan.moves_pose else self.layout.rigid
        focal = parts.focal and not config.camera.freeze_focal
        scale = parts.scale and config.depth.use
        free, shared, all_free = _free_masks(layout, plan.free, focal, scale, self.batch.center.device)
        return BodyFit(
            body=self.body,
            table=self.table,
            group=self.batch.group,
            center=self.batch.center,
            targets=self.batch.targets,
            matches=matches,
            space=self.space,
            chart=chart,
            pose_priors=self.pose_priors,
            person_prior=self.batch.person_prior,
            image_prior=self.batch.image_prior,
            robust=robust,
            layout=layout,
            free=free,
            free_shared=shared,
            pose_moves=plan.moves_pose,
            freezes=not all_free,
        )

    def robust(self, widen: float) -> RobustScales:
        """The kernels' scales, ``widen`` times the settings'."""
        config = self.config
        return RobustScales(
            config.keypoints.robust_sigmas * widen,
            config.depth.robust_sigmas * widen,
            config.contour.robust_sigmas * widen,
        )

    def solver(self) -> LevenbergMarquardtConfig:
        """Of one round."""
        return LevenbergMarquardtConfig(max_steps=self.config.solver.steps)

    def _camera(self, schedule: Schedule, scale: bool = True) -> list[Round]:
        return _rounds(("bearing", "distance"), CAMERA_ROUNDS, schedule, scale)

    def _root(self, schedule: Schedule) -> list[Round]:
        return _rounds(("root", "bearing", "distance", "clothes"), ROOT_ROUNDS, schedule)

    def _bodies(self, schedule: Schedule) -> list[Round]:
        rounds = self.config.solver.rounds if schedule.rounds is None else schedule.rounds
        return _rounds(ALL_UNKNOWNS, rounds, schedule)

    def _run(self, state: FitState, rounds: list[Round]) -> Solved:
        if self.graphs is not None and use_triton(state.people.root):
            return self.graphs.run(self, state, rounds)
        for item in rounds:
            if item.begins:
                chart = flat_chart(state.people)
                damping: Tensor | None = None
                steps = torch.zeros(self.batch.num_images, dtype=torch.int64, device=self.batch.center.device)
            if item.new_chart:
                chart = self.space.chart(state.people)
            fit = self.problem(state, chart, item.plan, self.robust(item.widen))
            if item.solves:
                state, summary = minimize(fit, state, self.solver(), damping)
                damping = summary.damping.clamp(max=MAX_CARRIED_DAMPING)
                steps = steps + summary.steps
        return Solved(state, fit, steps, summary.status)


def _rounds(free: tuple[str, ...], count: int, schedule: Schedule, scale: bool = True) -> list[Round]:
    """Of a stage."""
    rounds = []
    all_free = "pose" in free
    # In the last round all evidence counts, however few there are.
    depth_waits, contour_waits = (min(w, count - 1) for w in (schedule.depth_waits, schedule.contour_waits))
    for k in range(count):
        depth = not depth_waits or (all_free and k >= depth_waits)
        contour = all_free and k >= contour_waits
        plan = Plan(free, Parts(all_free, scale, depth, contour))
        widen = schedule.widen[k] if k < len(schedule.widen) else 1.0
        new_chart = all_free and (k < CHART_ROUNDS or k % 2 == 0)
        rounds.append(Round(plan, widen, begins=k == 0, new_chart=new_chart))
    return rounds


@cache
def _free_masks(
    layout: StepLayout, free: tuple[str, ...], focal: bool, scale: bool, device: torch.device
) -> tuple[Tensor, Tensor, bool]:
    """(layout.size,) and (2,) bool, unknowns of people and of images that may move, and whether all may."""
    own = torch.zeros(layout.size, dtype=torch.bool)
    for name in free:
        own[getattr(layout, name)] = True
    shared = torch.zeros(2, dtype=torch.bool)
    shared[LOG_FOCAL], shared[LOG_SCALE] = focal, scale
    return own.to(device), shared.to(device), bool(own.all() & shared.all())


def flat_chart(people: PersonState) -> Chart:
    """A chart for stages in which the pose is held."""
    eye = torch.eye(63, dtype=people.root.dtype, device=people.root.device)
    return Chart(eye.expand(len(people.root), -1, -1))
