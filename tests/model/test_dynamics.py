import torch

from scanmix.model.dynamics import take_snapshot


def test_a_loss_beyond_half_precision_is_kept_as_the_largest_number() -> None:
    logits = torch.tensor([[[0.0, 1e6], [0.0, 2.0]]])
    snapshot = take_snapshot(logits, torch.tensor([0, 0]), 1, None)
    assert snapshot.losses.dtype == torch.float16
    assert snapshot.losses[0, 0] == 65504
    assert abs(float(snapshot.losses[0, 1]) - float(torch.log(torch.tensor(1.0) + torch.tensor(2.0).exp()))) < 2e-3
