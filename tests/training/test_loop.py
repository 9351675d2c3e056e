import csv
import dataclasses
import importlib
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import scanmix
from scanmix.config import UserError
from scanmix.data.examples import Examples
from scanmix.data.store import default_cache
from scanmix.methods.cross_entropy import CrossEntropy
from scanmix.model.dynamics import clean_set_metrics
from scanmix.training import Run, open_run
from scanmix.training.checkpoint import load_checkpoint
from scanmix.training.loop import resume, train

Pair = tuple[Examples, Examples]

NETWORK = {"widths": [4, 8], "blocks": [1, 1], "stem_stride": 2}
STAGES: dict[str, Any] = {
    "pretrain": {"epochs": 1, "batch_size": 40},
    "clustering": {"epochs": 1, "batch_size": 40},
    "num_neighbors": 4,
}
LAST = Path("checkpoint") / "last.pt"


@pytest.fixture(scope="module")
def data() -> Pair:
    train_set, test_set = scanmix.load("digits", per_class=6, limit_test=50)
    assert test_set is not None
    return scanmix.add_noise(train_set, "symmetric", rate=0.5, seed=0), test_set


def quick(examples: Examples, out: Path | None = None, epochs: int = 3, **more: Any) -> Run:
    plain = {"method": "cross_entropy", "network": NETWORK, "batch_size": 16, "progress": False, "threads": 1}
    return train(examples, out=out, epochs=epochs, **{**plain, **more})


def mixed(examples: Examples, folder: Path, **more: Any) -> Run:
    """A small ScanMix: one epoch of warm-up, two of the rest."""
    warmup = {"warmup": 1, "mild_warmup": 0}
    return quick(examples, out=folder / "run", method="scanmix", cache=folder / "cache", **warmup, **STAGES, **more)


def plain_metrics(run: Run) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if not key.startswith("seconds/")} for line in run.metrics]


def test_every_epoch_leaves_a_line(data: Pair, tmp_path: Path) -> None:
    run = mixed(data[0], tmp_path, test=data[1])
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines == run.metrics
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    everywhere = {"accuracy", "seconds/epoch", "seconds/evaluate", "seconds/processor"}
    assert all(everywhere <= line.keys() for line in lines)
    assert {"warmup/loss", "rate/warmup", "seconds/start", "seconds/warmup"} <= lines[0].keys()
    divided = {"estimated_noise", "clean_size", "clean_purity", "learn/total", "cluster/total", "rate/learn"}
    assert all(divided <= line.keys() for line in lines[1:])
    assert not {"estimated_noise", "clean_size"} & lines[0].keys()
    assert not any("seconds/start" in line for line in lines[1:])
    assert "accuracy_after_matching" not in lines[0]


