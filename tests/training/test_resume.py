"""A run killed by SIGKILL at any moment, and gone on with, ends with the bits of one that was never killed."""

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import scanmix
from scanmix.config import UserError
from scanmix.data.examples import Examples
from scanmix.files import locked
from scanmix.files.atomic import HOST
from scanmix.methods.cross_entropy import CrossEntropy
from scanmix.methods.scanmix import ScanMix
from scanmix.pretrain import cache as artifacts
from scanmix.pretrain import simclr
from scanmix.training import Run, open_run
from scanmix.training.loop import resume, train
from tests.interrupted import Order, Victim, left_behind, put_back, without_seconds
from tests.tiny import NETWORK, settings, suited

HERE = "tests.training.test_resume"

MORE: dict[str, dict[str, Any]] = {
    "backward": {"identity": 0.5},  # the matrix of two epochs on 80 images is nearly singular
    "scanmix": {"severe_noise": 0.1},
}
CUTS = 4
KILLED = ("cross_entropy", "scanmix")
"""What is killed in earnest. Every other method goes on in the folders that one killed after each epoch would leave."""
QUICK = ("dividemix", "ssr")
"""The others of `make test`: each keeps something else from epoch to epoch."""


def train_tiny(folder: Path, method: str) -> None:
    train_set, test_set = scanmix.load("digits", per_class=8, limit_test=40)
    noisy = scanmix.add_noise(train_set, "symmetric", rate=0.5, seed=0)
    artifacts.MOST_LOST = 0.0  # every epoch of a stage is saved
    (folder / "bare.toml").touch()  # a recipe that says nothing, in place of the one shipped for digits
    asked = settings(method, epochs=4, warmup=2, stage_epochs=12, **MORE.get(method, {}))
    noisy = suited(method, noisy, folder)
    train(
        noisy, test=test_set, method=method, out=folder / "run", cache=folder / "cache", network=NETWORK,
        recipe=str(folder / "bare.toml"), threads=1, progress=False, monitor={"elbo": 30}, **asked,
    )  # fmt: skip


def go_on(folder: Path, method: str) -> None:
    if (folder / "run" / "run.toml").exists():  # else it does not know what it was to be: call train again
        resume(folder / "run", cache=folder / "cache", progress=False)
    else:
        train_tiny(folder, method)


def go_on_to_the_evidence(folder: Path, method: str) -> None:
    """As `go_on`, but leave out the audit, half the time: it sees nothing but the evidence, which is compared."""
    Run.write_labels = lambda *_: None  # type: ignore[method-assign]
    go_on(folder, method)


