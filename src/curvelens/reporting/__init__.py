"""The HTML report: text notebooks that read tables and figures, set as one file that opens offline."""

from curvelens.reporting.document import Report
from curvelens.reporting.execute import render
from curvelens.reporting.run import machine

__all__ = ["Report", "machine", "render"]
