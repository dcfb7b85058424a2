"""``depthfit body``: export or rebuild the open body."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from depthfit.body.export import export_smplx
from depthfit.body.load import load_body
from depthfit.cli.help import settings, wants_help
from depthfit.run import load_config


@dataclass
class BodyExportConfig:
    """Settings of ``depthfit body export``.

    Attributes:
        model: ``open``, or a SMPL file or folder.
        gender: neutral, male or female.
        out: File to write; smplx.SMPLLayer(out) loads it.
    """

    model: str = "open"
    gender: str = "neutral"
    out: str = "open_body.pkl"


USAGE = """usage: depthfit body export [model=open] [gender=neutral] [out=open_body.pkl]
       depthfit body build          (rebuilds the open body from anny: pip install "depthfit[body]")

settings of export and their defaults:
"""


def run(arguments: Sequence[str]) -> int:
    """Export or build."""
    if wants_help(arguments) or not arguments:
        print(USAGE + settings(BodyExportConfig))
        return 0
    if arguments[0] == "export":
        config: BodyExportConfig = load_config(arguments[1:], BodyExportConfig)
        export_smplx(load_body(config.model, config.gender), config.out)
        print(config.out)
        return 0
    if arguments[0] == "build":
        # Imported here: building needs an extra that nothing else needs.
        from depthfit.body.build_open import build_open_body

        print(build_open_body())
        return 0
    print(f"depthfit body: no action {arguments[0]!r}; there are export and build.", file=sys.stderr)
    return 2
