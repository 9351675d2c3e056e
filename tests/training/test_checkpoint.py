import dataclasses
import errno
import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from scanmix.config import UserError
from scanmix.data.examples import Examples
from scanmix.data.views import ViewSettings, make_views
from scanmix.distributed.engine import Engine
from scanmix.files import CannotWrite
from scanmix.methods import METHODS
from scanmix.model import Model, load_model, save_model
from scanmix.networks.inference import Predictor, classify
from scanmix.networks.peer import Peer
from scanmix.networks.preact_resnet import PreActResNet, PreActResNetSettings
from scanmix.training.checkpoint import has_checkpoint, load_checkpoint, pack, save_checkpoint, unpack

NETWORK = PreActResNetSettings(widths=(4, 8), blocks=(1, 1))
CPU = torch.device("cpu")
CLASSES = ("a", "b", "c")


@dataclasses.dataclass
class Everything:
    peers: list[Peer]
    table: Tensor
    missing: Tensor | None
    flag: bool | None
    count: int
    share: float


def make_peer(momentum: float = 0.0) -> Peer:
    encoder = PreActResNet(NETWORK, 1)
    return Peer(encoder, encoder.num_features, 3, engine=Engine(), momentum=momentum, weight_decay=0.01 * momentum)


def moved(peer: Peer, seed: int) -> Peer:
    images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    peer.step(classify(peer)(images).square().sum(), 0.1)
    return peer


def state_of(seed: int) -> Everything:
    peers = [moved(make_peer(momentum=0.9), seed), moved(make_peer(momentum=0.8), seed)]
    return Everything(peers, torch.arange(6).view(2, 3), None, True, 7, 0.1)


def model_of(members: int = 2, method: str = "cross_entropy") -> Model:
    images = torch.randint(0, 256, (20, 1, 8, 10), dtype=torch.uint8)
    predictor = Predictor([classify(moved(make_peer(), seed)) for seed in range(members)])
    views = make_views(ViewSettings(), images, flip=False)
    blind = METHODS[method].self_supervised
    return Model(predictor, views, NETWORK, method, CLASSES, channels=1, size=(8, 10), self_supervised=blind)


def examples_of(count: int, labels: Tensor | None = None, **more: Any) -> Examples:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 1, 8, 10), dtype=torch.uint8, generator=generator)
    labels = torch.arange(count) % 3 if labels is None else labels
    return Examples(images, labels, CLASSES, tuple(map(str, range(count))), **more)


def test_a_state_comes_back_and_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    state = state_of(seed=1)
    save_checkpoint(tmp_path, "same", 3, state)
    saved = load_checkpoint(tmp_path, "same", CPU)
    assert saved is not None
    epoch, payload = saved
    restored = unpack(Everything, payload, make_peer)
    assert epoch == 3
    assert torch.equal(restored.table, state.table)
    assert (restored.missing, restored.flag, restored.count, restored.share) == (None, True, 7, 0.1)
    for old, new in zip(state.peers, restored.peers, strict=True):
        moved(old, seed=2)  # shows momentum and weight decay too
        moved(new, seed=2)
        pairs = zip(old.state_dict().items(), new.state_dict().items(), strict=True)
        assert all(ours[0] == theirs[0] and torch.equal(ours[1], theirs[1]) for ours, theirs in pairs)


def test_a_lost_momentum_would_be_seen() -> None:
    first, second = make_peer(momentum=0.9), make_peer(momentum=0.9)
    moved(first, seed=1)
    second.load_state_dict(first.state_dict())  # weights only
    moved(first, seed=2)
    moved(second, seed=2)
    assert not torch.equal(first.classifier.weight, second.classifier.weight)


def test_what_cannot_be_saved_is_refused() -> None:
    state = state_of(0)
    state.table = {"a": 1}  # type: ignore[assignment]
    with pytest.raises(TypeError, match=r"Everything\.table: a dict"):
        pack(state)


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path, "same", CPU) is None


def test_another_configuration_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, "same", 1, state_of(0))
    with pytest.raises(UserError, match="other settings or other data"):
        load_checkpoint(tmp_path, "other", CPU)


