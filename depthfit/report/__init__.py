"""Pictures and tables of what a fit did."""

from depthfit.report.bodies import PersonView
from depthfit.report.overlay import DepthView, draw_overlay
from depthfit.report.summary import PersonSummary
from depthfit.report.table import before_after_table

__all__ = ["DepthView", "PersonSummary", "PersonView", "before_after_table", "draw_overlay"]
