"""Exact in-memory images of the open body: what a fit would see without any noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from depthfit import so3
from depthfit.body.model import Body
from depthfit.camera import image_center, intrinsics, project
from depthfit.fit import FitConfig, ImageInput, PersonInput
from depthfit.fit.problem import BOX_MARGIN
from depthfit.joints import COCO17, KEYPOINTS
from depthfit.raster import rasterize

WIDTH, HEIGHT, FOCAL = 480, 480, 520.0
KEYPOINT_SIGMA = 0.5
GRID, PIXELS_A_CELL = 128, 4


def exact_config(pose_sigma: float = 2.0, depth_sigma: float = 5e-3) -> FitConfig:
    """Settings under which the evidence outweighs every prior, so that the truth is the minimum."""
    config = FitConfig()
    config.pose.space, config.pose.sigma_rad, config.pose.root_sigma_rad = "rotations", pose_sigma, 2.0
    config.pose.population = "none"
    config.body.betas_sigma, config.body.clothes_cm, config.body.clothes_sigma_cm = 1.0, 0.0, 1e-3
    # The truth is a body of the model: no bone is longer than its shape says.
    config.body.garment_sigma_cm, config.body.bone_sigma = 1e-3, 0.0
    config.keypoints.model_cm = 0.0
    config.depth.pixel_sigma, config.depth.surface_cm, config.depth.field_sigma = depth_sigma, 0.0, 0.0
    config.depth.scale_sigma = 1e-4
    # At such sigmas the start would look like nothing but outliers.
    config.keypoints.robust_sigmas, config.depth.robust_sigmas = 100.0, 0.06 / depth_sigma
    config.contour.source = "none"
    config.solver.grid = GRID
    config.solver.rounds, config.solver.steps, config.solver.hypotheses = 10, 4, False
    config.verdict.use = False
    return config


def exact_image(
    body: Body, seed: int, turn: float = 0.08, focal_error: float = 0.15
) -> tuple[ImageInput, dict[str, Tensor]]:
    """One person of mean shape and the truth; the prediction is off by ``turn`` rad a joint axis, the root
    by 0.1 rad, and the focal's prior by ``focal_error``."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(body.v_template)

    upright = torch.diag(torch.tensor([1.0, -1.0, -1.0])).to(body.v_template)
    root = upright @ so3.exp(normal(3) * 0.4)
    pose = so3.exp(normal(23, 3) * 0.25)
    pose[21:] = torch.eye(3).to(pose)
    betas = torch.zeros(body.num_betas).to(pose)
    transl = torch.tensor([0.05, 0.0, 2.8]).to(pose)
    skeleton, vertices = body.forward(root[None], pose[None], betas[None])
    camera = intrinsics(torch.tensor(FOCAL).to(pose), image_center(WIDTH, HEIGHT).to(pose))
    fragments = rasterize(vertices + transl, body.faces, camera[None], (HEIGHT, WIDTH))
    points = project(body.keypoints(skeleton, vertices)[0] + transl, camera)
    seen = torch.tensor([name in COCO17 for name in KEYPOINTS])
    sigma = torch.where(seen, KEYPOINT_SIGMA, math.inf).to(pose)
    rows, columns = torch.nonzero(fragments.hit[0], as_tuple=True)
    # A window whose cells are whole pixels: what is rendered is then exactly what is compared.
    half = GRID * PIXELS_A_CELL / BOX_MARGIN / 2
    x, y = (float((v.min() + v.max()) // 2) for v in (columns, rows))
    box = torch.tensor([x - half, y - half, x + half, y + half]).to(pose)
    hit = fragments.hit[0]
    predicted = pose.clone()
    predicted[:21] = so3.exp(normal(21, 3) * turn) @ pose[:21]
    person = PersonInput(
        root=so3.exp(normal(3) * 0.1) @ root,
        pose=predicted,
        betas=betas,
        transl=transl * 20,
        focal=FOCAL * 20,
        keypoints=points,
        keypoint_sigma=sigma,
        box=box,
    )
    image = ImageInput(
        name=f"exact_{seed}",
        width=WIDTH,
        height=HEIGHT,
        log_focal=math.log(FOCAL) + focal_error,
        log_focal_sigma=1.0,
        center=image_center(WIDTH, HEIGHT),
        log_depth=torch.where(hit, fragments.depth[0], 1.0).log(),
        depth_valid=hit,
        depth_focal=FOCAL,
        people=[person],
    )
    truth = {"joints": skeleton.position[0] + transl, "transl": transl, "root": root, "pose": pose}
    return image, truth