@pytest.mark.parametrize("damage", ["half", "empty", "text", "other object"])
def test_a_damaged_checkpoint_is_told(tmp_path: Path, damage: str) -> None:
    save_checkpoint(tmp_path, "same", 1, state_of(0))
    path = tmp_path / "checkpoint" / "last.pt"
    whole = path.read_bytes()
    if damage == "other object":
        torch.save([1, 2], path)
    else:
        path.write_bytes({"half": whole[: len(whole) // 2], "empty": b"", "text": b"hello"}[damage])
    with pytest.raises(UserError, match="is damaged"):
        load_checkpoint(tmp_path, "same", CPU)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("evil",)


def test_nothing_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoint").mkdir()
    torch.save({"identity": "same", "epoch": 1, "state": Evil()}, tmp_path / "checkpoint" / "last.pt")
    with pytest.raises(UserError, match="is damaged"):
        load_checkpoint(tmp_path, "same", CPU)
    assert not (tmp_path / "evil").exists()


def test_the_old_checkpoint_stays_until_the_new_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, "same", 1, state_of(0))

    def full_disk(content: Any, file: Any) -> None:
        file.write(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    for _ in range(2):
        with pytest.raises(CannotWrite, match=r"last\.pt cannot be written: No space left on device; free some space"):
            save_checkpoint(tmp_path, "same", 2, state_of(0))
        assert has_checkpoint(tmp_path)
        saved = load_checkpoint(tmp_path, "same", CPU)
        assert saved is not None and saved[0] == 1
        assert len(list((tmp_path / "checkpoint").iterdir())) == 1


def flipped(path: Path, byte: int, bit: int = 4) -> None:
    content = bytearray(path.read_bytes())
    content[byte] ^= 1 << bit
    path.write_bytes(content)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path) -> None:
    for epoch in (1, 2, 3):
        save_checkpoint(tmp_path, "same", epoch, state_of(epoch))
    last = tmp_path / "checkpoint" / "last.pt"
    flipped(last, last.read_bytes().index(state_of(3).table.numpy().tobytes()))
    with pytest.warns(UserWarning, match=r"last\.pt is damaged .*checksum.*; the training goes on from .*, epoch 2"):
        saved = load_checkpoint(tmp_path, "same", CPU)
    assert saved is not None and saved[0] == 2
    assert torch.equal(saved[1]["table"], state_of(2).table)
    (tmp_path / "checkpoint" / "before.pt").write_bytes(b"")
    with pytest.raises(UserError, match=r"last\.pt is damaged .*; delete the folder"):
        load_checkpoint(tmp_path, "same", CPU)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def test_a_flipped_bit_in_a_checkpoint_is_noticed(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, "same", 1, state_of(0))
    path, draw = tmp_path / "checkpoint" / "last.pt", random.Random(0)
    whole, right = path.read_bytes(), load_checkpoint(tmp_path, "same", CPU)
    refused = 0
    for _ in range(300):
        path.write_bytes(whole)
        flipped(path, draw.randrange(len(whole)), draw.randrange(8))
        try:
            assert same(load_checkpoint(tmp_path, "same", CPU), right)  # padding between the parts
        except UserError:
            refused += 1
    assert refused > 60  # most of so small a file is padding


@pytest.mark.parametrize(
    "state",
    [
        {"peers": [{"weights": {}, "optimizer": {}}]},
        {"peers": [3], "table": 1},
        {"table": torch.zeros(1), "another": 1},
        {},
    ],
)
def test_a_whole_checkpoint_of_something_else_is_told(state: Any) -> None:
    with pytest.raises(UserError, match="does not hold what the method needs"):
        unpack(Everything, state, make_peer)


@pytest.mark.parametrize("epoch", ["1", -1, None])
def test_a_checkpoint_without_an_epoch_is_told(tmp_path: Path, epoch: Any) -> None:
    save_checkpoint(tmp_path, "same", epoch, state_of(0))
    with pytest.raises(UserError, match="is damaged"):
        load_checkpoint(tmp_path, "same", CPU)


def test_logits_are_those_of_each_image_alone() -> None:
    model = model_of()
    images = examples_of(600).images  # more than one batch
    expected = []
    for image in images:
        view = ((image.float() / 255 - model.views.mean) / model.views.std).unsqueeze(0)
        with torch.no_grad():
            expected.append(sum(member.eval()(view) for member in model.predictor.members))
    assert torch.allclose(model.logits(images), torch.cat(expected), atol=1e-4)


def test_probabilities_and_classes_of_all_kinds_of_images() -> None:
    model, examples = model_of(), examples_of(9)
    proba = model.predict_proba(examples)
    assert proba.shape == (9, 3) and proba.dtype == np.float32
    assert np.allclose(proba.sum(1), 1)
    frozen = examples.images.numpy().copy()
    frozen.setflags(write=False)
    for images in (examples.images, frozen):
        assert np.array_equal(model.predict_proba(images), proba)
    assert np.array_equal(model.predict(examples), proba.argmax(1))
    assert len(model.predict(examples.images[:0])) == 0


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(2, 3, 8, 10, dtype=torch.uint8),
        torch.zeros(2, 1, 10, 8, dtype=torch.uint8),
        torch.zeros(1, 8, 10, dtype=torch.uint8),
        torch.zeros(2, 1, 8, 10),
        np.zeros((2, 1, 8, 10)),
    ],
)
def test_other_images_than_in_training_are_refused(images: Tensor | np.ndarray) -> None:
    with pytest.raises(UserError, match=r"uint8 of shape \(N, 1, 8, 10\)"):
        model_of().predict(images)


