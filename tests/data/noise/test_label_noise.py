from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from scanmix.config import UserError
from scanmix.data.examples import OPEN_SET, Examples
from scanmix.data.noise import (
    NoiseSpec,
    add_noise,
    asymmetric,
    from_file,
    load_noise,
    mappings,
    parse_noise,
    save_noise,
    symmetric,
)
from scanmix.data.readers import load, reload
from scanmix.semantic_noise import apply_noise


def balanced(count: int = 20_000, classes: int = 10) -> Tensor:
    return torch.arange(count) % classes


def tiny(labels: Tensor, name: str = "data", classes: int = 10) -> Examples:
    return Examples(
        images=torch.zeros(len(labels), 1, 8, 8, dtype=torch.uint8),
        labels=labels,
        class_names=tuple(str(i) for i in range(classes)),
        ids=tuple(str(i) for i in range(len(labels))),
        name=name,
    )


def slow_symmetric(labels: list[int], rate: float, classes: int, seed: int, inclusive: bool) -> list[int]:
    rng = np.random.default_rng(seed)
    order = list(rng.permutation(len(labels)))
    draws = list(rng.integers(classes, size=len(labels)) if inclusive else rng.integers(1, classes, size=len(labels)))
    noisy = list(labels)
    for place, index in enumerate(order):
        if place < int(rate * len(labels)):
            noisy[index] = int(draws[place]) if inclusive else (labels[index] + int(draws[place])) % classes
    return noisy


def slow_asymmetric(labels: list[int], rate: float, mapping: dict[int, int], seed: int) -> list[int]:
    order = list(np.random.default_rng(seed).permutation(len(labels)))
    noisy = list(labels)
    for index in order[: int(rate * len(labels))]:
        if labels[index] in mapping:
            noisy[index] = mapping[labels[index]]
    return noisy


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.55, 0.9, 1.0])
@pytest.mark.parametrize("inclusive", [True, False])
@pytest.mark.parametrize("seed", [0, 7])
def test_symmetric_against_a_loop(rate: float, inclusive: bool, seed: int) -> None:
    labels = balanced(101, 7)
    fast = symmetric(labels, rate, 7, seed, inclusive)
    assert fast.dtype == torch.int64
    assert fast.tolist() == slow_symmetric(labels.tolist(), rate, 7, seed, inclusive)
    assert torch.equal(labels, balanced(101, 7))  # the input is left alone


@pytest.mark.parametrize("rate", [0.0, 0.4, 0.49, 1.0])
@pytest.mark.parametrize("mapping", [dict(mappings.CIFAR10_ASYMMETRIC), dict(mappings.DIGITS_ASYMMETRIC), {}])
def test_asymmetric_against_a_loop(rate: float, mapping: dict[int, int]) -> None:
    labels = balanced(503)
    fast = asymmetric(labels, rate, mapping, 3)
    assert fast.dtype == torch.int64
    assert fast.tolist() == slow_asymmetric(labels.tolist(), rate, mapping, 3)
    assert torch.equal(labels, balanced(503))


@pytest.mark.parametrize("rate", [0.2, 0.5, 0.8, 0.9])
def test_symmetric_rates_and_uniform_targets(rate: float) -> None:
    labels = balanced()
    inclusive, exclusive = (symmetric(labels, rate, 10, 0, kind) for kind in (True, False))
    # Exclusive changes every selected label; inclusive leaves a tenth of them as they were.
    assert int((exclusive != labels).sum()) == int(rate * len(labels))
    assert (inclusive != labels).double().mean().item() == pytest.approx(rate * 0.9, abs=0.01)
    for label in range(10):
        # Selected targets spread over the ten (or nine other) classes alike: about 2000 * rate / 10 each.
        reached = inclusive[labels == label].bincount(minlength=10) / 2000
        others = torch.arange(10) != label
        assert (reached[others] - rate / 10).abs().max() < 0.025
        reached = exclusive[labels == label].bincount(minlength=10) / 2000
        assert (reached[others] - rate / 9).abs().max() < 0.025
        assert abs(reached[label].item() - (1 - rate)) < 0.04


@pytest.mark.parametrize("inclusive", [True, False])
def test_draws_of_one_seed_are_nested_over_rates(inclusive: bool) -> None:
    labels = balanced(5000)
    small, large = symmetric(labels, 0.2, 10, 1, inclusive), symmetric(labels, 0.5, 10, 1, inclusive)
    changed = small != labels
    assert changed.any()
    assert torch.equal(small[changed], large[changed])
    mapping = mappings.CIFAR10_ASYMMETRIC
    small, large = asymmetric(labels, 0.2, mapping, 1), asymmetric(labels, 0.4, mapping, 1)
    changed = small != labels
    assert changed.any()
    assert torch.equal(small[changed], large[changed])
    assert not torch.equal(symmetric(labels, 0.5, 10, 1), symmetric(labels, 0.5, 10, 2))


