"""Every command that writes, killed before any of its file operations or left without room: nothing is lost.

The same command again ends with the bytes of one that was never interrupted, and leaves nothing of the first try.
"""

import dataclasses
import io
import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.encoders import write_encoder
from tests.interrupted import Ended, Order, Victim, files_of, left_behind, put_back, spread, without_seconds

HERE = "tests.test_interrupted"
RECIPE = """
method = "scanmix"
[network]
widths = [4, 8]
blocks = [1, 1]
stem_stride = 2
[settings]
epochs = 3
warmup = 1
num_neighbors = 3
batch_size = 8
cluster_batch_size = 12
[settings.pretrain]
epochs = 3
batch_size = 12
[settings.clustering]
epochs = 3
batch_size = 12
"""
COMMANDS: dict[str, list[str]] = {
    "train": [
        "train",
        "../photos",
        "--recipe",
        "../small.toml",
        "--out",
        "new",
        "--threads",
        "1",
        "--test",
        "../photos",
    ],
    "audit": ["audit", "run"],
    "report": ["report", "run"],
    "report elsewhere": ["report", "run", "--out", "page.html"],
    "predict": ["predict", "run", "../photos", "--out", "table.csv"],
    "predict parquet": ["predict", "run", "../photos", "--out", "table.parquet"],
    "export onnx": ["export", "run", "--out", "given"],
    "export safetensors": ["export", "run", "--out", "given", "--format", "safetensors"],
    "noise": ["noise", "../photos", "--rate", "0.4", "--out", "noise.json"],
    "review static": ["review", "run", "--static", "page.html"],
    "embed": ["embed", "../photos", "--model", "onnx:../tiny.onnx", "--out", "features.npy"],
    "figure": ["reproduce", "figure3", "run", "--out", "drawn"],
}
FUNCTIONS = {"reproduce": "reproduce", "decide": "decide"}
"""What is no single command line: the tables of runs that are there, and the decisions of a review."""


