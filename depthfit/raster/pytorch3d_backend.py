"""PyTorch3D's rasteriser behind depthfit's interface.

PyTorch3D's device coordinates point left, up and forward; the shorter side of the picture spans [-1, 1], and
row and column i are centred at (2i + 1 - side)/shorter from the middle.
"""

from __future__ import annotations

import torch
from torch import Tensor

from depthfit.errors import DepthfitError
from depthfit.raster.interface import Fragments
from depthfit.raster.torch_raster import find_boxes, project_to_screen


def rasterize(
    vertices: Tensor, faces: Tensor, K: Tensor, size: tuple[int, int], cull_backfaces: bool
) -> Fragments:
    """See ``depthfit.raster.interface.rasterize``, which checks the arguments.

    Works in float32 inside. Which of two equally near triangles wins is PyTorch3D's choice.
    """
    try:
        from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
        from pytorch3d.structures import Meshes
    except ImportError as error:
        raise DepthfitError(
            "the rasteriser backend 'pytorch3d' is not installed. Build it for your torch with `pip install "
            "--no-build-isolation git+https://github.com/facebookresearch/pytorch3d.git`, or use the "
            "built-in backend 'torch'"
        ) from error
    u, v, inverse = project_to_screen(vertices, K)
    height, width = size
    shorter = min(size)
    z = torch.where(inverse > 0, 1 / inverse, 1.0)
    left, up = (width - 1 - 2 * u) / shorter, (height - 1 - 2 * v) / shorter
    device_points = torch.stack([left, up, z], -1).float()
    # Its CPU code tests every pixel against every triangle it is given, so give it those that count.
    boxes = find_boxes(torch.stack([u, v, inverse], -1), faces, size, cull_backfaces)
    # Grouped by mesh, as its packed face ids are.
    mesh, order = boxes.mesh.sort(stable=True)
    face_ids = boxes.face[order]
    counts = torch.bincount(mesh, minlength=len(vertices)).tolist()
    if not len(face_ids):
        return _empty(vertices, size)
    meshes = Meshes(list(device_points), [faces[ids] for ids in face_ids.split(counts)])
    packed, _, bary, _ = rasterize_meshes(meshes, size, faces_per_pixel=1, perspective_correct=True)
    hit = packed[..., 0] >= 0
    face = torch.where(hit, face_ids[packed[..., 0].clamp(min=0)], -1)
    weights = torch.where(hit[..., None], bary[..., 0, :], 0.0).to(vertices.dtype)
    fragments = Fragments(face, weights, torch.full_like(weights[..., 0], torch.inf))
    depth = fragments.interpolate(faces, z.to(vertices)[..., None])[..., 0]
    return fragments.replace(depth=torch.where(hit, depth, torch.inf))


def _empty(vertices: Tensor, size: tuple[int, int]) -> Fragments:
    shape = (len(vertices), *size)
    return Fragments(
        torch.full(shape, -1, dtype=torch.int64, device=vertices.device),
        vertices.new_zeros(*shape, 3),
        vertices.new_full(shape, torch.inf),
    )