def test_asymmetric_flips_per_class() -> None:
    labels = balanced(50_000)
    noisy = asymmetric(labels, 0.4, mappings.CIFAR10_ASYMMETRIC, 0)
    for label in range(10):
        given = noisy[labels == label].bincount(minlength=10) / 5000
        target = mappings.CIFAR10_ASYMMETRIC.get(label)
        if target is None:
            assert given[label] == 1
        else:
            assert given[target].item() == pytest.approx(0.4, abs=0.02)
            assert given[label] + given[target] == 1
    assert (noisy != labels).double().mean().item() == pytest.approx(0.2, abs=0.005)


def test_maps_are_those_of_the_literature() -> None:
    assert mappings.CIFAR10_ASYMMETRIC == {9: 1, 2: 0, 4: 7, 3: 5, 5: 3}
    assert mappings.DIGITS_ASYMMETRIC == {7: 1, 2: 7, 5: 6, 6: 5, 3: 8}
    assert len(mappings.FASHION_MNIST_ASYMMETRIC) == 5
    assert len(set(mappings.FASHION_MNIST_ASYMMETRIC.values())) == 5
    for mapping in mappings.ASYMMETRIC.values():
        assert all(old != new for old, new in mapping.items())


def test_cifar100_superclasses() -> None:
    assert len(mappings.CIFAR100_CLASSES) == len(set(mappings.CIFAR100_CLASSES)) == 100
    # Spot values of the fine and coarse labels the data set itself carries.
    assert mappings.CIFAR100_CLASSES[:3] == ("apple", "aquarium_fish", "baby")
    assert mappings.CIFAR100_CLASSES[-1] == "worm"
    assert mappings.CIFAR100_COARSE[:10] == (4, 1, 14, 8, 0, 6, 7, 7, 18, 3)
    assert [mappings.CIFAR100_COARSE.count(group) for group in range(20)] == [5] * 20
    mapping = mappings.within_superclasses(mappings.CIFAR100_COARSE)
    assert sorted(mapping) == sorted(mapping.values()) == list(range(100))
    # beaver 4 -> dolphin 30 -> otter 55 -> seal 72 -> whale 95 -> beaver
    assert [mapping[i] for i in (4, 30, 55, 72, 95)] == [30, 55, 72, 95, 4]
    assert mappings.within_superclasses([1, 0, 1, 0, 1]) == {0: 2, 2: 4, 4: 0, 1: 3, 3: 1}


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_rates_out_of_range_are_refused(rate: float) -> None:
    with pytest.raises(UserError, match="between 0 and 1"):
        symmetric(balanced(10), rate, 10, 0)
    with pytest.raises(UserError, match="between 0 and 1"):
        add_noise(tiny(balanced(10)), "symmetric", rate)


def test_exclusive_noise_needs_two_classes() -> None:
    with pytest.raises(UserError, match="two classes"):
        symmetric(torch.zeros(5, dtype=torch.int64), 0.5, 1, 0, inclusive=False)


def test_add_noise_reports_asked_and_actual() -> None:
    examples = tiny(balanced(5000))
    noisy = add_noise(examples, "symmetric", rate=0.8, seed=2)
    assert noisy.true_labels is not None and torch.equal(noisy.true_labels, examples.labels)
    assert torch.equal(noisy.labels, symmetric(examples.labels, 0.8, 10, 2))
    report = noisy.noise
    assert report is not None
    assert (report.kind, report.asked_rate, report.seed) == ("symmetric", 0.8, 2)
    assert report.actual_rate == (noisy.labels != examples.labels).double().mean().item()
    assert report.actual_rate == pytest.approx(0.72, abs=0.02)
    assert len(report.transition) == 10
    assert [sum(row) for row in report.transition] == pytest.approx([1.0] * 10)
    assert report.transition[3][3] == pytest.approx(0.28, abs=0.05)
    assert add_noise(examples, "symmetric", 0.5, inclusive=False).noise == (
        add_noise(examples, "symmetric-exclusive", 0.5).noise
    )


def test_noise_on_noise_keeps_the_first_truth() -> None:
    examples = tiny(balanced(5000))
    twice = add_noise(add_noise(examples, "symmetric", 0.3, seed=0), "symmetric-exclusive", 0.3, seed=1)
    assert twice.true_labels is not None and torch.equal(twice.true_labels, examples.labels)
    assert twice.noise is not None
    assert twice.noise.actual_rate == (twice.labels != examples.labels).double().mean().item()


