"""What it takes to fit a classifier at once to frozen features: no batch shows it, so a small fit is timed.

Legend: N examples, C classes, D features.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor

from scanmix.blocks.neighbors import EXACT_UP_TO, nearest_neighbors
from scanmix.data.batches import TrainingData
from scanmix.data.noise import symmetric
from scanmix.data.views.feature_views import FeatureViewSettings, make_feature_views
from scanmix.distributed.engine import Engine, find_device
from scanmix.methods import Method
from scanmix.networks.no_layers import NoLayersSettings
from scanmix.training import RunSettings

ROWS, CLASSES = 1000, 20
"""Most rows and classes of the fit that is timed. The time grows with N x C, that of a search for neighbors with N x N.
Fits to real features of 1,000 rows took 0.6 to 1.2 of the time of those to made ones."""
NEIGHBORS = 10
WRONG = 0.4
"""Share of made labels that are drawn anew; what a fit takes hardly depends on it."""
FIRST = 30
"""Rows of a first fit, which is not timed: libraries are loaded then."""


def fitting(settings: RunSettings, count: int, num_classes: int, width: int) -> float:
    """Return the seconds that a method which fits at once takes on N examples of C classes and D features.

    It is timed on made rows, for a second or a few. Beyond `EXACT_UP_TO` examples the search for neighbors grows with N
    alone.

    Raises:
        UserError: the device of the settings does not exist on this machine.
    """
    method, engine = settings.build_method(), Engine(seed=settings.seed, device=find_device(settings.device))
    rows, classes = max(2, min(count, ROWS)), max(2, min(num_classes, CLASSES))
    epoch_of(method, made(FIRST, 2, 2, engine), engine)
    data = made(rows, classes, width, engine)
    whole = epoch_of(method, data, engine)
    search = min(whole, search_of(data)) if method.about.searches else 0.0
    return extrapolated(whole - search, search, count / rows, num_classes / classes, min(count, EXACT_UP_TO) / rows)


def extrapolated(fit: float, search: float, examples: float, classes: float, compared: float) -> float:
    """Return the seconds of a fit and a search for neighbors on so many times the examples, classes, and neighbors."""
    return fit * examples * classes + search * examples * compared


def made(count: int, num_classes: int, width: int, engine: Engine) -> TrainingData:
    """Return clouds of vectors, wide along some directions and narrow along others, with some wrong labels."""
    draws = torch.Generator().manual_seed(0)
    true = torch.arange(count) % num_classes
    spread = torch.arange(1, width + 1).rsqrt()
    centers = 0.5 * torch.randn(num_classes, width, generator=draws)
    rows = (centers[true] + torch.randn(count, width, generator=draws)) * spread
    vectors = rows[:, :, None, None].to(engine.device)
    labels = symmetric(true, WRONG, num_classes, 0).to(engine.device)
    views = make_feature_views(FeatureViewSettings(), vectors)
    return TrainingData(vectors, labels, num_classes, views, engine.generator)


def epoch_of(method: Method, data: TrainingData, engine: Engine) -> float:
    """Return the seconds of an epoch on these vectors."""
    state = method.start(data, NoLayersSettings(kind="none"), engine)
    clock = time.perf_counter()
    method.epoch(state, data, 0)  # its numbers are read from the device, so it has finished
    return time.perf_counter() - clock


def search_of(data: TrainingData) -> float:
    """Return the seconds of a search for the neighbors of all vectors."""
    rows: Tensor = data.eval_view(data.everything)
    clock = time.perf_counter()
    nearest_neighbors(rows, min(NEIGHBORS, len(rows) - 1)).sum().item()
    return time.perf_counter() - clock
