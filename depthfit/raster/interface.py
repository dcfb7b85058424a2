"""What every rasteriser takes and gives.

Camera frame: x right, y down, z forward, metres. Pixel (0, 0) is the centre of the top-left pixel, so pixel
centres have integer coordinates.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass

import torch
from torch import Tensor

from depthfit.kernels import use_triton
from depthfit.struct import TensorStruct

NEAR = 0.01
"""Distance of the near plane in m. A triangle with a corner nearer than this is not drawn at all."""

_BACKENDS = {
    "torch": "depthfit.raster.torch_raster",
    "triton": "depthfit.raster.triton_raster",
    "pytorch3d": "depthfit.raster.pytorch3d_backend",
}


@dataclass(frozen=True)
class Fragments(TensorStruct):
    """What each pixel's ray hits first.

    Attributes:
        face: (N, H, W) int64 index into the faces, -1 where nothing is hit.
        bary: (N, H, W, 3) weights of the triangle's corners that give the 3D point hit; they sum to one,
            and are zero where nothing is hit.
        depth: (N, H, W) z of that point in m, infinite where nothing is hit.
    """

    face: Tensor
    bary: Tensor
    depth: Tensor

    @property
    def hit(self) -> Tensor:
        """(N, H, W) bool, where a triangle is seen."""
        return self.face >= 0

    def interpolate_hits(self, faces: Tensor, attributes: Tensor) -> Tensor:
        """Per-vertex ``attributes`` (N, V, C) at the M pixels of ``hit``, in their order: (M, C)."""
        hit = self.hit
        row = hit.nonzero()[:, 0] * attributes.shape[1]
        flat, weights = attributes.flatten(0, 1), self.bary[hit]
        total = flat.new_zeros(len(row), flat.shape[-1])
        for corner, vertex in enumerate(faces[self.face[hit]].unbind(-1)):
            total += flat.index_select(0, row + vertex) * weights[:, corner, None]
        return total

    def interpolate(self, faces: Tensor, attributes: Tensor) -> Tensor:
        """Per-vertex ``attributes`` (N, V, C) at every pixel: (N, H, W, C), zero where nothing is hit."""
        picture = attributes.new_zeros(*self.face.shape, attributes.shape[-1])
        picture[self.hit] = self.interpolate_hits(faces, attributes)
        return picture


def rasterize(
    vertices: Tensor,
    faces: Tensor,
    K: Tensor,
    size: tuple[int, int],
    backend: str = "auto",
    cull_backfaces: bool = False,
) -> Fragments:
    """First hit of every pixel's ray with each of N meshes of one topology.

    Not differentiable: gradients follow from the triangle hit. Triangles that have a corner nearer than
    ``NEAR`` (or not finite), and those that project to a line, are not drawn.

    Args:
        vertices: (N, V, 3) m, camera frame.
        faces: (F, 3) int64, counter-clockwise seen from outside.
        K: (N, 3, 3) pinhole intrinsics in px, of the window that is drawn.
        size: (H, W) of that window in px.
        backend: ``torch`` (built in), ``triton`` (the same triangles on CUDA, without asking the device
            anything), ``pytorch3d`` (if installed), or ``auto``: ``triton`` for float32 on CUDA where Triton
            is installed, else ``torch``.
        cull_backfaces: Leave out triangles seen from inside. On closed meshes wholly in front of the camera
            this changes nothing but the speed.

    Raises:
        ValueError: On shapes that do not fit, or an unknown backend.
        DepthfitError: If the backend is not installed.
    """
    n = len(vertices)
    if vertices.ndim != 3 or vertices.shape[-1] != 3 or faces.ndim != 2 or faces.shape[-1] != 3:
        raise ValueError(
            f"vertices must be (N, V, 3) and faces (F, 3); got {tuple(vertices.shape)}, {tuple(faces.shape)}"
        )
    if tuple(K.shape) != (n, 3, 3):
        raise ValueError(f"K must be ({n}, 3, 3), one for each mesh; got {tuple(K.shape)}")
    if min(size) < 1:
        raise ValueError(f"size must be (H, W) of at least one pixel; got {tuple(size)}")
    if backend not in ("auto", *_BACKENDS):
        raise ValueError(f"unknown backend {backend!r}; use one of auto, {', '.join(_BACKENDS)}")
    with torch.no_grad():
        if backend == "auto":
            backend = "triton" if use_triton(vertices) else "torch"
        draw = importlib.import_module(_BACKENDS[backend]).rasterize
        return draw(vertices, faces, K, size, cull_backfaces)
