"""Normals and shading."""

from __future__ import annotations

import torch

from depthfit.raster import rasterize, shade, vertex_normals

from .shapes import intrinsics, sphere


def test_normals_of_a_sphere_are_its_radii() -> None:
    center = torch.tensor([0.3, -0.2, 4.0], dtype=torch.float64)
    vertices, faces = sphere(48, tuple(center.tolist()), 0.7)
    batch = torch.stack([vertices, 2 * vertices])
    normals = vertex_normals(batch, faces)
    radii = (vertices - center) / 0.7
    assert ((normals * radii).sum(-1) > 0.999).all()
    torch.testing.assert_close(normals.norm(dim=-1), torch.ones(2, len(vertices), dtype=torch.float64))


def test_a_vertex_of_no_triangle_has_no_normal() -> None:
    vertices = torch.eye(4)[:, :3]
    assert vertex_normals(vertices, torch.tensor([[0, 1, 2]]))[3].tolist() == [0, 0, 0]


def test_shading_lights_the_upper_left_and_keeps_the_colour() -> None:
    vertices, faces = sphere(32, (0.0, 0.0, 4.0), 1.0)
    vertices = vertices.float()[None].repeat(2, 1, 1)
    fragments = rasterize(vertices, faces, intrinsics(160, 50, 50).repeat(2, 1, 1), (101, 101))
    red_and_blue = torch.tensor([[0.9, 0.3, 0.2], [0.2, 0.4, 0.9]])
    image = shade(fragments, vertices, faces, red_and_blue)
    assert image.dtype == torch.uint8
    assert (image[~fragments.hit] == 0).all()
    bright = image.float().sum(-1)
    assert (bright[:, 30, 30] > 1.4 * bright[:, 70, 70]).all()
    assert (image[0, 40:60, 40:60, 0] > image[0, 40:60, 40:60, 2]).all()
    assert (image[1, 40:60, 40:60, 2] > image[1, 40:60, 40:60, 0]).all()


def test_the_inside_of_an_open_mesh_is_lit_like_its_outside() -> None:
    vertices, faces = sphere(16, (0.0, 0.0, 4.0), 1.0)
    vertices, K = vertices.float()[None], intrinsics(160, 50, 50)[None]
    white = torch.ones(3)
    outside = shade(rasterize(vertices, faces, K, (101, 101)), vertices, faces, white)
    turned = faces.flip(-1)
    inside_out = shade(rasterize(vertices, turned, K, (101, 101)), vertices, turned, white)
    assert (outside.int() - inside_out.int()).abs().max() <= 1