def test_the_folder_holds_all_that_the_design_lists(data: Pair, tmp_path: Path) -> None:
    run = quick(data[0], tmp_path / "run", test=data[1])
    found = {str(path.relative_to(tmp_path / "run")) for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert found == {
        "run.toml", "metrics.jsonl", "labels.csv", "audit.json", "checkpoint/last.pt", "checkpoint/before.pt",
        "model/model.json", "model/model.safetensors", "evidence/evidence.json", "evidence/evidence.safetensors",
        *(f"trajectory/{epoch:05d}.safetensors" for epoch in range(1, len(run.metrics) + 1)),
    }  # fmt: skip
    assert run.finished and run.last_accuracy == run.model.measure(data[1]).accuracy
    assert (open_run(tmp_path / "run").predict_proba(data[1]) == run.predict_proba(data[1])).all()


def test_division_against_counting_by_hand(data: Pair) -> None:
    examples = data[0]
    assert examples.true_labels is not None
    p_clean = torch.rand(2, len(examples), generator=torch.Generator().manual_seed(0))
    clean = right = 0
    for peer in p_clean:
        for p, given, true in zip(peer, examples.labels, examples.true_labels, strict=True):
            clean += int(p > 0.4)
            right += int(p > 0.4 and given == true)
    found = clean_set_metrics(p_clean, 0.4, examples)
    assert found["clean_size"] == clean / 2
    assert found["clean_purity"] == pytest.approx(right / clean)
    assert found["estimated_noise"] == pytest.approx(1 - clean / (2 * len(examples)))
    assert "clean_purity" not in clean_set_metrics(p_clean, 0.4, examples.without_true_labels())
    assert "clean_purity" not in clean_set_metrics(p_clean, 1.0, examples)


def test_purity_needs_true_labels_and_accuracy_a_test_set(data: Pair, tmp_path: Path) -> None:
    run = mixed(data[0].without_true_labels(), tmp_path)
    assert "clean_size" in run.metrics[-1] and "clean_purity" not in run.metrics[-1]
    assert run.accuracies == [] and run.last_accuracy is None
    assert run.noise.actual is None and run.noise.estimated is not None


def test_label_free_methods_say_how_they_were_measured(data: Pair, tmp_path: Path) -> None:
    run = train(data[0], test=data[1], method="scan", network=NETWORK, cache=tmp_path, progress=False, **STAGES)
    assert [line["accuracy_after_matching"] for line in run.metrics] == [True]


def test_nothing_is_written_without_a_folder(data: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCANMIX_CACHE", str(tmp_path / "cache"))
    run = quick(data[0], test=data[1])
    assert run.folder is None and run.finished and len(run.metrics) == 3
    assert run.predict(data[1]).shape == (50,)
    assert not list(tmp_path.iterdir())


def test_the_same_call_gives_a_finished_run_back(data: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = quick(data[0], tmp_path / "run", test=data[1])

    def never(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(CrossEntropy, "epoch", never)
    monkeypatch.setattr(CrossEntropy, "start", never)
    for again in (quick(data[0], tmp_path / "run", test=data[1]), resume(tmp_path / "run")):
        assert again.metrics == first.metrics
        assert (again.predict_proba(data[1]) == first.predict_proba(data[1])).all()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"epochs": 4}, r"settings\.epochs was 3, is 4"),
        ({"seed": 1}, "seed was 0, is 1"),
        ({"method": "mixup"}, "method was 'cross_entropy', is 'mixup'"),
        ({"network": {**NETWORK, "stem_stride": 4}}, r"network\.stem_stride was 2, is 4"),
        ({"test": None}, "the test images"),
    ],
)
def test_other_settings_do_not_go_on_with_a_run(data: Pair, tmp_path: Path, change: dict[str, Any], told: str) -> None:
    quick(data[0], tmp_path / "run", test=data[1])
    with pytest.raises(UserError, match=f"holds another run .*{told}"):
        quick(data[0], tmp_path / "run", **{"test": data[1], **change})


def test_other_labels_do_not_go_on_with_a_run(data: Pair, tmp_path: Path) -> None:
    quick(data[0], tmp_path / "run")
    labels = data[0].labels.clone()
    labels[0] = (labels[0] + 1) % 10
    with pytest.raises(UserError, match="the training images or labels"):
        quick(dataclasses.replace(data[0], labels=labels), tmp_path / "run")


def test_a_loss_that_is_no_number_stops_the_run_and_leaves_the_checkpoint(
    data: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = torch.nn.functional.cross_entropy
    calls = 0

    def infinite_later(*given: Any, **more: Any) -> Tensor:
        nonlocal calls
        calls += 1
        return honest(*given, **more) * (float("inf") if calls == 8 else 1)  # four steps and a snapshot an epoch

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", infinite_later)
    folder = tmp_path / "run"
    expected = r"cross_entropy stopped in epoch 2: the loss loss became inf at step 3 of learn.*\(epoch 1\) is in"
    with pytest.raises(UserError, match=expected):
        quick(data[0], folder)
    run = open_run(folder)
    saved = load_checkpoint(folder, run.settings.config_hash(), torch.device("cpu"))
    assert saved is not None and saved[0] == 1 == len(run.metrics)
    weights = saved[1]["peers"][0]["weights"]
    assert all(bool(weight.isfinite().all()) for weight in weights.values())


def test_a_stage_that_diverges_leaves_no_checkpoint_and_says_so(
    data: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = importlib.import_module("scanmix.pretrain.scan")
    monkeypatch.setattr(scan, "scan_loss", lambda anchor, *_: (anchor.sum() * float("nan"),) * 3)
    with pytest.raises(UserError, match=r"scanmix stopped at the start: the total loss .* of scan.*no checkpoint"):
        mixed(data[0], tmp_path)


def test_weights_that_are_no_numbers_are_not_saved(data: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = CrossEntropy.epoch

    def exploding(self: CrossEntropy, state: Any, data: Any, epoch: int) -> dict[str, float]:
        results = honest(self, state, data, epoch)
        if epoch == 1:
            state.peers[0].classifier.bias.data[0] = float("nan")
        return results

    monkeypatch.setattr(CrossEntropy, "epoch", exploding)
    with pytest.raises(UserError, match=r"in epoch 2: the weights classifier\.bias are no longer numbers"):
        quick(data[0], tmp_path / "run")
    assert len(open_run(tmp_path / "run").metrics) == 1


@pytest.mark.parametrize(
    ("method", "settings", "told"),
    [
        ("dividemix", {"warmup": "4 steps"}, "^in all.*: warmup = '4 steps' make 2 epochs of 60 "),
        ("scan_dividemix", {"dividemix.warmup": 2, **STAGES}, "dividemix.warmup = 2 make 2 .*dividemix.warmup=20%$"),
        ("scanmix", {"warmup": 1, "mild_warmup": 1, **STAGES}, "warmup = 1 and mild_warmup = 1 make 2 epochs of 60 "),
        ("d2l", {"begin": 2}, "d2l may learn the labels as they are: begin = 2 make 2 epochs of 60 examples"),
    ],
)  # fmt: skip
def test_a_run_that_is_all_warm_up_says_so(data: Pair, method: str, settings: dict[str, Any], told: str) -> None:
    """Durations in steps that suit thousands of images are all epochs of sixty."""
    long: dict[str, Any] = {"dividemix.epochs": 2} if method == "scan_dividemix" else {"epochs": 2, "batch_size": 16}
    with pytest.warns(UserWarning, match=told):
        train(data[0], method=method, network=NETWORK, progress=False, threads=1, **long, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quick(data[0], method="dividemix", epochs=2, warmup="2 steps")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"class_names": tuple("jihgfedcba")}, "class names"),
        ({"images": torch.zeros(50, 3, 8, 8, dtype=torch.uint8)}, "channels: 1 and 3"),
        ({"images": torch.zeros(50, 1, 9, 9, dtype=torch.uint8)}, r"image size: \(8, 8\) and \(9, 9\)"),
    ],
)
def test_test_images_must_be_like_training_images(data: Pair, change: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=f"differ in their {told}"):
        quick(data[0], test=dataclasses.replace(data[1], **change))