@pytest.mark.parametrize("members", [1, 2])
def test_a_saved_model_predicts_the_same_bits_alone(tmp_path: Path, members: int) -> None:
    model, images = model_of(members), examples_of(50).images
    save_model(model, tmp_path)
    alone = tmp_path / "elsewhere"
    (tmp_path / "model").rename(alone)
    before = torch.random.get_rng_state()
    loaded = load_model(alone)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(loaded.logits(images), model.logits(images))
    assert (loaded.class_names, loaded.size, loaded.channels) == (CLASSES, (8, 10), 1)
    assert (loaded.network, loaded.method) == (NETWORK, "cross_entropy")


def test_a_missing_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no finished model"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model.json", "{"),
        ("model.json", "{}"),
        ("model.json", '{"network": {"widths": "wide"}}'),
        ("model.json", "[1, 2]"),
        ("model.json", "[" * 20_000),
        ("model.safetensors", "weights"),
    ],
)
def test_a_damaged_model_is_told(tmp_path: Path, file: str, content: str) -> None:
    save_model(model_of(), tmp_path)
    (tmp_path / "model" / file).write_text(content)
    with pytest.raises(UserError, match="model"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("size", [-1, 4]), ("size", "wide"), ("channels", 1e400), ("channels", 10**30), ("network", []),
        ("network", {"widths": [10**12]}), ("class_names", [1, 2, 3]), ("members", 10**9), ("method", 1),
        ("self_supervised", "yes"),
        ("kind", "sound"), ("views", {"mean": [0.5, 0.5], "std": [1.0]}), ("more", 1),
    ],
)  # fmt: skip
def test_a_description_with_something_else_in_it_is_told(tmp_path: Path, key: str, value: Any) -> None:
    """As an earlier version would have written it, without a checksum."""
    save_model(model_of(), tmp_path)
    path = tmp_path / "model" / "model.json"
    about = json.loads(path.read_text())
    del about["sha256"]
    path.write_text(json.dumps(about))
    assert load_model(tmp_path).class_names == CLASSES
    path.write_text(json.dumps({**about, key: value}))
    with pytest.raises(UserError, match=r"model\.json|model\.safetensors") as told:
        load_model(tmp_path)
    assert len(str(told.value)) < 600


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_flipped_bit_in_a_model_is_noticed(tmp_path: Path, name: str) -> None:
    save_model(model_of(), tmp_path)
    path, draw = tmp_path / "model" / name, random.Random(0)
    whole, right = path.read_bytes(), load_model(tmp_path)
    refused = 0
    for _ in range(200):
        path.write_bytes(whole)
        flipped(path, draw.randrange(len(whole)), draw.randrange(8))
        try:
            found = load_model(tmp_path)
        except UserError:
            refused += 1
        else:
            assert same(dict(found.predictor.state_dict()), dict(right.predictor.state_dict()))
            assert (found.class_names, found.size, found.method) == (right.class_names, right.size, right.method)
    assert refused > 190


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    model = model_of()
    with torch.no_grad():
        next(model.predictor.parameters()).view(-1)[0] = torch.nan
    save_model(model, tmp_path)
    with pytest.raises(UserError, match=r"model\.safetensors has weights that are not numbers \(.*\); delete"):
        load_model(tmp_path)


def answering(classes: Tensor, method: str) -> Model:
    """A model whose prediction for image i is `classes[i]`, whatever is on it."""

    class Answers(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return nn.functional.one_hot(classes, 3).float()

    return dataclasses.replace(model_of(method=method), predictor=Predictor([Answers()]))


def test_accuracy_is_measured_against_the_truth_where_it_is_known() -> None:
    given, truth = torch.tensor([0, 0, 0, 0]), torch.tensor([0, 1, 2, 0])
    model = answering(torch.tensor([0, 1, 1, 1]), "cross_entropy")
    assert model.measure(examples_of(4, given)).accuracy == 0.25
    assert model.measure(examples_of(4, given, true_labels=truth)).accuracy == 0.5


def test_clusters_of_label_free_methods_are_matched_first() -> None:
    clusters = torch.tensor([1, 1, 2, 2, 0, 1])
    examples = examples_of(6, torch.tensor([0, 0, 1, 1, 2, 2]))
    assert answering(clusters, "scan").measure(examples).accuracy == pytest.approx(5 / 6)
    assert answering(clusters, "cross_entropy").measure(examples).accuracy == 0


@pytest.mark.parametrize("method", ["scan", "scanmix"])
def test_a_model_says_whether_its_method_sees_labels_and_one_of_version_0_1_is_known_by_its_name(
    tmp_path: Path, method: str
) -> None:
    save_model(model_of(method=method), tmp_path)
    path = tmp_path / "model" / "model.json"
    assert load_model(tmp_path).self_supervised is METHODS[method].self_supervised
    about = json.loads(path.read_text())
    assert about["self_supervised"] is METHODS[method].self_supervised
    del about["sha256"], about["self_supervised"]
    path.write_text(json.dumps(about))
    assert load_model(tmp_path).self_supervised is METHODS[method].self_supervised
    assert METHODS["scan"].self_supervised and not METHODS["scanmix"].self_supervised