def test_asymmetric_takes_the_map_of_its_data_set_or_asks() -> None:
    labels = balanced(1000)
    for name in ("cifar10", "digits", "fashion-mnist"):
        noisy = add_noise(tiny(labels, name), "asymmetric", 0.4)
        assert torch.equal(noisy.labels, asymmetric(labels, 0.4, mappings.ASYMMETRIC[name], 0))
    hundred = add_noise(tiny(balanced(2000, 100), "cifar100", 100), "asymmetric", 0.4)
    assert hundred.noise is not None and hundred.noise.actual_rate == 0.4  # every class is mapped
    with pytest.raises(UserError, match="has no map for 'pets'"):
        add_noise(tiny(labels, "pets"), "asymmetric", 0.4)
    with pytest.raises(UserError, match="names class 10"):
        add_noise(tiny(labels, "pets"), "asymmetric", 0.4, mapping={0: 10})
    assert add_noise(tiny(labels, "pets"), "asymmetric", 1.0, mapping={0: 1}).labels.bincount()[1] == 200


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"kind": "salt"}, "unknown noise 'salt'"),
        ({"kind": "symmetric"}, "needs a rate"),
        ({"kind": "file"}, "needs a path"),
    ],
)
def test_add_noise_refuses_half_a_request(arguments: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        add_noise(tiny(balanced(10)), **arguments)  # type: ignore[arg-type]


def test_parse_noise() -> None:
    assert parse_noise("none") == NoiseSpec(kind="none")
    assert parse_noise("symmetric:0.8") == NoiseSpec(kind="symmetric", rate=0.8)
    assert parse_noise(" symmetric-exclusive:.5 ") == NoiseSpec(kind="symmetric-exclusive", rate=0.5)
    assert parse_noise("asymmetric:0.4") == NoiseSpec(kind="asymmetric", rate=0.4)
    assert parse_noise("file:C:/a b.json") == NoiseSpec(kind="file", path="C:/a b.json")


@pytest.mark.parametrize(
    "text", ["", "symmetric", "symmetric:80", "symmetric:x", "asymmetric:", "file:", "none:1", "salt:0.3"]
)
def test_parse_noise_refuses(text: str) -> None:
    with pytest.raises(UserError, match="noise"):
        parse_noise(text)


def test_apply_noise_is_add_noise_from_text(tmp_path: Path) -> None:
    examples = tiny(balanced(300))
    assert apply_noise(examples, "none", 3) is examples
    assert torch.equal(apply_noise(examples, "symmetric:0.5", 3).labels, symmetric(examples.labels, 0.5, 10, 3))
    exclusive = apply_noise(examples, "symmetric-exclusive:0.5", 3)
    assert torch.equal(exclusive.labels, symmetric(examples.labels, 0.5, 10, 3, inclusive=False))
    (tmp_path / "n.json").write_text(json.dumps([1] * 300))
    assert apply_noise(examples, f"file:{tmp_path / 'n.json'}").labels.tolist() == [1] * 300


def test_from_file_reads_all_three_kinds(tmp_path: Path) -> None:
    wanted = [3, 1, 0, 2]
    (tmp_path / "list.json").write_text(json.dumps(wanted))
    scanmix = {"noise_labels": wanted, "closed_noise": [0, 1, 2, 3], "open_noise": []}
    (tmp_path / "scanmix.json").write_text(json.dumps(scanmix))
    np.save(tmp_path / "array.npy", np.array(wanted, dtype=np.int16))
    for name in ("list.json", "scanmix.json", "array.npy"):
        labels = from_file(tmp_path / name, 4, 4)
        assert labels.dtype == torch.int64 and labels.tolist() == wanted


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[0, 1]", "holds 2 labels, but there are 3"),
        ("[]", "holds 0 labels"),
        ("[0, 1, 5]", r"labels 0\.\.5, but classes run 0\.\.3"),
        ("[0, -1, 1]", r"-1\.\.1"),
        ("[0, 1.5, 1]", "whole-number"),
        ('["a", "b", "c"]', "whole-number"),
        ("[[0], [1], [2]]", "flat"),
        ("[[0], 1, 2]", "flat"),
        ("[true, false, true]", "whole-number"),
        ("3", "flat"),
        ('{"labels": [0, 1, 2]}', "without the key 'noise_labels'"),
        ("not json", "neither JSON"),
        ("[" * 100_000, "neither JSON"),
    ],
)
def test_from_file_refuses(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "noise.json").write_text(content)
    with pytest.raises(UserError, match=words):
        from_file(tmp_path / "noise.json", 3, 4)


