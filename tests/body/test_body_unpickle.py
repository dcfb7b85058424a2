"""The restricted unpickler reads data in every dress it comes in, and runs nothing."""

from __future__ import annotations

import collections
import copyreg
import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from depthfit.body.unpickle import as_array, safe_load
from depthfit.errors import InputError
from tests.body import smpl_files

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


class Call:
    """Pickles to a call of ``function(*args)``."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.function, self.args


def load(data: bytes, **kwargs: Any) -> Any:
    return safe_load(io.BytesIO(data), **kwargs)


def text_call(module: str, name: str, argument: str = "x") -> bytes:
    """Protocol 0: call module.name(argument)."""
    return f"c{module}\n{name}\n(V{argument}\ntR.".encode()


def stack_call(module: str, name: str, argument: str = "x") -> bytes:
    """Protocol 4, whose names may be dotted: call module.name(argument)."""

    def word(text: str) -> bytes:
        return pickle.SHORT_BINUNICODE + bytes([len(text)]) + text.encode()

    return b"\x80\x04" + word(module) + word(name) + b"\x93(" + word(argument) + b"tR."


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_data_and_arrays_come_back(protocol: int) -> None:
    value = {
        "a": np.arange(6.0).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "scalar": np.float32(2.5),
        "plain": [1, 2.5, "text", None, True, (1, 2), {3, 4}, b"\x00\xff", bytearray(b"ab"), 1 + 2j],
        "ordered": collections.OrderedDict(x=1),
    }
    loaded = load(pickle.dumps(value, protocol))
    np.testing.assert_array_equal(loaded["a"], value["a"])
    np.testing.assert_array_equal(loaded["fortran"], value["fortran"])
    assert loaded["scalar"] == value["scalar"]
    assert loaded["plain"] == value["plain"]
    assert loaded["ordered"] == value["ordered"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", ["csc_matrix", "csr_matrix", "coo_matrix", "csc_array"])
def test_sparse_matrices_are_read_without_scipy_objects(kind: str, protocol: int) -> None:
    dense = np.random.default_rng(0).random((5, 7)) * (np.random.default_rng(1).random((5, 7)) > 0.6)
    loaded = load(pickle.dumps(getattr(sparse, kind)(dense), protocol))
    assert not sparse.issparse(loaded)
    np.testing.assert_array_equal(as_array(loaded, "file", "matrix"), dense)


def test_old_scipy_path_and_python2_strings() -> None:
    dense = np.eye(3)[:, [2, 0, 1]] * 3.5
    data = smpl_files.python2_pickle({"J": sparse.csc_matrix(dense), "x": np.array([1.0, 200.25])})
    data = data.replace(b"cscipy.sparse._csc\n", b"cscipy.sparse.csc\n")
    assert b"cscipy.sparse.csc\n" in data
    assert b"cnumpy.core.multiarray\n" in data
    loaded = load(data)
    np.testing.assert_array_equal(loaded["x"], [1.0, 200.25])
    np.testing.assert_array_equal(as_array(loaded["J"], "file", "J"), dense)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_chumpy_nodes_are_evaluated_without_chumpy(protocol: int) -> None:
    values = np.random.default_rng(0).random((4, 3, 6))
    idxs = np.flatnonzero(np.tile([True, False, True, False, True, False], 12))
    with smpl_files.fake_chumpy() as chumpy:
        inner = smpl_files.leaf(chumpy, values)
        nodes = {
            "leaf": inner,
            "nested_leaf": smpl_files.leaf(chumpy, inner),
            "select": smpl_files.select(chumpy, inner, idxs, (4, 3, 3)),
            "unknown": chumpy.MatVecMult(),
        }
        nodes["unknown"].mtx = 3
        data = pickle.dumps(nodes, protocol)
    loaded = load(data)
    np.testing.assert_array_equal(as_array(loaded["leaf"], "file", "leaf"), values)
    np.testing.assert_array_equal(as_array(loaded["nested_leaf"], "file", "leaf"), values)
    np.testing.assert_array_equal(as_array(loaded["select"], "file", "select"), values[..., ::2])
    with pytest.raises(InputError, match=r"chumpy\.ch\.MatVecMult"):
        as_array(loaded["unknown"], "file", "unknown")


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("posix", "system"),
        ("nt", "system"),
        ("subprocess", "Popen"),
        ("builtins", "eval"),
        ("builtins", "exec"),
        ("builtins", "getattr"),
        ("builtins", "__import__"),
        ("builtins", "type"),
        ("__builtin__", "eval"),
        ("importlib", "import_module"),
        ("operator", "attrgetter"),
        ("functools", "partial"),
        ("types", "FunctionType"),
        ("copyreg", "add_extension"),
        ("_codecs", "decode"),
        ("pickle", "loads"),
        ("torch", "load"),
        ("collections", "defaultdict"),
        ("numpy", "load"),
        ("numpy", "fromfile"),
        ("numpy", "vectorize"),
        ("numpy.testing", "runstring"),
        ("numpy.testing._private.utils", "runstring"),
        ("numpy.f2py", "compile"),
        ("numpy.lib", "load"),
        ("numpy.core.multiarray", "fromfile"),
        ("numpy.ctypeslib", "load_library"),
        ("scipy.sparse", "load_npz"),
        ("scipy.io", "loadmat"),
        ("scipy.sparse.csc", "sys"),
        ("scipy.LowLevelCallable", "from_cython"),
        ("chumpyx", "Ch"),
        ("yacs.config", "CfgNode"),
    ],
)
@pytest.mark.parametrize("write", [text_call, stack_call])
def test_everything_else_is_refused_by_name(module: str, name: str, write: Any) -> None:
    with pytest.raises(InputError, match=f"names {module}.{name},"):
        load(write(module, name))


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("numpy", "ndarray.tofile"),
        ("numpy.core.multiarray", "_reconstruct.__self__"),
        ("builtins", "object.__subclasses__"),
        ("copyreg", "_reconstructor.__globals__"),
    ],
)
def test_dotted_names_reach_nothing(module: str, name: str) -> None:
    with pytest.raises(InputError, match=name):
        load(stack_call(module, name))


def test_a_hostile_pickle_runs_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    for protocol in PROTOCOLS:
        data = pickle.dumps({"v_template": Call(os.system, f"touch {marker}")}, protocol)
        with pytest.raises(InputError, match="system"):
            load(data)
    with pytest.raises(InputError, match="eval"):
        load(pickle.dumps(Call(eval, f"open({str(marker)!r}, 'w')")))
    assert not marker.exists()


@pytest.mark.parametrize("module", ["chumpy", "chumpy.ch", "chumpy.utils"])
def test_chumpy_names_are_data_and_cannot_be_called(module: str) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load(text_call(module, "system"))


def test_attributes_set_on_what_is_allowed_do_not_stay() -> None:
    for module, name in (("copyreg", "_reconstructor"), ("numpy.core.multiarray", "_reconstruct")):
        load(f"c{module}\n{name}\n(dVmark\nI1\nsb.".encode())
    assert not hasattr(copyreg._reconstructor, "mark")  # type: ignore[attr-defined]
    with pytest.raises(InputError):
        load(b"cchumpy.ch\nCh\n(dVmark\nI1\nsb.")
    with pytest.raises(InputError):
        load(b"cnumpy\nndarray\n(dVmark\nI1\nsb.")


def test_only_latin1_bytes_are_encoded() -> None:
    assert load(b"c_codecs\nencode\n(V\xe9\nVlatin1\ntR.") == b"\xe9"
    with pytest.raises(InputError, match="zlib"):
        load(b"c_codecs\nencode\n(Vx\nVzlib\ntR.")


@pytest.mark.parametrize("data", [b"", b"not a pickle", pickle.dumps({"a": np.ones(99)})[:-30], b"\x80\x63."])
def test_damaged_files_say_so(data: bytes) -> None:
    with pytest.raises(InputError, match="pickle"):
        load(data)


def test_persistent_ids_are_refused() -> None:
    with pytest.raises(InputError, match="persistent id"):
        load(b"Pweights\n.")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.pkl"):
        safe_load(tmp_path / "nothing.pkl")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_caller_can_allow_one_more_class(protocol: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class CfgNode(dict):
        __module__ = "yacs.config"
        __qualname__ = "CfgNode"

    class Tolerant(dict):
        pass

    module = type(os)("yacs.config")
    module.CfgNode = CfgNode  # type: ignore[attr-defined]
    with monkeypatch.context() as patch:
        patch.setitem(__import__("sys").modules, "yacs", type(os)("yacs"))
        patch.setitem(__import__("sys").modules, "yacs.config", module)
        node = CfgNode(ARCH=CfgNode(WIDTH=512))
        node.__dict__["__immutable__"] = True
        data = pickle.dumps(node, protocol)
    loaded = load(data, extra={("yacs.config", "CfgNode"): Tolerant})
    assert type(loaded) is Tolerant
    assert loaded == {"ARCH": {"WIDTH": 512}}
    assert type(loaded["ARCH"]) is Tolerant


@pytest.mark.parametrize("value", [np.array([{}], dtype=object), "text", np.array(["a"]), None, {"a": 1}])
def test_what_holds_no_numbers_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match="field"):
        as_array(value, "file", "field")


def test_a_sparse_record_with_indices_outside_is_refused() -> None:
    matrix = sparse.csc_matrix(np.eye(3))
    matrix.indices[1] = 77
    with pytest.raises(InputError, match="cannot be evaluated"):
        as_array(load(pickle.dumps(matrix)), "file", "J_regressor")
