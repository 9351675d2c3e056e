import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from scanmix.blocks.ascent import SUFFICIENT, ascend


def hill(weight: Tensor) -> Tensor:
    """Highest at 3."""
    return -((weight - 3) ** 2).sum()


def test_a_step_goes_up_the_gradient() -> None:
    weight = torch.tensor([1.0], requires_grad=True)
    step = ascend([weight], lambda: hill(weight), 0.25, 0)
    assert weight.item() == pytest.approx(2.0) and step.value.item() == -4.0 and step.rate == 0.25
    assert weight.requires_grad and not step.value.requires_grad


def test_a_step_too_long_is_halved_until_it_rises() -> None:
    weight = torch.tensor([1.0], requires_grad=True)
    step = ascend([weight], lambda: hill(weight), 4.0, 10)
    assert step.rate == 0.5  # 4, 2 and 1 lead beyond the hill or to the same height on its other side
    assert weight.item() == pytest.approx(3.0)


def test_without_halvings_it_may_go_down() -> None:
    weight = torch.tensor([1.0], requires_grad=True)
    step = ascend([weight], lambda: hill(weight), 4.0, 0)
    assert step.rate == 4.0 and hill(weight) < step.value


def test_with_too_few_halvings_nothing_moves() -> None:
    weight = torch.tensor([1.0], requires_grad=True)
    assert ascend([weight], lambda: hill(weight), 4.0, 2).rate == 0.0
    assert weight.item() == 1.0


def test_what_is_no_number_moves_nothing() -> None:
    weight = torch.tensor([1.0], requires_grad=True)
    assert math.isnan(ascend([weight], lambda: weight.sum() * float("nan"), 1.0, 3).value.item())
    assert weight.item() == 1.0


def test_several_tensors_move_together() -> None:
    first, second = (torch.zeros(shape, requires_grad=True) for shape in ((2,), (2, 2)))
    ascend([first, second], lambda: hill(first) + hill(second), 0.25, 5)
    assert bool((first == 1.5).all()) and bool((second == 1.5).all())


def test_lemma_2_does_not_follow_from_its_assumptions() -> None:
    """One example, p(y | x) = 1 / (1 + exp(-theta)): bounded above, each step brings a share of its square, no limit.

    The rise is at least xi |step|^2 with xi = SUFFICIENT / rate, but theta grows as the logarithm of the steps does.
    """
    theta = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    places = [0.0]
    for _ in range(4096):
        before = theta.item()
        step = ascend([theta], lambda: F.logsigmoid(theta).sum(), 1.0, 0)
        risen = F.logsigmoid(theta).item() - step.value.item()
        assert risen >= SUFFICIENT / step.rate * (theta.item() - before) ** 2
        places.append(theta.item())
    doubled = [places[2 * count] - places[count] for count in (256, 512, 1024, 2048)]
    assert doubled == pytest.approx([math.log(2)] * 4, abs=0.02)
