"""The HTML report: text notebooks that read tables and figures, set as one file that opens offline."""

from curvelens.reporting.document import Report
from curvelens.reporting.execute import render

__all__ = ["Report", "render"]
