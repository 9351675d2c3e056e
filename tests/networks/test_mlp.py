"""The multilayer perceptron, and which encoder is made of which settings."""

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import nn

from scanmix.networks.encoders import settings_class
from scanmix.networks.mlp import Mlp, MlpSettings
from scanmix.networks.preact_resnet import PreActResNet, PreActResNetSettings


@pytest.mark.parametrize("hidden", [(7,), (5, 3), (4, 8, 6)])
@pytest.mark.parametrize("training", [True, False])
def test_forward_is_the_slow_one(hidden: tuple[int, ...], training: bool) -> None:
    torch.manual_seed(0)
    network = Mlp(MlpSettings(hidden=hidden), 9).train(training)
    rows = torch.randn(12, 9)
    expected = rows
    layers = list(network.layers)
    for linear, norm in zip(layers[::3], layers[1::3], strict=True):
        assert isinstance(linear, nn.Linear) and isinstance(norm, nn.BatchNorm1d)
        expected = expected @ linear.weight.T
        mean, var = (expected.mean(0), expected.var(0, correction=0)) if training else (0.0, 1.0)
        expected = F.relu((expected - mean) / (var + norm.eps) ** 0.5)
    assert network.num_features == hidden[-1]
    torch.testing.assert_close(network(rows), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("hidden", [(), (0,), (4, -1)])
def test_a_network_has_layers_with_a_width(hidden: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError):
        MlpSettings(hidden=hidden)


def test_settings_say_which_encoder() -> None:
    assert isinstance(MlpSettings(hidden=(4,)).build(3), Mlp)
    assert isinstance(PreActResNetSettings(widths=(4,), blocks=(1,)).build(3), PreActResNet)
    assert settings_class("image", {}) is PreActResNetSettings
    assert settings_class("vector", {}) is MlpSettings