def values(content: bytes) -> Any:
    """What a checkpoint holds; its bytes also say which tensors once shared their memory."""

    def plain(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.dtype, tuple(value.shape), value.flatten().tolist()
        if isinstance(value, dict):
            return {key: plain(inner) for key, inner in value.items()}
        return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value

    return plain(torch.load(io.BytesIO(content), weights_only=True))


ALIKE = ("report elsewhere", "predict parquet", "export safetensors")
"""What `make test` leaves to `make test-long`: the same code writes another file."""
PLAIN: dict[str, Callable[[bytes], Any]] = {
    ".pt": values,
    "run.toml": lambda content: {**tomllib.loads(content.decode()), "versions": None},  # has the state of a checkout
    "metrics.jsonl": without_seconds,
    "store.jsonl": without_seconds,
    "review-log.jsonl": lambda content: [{**json.loads(line), "when": ""} for line in content.splitlines()],
    "report.html": lambda content: re.sub(rb"\d{4}-\d\d-\d\d \d\d:\d\d|\d+(\.\d+)? (s|min|h)\b", b"", content),
    "page.html": lambda content: re.sub(rb"\d{4}-\d\d-\d\d \d\d:\d\d|\d+(\.\d+)? (s|min|h)\b", b"", content),
    "model.onnx": lambda content: len(content),
    "SHA256SUMS": lambda content: [line.split()[1] for line in content.splitlines()],
    "seconds": lambda content: None,
    "acknowledged": lambda content: None,
    "tiny.csv": lambda content: content.count(b"\n"),
    "tiny.md": lambda content: content.count(b"\n"),
}
"""What holds times, and what is left of it."""


def command(folder: Path, *words: str) -> None:
    from scanmix.cli import app
    from scanmix.features import embedding
    from scanmix.pretrain import cache as artifacts

    artifacts.MOST_LOST = 0.0  # every epoch of a stage is saved
    embedding.MOST_LOST = 0.0  # and every batch of features
    embedding.MOST_IN_BATCH = 8
    os.environ["SCANMIX_CACHE"] = str(folder / "cache")
    app(list(words), prog_name="scanmix")


def decide(folder: Path) -> None:
    """Make five decisions, one undone, as the server of a review does; those that are made are not made again."""
    from scanmix.audit import score_labels
    from scanmix.review import Decisions
    from scanmix.training import open_run

    os.environ["SCANMIX_CACHE"] = str(folder / "cache")
    decisions = Decisions(folder / "run", score_labels(open_run(folder / "run").evidence()), "tester")
    decisions.recover()
    said = folder / "acknowledged"
    assert decisions.revision >= len(said.read_text() if said.exists() else ""), "a decision was lost"
    steps: list[Callable[[], object]] = [
        lambda: decisions.decide([0], "accept"), lambda: decisions.decide([1, 2], "exclude"), decisions.undo,
        lambda: decisions.decide([3], "relabel", 1), lambda: decisions.decide([4], "unsure"),
    ]  # fmt: skip
    for done in range(decisions.revision, len(steps)):
        steps[done]()
        said.write_text("x" * (done + 1))


def reproduce(folder: Path) -> None:
    """Write the table of runs that are finished."""
    from scanmix.reproduce import run_table
    from tests.reproduce.test_tables import SMALL, TINY

    os.environ["SCANMIX_CACHE"] = str(folder / "cache")
    table = dataclasses.replace(SMALL, methods=("cross_entropy",), noises=("symmetric:0.2",))
    assert run_table(table, folder / "out", 1, TINY) == {}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, victim: Victim) -> Path:
    """Photos, a recipe, and a folder `ready` with a finished run and a finished table."""
    top = tmp_path_factory.mktemp("interrupted")
    draws = np.random.default_rng(0)
    for kind in range(3):
        (top / "photos" / "abc"[kind]).mkdir(parents=True)
        for i in range(10):
            pixels = draws.integers(0, 70, (16, 16, 3), dtype=np.uint8)
            pixels[kind * 4 : kind * 4 + 4, :, kind] = 230
            Image.fromarray(pixels).save(top / "photos" / "abc"[kind] / f"{i}.png")
    (top / "small.toml").write_text(RECIPE)
    write_encoder(top / "tiny.onnx")
    (top / "ready").mkdir()
    words = [word if word != "new" else "run" for word in COMMANDS["train"]]
    for order in (Order(f"{HERE}.command", str(top / "ready"), words), Order(f"{HERE}.reproduce", str(top / "ready"))):
        ended = victim.do(order)
        assert ended.is_well, ended.said
    shutil.rmtree(top / "ready" / "cache")
    for path in (top / "ready" / "out").glob("tiny.*"):
        path.unlink()
    (top / "ready" / "out" / "store.jsonl").unlink()
    return top


def order_of(name: str, folder: Path) -> Order:
    if name in FUNCTIONS:
        return Order(f"{HERE}.{FUNCTIONS[name]}", str(folder))
    return Order(f"{HERE}.command", str(folder), COMMANDS[name])


def begin(place: Path, name: str) -> Path:
    """A copy of what every command finds, in a folder whose name has one length: paths stand in files."""
    folder = place / name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(place / "ready", folder)
    return folder


def goes_on(victim: Victim, order: Order) -> Ended:
    """The same command again; an export that had been renamed into place already says so."""
    again = victim.do(dataclasses.replace(order, event=-1))
    assert again.is_well or (again.code == 2 and "is there already" in again.said), again.said
    return again


def goes_on_as_if_never_cut(victim: Victim, order: Order, wanted: dict[str, Any], where: object) -> None:
    """The same command again, in the folder that a cut one left, ends with the files of one that was never cut."""
    said = goes_on(victim, order).said
    found = files_of(Path(order.folder), PLAIN)
    assert found.keys() == wanted.keys(), (where, said)
    differing = [path for path in wanted if found[path] != wanted[path]]
    assert not differing, (where, differing)


