"""How much of the labels is wrong, and how, by predictions of networks that did not learn them."""

import math
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from scanmix.blocks.cross_validated import mistakes_are_paired, wrong_among_agreeing, wrong_share


@given(st.floats(0, 1), st.integers(1, 99))
def test_the_share_of_wrong_labels_explains_the_agreement(part: float, mistaken_for: int) -> None:
    """Slow version: the first share at which the agreement has fallen so far."""
    share = part * mistaken_for / (mistaken_for + 1)
    agreement = (1 - share) ** 2 + share**2 / mistaken_for
    assert wrong_share(agreement, mistaken_for) == pytest.approx(share, abs=1e-5)
    steps = [step / 1000 for step in range(1001)]
    first = next((e for e in steps if (1 - e) ** 2 + e**2 / mistaken_for <= agreement + 1e-9), None)
    assert first is None or wrong_share(agreement, mistaken_for) == pytest.approx(first, abs=0.02)


@pytest.mark.parametrize(("mistaken_for", "most"), [(1, 0.5), (9, 0.9)])
def test_less_agreement_than_by_chance_counts_as_chance(mistaken_for: int, most: float) -> None:
    assert wrong_share(0.0, mistaken_for) == most and wrong_share(1.0, mistaken_for) == 0.0


def drawn(share: float, num_classes: int, paired: bool, count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Classes, and two sets of labels with the same chances of being wrong, each drawn for itself."""
    draws = torch.Generator().manual_seed(seed)
    truth = torch.arange(count) % num_classes

    def noisy() -> Tensor:
        shift = torch.ones(count, dtype=torch.int64)
        shift = shift if paired else torch.randint(1, num_classes, (count,), generator=draws)
        wrong = torch.rand(count, generator=draws) < share
        return torch.where(wrong, (truth + shift) % num_classes, truth)

    return truth, noisy(), noisy()


@pytest.mark.parametrize(("share", "paired"), [(0.2, False), (0.5, False), (0.2, True), (0.4, True)])
def test_drawn_labels_are_as_the_formulas_say(share: float, paired: bool) -> None:
    truth, labels, predicted = drawn(share, 10, paired, 20_000, 0)
    agree, mistaken_for = labels == predicted, 1 if paired else 9
    assert mistakes_are_paired(labels, predicted, 10) is paired
    assert wrong_share(float(agree.double().mean()), mistaken_for) == pytest.approx(share, abs=0.02)
    still = float((labels != truth)[agree].double().mean())
    assert wrong_among_agreeing(share, mistaken_for) == pytest.approx(still, abs=0.01)


def test_nothing_wrong_and_all_wrong() -> None:
    assert wrong_among_agreeing(0.0, 9) == 0.0 and wrong_among_agreeing(1.0, 9) == 1.0
    labels = torch.arange(6) % 3
    assert not mistakes_are_paired(labels, labels, 3)


@pytest.mark.parametrize("num_classes", [3, 4, 5, 10, 100])
def test_what_is_paired_by_hand(num_classes: int) -> None:
    """Slow version: entropies summed up in dictionaries; even and paired mistakes, and a network of one answer."""
    for paired in (False, True):
        _, labels, predicted = drawn(0.4, num_classes, paired, 200 * num_classes, num_classes)
        differ = [(a, b) for a, b in zip(labels.tolist(), predicted.tolist(), strict=True) if a != b]

        def spread(values: list[Any]) -> float:
            shares = [count / len(values) for count in Counter(values).values()]
            return math.exp(-sum(share * math.log(share) for share in shares))

        left_open = spread(differ) / spread([a for a, _ in differ])
        assert left_open == pytest.approx(
            2 if paired or num_classes == 3 else num_classes - 1, rel=0.5 if num_classes == 100 else 0.15
        )
        expected = paired and num_classes > 3
        assert mistakes_are_paired(labels, predicted, num_classes) is expected
        assert (left_open**2 < 2 * (spread([b for _, b in differ]) - 1)) is expected or num_classes == 3
        assert not mistakes_are_paired(labels, torch.zeros_like(labels), num_classes)