def test_from_file_never_unpickles(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{}, 1, 2], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=r"plain \.npy"):
        from_file(tmp_path / "objects.npy", 3, 4)
    (tmp_path / "cut.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(UserError, match=r"plain \.npy"):
        from_file(tmp_path / "cut.npy", 3, 4)
    with pytest.raises(UserError, match="cannot be read"):
        from_file(tmp_path / "absent.json", 3, 4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"seed": "a"}, "seed must be a whole number of at least 0, not 'a'"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"seed": 1.5}, "seed must be a whole number"),
        ({"rate": "a"}, "rate must be a number between 0 and 1, not 'a'"),
        ({"rate": float("nan")}, "must lie between 0 and 1, not nan"),
        ({"examples": (1, 2)}, "examples must be Examples, as the parts that scanmix.load returns, not "),
    ],
)
def test_arguments_of_wrong_types_are_told(arguments: dict[str, Any], words: str) -> None:
    asked: dict[str, Any] = {"examples": tiny(balanced(50)), "kind": "symmetric", "rate": 0.5} | arguments
    with pytest.raises(UserError, match=words):
        add_noise(**asked)


def test_a_pipe_is_no_noise_file(tmp_path: Path) -> None:
    for name in ("noise.json", "noise.npy"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(UserError, match="named pipe"):
            from_file(tmp_path / name, 3, 4)


def test_a_draw_can_be_saved_and_loaded(tmp_path: Path) -> None:
    examples = tiny(balanced(500))
    noisy = add_noise(examples, "symmetric", 0.4, seed=9)
    save_noise(noisy, tmp_path / "draw.json")
    again = load_noise(examples, tmp_path / "draw.json")
    assert torch.equal(again.labels, noisy.labels)
    assert again.noise == noisy.noise
    content = json.loads((tmp_path / "draw.json").read_text())
    assert content["closed_noise"] == [i for i in range(500) if noisy.labels[i] != examples.labels[i]]
    assert content["noise_labels"] == noisy.labels.tolist()
    assert list(tmp_path.iterdir()) == [tmp_path / "draw.json"]
    with pytest.raises(UserError, match="no added noise"):
        save_noise(examples, tmp_path / "clean.json")
    with pytest.raises(UserError, match="cannot be written"):
        save_noise(noisy, tmp_path / "no" / "draw.json")


def test_a_file_is_not_believed_about_its_rate(tmp_path: Path) -> None:
    told = {"noise_labels": [0, 1, 0, 1], "actual_rate": 0.9, "kind": "odd", "seed": "x", "asked_rate": "y"}
    (tmp_path / "n.json").write_text(json.dumps(told))
    report = load_noise(tiny(torch.tensor([0, 1, 1, 1]), classes=2), tmp_path / "n.json").noise
    assert report is not None
    assert (report.kind, report.asked_rate, report.seed, report.actual_rate) == ("file", None, None, 0.25)
    assert report.transition[1] == pytest.approx((1 / 3, 2 / 3))


def test_noisy_examples_can_be_reloaded(tmp_path: Path) -> None:
    train, _ = load("digits", per_class=20)
    once = add_noise(train, "asymmetric", 0.5, seed=3, mapping={1: 7})
    twice = add_noise(once, "symmetric", 0.2, seed=4, inclusive=False)
    save_noise(twice, tmp_path / "n.json")
    for noisy in (once, twice, load_noise(train, tmp_path / "n.json"), twice.per_class(5), twice.without_true_labels()):
        assert noisy.source is not None
        again = reload(json.loads(json.dumps(noisy.source)))
        assert again.fingerprint() == noisy.fingerprint()
        assert again.noise == noisy.noise
        assert again.ids == noisy.ids
        assert again.source == noisy.source
        assert (again.true_labels is None) == (noisy.true_labels is None)


def test_open_set_images_are_saved_as_open_noise(tmp_path: Path) -> None:
    labels = torch.tensor([0, 1, 2, 3])
    examples = dataclasses.replace(tiny(labels), true_labels=torch.tensor([0, OPEN_SET, 2, 3]))
    noisy = add_noise(examples, "symmetric-exclusive", rate=1.0)
    assert noisy.noise is not None and noisy.noise.actual_rate == 1
    save_noise(noisy, tmp_path / "noise.json")
    saved = json.loads((tmp_path / "noise.json").read_text())
    assert (saved["closed_noise"], saved["open_noise"]) == ([0, 2, 3], [1])
