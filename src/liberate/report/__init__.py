"""The report of a run: one file that loads nothing, `report.html`, for people.

May import runs and everything below; figures are drawn by Jinja2 templates from places that `charts` works out.
"""

from liberate.report.page import draw, write

__all__ = ["draw", "write"]
