"""The cache: keys, whole files, and stages that go on where they were cut."""

import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import scanmix.pretrain.cache as module
from scanmix.distributed.engine import Engine
from scanmix.files.atomic import HOST
from scanmix.files.tensors import Tensors
from scanmix.pretrain.cache import cached, content_key, resumable


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


class Clock:
    """Seconds that pass only where somebody says so."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


def run(
    path: Path | None,
    stop_after: int | None = None,
    epochs: int = 7,
    seconds: float = 1.0,
    stop: type[BaseException] = Cut,
) -> tuple[Tensor, list[int]]:
    """A stage with momentum, each of whose epochs takes so many seconds; returns its weights and the epochs it ran."""
    linear = nn.Linear(2, 1)
    with torch.no_grad():
        linear.weight.fill_(1.0)
        linear.bias.fill_(0.0)
    optimizer = torch.optim.SGD(linear.parameters(), lr=0.1, momentum=0.9)
    ran: list[int] = []
    clock = Clock()

    def run_epoch(epoch: int) -> None:
        ran.append(epoch)
        optimizer.zero_grad()
        inputs = torch.randn(4, 2, generator=torch.Generator().manual_seed(epoch))
        torch.autograd.backward(linear(inputs).square().sum())
        optimizer.step()
        clock.now += seconds
        if epoch == stop_after:
            raise stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "time", clock)
        try:
            resumable(Engine(), path, {"network": linear, "optimizer": optimizer}, epochs, run_epoch, "the stage")
        except Cut:
            pass
    return linear.weight.detach().clone(), ran


@pytest.mark.parametrize(("seconds", "save_every"), [(200, 1), (61, 1), (60, 2), (41, 2), (40, 3)])
@pytest.mark.parametrize("stop_after", range(7))
def test_a_stage_goes_on_where_it_was_cut(tmp_path: Path, seconds: int, save_every: int, stop_after: int) -> None:
    whole, _ = run(None)
    path = tmp_path / "unfinished"
    run(path, stop_after, seconds=seconds)
    weight, ran = run(path)
    assert torch.equal(weight, whole)
    saved = stop_after // save_every * save_every  # the epoch that was cut had not been saved
    assert ran == list(range(saved, 7))
    assert (stop_after + 1 - saved) * seconds <= max(module.MOST_LOST, seconds)


def test_ctrl_c_says_what_is_kept_and_what_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "unfinished"
    said = r"^4 of 7 epochs of the stage are kept, the one under way is lost$"
    with pytest.raises(KeyboardInterrupt, match=said):
        run(path, 4, seconds=41, stop=KeyboardInterrupt)
    said = r"^4 of 7 epochs of the stage are kept, 1 more and the one under way are lost$"
    with pytest.raises(KeyboardInterrupt, match=said):
        run(path, 5, seconds=41, stop=KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt, match=r"^0 of 7 epochs of the stage are kept, 2 more and"):
        run(None, 2, stop=KeyboardInterrupt)


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 16
    path.write_bytes(content)


@pytest.mark.parametrize("place", [3, 40, -5])
def test_a_damaged_artifact_is_made_again_with_a_warning(tmp_path: Path, place: int) -> None:
    calls: list[int] = []

    def compute(_: Path | None) -> Tensors:
        calls.append(1)
        return {"x": torch.arange(6.0)}

    cached(Engine(cache=tmp_path), "stage", "key", compute)
    (path,) = tmp_path.iterdir()
    flip(path, place)
    with pytest.warns(
        UserWarning, match=r"stage-key\.safetensors is damaged and cannot be read \(.*\); it is made again"
    ):
        again = cached(Engine(cache=tmp_path), "stage", "key", compute)
    assert torch.equal(again["x"], torch.arange(6.0)) and len(calls) == 2
    cached(Engine(cache=tmp_path), "stage", "key", compute)
    assert len(calls) == 2


def test_an_artifact_of_something_else_is_made_again(tmp_path: Path) -> None:
    engine = Engine(cache=tmp_path)
    cached(engine, "stage", "key", lambda _: {"other": torch.zeros(1)})
    with pytest.warns(UserWarning, match="holds something else"):
        found = cached(engine, "stage", "key", lambda _: {"x": torch.ones(1)}, lambda tensors: tensors.keys() == {"x"})
    assert found["x"].tolist() == [1.0]


def test_an_artifact_of_an_earlier_version_is_found(tmp_path: Path) -> None:
    save_file({"x": torch.ones(1)}, tmp_path / "stage-key.safetensors")
    assert cached(Engine(cache=tmp_path), "stage", "key", lambda _: {})["x"].tolist() == [1.0]


@pytest.mark.parametrize("damage", ["flip", "cut", "other", "shapes"])
def test_damaged_unfinished_work_is_begun_anew_with_a_warning(tmp_path: Path, damage: str) -> None:
    whole, _ = run(None)
    path = tmp_path / "unfinished"
    run(path, 4, seconds=200)
    if damage == "flip":
        with zipfile.ZipFile(path) as parts:
            weights = parts.read(next(name for name in parts.namelist() if name.endswith("data/0")))
        flip(path, path.read_bytes().index(weights) + 2)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    elif damage == "other":
        torch.save({"epoch": 3, "parts": {"network": {}}}, path)
    else:
        good = torch.load(path, weights_only=True)
        good["parts"]["optimizer"]["state"] = {}
        good["parts"]["optimizer"]["param_groups"] = []  # the network is loaded by then, and must be put back
        torch.save(good, path)
    with pytest.warns(UserWarning, match=r"made again|begins anew"):
        weight, ran = run(path)
    assert torch.equal(weight, whole) and ran == list(range(7))


def test_a_cache_that_cannot_be_written_costs_a_warning(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()  # a folder cannot be made below it, whoever asks
    with pytest.warns(UserWarning, match="cannot be written: .*; the training goes on"):
        found = cached(Engine(cache=blocked / "cache"), "stage", "key", lambda _: {"x": torch.ones(1)})
    assert found["x"].tolist() == [1.0]


def test_what_killed_processes_left_in_the_cache_goes_and_nothing_else(tmp_path: Path) -> None:
    key = content_key({"a": 1})
    left = tmp_path / f"simclr-{content_key({'b': 2})}.safetensors.4194301-{HOST}.part"
    (tmp_path / "film.mkv.4194301.part").touch()
    left.touch()
    cached(Engine(cache=tmp_path), "simclr", key, lambda _: {"x": torch.zeros(1)})
    assert {path.name for path in tmp_path.iterdir()} == {"film.mkv.4194301.part", f"simclr-{key}.safetensors"}


def test_a_stage_without_epochs_changes_nothing(tmp_path: Path) -> None:
    weight, ran = run(tmp_path / "unfinished", epochs=0)
    assert ran == [] and weight.tolist() == [[1.0, 1.0]]
    assert not list(tmp_path.iterdir())
