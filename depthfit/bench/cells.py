"""Cells of Markdown tables."""

from __future__ import annotations

import math

LOG_ERRORS = (r"focal, median \|log\|", r"distance, median \|log\|")
"""Headings of columns of :func:`log_cell`."""
FACTOR_FROM = 0.5
"""A log error of this size and above is written as a factor."""


def log_cell(error: float) -> str:
    """An error |log(fit / truth)| of a focal length or a distance, without unit.

    A small one is a share to within half of itself: 0.074 is 7.4 %, a factor of 1.077. A large one is none,
    3.0 is a factor of 20: from ``FACTOR_FROM`` on the factor is written.
    """
    if error < FACTOR_FROM:
        return f"{error:.1%}"
    factor = math.exp(error)
    return f"x{factor:.1f}" if factor < 10 else f"x{factor:.0f}"