def moments(events: list[str]) -> list[int]:
    """The first event, steps and file operations spread over the run, what follows the last epoch, and the last rename.

    When the last epoch is saved, six files remain: the last snapshot, evidence and its names, labels, model and its
    description.
    """
    steps = [i for i, event in enumerate(events) if event == "step"] or [0]
    files = [i for i, event in enumerate(events) if event != "step"]
    renamed = [i for i in files if events[i].startswith("rename ")]
    saved = [i for i in renamed if "last.pt." in events[i]]
    spread = [kind[len(kind) * part // CUTS] for kind in (steps, files) for part in range(1, CUTS)]
    return sorted({0, *spread, saved[-1] + 1, renamed[-1]})


def result(folder: Path) -> dict[str, Any]:
    """What is to be the same, by its name."""
    run = folder / "run"
    kept = [path for part in ("model", "evidence", "trajectory") for path in run.glob(f"{part}/*")]
    assert len(kept) > 4 and not list(folder.rglob("*.part"))
    found = {str(path.relative_to(run)): path.read_bytes() for path in (*run.glob("labels.csv"), *kept)}
    return {**found, "metrics": metrics_of(run)}


def metrics_of(run: Path) -> list[dict[str, Any]]:
    return without_seconds((run / "metrics.jsonl").read_bytes())


def ends_the_same(victim: Victim, order: Order, wanted: dict[str, Any], where: object, work: str = "go_on") -> None:
    ended = victim.do(dataclasses.replace(order, work=f"{HERE}.{work}"))
    assert ended.is_well, (where, ended.said)
    found = result(Path(order.folder))
    assert found.keys() == wanted.keys(), where
    assert not [name for name in wanted if found[name] != wanted[name]], where


@pytest.mark.parametrize("method", KILLED)
def test_a_killed_run_ends_with_the_bits_of_a_whole_one(method: str, victim: Victim, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    order = Order(f"{HERE}.train_tiny", str(folder), [method])
    whole = victim.do(order)
    assert whole.is_well, whole.said
    wanted, cuts = result(folder), moments(list(whole.events))
    assert len(cuts) > CUTS and "labels.csv" in wanted
    for moment in cuts:
        shutil.rmtree(folder)
        folder.mkdir()
        killed = victim.do(dataclasses.replace(order, event=moment))
        assert killed.signal == 9, (moment, killed.said)
        ends_the_same(victim, order, wanted, (moment, whole.events[moment]))


@pytest.mark.parametrize(
    "method",
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.long)
        for name in scanmix.METHODS
        if name not in KILLED
    ],
)
def test_a_run_killed_after_any_of_its_epochs_ends_with_the_bits_of_a_whole_one(
    method: str, victim: Victim, tmp_path: Path
) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    order = Order(f"{HERE}.train_tiny", str(folder), [method])
    whole, copies = left_behind(victim, order)
    assert whole.is_well, whole.said
    wanted = result(folder)
    unlabeled = {name: value for name, value in wanted.items() if name != "labels.csv"}
    stages = [(moment, copy) for moment, copy in copies if list(copy.glob("cache/*.unfinished"))]
    by_state = {saved_state(copy): (moment, copy) for moment, copy in reversed(copies)}
    last, *epochs = [found for state, found in by_state.items() if state]
    assert len(epochs) > 0, "no epoch was saved"
    for moment, copy in [*epochs, *stages[len(stages) // 2 :][:1]]:
        put_back(copy, folder)
        ends_the_same(victim, order, unlabeled, (moment, whole.events[moment]), "go_on_to_the_evidence")
    put_back(last[1], folder)
    ends_the_same(victim, order, wanted, (last[0], whole.events[last[0]]))


def saved_state(folder: Path) -> bytes:
    """The checkpoint of a run; b"" when it has none yet."""
    path = folder / "run" / "checkpoint" / "last.pt"
    return path.read_bytes() if path.exists() else b""


Pair = tuple[Examples, Examples]


@pytest.fixture(scope="module")
def data() -> Pair:
    train_set, test_set = scanmix.load("digits", per_class=6, limit_test=50)
    assert test_set is not None
    return scanmix.add_noise(train_set, "symmetric", rate=0.5, seed=0), test_set


def quick(examples: Examples, out: Path, **more: Any) -> Run:
    plain = {"method": "cross_entropy", "network": NETWORK, "epochs": 3, "batch_size": 16, "threads": 1}
    return train(examples, out=out, progress=False, **{**plain, **more})


def mixed(examples: Examples, folder: Path, **more: Any) -> Run:
    short = settings("scanmix", stage_epochs=1)
    return quick(examples, folder / "run", method="scanmix", cache=folder / "cache", **short, **more)


class Stop:
    """Makes an epoch of a method fail in some way, once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, method: type, epoch: int, failure: BaseException) -> None:
        honest = method.epoch  # type: ignore[attr-defined]
        armed = True

        def failing(this: Any, state: Any, data: Any, number: int) -> dict[str, float]:
            nonlocal armed
            result: dict[str, float] = honest(this, state, data, number)
            if armed and number == epoch:
                armed = False
                raise failure
            return result

        monkeypatch.setattr(method, "epoch", failing)


def test_an_interrupted_run_says_how_to_go_on_and_ends_the_same(
    data: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = mixed(data[0], tmp_path, test=data[1])
    Stop(monkeypatch, ScanMix, 2, KeyboardInterrupt())
    cut = tmp_path / "cut"
    with pytest.raises(
        KeyboardInterrupt, match=r"stopped after 2 epochs; `scanmix resume .*cut/run` goes on after epoch 2;"
    ):
        mixed(data[0], cut, test=data[1])
    assert not open_run(cut / "run").finished

    def never(*_: object) -> None:
        raise AssertionError("the label-free stages were run again")

    monkeypatch.setattr(ScanMix, "start", never)
    resumed = resume(cut / "run", cache=tmp_path / "empty", progress=False)
    assert metrics_of(cut / "run") == metrics_of(tmp_path / "run")
    ours, theirs = resumed.model.predictor.state_dict(), whole.model.predictor.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert not (tmp_path / "empty").exists()


def test_what_came_before_the_first_epoch_is_kept_too(
    data: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Stop(monkeypatch, ScanMix, 0, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt, match="stopped after 0 epochs"):
        mixed(data[0], tmp_path)

    def never(*_: object) -> None:
        raise AssertionError("the label-free stages were run again")

    monkeypatch.setattr(ScanMix, "start", never)
    assert len(mixed(data[0], tmp_path).metrics) == 3


def test_data_from_memory_is_asked_for(data: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = dataclasses.replace(data[0], source=None)
    Stop(monkeypatch, CrossEntropy, 1, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        quick(examples, tmp_path / "run", test=data[1])
    with pytest.raises(UserError, match=r"came from memory and cannot be loaded again; call scanmix\.train"):
        resume(tmp_path / "run")
    assert len(quick(examples, tmp_path / "run", test=data[1]).metrics) == 3


def test_data_that_has_changed_is_refused(data: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Stop(monkeypatch, CrossEntropy, 1, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        quick(data[0], tmp_path / "run")
    path = tmp_path / "run" / "run.toml"
    path.write_text(path.read_text().replace("rate = 0.5", "rate = 0.6"))
    with pytest.raises(UserError, match="is not what it was when the run began"):
        resume(tmp_path / "run")


def test_metrics_that_are_lost_are_told(data: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Stop(monkeypatch, CrossEntropy, 1, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        quick(data[0], tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").unlink()
    with pytest.raises(UserError, match="lacks epochs before 1"):
        resume(tmp_path / "run")


def two_at_once(folder: Path) -> None:
    """Train twice at the same time in one folder; write down how both ended."""
    train_set, _ = scanmix.load("digits", per_class=6)
    both = [os.fork() or _train_and_exit(train_set, folder) for _ in range(2)]
    ended = {child: os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in both}
    (folder / "ended.json").write_text(json.dumps(ended))


def _train_and_exit(train_set: Examples, folder: Path) -> int:
    code = 1
    try:
        quick(train_set, folder / "run", epochs=40)
        code = 0
    except UserError as error:
        (folder / f"said-{os.getpid()}").write_text(str(error))
        code = 2
    finally:
        os._exit(code)


def test_of_two_trainings_in_one_folder_the_second_is_refused(victim: Victim, tmp_path: Path) -> None:
    assert victim.do(Order(f"{HERE}.two_at_once", str(tmp_path))).is_well
    ended = json.loads((tmp_path / "ended.json").read_text())
    (winner,) = [number for number, code in ended.items() if code == 0]
    (refused,) = [number for number, code in ended.items() if code == 2]
    said = (tmp_path / f"said-{refused}").read_text()
    assert f"run is in training already: process {winner}, on " in said
    assert "wait until it is done, stop it, or choose another folder" in said
    run = open_run(tmp_path / "run")
    assert run.finished and [line["epoch"] for line in run.metrics] == list(range(1, 41))


def test_a_run_that_is_in_training_is_neither_resumed_nor_trained_again(data: Pair, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with locked(tmp_path / "run", "in training"):
        with pytest.raises(UserError, match=r"run is in training already: process \d+"):
            quick(data[0], tmp_path / "run")
        assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.lock"]
    quick(data[0], tmp_path / "run")
    (tmp_path / "run" / "model" / "model.json").unlink()
    with locked(tmp_path / "run", "in training"), pytest.raises(UserError, match="in training already"):
        resume(tmp_path / "run")
    assert resume(tmp_path / "run", progress=False).finished
    assert not (tmp_path / "run" / "run.lock").exists()


def test_files_of_others_in_a_run_folder_are_never_deleted(
    data: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Stop(monkeypatch, CrossEntropy, 1, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        quick(data[0], tmp_path / "run")
    run, dead = tmp_path / "run", f"4194301-{HOST}.part"
    theirs = [
        "holiday.mkv.part", "holiday.mkv.4194301.part", "sub.part/deep/last.pt.4194301.part", "model/notes.1.part",
        "checkpoint/last.pt.part", "labels.csv.4194301",
    ]  # fmt: skip
    for name in theirs:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("mine")
    ours = [f"checkpoint/last.pt.{dead}", f"metrics.jsonl.{dead}", f"labels.csv.{dead}", "metrics.jsonl.4194301.part"]
    for name in ours:
        (run / name).write_text("half")
    assert resume(run, progress=False).finished
    assert all((run / name).read_text() == "mine" for name in theirs)
    assert not any((run / name).exists() for name in ours)


def test_a_folder_with_files_of_others_is_not_free(data: Pair, tmp_path: Path) -> None:
    (tmp_path / "holiday.mkv.part").write_text("mine")
    with pytest.raises(UserError, match="is there already and is no run"):
        quick(data[0], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.mkv.part"]


def test_a_damaged_checkpoint_costs_an_epoch_and_no_bits(
    data: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = quick(data[0], tmp_path / "whole", test=data[1])
    Stop(monkeypatch, CrossEntropy, 2, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        quick(data[0], tmp_path / "run", test=data[1])
    last = tmp_path / "run" / "checkpoint" / "last.pt"
    last.write_bytes(last.read_bytes()[:-100])
    with pytest.warns(UserWarning, match="is damaged and cannot be read .*goes on from the one before, epoch 1"):
        resumed = resume(tmp_path / "run", progress=False)
    assert metrics_of(tmp_path / "run") == metrics_of(tmp_path / "whole")
    ours, theirs = resumed.model.predictor.state_dict(), whole.model.predictor.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_ctrl_c_in_a_stage_says_what_of_it_is_lost(data: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(simclr, "nt_xent", stop)
    said = (
        r"stopped after 0 epochs; `scanmix resume .*/run` goes on: 0 of 1 epochs of Pre-training \(SimCLR\) are kept, "
        "the one under way is lost"
    )
    with pytest.raises(KeyboardInterrupt, match=said):
        mixed(data[0], tmp_path)


def test_resume_of_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run folder"):
        resume(tmp_path)
