"""What a run keeps for its audit: the same as was seen, without images and without networks."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

import scanmix
from scanmix.audit import Evidence, save_evidence
from scanmix.audit.stored import load_evidence
from scanmix.config import UserError
from scanmix.data.examples import OPEN_SET, Examples
from scanmix.files import parse_json
from scanmix.model import Model
from scanmix.training import Run, open_run
from scanmix.training.loop import train
from tests import tiny

NETWORK = {**tiny.NETWORK, "final_norm": True}
Edit = Callable[[Path], object]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANMIX_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Forty pictures of two classes, two of them the same under both."""
    draw = np.random.default_rng(0)
    for name, color in (("night", (20, 20, 60)), ("sun", (240, 200, 40))):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(20):
            pixels = draw.normal(color, 40, (16, 16, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i:02d}.png")
    shutil.copy(tmp_path / "photos" / "sun" / "03.png", tmp_path / "photos" / "night" / "twin.png")
    return tmp_path / "photos"


def trained(photos: Path, method: str, folder: Path | None) -> Run:
    examples = noisy(photos, method)
    settings = {**tiny.settings(method, epochs=2), "network": NETWORK, "progress": False, "threads": 1}
    return train(examples, method=method, out=folder, **settings)


def noisy(photos: Path, method: str) -> Examples:
    found: Examples = tiny.suited(
        method, scanmix.add_noise(scanmix.load(photos)[0], "symmetric", rate=0.3), photos.parent
    )
    return found


def assert_same(one: Any, other: Any) -> None:
    """Two audits or two of their parts, bit for bit."""
    for field in dataclasses.fields(one):
        here, there = getattr(one, field.name), getattr(other, field.name)
        if field.name == "columns":
            assert list(here) == list(there)
            for name in here:
                assert here[name].tolist() == there[name].tolist(), name
        elif isinstance(here, Tensor | np.ndarray):
            assert here.dtype == there.dtype and here.tolist() == there.tolist(), field.name
        elif dataclasses.is_dataclass(here):
            assert_same(here, there)
        elif field.name != "snapshots":
            assert here == there, field.name


@pytest.mark.parametrize("method", scanmix.METHODS)
def test_opened_again_without_its_pictures_a_run_is_audited_alike(
    method: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(photos, method, tmp_path / "run")
    here = run.audit()
    assert_same(trained(photos, method, None).audit(), here)
    assert_same(open_run(tmp_path / "run").audit(noisy(photos, method)), here)
    labels_csv = (tmp_path / "run" / "labels.csv").read_bytes()
    (photos / "night" / "05.png").unlink()

    def refuse(*_: object) -> None:
        raise AssertionError("no network is asked")

    monkeypatch.setattr(Model, "_predict_all", refuse)
    again = open_run(tmp_path / "run")
    found = again.audit()
    assert_same(found, here)
    found.to_csv(tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == labels_csv
    assert {"duplicate"} <= set(here["kind"]) and again.evidence().true_labels is not None


def test_an_older_run_looks_at_its_data_again(photos: Path, tmp_path: Path) -> None:
    here = trained(photos, "dividemix", tmp_path / "run").audit()
    shutil.rmtree(tmp_path / "run" / "evidence")
    assert_same(open_run(tmp_path / "run").audit(), here)
    (photos / "night" / "05.png").unlink()
    with pytest.raises(UserError, match="not what it was when the run began"):
        open_run(tmp_path / "run").audit()


def test_an_unfinished_run_has_no_audit_whatever_is_there(photos: Path, tmp_path: Path) -> None:
    trained(photos, "cross_entropy", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "model")
    with pytest.raises(UserError, match="unfinished"):
        open_run(tmp_path / "run").audit()


def large(count: int, classes: int) -> Evidence:
    return Evidence(
        labels=torch.arange(count) % classes,
        probs=torch.rand(count, classes).softmax(1).half(),
        predictions=torch.zeros(2, count, dtype=torch.int64),
        class_names=tuple(map(str, range(classes))),
        ids=tuple(map(str, range(count))),
        neighbors=torch.zeros(count, 10, dtype=torch.int64),
        similarity=torch.zeros(count),
        pictures=torch.arange(count),
    )


def test_what_is_kept_is_small_and_the_same_again(tmp_path: Path) -> None:
    kept = large(5000, 20)
    save_evidence(tmp_path, kept)
    assert (tmp_path / "evidence" / "evidence.safetensors").stat().st_size < 5000 * (64 + 2 * 20) + 1000
    assert_same(load_evidence(tmp_path), kept)
    alone = dataclasses.replace(kept, neighbors=None, similarity=None, pictures=None, paths=("p\udcff",) * 5000)
    save_evidence(tmp_path, alone)  # a path that is no UTF-8
    assert_same(load_evidence(tmp_path), alone)
    foreign = dataclasses.replace(kept, true_labels=torch.full((5000,), OPEN_SET))
    save_evidence(tmp_path, foreign)
    assert_same(load_evidence(tmp_path), foreign)


def change(name: str, value: torch.Tensor | None) -> Edit:
    def edit(folder: Path) -> None:
        tensors = load_file(folder / "evidence.safetensors")
        tensors.pop(name)
        save_file(tensors if value is None else {**tensors, name: value}, folder / "evidence.safetensors")

    return edit


def rename(key: str, value: Any) -> Edit:
    """As a file of an earlier version would have it, which has no checksum."""

    def edit(folder: Path) -> None:
        names = parse_json((folder / "evidence.json").read_text())
        (folder / "evidence.json").write_text(json.dumps({**names, key: value}))

    return edit


def cut(name: str, to: int) -> Edit:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:to])


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "evidence.json").unlink(),
        lambda folder: (folder / "evidence.safetensors").unlink(),
        lambda folder: (folder / "evidence.json").write_text("[]"),
        lambda folder: (folder / "evidence.json").write_text(json.dumps({"ids": ["a"], "class_names": ["x", "y"]})),
        cut("evidence.json", 40),
        cut("evidence.safetensors", 300),
        cut("evidence.safetensors", 0),
        change("probs", None),
        change("labels", torch.full((12,), 3, dtype=torch.int32)),
        change("neighbors", torch.full((12, 10), -1, dtype=torch.int32)),
        change("neighbors", torch.tensor(0, dtype=torch.int32)),
        change("pictures", torch.zeros(11, dtype=torch.int32)),
        change("predictions", torch.zeros(12, dtype=torch.int32)),
        change("predictions", torch.zeros(1, 12)),
        change("probs", torch.full((12, 3), torch.nan)),
        change("probs", torch.zeros(12, 3, dtype=torch.int32)),
        rename("ids", [3] * 12),
        rename("ids", ["a"] * 12),
        rename("paths", 5),
        rename("class_names", {"a": 1}),
    ],
)
def test_damage_is_one_sentence(damage: Edit, tmp_path: Path) -> None:
    save_evidence(tmp_path, large(12, 3))
    damage(tmp_path / "evidence")
    with pytest.raises(
        UserError, match=r"evidence\.\w+(: no such file| is damaged and cannot be read \(.*\)); delete .*evidence,"
    ) as told:
        load_evidence(tmp_path)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("name", ["evidence.json", "evidence.safetensors"])
def test_a_flipped_bit_is_noticed(name: str, tmp_path: Path) -> None:
    kept = large(12, 3)
    save_evidence(tmp_path, kept)
    path = tmp_path / "evidence" / name
    whole = path.read_bytes()
    for bit in range(0, 8 * len(whole), 5):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        with suppress(UserError):
            assert_same(load_evidence(tmp_path), kept)  # white space, or the word before the checksum


def test_one_look_gives_what_two_gave(photos: Path) -> None:
    run = trained(photos, "dividemix", None)
    examples, _ = scanmix.load(photos)
    seen = run.model.outputs(examples)
    assert torch.equal(seen.logits, run.model.member_logits(examples))
    assert torch.allclose(seen.logits.sum(0), run.model.logits(examples))
    for side, member in enumerate(run.model.predictor.members):
        expected = torch.nn.functional.normalize(member[0].eval()(run.model.views.eval_view(examples.images)))  # type: ignore[index]
        assert torch.allclose(seen.features[:, 8 * side : 8 * side + 8], expected, atol=1e-5)
