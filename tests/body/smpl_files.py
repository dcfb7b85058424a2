"""Synthetic files in SMPL's layout, with every term switched on and none of SMPL's data in them."""

from __future__ import annotations

import io
import pickle
import struct
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from depthfit.joints import NUM_JOINTS, SMPL_PARENTS
from tests.bodies import REST_JOINTS

SMPL_VERTICES = 6890


def smpl_fields(vertices: int = SMPL_VERTICES, betas: int = 10, seed: int = 0) -> dict[str, Any]:
    """A random body around a rough T pose: sparse regressor, four weights a vertex, pose blend shapes."""
    rng = np.random.default_rng(seed)
    joints = REST_JOINTS.numpy()
    owner = rng.integers(0, NUM_JOINTS, vertices)
    template = joints[owner] + rng.normal(0, 0.05, (vertices, 3))
    weights = np.zeros((vertices, NUM_JOINTS))
    for column in (owner, *rng.integers(0, NUM_JOINTS, (3, vertices))):
        weights[np.arange(vertices), column] += rng.random(vertices)
    regressor = np.zeros((NUM_JOINTS, vertices))
    for j in range(NUM_JOINTS):
        chosen = rng.choice(np.flatnonzero(owner == j), 20, replace=False)
        regressor[j, chosen] = rng.dirichlet(np.ones(20))
    return {
        "v_template": template,
        "shapedirs": rng.normal(0, 0.01, (vertices, 3, betas)),
        "posedirs": rng.normal(0, 0.003, (vertices, 3, 9 * (NUM_JOINTS - 1))),
        "J_regressor": sparse.csc_matrix(regressor),
        "weights": weights / weights.sum(1, keepdims=True),
        "kintree_table": np.array([[2**32 - 1, *SMPL_PARENTS[1:]], range(NUM_JOINTS)], dtype=np.uint32),
        "f": rng.integers(0, vertices, (500, 3)).astype(np.uint32),
    }


def write_pickle(path: Path, value: Any, protocol: int = 2) -> Path:
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


@contextmanager
def fake_chumpy() -> Iterator[types.SimpleNamespace]:
    """Stand-ins for chumpy's classes that pickle under its names; gone again at the end."""
    modules = {name: types.ModuleType(name) for name in ("chumpy", "chumpy.ch", "chumpy.reordering")}

    def make(module: str, name: str) -> type:
        made = type(name, (), {"__module__": module})
        setattr(modules[module], name, made)
        return made

    classes = types.SimpleNamespace(
        Ch=make("chumpy.ch", "Ch"),
        MatVecMult=make("chumpy.ch", "MatVecMult"),
        Select=make("chumpy.reordering", "Select"),
    )
    sys.modules.update(modules)
    try:
        yield classes
    finally:
        for name in modules:
            del sys.modules[name]


def leaf(chumpy: types.SimpleNamespace, values: NDArray) -> Any:
    node = chumpy.Ch()
    node.x, node._dirty_vars, node._itr = values, set(), None
    return node


def select(chumpy: types.SimpleNamespace, operand: Any, idxs: NDArray, shape: tuple[int, ...]) -> Any:
    node = chumpy.Select()
    node.a, node.idxs, node.preferred_shape = operand, idxs, shape
    return node


class _Python2Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """Writes bytes and strings as Python 2 wrote its ``str``."""

    dispatch = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined] # noqa: RUF012

    def _save_py2_str(self, value: bytes | str) -> None:
        data = value.encode("latin1") if isinstance(value, str) else value
        self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)
        self.memoize(value)

    dispatch[bytes] = _save_py2_str
    dispatch[str] = _save_py2_str


def python2_pickle(value: Any) -> bytes:
    """``value`` as Python 2's pickle protocol 2 stored it: byte strings and ``numpy.core`` paths."""
    buffer = io.BytesIO()
    _Python2Pickler(buffer, protocol=2, fix_imports=True).dump(value)
    # GLOBAL is newline-ended text, so the module's name can be shortened in place.
    return buffer.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
