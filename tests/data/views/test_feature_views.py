"""Views of feature vectors: standardized rows, noise, features left out."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor

from scanmix.config import UserError
from scanmix.data.views import make_views
from scanmix.data.views.feature_views import (
    FeatureViews,
    FeatureViewSettings,
    disturb,
    feature_statistics,
    given_statistics,
)


def vectors(count: int = 200, features: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(count, features, generator=generator) * 3 + torch.arange(features))[:, :, None, None]


def make(settings: FeatureViewSettings | None = None) -> FeatureViews:
    views = make_views(settings or FeatureViewSettings(), vectors(), flip=True)
    assert isinstance(views, FeatureViews)
    return views


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_statistics_are_the_slow_ones() -> None:
    rows = vectors(9000, 3).flatten(1)
    mean, std = feature_statistics(rows)
    for feature in range(3):
        values = rows[:, feature].tolist()
        expected = math.fsum(values) / len(values)
        assert mean[feature].item() == pytest.approx(expected, rel=1e-6)
        spread = math.fsum((value - expected) ** 2 for value in values) / len(values)
        assert std[feature].item() == pytest.approx(math.sqrt(spread), rel=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e6])
def test_a_feature_that_does_not_vary_becomes_zero(value: float) -> None:
    views = make_views(FeatureViewSettings(), torch.full((50, 2, 1, 1), value), flip=False)
    assert torch.equal(views.std, torch.ones(2))
    assert views.eval_view(torch.full((3, 2, 1, 1), value)).abs().max() < 1e-6 * max(1, abs(value))


def test_plain_rows_have_mean_0_and_deviation_1() -> None:
    rows = make().eval_view(vectors())
    assert rows.shape == (200, 6)
    assert rows.mean(0).abs().max() < 1e-5 and (rows.std(0, correction=0) - 1).abs().max() < 1e-5


@pytest.mark.parametrize(("noise", "dropout"), [(0.0, 0.0), (0.5, 0.0), (0.0, 0.25), (0.3, 0.3)])
def test_noise_and_dropout_are_as_large_as_asked(noise: float, dropout: float) -> None:
    rows = torch.full((4000, 5), 2.0)
    changed = disturb(rows, noise, dropout, draw())
    gone = changed == 0
    assert gone.double().mean().item() == pytest.approx(dropout, abs=0.01)
    assert (changed[~gone] - 2).std().item() == pytest.approx(noise, abs=0.01)
    assert changed[~gone].mean().item() == pytest.approx(2, abs=0.01)


def test_each_view_takes_its_own_settings() -> None:
    calm = FeatureViewSettings(weak_noise=0, weak_dropout=0, strong_noise=0, strong_dropout=0)
    expected = make().eval_view(vectors())
    for name in ("weak", "strong", "contrastive"):
        assert torch.equal(getattr(make(calm), name)(vectors(), draw()), expected)
    weak_only, strong_only = make(replace(calm, weak_noise=0.5)), make(replace(calm, strong_dropout=0.5))
    assert torch.equal(weak_only.strong(vectors(), draw()), expected)
    assert not torch.equal(weak_only.weak(vectors(), draw()), expected)
    assert torch.equal(strong_only.weak(vectors(), draw()), expected)
    assert not torch.equal(strong_only.strong(vectors(), draw()), expected)
    views = make()
    assert torch.equal(views.random_view("weak")(vectors(), draw()), views.weak(vectors(), draw()))
    assert torch.equal(views.random_view("strong")(vectors(), draw()), views.strong(vectors(), draw()))


@pytest.mark.parametrize("kind", ["weak", "strong"])
def test_several_looks_at_once_are_those_taken_in_turn(kind: Literal["weak", "strong"]) -> None:
    view, rows = make().random_view(kind), vectors()
    parts, draws, again = [rows[:5], rows[:5], rows[:0], rows[3:]], draw(1), draw(1)
    at_once = view(torch.cat(parts), draws, [len(part) for part in parts])
    assert torch.equal(at_once, torch.cat([view(part, again) for part in parts]))


def test_draws_come_from_the_generator_alone() -> None:
    views = make()
    first = views.strong(vectors(), draw(1))
    torch.manual_seed(7)
    assert torch.equal(first, views.strong(vectors(), draw(1)))
    assert not torch.equal(first, views.strong(vectors(), draw(2)))


def test_measured_settings_make_the_same_views_of_other_vectors() -> None:
    views = make()
    again = make_views(views.measured(), torch.zeros(1, 6, 1, 1), flip=False)
    assert torch.equal(again.eval_view(vectors()), views.eval_view(vectors()))
    assert views.strong_settings() != make(FeatureViewSettings(strong_noise=0.1)).strong_settings()
    assert views.contrastive_settings() == make(FeatureViewSettings(weak_noise=0.2)).contrastive_settings()


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ((0.5, 0.5), (1.0,), "views.mean has 2 numbers; there must be 3, or one for all"),
        ((0.5,), (1.0,) * 4, "views.std has 4 numbers; there must be 3, or one for all"),
        ((0.5,), (0.0,), "views.std = [0.0]: numbers above 0 are expected"),
        ((math.nan,), (1.0,), "views.mean = [nan]: finite numbers are expected"),
    ],
)
def test_statistics_that_do_not_fit_are_refused(mean: Sequence[float], std: Sequence[float], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        given_statistics(mean, std, 3)


def test_one_number_stands_for_all_channels() -> None:
    mean, std = given_statistics((0.5,), (0.1, 0.2, 0.3), 3)
    assert (len(mean), len(std)) == (1, 3)
