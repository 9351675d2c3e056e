"""One self-contained page about a run: what was asked, what happened, and which labels to look at."""

from scanmix.report.page import write_report

__all__ = ["write_report"]
