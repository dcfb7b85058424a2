"""Batched nonlinear least squares. Knows nothing of bodies."""

from depthfit.solver.levenberg_marquardt import LeastSquares, LevenbergMarquardtConfig, minimize
from depthfit.solver.result import SolveSummary, Status
from depthfit.solver.robust import GemanMcClure, Kernel, Quadratic
from depthfit.solver.schur import ArrowSystem

__all__ = [
    "ArrowSystem",
    "GemanMcClure",
    "Kernel",
    "LeastSquares",
    "LevenbergMarquardtConfig",
    "Quadratic",
    "SolveSummary",
    "Status",
    "minimize",
]
