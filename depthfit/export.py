"""Meshes as Wavefront OBJ and binary glTF 2.0 files."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from depthfit.atomic import atomic_path
from depthfit.raster import vertex_normals

_FLOAT, _UNSIGNED_INT = 5126, 5125
_ARRAY_BUFFER, _ELEMENT_ARRAY_BUFFER = 34962, 34963
_GLTF_FROM_CAMERA = (1.0, -1.0, -1.0)
"""Half a turn about x: (x right, y down, z forward) to glTF's (x right, y up, z backward)."""


def write_obj(path: str | Path, vertices: Tensor, faces: Tensor) -> None:
    """Write ``vertices`` (V, 3) m and ``faces`` (F, 3) as OBJ, atomically and to the micrometre.

    OBJ names no axes: the coordinates are written as given, so a mesh in the camera frame (y down) agrees
    with ``fits.npz`` and stands on its head in viewers that take y as up. ``write_glb`` turns it.

    Raises:
        ValueError: If shapes or indices do not fit, or a coordinate is not finite.
    """
    points, triangles = _checked(vertices, faces)
    with atomic_path(path) as temporary, open(temporary, "w", encoding="ascii", newline="\n") as file:
        np.savetxt(file, points, fmt="v %.6f %.6f %.6f")
        np.savetxt(file, triangles.astype(np.int64) + 1, fmt="f %d %d %d")


def write_glb(
    path: str | Path,
    vertices: Tensor,
    faces: Tensor,
    color: tuple[float, float, float] = (0.55, 0.68, 0.85),
) -> None:
    """Write a mesh as a binary glTF 2.0 file, atomically: one node named after the file, with normals.

    Args:
        path: Where to write.
        vertices: (V, 3) m, camera frame (x right, y down, z forward). glTF is y up with z towards the
            viewer, so y and z change sign; the camera stays at the origin, looking along -z.
        faces: (F, 3), counter-clockwise seen from outside; that is glTF's order too.
        color: Linear RGB in [0, 1].

    Raises:
        ValueError: If shapes or indices do not fit, or a coordinate is not finite.
    """
    points, triangles = _checked(vertices, faces)
    points = (points * np.array(_GLTF_FROM_CAMERA)).astype(np.float32)
    normals = vertex_normals(torch.from_numpy(points), torch.from_numpy(triangles.astype(np.int64))).numpy()
    # glTF wants unit normals even of a vertex that no triangle uses.
    normals[~normals.any(-1)] = (0.0, 0.0, 1.0)
    document, binary = _document(points, normals, triangles.astype(np.uint32), color, Path(path).stem)
    text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
    # Each chunk is padded to 4 bytes: JSON with spaces, binary with zeros.
    text += b" " * (-len(text) % 4)
    binary += b"\0" * (-len(binary) % 4)
    header = struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(text) + 8 + len(binary))
    chunks = (
        struct.pack("<I4s", len(text), b"JSON"),
        text,
        struct.pack("<I4s", len(binary), b"BIN\0"),
        binary,
    )
    with atomic_path(path) as temporary:
        temporary.write_bytes(header + b"".join(chunks))


def _checked(vertices: Tensor, faces: Tensor) -> tuple[np.ndarray, np.ndarray]:
    points, triangles = vertices.detach().cpu().double().numpy(), faces.cpu().numpy()
    if points.ndim != 2 or points.shape[1] != 3 or triangles.ndim != 2 or triangles.shape[1] != 3:
        raise ValueError(f"a mesh is (V, 3) and (F, 3); got {points.shape} and {triangles.shape}")
    if not len(points) or not len(triangles):
        raise ValueError("a mesh without vertices or faces cannot be written")
    if triangles.min() < 0 or triangles.max() >= len(points):
        raise ValueError(f"faces name vertices {triangles.min()}..{triangles.max()} of {len(points)}")
    if not np.isfinite(points).all():
        raise ValueError(f"{(~np.isfinite(points).all(1)).sum()} vertices are not finite")
    return points, triangles


def _document(
    points: np.ndarray,
    normals: np.ndarray,
    triangles: np.ndarray,
    color: tuple[float, float, float],
    name: str,
) -> tuple[dict[str, Any], bytes]:
    """glTF's JSON and the buffer that it describes."""
    arrays = (points, normals, triangles)
    views, offset = [], 0
    for array, target in zip(arrays, (_ARRAY_BUFFER, _ARRAY_BUFFER, _ELEMENT_ARRAY_BUFFER), strict=True):
        views.append({"buffer": 0, "byteOffset": offset, "byteLength": array.nbytes, "target": target})
        offset += array.nbytes
    bounds = {"min": points.min(0).tolist(), "max": points.max(0).tolist()}
    vector = {"componentType": _FLOAT, "type": "VEC3", "count": len(points)}
    accessors = [
        {"bufferView": 0, **vector, **bounds},
        {"bufferView": 1, **vector},
        {"bufferView": 2, "componentType": _UNSIGNED_INT, "type": "SCALAR", "count": triangles.size},
    ]
    primitive = {"attributes": {"POSITION": 0, "NORMAL": 1}, "indices": 2, "material": 0}
    surface = {"baseColorFactor": [*color, 1.0], "metallicFactor": 0.0, "roughnessFactor": 0.8}
    document = {
        "asset": {"version": "2.0", "generator": "depthfit"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": name}],
        "meshes": [{"primitives": [primitive], "name": name}],
        "materials": [{"pbrMetallicRoughness": surface}],
        "buffers": [{"byteLength": offset}],
        "bufferViews": views,
        "accessors": accessors,
    }
    return document, b"".join(
        np.ascontiguousarray(a).astype(a.dtype.newbyteorder("<")).tobytes() for a in arrays
    )
