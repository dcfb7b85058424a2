"""Z-buffered rasterisation of batches of meshes, and plain shading of the result."""

from depthfit.raster.interface import NEAR, Fragments, rasterize
from depthfit.raster.shade import shade, vertex_normals

__all__ = ["NEAR", "Fragments", "rasterize", "shade", "vertex_normals"]
