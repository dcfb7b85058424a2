"""HMR2.0 (Goel et al., ICCV 2023): the body's pose as rotations."""

from __future__ import annotations

from pathlib import Path

from baselines.hmr.release import Release

HMR2 = Release(
    name="hmr2",
    title="HMR2.0",
    tokens=False,
    checkpoint="epoch=35-step=1000000.ckpt",
    page="https://github.com/shubham-goel/4D-Humans",
    home=Path.home() / ".cache" / "4DHumans",
)
