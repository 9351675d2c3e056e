"""The report: one self-contained HTML page about a run, with its settings, its results and the labels to check."""

from scanmix.report.page import write_report

__all__ = ["write_report"]
