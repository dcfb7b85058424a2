"""People whom the image's border cuts."""

from __future__ import annotations

import dataclasses
import math

import torch

from depthfit.body.load import load_body
from depthfit.camera import intrinsics, project
from depthfit.fit import Fitter
from depthfit.fit.associate import associate
from depthfit.fit.inputs import OutlineInput
from depthfit.state import FitState, ImageState
from tests.fit.scenes import FOCAL, HEIGHT, exact_config, exact_image


def test_no_outline_is_looked_for_beyond_the_image() -> None:
    body = load_body("open").to(dtype=torch.float64)
    image, truth = exact_image(body, 1)
    angle = torch.linspace(0, 2 * math.pi, 200)
    normal = torch.stack([angle.cos(), angle.sin()], -1)
    middle = (image.people[0].box[:2] + image.people[0].box[2:]) / 2
    # A closed outline around the upper body alone: the image ends at the waist.
    outline = OutlineInput((middle + 60 * normal).float(), normal.float(), closed=True)
    cut = HEIGHT // 2
    labels = torch.ones(cut, image.width, dtype=torch.uint8)
    person = dataclasses.replace(image.people[0], outline=outline, label=1)
    assert image.log_depth is not None
    assert image.depth_valid is not None
    image = dataclasses.replace(
        image,
        height=cut,
        log_depth=image.log_depth[:cut],
        depth_valid=image.depth_valid[:cut],
        labels=labels,
        people=[person],
    )
    config = exact_config()
    config.contour.source = "mask"
    scheduler = Fitter(body, None, config).scheduler([image])
    start = scheduler.start()
    people = start.people.replace(
        root=truth["root"][None],
        pose=truth["pose"][None],
        bearing=truth["transl"][None, :2] / truth["transl"][2],
        log_distance=truth["transl"][None, 2].log(),
    )
    state = FitState(
        people, ImageState(torch.full_like(start.images.log_focal, math.log(FOCAL)), start.images.log_scale)
    )
    found = associate(scheduler.body, scheduler.topology, scheduler.batch, state, config).contour
    _, vertices = scheduler.body.forward(people.root, people.pose, people.betas)
    camera = intrinsics(torch.tensor([FOCAL]).to(vertices), scheduler.batch.center)
    pixels = project(vertices + people.transl[:, None], camera)[0]
    matched = pixels[found.vertex[0][found.weight[0] > 0]]
    assert len(matched) > 20
    assert matched[:, 1].max() < cut
    assert (pixels[:, 1] > cut).any()
