"""Tables on real pictures: published labels for the images that a seed draws, and going on from the store alone."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from scanmix.cli import app
from scanmix.config import UserError
from scanmix.data.examples import Examples
from scanmix.data.readers import load
from scanmix.doctor.measure import Cost
from scanmix.networks.passes import Passes
from scanmix.reproduce import TABLES, Cell, ResultTable, chosen_cells, find_table, run_table
from scanmix.reproduce.differences import differences
from scanmix.reproduce.published_labels import labels_path, write_labels
from scanmix.reproduce.running import estimates
from scanmix.reproduce.table_run import TableRun
from scanmix.training import RunSettings, open_run, resolve
from tests import layouts

pytestmark = pytest.mark.filterwarnings("ignore:.*published:UserWarning")
NETWORK = ("network.widths=[8,16]", "network.blocks=[1,1]", "network.stem_stride=4")
TINY = {"cross_entropy": ("epochs=1", *NETWORK)}
SMALL = ResultTable(
    name="tiny", source="cifar10", load={"per_class": 2, "limit_test": 8}, methods=("cross_entropy",),
    noises=("authors:sym20", "people:worse"),
    labels={"authors:sym20": "noise/0.20.json", "people:worse": "cifar10n:worse"},
)  # fmt: skip
PROTOCOLS = ("cifar10-small", "mini100-small", "clothing-small")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny CIFAR-10 of 40 images with labels of authors and of people."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCANMIX_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "data"
    clean = layouts.cifar10(root)
    worse = [(label + 1) % 10 for label in clean]
    layouts.human(root / "CIFAR-10_human.pt", {"clean_label": clean, "worse_label": worse})
    (root / "noise").mkdir()
    (root / "noise" / "0.20.json").write_text(json.dumps({"noise_labels": [(3 * label + 2) % 10 for label in clean]}))
    return root


@pytest.mark.parametrize("seed", [0, 1])
def test_published_labels_are_those_of_the_images_drawn(data: Path, seed: int) -> None:
    drawn = load("cifar10", root=data, per_class=2, seed=seed)[0]
    rules: dict[str, Callable[[int], int]] = {
        "authors:sym20": lambda label: (3 * label + 2) % 10, "people:worse": lambda label: (label + 1) % 10,
    }  # fmt: skip
    for noise, wrong in rules.items():
        cell = Cell("cross_entropy", noise, seed)
        write_labels(SMALL, [cell], data / "out", data)
        found = json.loads(labels_path(SMALL, cell, data / "out").read_text())["noise_labels"]
        assert found == [wrong(label) for label in drawn.labels.tolist()]
    assert drawn.labels.bincount().tolist() == [2] * 10


def test_labels_that_are_missing_or_of_other_images_are_refused(data: Path) -> None:
    cell = Cell("cross_entropy", "authors:sym20", 0)
    (data / "noise" / "0.20.json").write_text(json.dumps([0] * 39))
    with pytest.raises(UserError, match="39 labels"):
        write_labels(SMALL, [cell], data / "out", data)
    (data / "noise" / "0.20.json").unlink()
    with pytest.raises(UserError, match=r"0\.20\.json cannot be read"):
        write_labels(SMALL, [cell], data / "out", data)
    digits = dataclasses.replace(SMALL, source="digits")
    with pytest.raises(UserError, match="other images than digits"):
        write_labels(digits, [Cell("cross_entropy", "people:worse", 0)], data / "out", data)


def test_a_table_goes_on_from_its_store_where_its_runs_are_not(data: Path) -> None:
    out, said = data / "out", list[str]()
    assert run_table(SMALL, out, 2, TINY, root=data, say=said.append) == {}
    assert len(said) == 2
    runs = [open_run(out / "runs" / "tiny" / cell.name) for cell in chosen_cells(SMALL)]
    assert [run.noise.actual for run in runs] == [pytest.approx(0.9, abs=0.11), 1.0]
    first = (out / "tiny.csv").read_text()
    shutil.rmtree(out / "runs")
    said.clear()
    assert run_table(SMALL, out, 2, TINY, root=data, say=said.append) == {}
    assert said == []
    again = (out / "tiny.csv").read_text()
    for old, new in zip(first.splitlines(), again.splitlines(), strict=True):
        assert old.split(",")[:9] == new.split(",")[:9]
    assert "2 of 2 runs are finished" in (out / "tiny.md").read_text()
    more = dataclasses.replace(SMALL, load={"per_class": 3, "limit_test": 8})
    cells = chosen_cells(SMALL)
    assert set(TableRun(SMALL, out, root=data, overrides=TINY).stored(cells)) == set(cells)
    assert TableRun(more, out, root=data, overrides=TINY).stored(cells) == {}
    longer = {"cross_entropy": ("epochs=2", *NETWORK)}
    assert run_table(SMALL, out, 2, longer, only=["people:worse"], root=data, say=said.append) == {}
    assert len(said) == 1 and said[0].startswith("cross_entropy-people-worse-seed0")


def test_a_table_of_the_paper_on_these_pictures_has_the_runs_of_their_table(data: Path) -> None:
    whole = dataclasses.replace(TABLES["cifar10-small"], load={"per_class": 2, "limit_test": 8})
    part = dataclasses.replace(TABLES["table1-cifar-small"], load=whole.load, thrice=())
    out, cell = data / "out", Cell("cross_entropy", "authors:sym20", 0)
    only = ["cross_entropy", "authors:sym20"]
    assert run_table(dataclasses.replace(whole, thrice=()), out, 1, TINY, only=only, root=data) == {}
    assert (out / "runs" / "cifar10-small" / cell.name).is_dir()
    done = TableRun(part, out, root=data, overrides=TINY)
    assert list(done.stored(chosen_cells(part))) == [cell]
    done.write()
    page = (out / "table1-cifar-small.md").read_text()
    assert "1 of 30 runs are finished." in page and "The table took" not in page
    assert "They are for cifar10: 50,000 training and 10,000 test images; PreAct-ResNet-18" in page.replace("\n", " ")
    assert "| cross_entropy | 86.8 / 82.7 | 79.4 / 57.9 |" in page, "no difference: the data are other"


def test_runs_told_the_noise_are_kept_apart() -> None:
    oracle = find_table("table6", scale="cifar-small", oracle=True)
    assert (oracle.name, oracle.runs) == ("table6-cifar-small-oracle", "cifar10-small-oracle")


def test_what_a_small_table_has_otherwise_is_its_own() -> None:
    found = differences(TABLES["table6-cifar-small"])
    assert "1,000 training images of each class and 5,000 test images" in found
    assert "a PreAct-ResNet of 32 64 128 channels and blocks 1 1 1, stem of stride 2" in found
    epochs = resolve("scanmix", "cifar10", "cifar10-small/any/scanmix").build_method().epochs
    assert f"scanmix {epochs}." in found
    assert differences(TABLES["cifar10-small"]) == ""


def test_the_command_says_first_how_long_it_takes(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (data / "train").mkdir()
    for split, count in (("train", 3), ("test", 2)):
        for label, name in enumerate(("hat", "shoe")):
            for number in range(count):
                layouts.picture(data / "photos" / split / name / f"{number}.jpg", label)
    table = dataclasses.replace(
        TABLES["clothing-small"], name="tiny-photos", load={"size": 16}, methods=("cross_entropy",), noises=("none",)
    )
    monkeypatch.setitem(TABLES, "tiny-photos", table)
    missing = CliRunner().invoke(app, ["reproduce", "tiny-photos"])
    assert missing.exit_code == 2 and "needs --root" in missing.output
    line = ["reproduce", "tiny-photos", "--root", str(data / "photos"), "--precision", "bf16-mixed"]
    shown = CliRunner().invoke(app, [*line, "--dry-run"])
    assert shown.exit_code == 0, shown.output
    assert f"scanmix train {data / 'photos'} --size=16 --precision=bf16-mixed" in shown.stdout
    assert "1 of 1 are to be run: 0.0 to 0.0 hours, 2 at once, measured here." in shown.stdout


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_method_of_a_protocol_has_its_recipe(name: str) -> None:
    table = TABLES[name]
    for method in table.methods:
        cell = Cell(method, table.noises[0], 0)
        assert table.recipe(cell) == f"{name}/any/{method}"
        work = TableRun(table, Path("results"), root=Path("data"))
        assert f"--recipe={name}/any/{method}" in work.arguments(cell)


def test_a_seed_draws_the_same_images_for_every_noise() -> None:
    """Only then are self-supervised stages shared by all columns; one of them is an even draw of people's labels."""
    table = TABLES["cifar10-small"]
    assert {table.data(noise) for noise in table.noises} == {"cifar10"}
    assert set(table.labels) == set(table.noises) and len(table.noises) == 12


