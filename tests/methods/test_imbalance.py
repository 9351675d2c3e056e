"""Classes 10:1, and one of two examples: every method trains on all of them, and its numbers are numbers."""

import csv
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import scanmix
from scanmix.data.batches import CountedImages
from scanmix.data.examples import Examples
from scanmix.methods import METHODS
from scanmix.training import Run
from tests.tiny import NETWORK, settings, suited

COUNTS = (50, 20, 5, 2)
"""Images of each class: which quarter is bright."""
WRONG = 12
"""Labels of the two large classes that are swapped; with all labels right, nothing would be divided."""
AT_ONCE = {"linear", "propagate", "neighbors", "wann", "scan"}
"""Methods that learn from all examples together, or from no label."""


def made(counts: tuple[int, ...], wrong: int, seed: int) -> Examples:
    draws = torch.Generator().manual_seed(seed)
    kind = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    images = 60 + 60 * torch.rand(len(kind), 1, 8, 8, generator=draws)
    for i, label in enumerate(kind.tolist()):
        row, column = 4 * (label // 2), 4 * (label % 2)
        images[i, :, row : row + 4, column : column + 4] += 100
    labels, large = kind.clone(), (kind < 2).nonzero().squeeze(1)
    swapped = large[torch.randperm(len(large), generator=draws)[:wrong]]
    labels[swapped] = 1 - labels[swapped]
    ids = tuple(f"{seed}/{i:03d}" for i in range(len(kind)))
    return Examples(images=images.to(torch.uint8), labels=labels, class_names=("a", "b", "c", "d"), ids=ids, name="few")


@pytest.fixture(scope="module")
def parts() -> tuple[Examples, Examples]:
    return made(COUNTS, WRONG, 0), made((10, 4, 4, 4), 0, 1)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[int]]:
    """Positions of the examples that were looked up where gradients are taken."""
    found: set[int] = set()
    honest = CountedImages.__getitem__

    def watched(self: CountedImages, index: Tensor | slice) -> Tensor:
        if torch.is_grad_enabled():
            found.update(torch.arange(len(self))[index].tolist())
        return honest(self, index)

    monkeypatch.setattr(CountedImages, "__getitem__", watched)
    yield found


def check_numbers(run: Run, train: Examples) -> None:
    """All numbers of the epochs and of the audit are finite, in memory and in the table."""
    for line in run.metrics:
        bad = {key: value for key, value in line.items() if isinstance(value, float) and not math.isfinite(value)}
        assert not bad
    audit = run.audit()
    assert audit.noise_rate is not None and all(map(math.isfinite, audit.noise_rate))
    assert np.isfinite(audit.class_probs).all() and np.isfinite(audit.losses).all()
    assert run.folder is not None
    with (run.folder / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["id"]: row["given"] for row in rows} == {
        name: train.class_names[label] for name, label in zip(train.ids, train.labels.tolist(), strict=True)
    }
    numbers = [name for name, values in audit.items() if values.dtype.kind == "f"]
    assert {"p_clean", "score", "margin", "loss_mean"} <= set(numbers)
    for row in rows:
        assert all(math.isfinite(float(row[name])) for name in numbers), row
        assert 0 <= float(row["p_clean"]) <= 1


def check_balanced(run: Run, test: Examples) -> None:
    """The last epoch's balanced accuracy is the mean of the recalls, and a class that has vanished is counted."""
    predicted = run.model.predict(test)
    truth = test.labels.numpy()
    if run.model.self_supervised:  # measured after its clusters were matched with classes
        assert 0 <= run.metrics[-1]["balanced_accuracy"] <= 1
        return
    recalls = [float((predicted[truth == label] == label).mean()) for label in range(4)]
    assert run.metrics[-1]["balanced_accuracy"] == pytest.approx(sum(recalls) / 4)
    assert run.metrics[-1]["classes_never_predicted"] == sum(label not in predicted for label in range(4))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_bears_classes_of_ten_to_one(
    name: str, parts: tuple[Examples, Examples], drawn: set[int], tmp_path: Path
) -> None:
    train, test = suited(name, parts[0]), parts[1]
    more = settings(name, 2, **({"mild_warmup": 0} if name == "scanmix" else {}))  # or its loop is not reached
    run = scanmix.train(
        train, test=test, method=name, out=tmp_path / "run", cache=tmp_path, threads=1, progress=False, network=NETWORK,
        **more,
    )  # fmt: skip
    check_numbers(run, train)
    check_balanced(run, test)
    probs = run.model.predict_proba(test)
    assert np.isfinite(probs).all() and probs.sum(1) == pytest.approx(1, abs=1e-5)
    if name not in AT_ONCE:
        used = torch.zeros(len(train), dtype=torch.bool)
        used[sorted(drawn)] = True
        assert set(train.labels[used].tolist()) == {0, 1, 2, 3}, "a class is left out"
        if not {"ssr", "ssr_plus"} & {name}:  # they take labels that win a vote
            assert bool(used[train.labels >= 2].all()), "an example of a small class is left out"


def test_the_data_are_as_uneven_as_they_say(parts: tuple[Examples, Examples]) -> None:
    counts = parts[0].labels.bincount().tolist()
    assert max(counts) / min(counts[:3]) == pytest.approx(10, abs=1.5) and counts[3] == 2
