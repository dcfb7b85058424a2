"""Lower layers never import higher ones."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS: tuple[tuple[str, ...], ...] = (
    ("depthfit.errors",),
    (
        "depthfit.struct",
        "depthfit.so3",
        "depthfit.joints",
        "depthfit.atomic",
        "depthfit.lock",
        "depthfit.torch_file",
        "depthfit.kernels",
        "depthfit.so3_triton",
    ),
    ("depthfit.solver", "depthfit.camera"),
    ("depthfit.body",),
    # The tokenizer as a fit uses it.
    (
        "depthfit.tokens.layers",
        "depthfit.tokens.quantizer",
        "depthfit.tokens.vqvae",
        "depthfit.tokens.jacobian",
        "depthfit.tokens.load",
        "depthfit.tokens",
    ),
    ("depthfit.data",),
    # The tokenizer as it is trained.
    (
        "depthfit.tokens.checkpoint",
        "depthfit.tokens.dataset",
        "depthfit.tokens.losses",
        "depthfit.tokens.train",
        "depthfit.tokens.evaluate",
    ),
    ("depthfit.evidence",),
    ("depthfit.perception",),
    ("depthfit.raster",),
    ("depthfit.state",),
    ("depthfit.residuals",),
    ("depthfit.fit",),
    ("depthfit.synth", "depthfit.datasets", "depthfit.evaluation", "depthfit.export", "baselines"),
    ("depthfit.report",),
    ("depthfit.run",),
    ("depthfit.pseudo",),
    ("depthfit.bench", "depthfit.demo"),
    ("depthfit.cli",),
)
"""From the lowest to the highest. Packages of one layer do not know each other, but for the second lowest."""
FREE_AMONG_THEMSELVES = {1, 4, 6}
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
MAY_IMPORT_BASELINES = ("baselines", "depthfit.run", "depthfit.pseudo", "depthfit.bench")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    module_name(path): path for top in ("depthfit", "baselines") for path in (ROOT / top).rglob("*.py")
}


def layer_name(module: str) -> str:
    """The longest listed name that a module lies under."""
    parts = module.split(".")
    names = [".".join(parts[: k + 1]) for k in range(len(parts))]
    return next(name for name in reversed(names) if name in RANK)


def imports(path: Path) -> set[str]:
    """Our modules that a file imports anywhere, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in names}
    # The package itself holds the version alone, which everyone may read.
    return {name for name in found if name in MODULES and name != "depthfit"}


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"depthfit"}))
def test_imports_point_downwards(module: str) -> None:
    own = layer_name(module)
    for name in imports(MODULES[module]):
        other = layer_name(name)
        allowed = RANK[other] < RANK[own] or other == own
        allowed |= RANK[other] == RANK[own] and RANK[own] in FREE_AMONG_THEMSELVES
        assert allowed, f"{module} (layer {RANK[own]}) imports {name} (layer {RANK[other]})"
        if other == "baselines":
            assert own in MAY_IMPORT_BASELINES, f"{module} reaches past the registry of baselines"


def test_every_listed_layer_exists() -> None:
    assert {name for name in RANK if name not in MODULES} == set()


def test_the_package_imports_nothing() -> None:
    assert imports(MODULES["depthfit"]) == set()
