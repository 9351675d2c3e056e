"""Runs: their settings, the metrics of each epoch, and the model that comes out; in memory or on disk."""

from scanmix.training.folder import create_run, describe, open_or_create, open_run, writer
from scanmix.training.metrics import EpochMetrics
from scanmix.training.run import NoiseRates, Run
from scanmix.training.settings import OTHER_SECTIONS, SECTIONS, RunSettings, resolve, source_of

__all__ = [
    "OTHER_SECTIONS", "SECTIONS", "EpochMetrics", "NoiseRates", "Run", "RunSettings", "create_run",
    "describe", "open_or_create", "open_run", "resolve", "source_of", "writer",
]  # fmt: skip