def test_one_image_or_one_class_is_not_enough(data: Pair) -> None:
    one_class = Examples(data[0].images, torch.zeros_like(data[0].labels), ("only",), data[0].ids)
    for too_little in (data[0].select([3]), one_class):
        with pytest.raises(UserError, match="needs at least two of each"):
            quick(too_little)


def test_an_unknown_device_is_told(data: Pair, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be used on this machine"):
        quick(data[0], tmp_path / "run", device="abacus")
    with pytest.raises(UserError, match="device must be the name of one, such as 'auto'"):
        quick(data[0], tmp_path / "run", device={"cpu"})


def test_labels_are_listed_the_most_doubtful_first(data: Pair, tmp_path: Path) -> None:
    run = mixed(data[0], tmp_path)
    with (tmp_path / "run" / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    audit = run.audit()
    assert list(rows[0]) == list(audit)
    assert [row["id"] for row in rows] == audit["id"].tolist()
    assert sorted(row["id"] for row in rows) == sorted(data[0].ids)
    doubts = [float(row["p_clean"]) for row in rows]
    assert doubts == sorted(doubts)


def test_threads_are_those_asked_for_and_given_back(data: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    before, seen = torch.get_num_threads(), []
    honest = CrossEntropy.start

    def start(*given: Any) -> Any:
        seen.append(torch.get_num_threads())
        return honest(*given)

    monkeypatch.setattr(CrossEntropy, "start", start)
    quick(data[0], threads=before + 1, epochs=1)
    assert seen == [before + 1] and torch.get_num_threads() == before


def test_the_cache_is_where_it_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("SCANMIX_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    assert default_cache() == Path.home() / ".cache" / "scanmix"
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_cache() == Path("/somewhere/scanmix")
    monkeypatch.setenv("SCANMIX_CACHE", "~/here")
    assert default_cache() == Path.home() / "here"


def test_label_free_stages_report_below_the_epochs(data: Pair, tmp_path: Path) -> None:
    class Told:
        seen: list[tuple[float, int, str]] = []  # noqa: RUF012

        def advance(self, count: int = 1, note: str = "") -> None:
            raise AssertionError("the loop knows how far it is")

        def set(self, done: float, total: int, note: str = "") -> None:
            self.seen.append((done, total, note))

    run = quick(data[0], test=data[1], progress=Told())
    shown = [done for done, _, _ in Told.seen]
    assert shown == sorted(shown) and [done for done in shown if done == int(done)] == [0, 1, 2, 3]
    assert Told.seen[-1][2] == f"accuracy {run.last_accuracy:.1%}"


def test_the_module_and_the_function_have_one_name() -> None:
    assert importlib.import_module("scanmix.training.loop").train is train is scanmix.train
