"""Pseudo-ground-truth for whole datasets: read labels, refine them, gate them, write them back, lose none."""

from depthfit.pseudo.config import PseudoConfig
from depthfit.pseudo.runner import run_pseudo_gt

__all__ = ["PseudoConfig", "run_pseudo_gt"]
