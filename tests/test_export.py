"""Mesh files, read back by an independent reader."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from depthfit.export import write_glb, write_obj


def tetrahedron() -> tuple[Tensor, Tensor]:
    """Below, right of and before a camera (y down), counter-clockwise from outside; vertex 4 is unused."""
    corners = [[0.1, 0.2, 3.0], [0.9, 0.2, 3.1], [0.1, 1.2, 3.2], [0.15, 0.25, 4.0], [7.0, 8.0, 9.0]]
    vertices = torch.tensor(corners) + 1 / 3
    faces = torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    return vertices, faces


def read_glb(path: Path) -> tuple[dict[str, Any], bytes]:
    data = path.read_bytes()
    magic, version, length = struct.unpack_from("<III", data)
    assert (magic, version, length) == (0x46546C67, 2, len(data))
    json_length, json_type = struct.unpack_from("<II", data, 12)
    assert json_type == 0x4E4F534A
    assert json_length % 4 == 0
    document = json.loads(data[20 : 20 + json_length])
    binary_length, binary_type = struct.unpack_from("<II", data, 20 + json_length)
    assert binary_type == 0x004E4942
    assert binary_length % 4 == 0
    binary = data[28 + json_length :]
    assert len(binary) == binary_length
    assert 0 <= binary_length - document["buffers"][0]["byteLength"] < 4
    return document, binary


def accessor(document: dict[str, Any], binary: bytes, index: int) -> np.ndarray:
    entry = document["accessors"][index]
    view = document["bufferViews"][entry["bufferView"]]
    dtype = {5126: "<f4", 5125: "<u4"}[entry["componentType"]]
    width = {"VEC3": 3, "SCALAR": 1}[entry["type"]]
    assert view["byteOffset"] % 4 == 0
    assert view["byteLength"] == entry["count"] * width * 4
    assert view["byteOffset"] + view["byteLength"] <= document["buffers"][view["buffer"]]["byteLength"]
    return np.frombuffer(binary, dtype, entry["count"] * width, view["byteOffset"]).reshape(-1, width)


@pytest.mark.parametrize("name", ["a", "a_name_of_other_length", "Zoë 1"])
def test_glb_is_valid_and_turned_upright(tmp_path: Path, name: str) -> None:
    vertices, faces = tetrahedron()
    path = tmp_path / f"{name}.glb"
    write_glb(path, vertices, faces, color=(0.1, 0.2, 0.3))
    document, binary = read_glb(path)
    assert document["asset"]["version"] == "2.0"
    assert document["nodes"][document["scenes"][document["scene"]]["nodes"][0]]["name"] == name
    primitive = document["meshes"][0]["primitives"][0]
    points = accessor(document, binary, primitive["attributes"]["POSITION"])
    np.testing.assert_allclose(points, vertices.numpy() * [1, -1, -1], rtol=1e-6)
    entry = document["accessors"][primitive["attributes"]["POSITION"]]
    np.testing.assert_array_equal(np.float32(entry["min"]), points.min(0))
    np.testing.assert_array_equal(np.float32(entry["max"]), points.max(0))
    indices = accessor(document, binary, primitive["indices"]).reshape(-1, 3)
    np.testing.assert_array_equal(indices, faces.numpy())
    material = document["materials"][primitive["material"]]["pbrMetallicRoughness"]
    assert material["baseColorFactor"] == [0.1, 0.2, 0.3, 1.0]


def test_glb_normals_are_unit_and_point_outward(tmp_path: Path) -> None:
    vertices, faces = tetrahedron()
    write_glb(tmp_path / "a.glb", vertices, faces)
    document, binary = read_glb(tmp_path / "a.glb")
    attributes = document["meshes"][0]["primitives"][0]["attributes"]
    points, normals = (accessor(document, binary, attributes[k]) for k in ("POSITION", "NORMAL"))
    np.testing.assert_allclose(np.linalg.norm(normals, axis=-1), 1, atol=1e-6)
    used = points[:4]
    assert (((used - used.mean(0)) * normals[:4]).sum(-1) > 0).all()
    # Counter-clockwise from outside, after the turn too: a positive volume.
    corners = points[faces.numpy()].astype(float)
    assert np.linalg.det(corners - used.mean(0)).sum() > 0


def test_obj_round_trip(tmp_path: Path) -> None:
    vertices, faces = tetrahedron()
    write_obj(tmp_path / "a.obj", vertices, faces)
    rows = [line.split() for line in (tmp_path / "a.obj").read_text().splitlines()]
    points = np.array([row[1:] for row in rows if row[0] == "v"], float)
    triangles = np.array([row[1:] for row in rows if row[0] == "f"], int)
    np.testing.assert_allclose(points, vertices.numpy(), atol=1e-6)
    np.testing.assert_array_equal(triangles, faces.numpy() + 1)


@pytest.mark.parametrize("write", [write_obj, write_glb])
def test_bad_meshes_are_refused_and_leave_no_file(tmp_path: Path, write: Any) -> None:
    vertices, faces = tetrahedron()
    bad = vertices.clone()
    bad[1, 1] = math.nan
    for points, triangles, message in (
        (bad, faces, "not finite"),
        (vertices, faces + 2, "faces name vertices"),
        (vertices[None], faces, "a mesh is"),
        (vertices, faces[:0], "without vertices or faces"),
    ):
        with pytest.raises(ValueError, match=message):
            write(tmp_path / "a.mesh", points, triangles)
    assert not list(tmp_path.iterdir())
