"""PreAct-ResNet: parameters counted on paper, forward passes done again with nothing but convolutions."""

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, nn

from scanmix.networks.preact_resnet import PreActResNet, PreActResNetSettings

SETTINGS = [
    PreActResNetSettings(widths=(4, 6), blocks=(1, 1)),
    PreActResNetSettings(widths=(4, 6, 8), blocks=(2, 1, 2), final_norm=True),
    PreActResNetSettings(widths=(4, 4), blocks=(2, 2), stem_kernel=5, stem_stride=2),
    PreActResNetSettings(widths=(3, 3, 3, 3), blocks=(1, 2, 1, 1), stem_stride=2),
    PreActResNetSettings(widths=(5,), blocks=(2,), stem_kernel=1, final_norm=True, stem_norm=False),
    PreActResNetSettings(widths=(4, 6), blocks=(1, 1), stem_stride=2, stem_norm=False),
]


def random_network(settings: PreActResNetSettings, channels: int, seed: int) -> PreActResNet:
    """Every weight and statistic random, so that no term of the forward pass hides behind a 0 or a 1."""
    network = PreActResNet(settings, channels)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                values = torch.randn(tensor.shape, generator=generator) * (0.3 if tensor.ndim == 4 else 1.0)
                tensor.copy_(values.abs() + 0.2 if name.endswith("var") else values)
    return network


def slow_norm(weights: dict[str, Tensor], name: str, maps: Tensor, *, training: bool) -> Tensor:
    if training:
        mean, var = maps.mean((0, 2, 3)), maps.var((0, 2, 3), correction=0)
    else:
        mean, var = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
    shape = (1, -1, 1, 1)
    scaled = (maps - mean.view(shape)) / (var.view(shape) + 1e-5).sqrt()
    return scaled * weights[f"{name}.weight"].view(shape) + weights[f"{name}.bias"].view(shape)


def slow_forward(
    settings: PreActResNetSettings, weights: dict[str, Tensor], images: Tensor, *, training: bool
) -> Tensor:
    """The network written out: stem; BN-ReLU-conv twice plus the shortcut of the activated input; pool."""
    maps = F.conv2d(images, weights["stem.weight"], stride=settings.stem_stride, padding=settings.stem_kernel // 2)
    if settings.stem_norm:
        maps = slow_norm(weights, "stem_norm.0", maps, training=training).clamp(min=0)
    number = 0
    for stage, blocks in enumerate(settings.blocks):
        for block in range(blocks):
            name, stride = f"stages.{number}", 2 if stage > 0 and block == 0 else 1
            active = slow_norm(weights, f"{name}.norm1", maps, training=training).clamp(min=0)
            inner = F.conv2d(active, weights[f"{name}.conv1.weight"], stride=stride, padding=1)
            inner = slow_norm(weights, f"{name}.norm2", inner, training=training).clamp(min=0)
            residual = F.conv2d(inner, weights[f"{name}.conv2.weight"], padding=1)
            if stride == 2 or active.shape[1] != residual.shape[1]:
                active = F.conv2d(active, weights[f"{name}.shortcut.weight"], stride=stride)
            maps, number = residual + active, number + 1
    if settings.final_norm:
        maps = slow_norm(weights, "final.0", maps, training=training).clamp(min=0)
    return maps.sum((2, 3)) / (maps.shape[2] * maps.shape[3])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 11)])
def test_forward_is_the_slow_one(settings: PreActResNetSettings, channels: int, size: int, training: bool) -> None:
    network = random_network(settings, channels, seed=size).train(training).double()
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(6, channels, size, size, generator=generator, dtype=torch.float64)
    features = network(images)
    assert features.shape == (6, settings.widths[-1]) == (6, network.num_features)
    expected = slow_forward(settings, weights, images, training=training)
    assert torch.allclose(features, expected, rtol=1e-7, atol=1e-8)