@pytest.mark.parametrize("name", [name for name in [*COMMANDS, *FUNCTIONS] if name not in ALIKE])
def test_a_killed_command_goes_on_with_the_same_bytes(name: str, victim: Victim, place: Path) -> None:
    folder = begin(place, "work")
    order = order_of(name, folder)
    whole = victim.do(order)
    assert whole.is_well, whole.said
    wanted = files_of(folder, PLAIN)
    moments = spread(whole.events, 5 if name == "train" else 2, lambda event: event != "step")
    assert len(moments) > 1
    for moment in moments:
        begin(place, "work")
        killed = victim.do(dataclasses.replace(order, event=moment))
        assert killed.signal == 9, (moment, killed.said)
        goes_on_as_if_never_cut(victim, order, wanted, (moment, whole.events[moment]))


@pytest.mark.long
@pytest.mark.parametrize("name", [*COMMANDS, *FUNCTIONS])
def test_a_command_may_be_killed_before_any_of_its_file_operations(name: str, victim: Victim, place: Path) -> None:
    folder = begin(place, "work")
    order = order_of(name, folder)
    whole, copies = left_behind(victim, order)
    assert whole.is_well, whole.said
    wanted = files_of(folder, PLAIN)
    assert len(copies) > 1, "nothing was written"
    for moment, copy in copies:
        put_back(copy, folder)
        goes_on_as_if_never_cut(victim, order, wanted, (moment, whole.events[moment]))


def small_disk(folder: Path) -> bool:
    """Mount a file system of 24 MB, where that is allowed."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", folder], capture_output=True)
    return mounted.returncode == 0


@pytest.fixture(scope="module", params=["limit", "disk"])
def full(request: pytest.FixtureRequest, place: Path) -> Iterator[tuple[Path, str]]:
    """Where a command works, and what takes its room away: a limit of the process, or a file that fills a disk."""
    if request.param == "limit":
        yield place, "limit"
        return
    top = place / "disk"
    top.mkdir()
    if not small_disk(top):
        pytest.skip("mounting a file system is not allowed here")
    try:
        for name in ("photos", "ready"):
            shutil.copytree(place / name, top / name)
        for name in ("small.toml", "tiny.onnx"):
            shutil.copy(place / name, top)
        yield top, str(top / "filler")
    finally:
        subprocess.run(["umount", top], check=True)


def begun_files(events: Sequence[str], most: int) -> list[int]:
    """Where files are opened, but for the second time that one is in a row, to be flushed: nothing is written between,
    so room that goes there is missed in the next file.
    """
    begun = [event if before != event else "" for before, event in pairwise(["", *events])]
    return spread(begun, most, lambda event: event.startswith("open "))


def without_room(victim: Victim, top: Path, what: str, name: str, most: int) -> None:
    """Let a command run out of room at some of its events; it says so in one sentence, and goes on when there is."""
    folder = begin(top, "work")
    whole = victim.do(order_of(name, folder))
    assert whole.is_well, whole.said
    wanted = files_of(folder, PLAIN)
    for moment in begun_files(whole.events, most):
        folder = begin(top, "work")
        order = dataclasses.replace(order_of(name, folder), event=moment, what=what)
        ended = victim.do(order)
        (top / "filler").unlink(missing_ok=True)
        where = (name, moment, whole.events[moment], ended.said)
        assert "Traceback" not in ended.said, where
        if ended.code:  # a cache that is full costs a warning alone, and a lock needs no room
            (error,) = [line for line in ended.said.splitlines() if line.startswith("Error: ")]
            assert ended.code == 2 and "cannot be written" in error, where
            assert not list(folder.rglob("*.part")), where
        goes_on_as_if_never_cut(victim, order, wanted, where)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ALIKE])
def test_a_command_without_room_says_so_and_goes_on_when_there_is_some(
    name: str, victim: Victim, full: tuple[Path, str]
) -> None:
    if full[1] != "limit" and name != "train":
        pytest.skip("`make test-long` fills the disk in every command")
    without_room(victim, *full, name, most=4 if name == "train" else 2)


@pytest.mark.long
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_may_run_out_of_room_at_any_file(name: str, victim: Victim, full: tuple[Path, str]) -> None:
    without_room(victim, *full, name, most=200)
