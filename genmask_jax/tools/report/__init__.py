"""Reports of runs as one HTML file: curves, scores, contact sheets, config, machine and command."""

from genmask_jax.tools.report.page import report_on, write_report

__all__ = ["report_on", "write_report"]
