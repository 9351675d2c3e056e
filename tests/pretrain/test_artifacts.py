"""The cache: keys, whole files, and stages that go on where they were cut."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import scanmix.pretrain.artifacts as module
from scanmix.engine import Engine
from scanmix.pretrain.artifacts import Tensors, cached, content_key, resumable


def test_a_key_is_its_parts_and_not_their_order() -> None:
    assert content_key({"a": 1, "b": [1, 2]}) == content_key({"b": [1, 2], "a": 1})
    keys = [content_key(parts) for parts in ({}, {"a": 1}, {"a": 2}, {"a": "1"}, {"b": 1}, {"a": [1]})]
    assert len(set(keys)) == len(keys)
    assert all(key.isalnum() and len(key) == 20 for key in keys)


def test_a_new_format_finds_nothing_old(monkeypatch: pytest.MonkeyPatch) -> None:
    old = content_key({"a": 1})
    monkeypatch.setattr(module, "FORMAT", module.FORMAT + 1)
    assert content_key({"a": 1}) != old


def test_what_is_there_is_not_computed_again(tmp_path: Path) -> None:
    calls: list[Path | None] = []

    def compute(unfinished: Path | None) -> Tensors:
        calls.append(unfinished)
        return {"x": torch.arange(6.0).view(2, 3).T, "n": torch.tensor([7])}  # not contiguous

    folder = tmp_path / "not" / "there" / "yet"
    first = cached(Engine(cache=folder), "stage", "key", compute)
    second = cached(Engine(cache=folder), "stage", "key", compute)
    assert len(calls) == 1
    for name in ("x", "n"):
        assert torch.equal(first[name], second[name]) and first[name].dtype == second[name].dtype
    cached(Engine(cache=folder), "stage", "other key", compute)
    cached(Engine(cache=folder), "other stage", "key", compute)
    assert len(calls) == 3
    assert all(path is not None and path.parent == folder for path in calls)
    assert len({path for path in calls}) == 3, "unfinished work of two keys never meets"


def test_without_a_folder_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    calls: list[Path | None] = []

    def compute(unfinished: Path | None) -> Tensors:
        calls.append(unfinished)
        return {"x": torch.zeros(1)}

    for _ in range(2):
        cached(Engine(), "stage", "key", compute)
    assert calls == [None, None] and not list(tmp_path.iterdir())


def test_unfinished_work_goes_when_the_result_is_there_and_stays_when_it_is_not(tmp_path: Path) -> None:
    def compute(unfinished: Path | None) -> Tensors:
        assert unfinished is not None
        unfinished.write_text("half")
        return {"x": torch.zeros(1)}

    def fail(unfinished: Path | None) -> Tensors:
        compute(unfinished)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached(Engine(cache=tmp_path), "stage", "key", fail)
    assert [path.suffix for path in tmp_path.iterdir()] == [".unfinished"]
    cached(Engine(cache=tmp_path), "stage", "key", compute)
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]


class Cut(Exception):
    """The machine goes off."""


def run(path: Path | None, stop_after: int | None = None, epochs: int = 7) -> tuple[Tensor, list[int]]:
    """A stage with momentum; returns its weights and the epochs it ran."""
    linear = nn.Linear(2, 1)
    with torch.no_grad():
        linear.weight.fill_(1.0)
        linear.bias.fill_(0.0)
    optimizer = torch.optim.SGD(linear.parameters(), lr=0.1, momentum=0.9)
    ran: list[int] = []

    def run_epoch(epoch: int) -> None:
        ran.append(epoch)
        optimizer.zero_grad()
        inputs = torch.randn(4, 2, generator=torch.Generator().manual_seed(epoch))
        torch.autograd.backward(linear(inputs).square().sum())
        optimizer.step()
        if epoch == stop_after:
            raise Cut

    try:
        resumable(Engine(), path, {"network": linear, "optimizer": optimizer}, epochs, run_epoch)
    except Cut:
        pass
    return linear.weight.detach().clone(), ran


@pytest.mark.parametrize("save_every", [1, 2, 3])
@pytest.mark.parametrize("stop_after", range(7))
def test_a_stage_goes_on_where_it_was_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save_every: int, stop_after: int
) -> None:
    monkeypatch.setattr(module, "SAVE_EVERY", save_every)
    whole, _ = run(None)
    path = tmp_path / "unfinished"
    run(path, stop_after)
    weight, ran = run(path)
    assert torch.equal(weight, whole)
    saved = stop_after // save_every * save_every  # the epoch that was cut had not been saved
    assert ran == list(range(saved, 7))


def test_a_stage_without_epochs_changes_nothing(tmp_path: Path) -> None:
    weight, ran = run(tmp_path / "unfinished", epochs=0)
    assert ran == [] and weight.tolist() == [[1.0, 1.0]]
    assert not list(tmp_path.iterdir())