def test_the_best_methods_have_three_seeds() -> None:
    cells = chosen_cells(TABLES["cifar10-small"])
    assert len(cells) == 13 * 12 + 2 * 7 * 12 == len(set(cells))
    assert {cell.seed for cell in cells if cell.method == "mixup"} == {0}
    assert {cell.seed for cell in cells if cell.method == "scanmix"} == {0, 1, 2}
    assert [cell.seed for cell in cells] == sorted(cell.seed for cell in cells)
    few = chosen_cells(TABLES["cifar10-small"], ["ssr", "worse", "seed1"])
    assert few == [Cell("ssr", "people:worse", 1)]
    with pytest.raises(UserError, match="seed3"):
        chosen_cells(TABLES["cifar10-small"], ["seed3"])
    assert torch.tensor([cell.seed for cell in cells]).bincount().tolist() == [156, 84, 84]


def test_a_table_of_short_runs_has_the_mean_of_its_last_three_epochs(data: Path) -> None:
    """Ten epochs of ten would be all of them, the first among them."""
    table = dataclasses.replace(SMALL, averaged=3, noises=("people:worse",))
    assert run_table(table, data / "out", 1, {"cross_entropy": ("epochs=5", *NETWORK)}, root=data) == {}
    curve = open_run(data / "out" / "runs" / "tiny" / "cross_entropy-people-worse-seed0").accuracies
    head, row = (line.split(",") for line in (data / "out" / "tiny.csv").read_text().splitlines())
    assert float(row[head.index("last3")]) == pytest.approx(sum(curve[-3:]) / 3, abs=1e-5)
    assert "mean of the last three epochs" in (data / "out" / "tiny.md").read_text().replace("\n", " ")
    assert [TABLES[name].averaged for name in PROTOCOLS] == [3, 3, 3]


def test_what_an_image_costs_is_measured_once_for_each_network(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []

    def fake(settings: RunSettings, examples: Examples) -> Cost:
        measured.append(f"{settings.method} {settings.processes.precision} {len(examples)}")
        return Cost(Passes(forward_backward=2.0), 0.0, 1)

    monkeypatch.setattr("scanmix.reproduce.running.measure", fake)
    table = dataclasses.replace(SMALL, methods=("cross_entropy", "mixup"))
    work = TableRun(table, data / "out", root=data, precision="bf16-mixed")
    cells = chosen_cells(table)
    taken = estimates(work, cells)
    assert measured == ["mixup bf16-mixed 20"]  # both methods have the network of CIFAR-10's recipes
    assert set(taken) == set(cells) and len(set(taken.values())) == 1
    assert taken[cells[0]] == (300 * 20 * 2.0, 300 * 20 * 2.0)
