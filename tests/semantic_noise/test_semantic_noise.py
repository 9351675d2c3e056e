"""Noise as the command line names it, and labels that are a network's mistakes."""

import dataclasses
from pathlib import Path

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


@pytest.mark.parametrize("network", LABELLERS)
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
