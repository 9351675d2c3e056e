"""Noise as the command line names it, and labels that are a network's mistakes."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

import scanmix
from scanmix.config import UserError
from scanmix.data.examples import OPEN_SET, Examples
from scanmix.data.noise import SEMANTIC_NETWORKS, NoiseSpec, parse_noise
from scanmix.data.noise_report import changed_share
from scanmix.data.readers import reload
from scanmix.progress import Quiet
from scanmix.semantic_noise import LABELLERS, apply_noise, semantic_labels
from scanmix.semantic_noise import labels as semantic


@pytest.fixture
def digits(monkeypatch: pytest.MonkeyPatch) -> Examples:
    monkeypatch.setattr(semantic, "STEPS", 60)
    return scanmix.load("digits", per_class=60)[0]


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("none", NoiseSpec(kind="none")),
        ("symmetric:0.8", NoiseSpec(kind="symmetric", rate=0.8)),
        ("instance:0.4", NoiseSpec(kind="instance", rate=0.4)),
        ("file:a:b.json", NoiseSpec(kind="file", path="a:b.json")),
        ("openset:webvision:50:0.4", NoiseSpec(kind="openset", path="webvision:50", rate=0.4)),
        ("semantic:vgg:0.35", NoiseSpec(kind="semantic", network="vgg", rate=0.35)),
    ],
)
def test_forms(text: str, spec: NoiseSpec) -> None:
    assert parse_noise(text) == spec


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("symmetrical:0.8", "is not one of: none, symmetric:RATE"),
        ("symmetric:vgg:0.8", "is not one of"),
        ("openset:0.4", "is not one of"),
        ("semantic:0.4", "is not one of"),
        ("semantic:vit:0.4", "names no network that labels; known: vgg, densenet, resnet"),
        ("instance:1.4", "needs a rate between 0 and 1"),
        ("openset:digits:half", "needs a rate between 0 and 1"),
    ],
)
def test_what_is_none_of_them_is_told(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse_noise(text)


def test_the_command_line_names_the_networks_that_label() -> None:
    assert set(SEMANTIC_NETWORKS) == set(LABELLERS)


@pytest.mark.parametrize("network", [name for name in LABELLERS if name not in semantic.PUBLISHED])
def test_a_network_that_knows_more_errs_less(digits: Examples, network: str) -> None:
    rates = []
    for fraction in (0.03, 0.6):
        made = semantic.labels_of(digits, network, fraction, 0)
        assert made.fraction == pytest.approx(fraction, abs=0.01)
        rates.append(changed_share(digits.labels, made.labels))
    assert rates[0] > rates[1] + 0.1
    again = semantic.labels_of(digits, network, 0.6, 0)
    assert torch.equal(again.labels, made.labels)


def test_an_asked_rate_is_found(digits: Examples) -> None:
    made = semantic_labels(digits, "vgg", 0.35, 0, Quiet())
    noisy = made.put_on(digits)
    assert noisy.noise is not None and noisy.noise.kind == "semantic-vgg"
    assert noisy.noise.actual_rate == pytest.approx(0.35, abs=0.03)
    # Its mistakes are not spread evenly: some classes are taken for others more than by chance.
    shares = torch.tensor(noisy.noise.transition).fill_diagonal_(0)
    assert float(shares.max()) > 3 * float(shares.sum() / 90)


def test_networks_of_lee_and_others_have_the_parameters_that_one_counts_on_paper() -> None:
    """DenseNet-BC-100 with a growth of 12 has 769,162 with 10 classes (Huang et al. count 0.8 million)."""
    dense, residual = (LABELLERS[name](3) for name in semantic.PUBLISHED)
    assert semantic.PUBLISHED == ("densenet100", "resnet34")
    width, total = 24, 3 * 24 * 9
    for stage in range(3):
        if stage:
            total += 2 * width + width * (width // 2)
            width //= 2
        for _ in range(16):
            total += 2 * width + width * 48 + 2 * 48 + 48 * 12 * 9
            width += 12
    total += 2 * width
    assert total + 10 * width + 10 == 769_162
    assert parameters(dense) == total and dense.num_features == width == 342

    count, inputs = 3 * 64 * 9 + 2 * 64, 64
    for stage, (width, blocks) in enumerate([(64, 3), (128, 4), (256, 6), (256, 3)]):
        for block in range(blocks):
            count += 9 * inputs * width + 2 * width + 9 * width * width + 2 * width
            if inputs != width or (stage > 0 and block == 0):
                count += inputs * width + 2 * width
            inputs = width
    assert parameters(residual) == count and residual.num_features == 256
    images = torch.zeros(2, 3, 32, 32)
    assert dense.eval()(images).shape == (2, 342) and residual.eval()(images).shape == (2, 256)


def parameters(network: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


@pytest.mark.parametrize("network", semantic.PUBLISHED)
def test_networks_of_lee_and_others_are_trained_as_in_their_code(
    network: str, digits: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = [semantic._rate(network, 0, epoch) for epoch in (0, 39, 40, 79, 80, 119)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    assert (semantic.PUBLISHED_EPOCHS, semantic.PUBLISHED_BATCH) == (120, 128)
    used: list[Any] = []
    step = torch.optim.SGD.step

    def spy(optimizer: torch.optim.SGD, *given: object) -> object:
        used.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["weight_decay"]))
        return step(optimizer, *given)

    monkeypatch.setattr(torch.optim.SGD, "step", spy)
    monkeypatch.setattr(semantic, "PUBLISHED_EPOCHS", 3)
    monkeypatch.setattr(semantic, "PUBLISHED_DROPS", (1, 2))
    monkeypatch.setattr(semantic, "PUBLISHED_BATCH", 16)
    made = semantic.labels_of(digits, network, 32 / len(digits), 0)
    assert used == [(pytest.approx(0.1 ** (1 + epoch)), 5e-4) for epoch in (0, 0, 1, 1, 2, 2)]
    assert made.labels.shape == digits.labels.shape and made.network == network


def test_images_of_no_class_are_refused(digits: Examples) -> None:
    foreign = dataclasses.replace(digits, true_labels=digits.labels.clone().fill_(OPEN_SET))
    with pytest.raises(UserError, match="'digits' has images of no class"):
        semantic.labels_of(foreign, "vgg", 0.5, 0)


def test_a_rate_that_cannot_be_had_is_told(digits: Examples) -> None:
    with pytest.raises(UserError, match="ask for another rate or network"):
        semantic_labels(digits, "resnet", 0.98, 0, Quiet())


def test_it_is_made_once_and_loaded_again(digits: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANMIX_CACHE", str(tmp_path))
    first = apply_noise(digits, "semantic:vgg:0.35", 0)
    assert len(list((tmp_path / "noise").iterdir())) == 1

    def never(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("scanmix.semantic_noise.apply.semantic_labels", never)
    second = apply_noise(digits, "semantic:vgg:0.35", 0)
    assert torch.equal(first.labels, second.labels)
    assert first.source is not None and torch.equal(reload(first.source).labels, first.labels)
    assert first.noise is not None and (first.noise.kind, first.noise.asked_rate) == ("semantic-vgg", 0.35)


def test_damaged_labels_in_the_cache_are_made_again(
    digits: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCANMIX_CACHE", str(tmp_path))
    first = apply_noise(digits, "semantic:vgg:0.3", 0)
    (path,) = (tmp_path / "noise").iterdir()
    text = path.read_text()
    start = text.index("noise_labels") + len('noise_labels": [')
    path.write_text(f"{text[:start]}{(int(text[start]) + 1) % 10}{text[start + 1 :]}")
    with pytest.warns(UserWarning, match="its checksum is another than when it was written.*made again"):
        again = apply_noise(digits, "semantic:vgg:0.3", 0)
    assert torch.equal(first.labels, again.labels) and path.read_text() == text
