"""A run as one HTML file: curves, scores, sheets, config, machine, and how to do it again."""

from genmask_jax.report.page import report_on, write_report

__all__ = ["report_on", "write_report"]