def count_of(settings: PreActResNetSettings, channels: int, classes: int) -> int:
    """Convolutions have kernel^2 x in x out weights and no bias, batch norms 2 a channel, the head a bias."""
    total = settings.stem_kernel**2 * channels * settings.widths[0] + 2 * settings.widths[0] * settings.stem_norm
    inputs = settings.widths[0]
    for stage, (width, blocks) in enumerate(zip(settings.widths, settings.blocks, strict=True)):
        for block in range(blocks):
            total += 2 * inputs + 9 * inputs * width + 2 * width + 9 * width * width
            if inputs != width or (stage > 0 and block == 0):
                total += inputs * width
            inputs = width
    return total + 2 * inputs * settings.final_norm + inputs * classes + classes


def parameters(*modules: nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


@pytest.mark.parametrize(
    ("stem_norm", "final_norm", "expected"),
    [(True, False, 11_171_274), (True, True, 11_172_298), (False, False, 11_171_146), (False, True, 11_172_170)],
)
def test_preact_resnet_18_has_the_published_number_of_parameters(
    stem_norm: bool, final_norm: bool, expected: int
) -> None:
    settings = PreActResNetSettings(stem_norm=stem_norm, final_norm=final_norm)
    encoder = PreActResNet(settings, 3)
    assert parameters(encoder, nn.Linear(encoder.num_features, 10)) == expected
    assert count_of(settings, 3, 10) == expected


def test_the_default_is_the_published_network() -> None:
    settings = PreActResNetSettings()
    assert (settings.stem_norm, settings.final_norm) == (True, False)
    encoder = settings.build(3)
    assert parameters(encoder, nn.Linear(encoder.num_features, 10)) == 11_171_274


def wave(shape: torch.Size, start: int) -> Tensor:
    """cos(start), cos(start + 1) ...: numbers that no generator has to draw again."""
    return torch.cos(torch.arange(shape.numel(), dtype=torch.float64) + start).view(shape)


PUBLISHED_LOGITS = {
    False: [4958.467086830673, -4720.565029042041, 4453.5219351969445, -4157.985110112797, 3835.6713923000348],
    True: [11.408885108266935, -9.752782517244686, 8.79024621425299, -7.48343475945044, 5.6857637554874065],
}
"""First five logits of the first image, in evaluation and in training mode. A network put together as DivideMix's code
says (convolution, batch norm, ReLU; eight blocks; average pooling; linear) gave the same, to 2e-12."""


@pytest.mark.parametrize("training", [True, False])
def test_the_outputs_of_preact_resnet_18_on_fixed_weights_are_the_published_ones(training: bool) -> None:
    network = nn.Sequential(PreActResNet(PreActResNetSettings(), 3), nn.Linear(512, 10)).double().train(training)
    with torch.no_grad():
        for number, (name, tensor) in enumerate(network.state_dict().items()):
            if not tensor.is_floating_point():
                continue
            values = wave(tensor.shape, number)
            if tensor.ndim == 4:
                values = values * (2 / tensor[0].numel()) ** 0.5
            elif tensor.ndim == 1 and name.endswith(("weight", "var")):
                values = 1 + values / 2
            else:
                values = values / 4
            tensor.copy_(values)
        images = torch.sin(torch.arange(4 * 3 * 32 * 32, dtype=torch.float64) / 7).view(4, 3, 32, 32)
        logits = network(images)[0, :5]
    assert torch.allclose(logits, torch.tensor(PUBLISHED_LOGITS[training], dtype=torch.float64), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("settings", SETTINGS)
def test_smaller_relatives_have_as_many_parameters_as_the_formula(settings: PreActResNetSettings) -> None:
    encoder = PreActResNet(settings, 1)
    assert parameters(encoder, nn.Linear(encoder.num_features, 4)) == count_of(settings, 1, 4)


def test_widths_and_blocks_must_be_positive_and_as_many() -> None:
    with pytest.raises(ValidationError):
        PreActResNetSettings(widths=(8, 0))
    for widths, blocks in (((8, 16), (1, 1, 1)), ((8, 16, 32), (1,)), ((), ())):
        with pytest.raises(ValidationError, match="one number for each stage"):
            PreActResNetSettings(widths=widths, blocks=blocks)
