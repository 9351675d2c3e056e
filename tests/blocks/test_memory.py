"""What is remembered, and for how long."""

import pytest
import torch

from scanmix.blocks.memory import append_epoch


@pytest.mark.parametrize("length", [1, 2, 5])
def test_remember_is_a_list_cut_to_its_end(length: int) -> None:
    history, slow = torch.zeros(0, 3), list[list[float]]()
    for epoch in range(7):
        values = torch.tensor([epoch, epoch + 0.5, -epoch])
        history = append_epoch(history, values, length)
        slow = [*slow, values.tolist()][-length:]
        assert history.tolist() == slow


def test_remember_takes_a_row_of_any_shape() -> None:
    history = torch.zeros(0, 2, 4)
    for epoch in range(3):
        history = append_epoch(history, torch.full((2, 4), float(epoch)), 2)
    assert history.shape == (2, 2, 4)
    assert history[:, 0, 0].tolist() == [1.0, 2.0]
    assert history.mean(0)[1, 3].item() == 1.5
