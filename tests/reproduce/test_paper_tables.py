"""The paper's tables by name: their cells, recipes, figures; what a cell is made of; the store of runs."""

import dataclasses
from pathlib import Path

import pytest
from typer.testing import CliRunner

from scanmix.cli import app
from scanmix.config import UserError, load_recipe, recipe_names
from scanmix.methods import METHODS
from scanmix.reproduce import TABLES, Cell, find_cell, find_table
from scanmix.reproduce.explain import explained, origins
from scanmix.reproduce.paper import notes, paper_says, published
from scanmix.reproduce.store import append, read_store
from scanmix.reproduce.table_run import TableRun
from scanmix.reproduce.tables import short

TOLD = (
    "unlabeled_weight", "clean_threshold", "loss_memory", "confidence_weight", "mixup_alpha", "second_weighting",
    "regularization",
)  # fmt: skip
"""What methods set by a noise they are told."""


@pytest.mark.parametrize(
    ("name", "data", "scale", "found"),
    [
        ("table6", "cifar10", "paper", "table6-cifar10"),
        ("table6", None, "small", "table6-small"),
        ("table1", None, "cifar-small", "table1-cifar-small"),
        ("table3", None, "paper", "table3-red-mini-imagenet"),
        ("digits-small", None, "paper", "digits-small"),
        ("table1-cifar100", None, "paper", "table1-cifar100"),
    ],
)
def test_a_table_is_found_by_what_it_is_called(name: str, data: str | None, scale: str, found: str) -> None:
    assert find_table(name, 2, data, scale).name == found


def test_a_table_of_several_data_sets_asks_which() -> None:
    with pytest.raises(UserError, match="choose one with --data: cifar10, cifar100; or --scale small, cifar-small"):
        find_table("table1")
    with pytest.raises(UserError, match=r"unknown table 'table6-cifar11'; did you mean 'table6-cifar10'"):
        find_table("table6", data="cifar11")


def test_every_printed_figure_has_a_cell_and_every_cell_of_the_paper_a_figure() -> None:
    for table in TABLES.values():
        if table.paper is None or table.name.endswith("-small"):
            continue
        name, data = table.paper
        printed = published()[name][data]
        assert set(printed) == set(table.methods)
        columns = {short(noise) for noise in table.noises}
        found = [figures.get("best") or figures["rog"] for figures in printed.values()]
        assert all(set(figures) <= columns for figures in found)
        assert set().union(*found) == columns


def test_every_row_of_the_paper_has_its_methods_or_is_listed_as_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, shown = published()["rows"], CliRunner().invoke(app, ["reproduce", "--list-missing"])
    assert [len([row for row in rows.values() if number in row["tables"]]) for number in range(1, 7)] == [
        14, 7, 6, 12, 9, 4,
    ]  # fmt: skip
    for number in range(1, 7):
        printed = {method for data in published()[f"table{number}"].values() for method in data}
        named = [row["methods"] for row in rows.values() if number in row["tables"]]
        assert printed <= {method for methods in named for method in methods} <= set(METHODS)
        assert all(set(methods) & printed for methods in named if methods)
    lines = [
        f"{name}: {', '.join(f'table{number}' for number in row['tables'])}"
        for name, row in rows.items()
        if not row["methods"]
    ]
    assert shown.exit_code == 0 and shown.stdout.splitlines() == lines
    monkeypatch.setitem(rows, "Gone", {"tables": [3, 5], "methods": ["gone"]})
    assert "Gone: table3, table5" in CliRunner().invoke(app, ["reproduce", "--list-missing"]).stdout
    assert "Gone." in notes(TABLES["table5-clothing1m"])[-1] and "Gone" not in str(notes(TABLES["table1-cifar10"]))


def test_nothing_is_listed_where_nothing_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {name: row for name, row in published()["rows"].items() if row["methods"]}
    monkeypatch.setitem(published(), "rows", kept)
    shown = CliRunner().invoke(app, ["reproduce", "--list-missing"])
    assert (shown.exit_code, shown.output) == (0, "")
    refused = CliRunner().invoke(app, ["reproduce"])
    assert refused.exit_code == 2 and "name a table, such as table1" in refused.output


def test_every_cell_can_be_named_and_explained() -> None:
    count = 0
    for table in TABLES.values():
        if table.paper is None:
            continue
        name, data = table.name.split("-", 1)
        for noise in table.noises:
            for method in table.methods:
                found, cell = find_cell(f"{name}/{data}/{short(noise)}/{method}")
                assert (found, cell) == (find_table(table.name), Cell(method, noise, 0))
                assert len(explained(found, cell)) > 10
                count += 1
    assert count > 100


def test_an_explanation_says_where_each_value_is_from() -> None:
    table, cell = find_cell("table1/cifar100/sym90/scanmix")
    found = {setting.key: setting for setting in explained(table, cell)}
    assert found["warmup"].value == "30 epochs"
    assert found["warmup"].origin.startswith("recipe cifar100/any/scanmix: DivideMix and ScanMix code")
    assert found["clustering.batch_size"].origin.startswith("recipe cifar100/any/scan: ")
    assert found["learning_rate"].origin == "default: section 4.2"
    assert found["views.mean"].origin.startswith("recipe cifar100/any/scan")
    assert paper_says(table, cell) == "table1, cifar100, sym90: best 58.5 %, last 58.2 %"
    after_rog = "table2, cifar100, vgg: rog 45.42 %"
    assert paper_says(*find_cell("table2/cifar100/vgg/d2l")) == after_rog
    assert paper_says(*find_cell("table6/small/sym20/scan")) == "table6, cifar10, sym20: best 77.5 %"
    top1, top5 = "best 80.04 %, top5 93.04 %", "ilsvrc12 75.76 %, ilsvrc12_top5 92.6 %"
    assert paper_says(*find_cell("table4/webvision/given/scanmix")) == f"table4, webvision, given: {top1}, {top5}"
    assert origins(None) == {}


def test_every_table_of_the_paper_has_notes_of_its_own_data() -> None:
    kept = published()["notes"]
    of_the_paper = [table for table in TABLES.values() if table.paper and not table.name.endswith("-small")]
    assert {(name, data) for name in kept for data in kept[name]} == {table.paper for table in of_the_paper}
    assert all(notes(table) for table in of_the_paper)
    assert notes(TABLES["digits-small"]) == []


def test_a_cell_that_needs_no_labels_is_started_where_it_is_kept() -> None:
    shown = CliRunner().invoke(app, ["reproduce", "table6/cifar10/sym90/scan", "--explain", "--oracle"])
    assert shown.exit_code == 0, shown.output
    assert "Run it: scanmix reproduce table6/cifar10/sym90/scan --oracle" in shown.stdout
    assert "runs/table6-cifar10-oracle/scan-symmetric-0.2-seed0" in shown.stdout
    assert "as published by its own authors it has 81.6" in shown.stdout


@pytest.mark.parametrize("option", [["--data=cifar10"], ["--scale=small"], ["--only=scan"]])
def test_a_cell_names_its_data_itself(option: list[str]) -> None:
    refused = CliRunner().invoke(app, ["reproduce", "table6/cifar10/sym90/scanmix", *option])
    assert refused.exit_code == 2 and "names its data itself" in refused.output.replace("\n", " ")


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("cifar100/sym90/dividemix", "unlabeled_weight", 150.0),
        ("cifar10/asym49/dividemix", "confidence_weight", 1.0),
        ("cifar10/sym80/scanmix", "loss_memory", 1),
        ("cifar100/sym90/scan_dividemix", "dividemix.loss_memory", 5),
        ("cifar10/sym80/mentormix", "quantile", 0.2),
        ("cifar100/sym50/co_teaching_plus", "forget_rate", 0.5),
        ("cifar10/sym20/pes_semi", "unlabeled_weight", 5.0),
        ("cifar10/asym40/elr_plus", "memory", 0.9),
    ],
)
def test_what_published_code_is_told_is_in_the_recipe_of_that_noise(name: str, key: str, value: float) -> None:
    method = name.rpartition("/")[2]
    table, cell = find_cell(f"{'table6' if method == 'scan_dividemix' else 'table1'}/{name}", oracle=True)
    found = {setting.key: setting for setting in explained(table, cell)}
    assert found[key].value == value and found[key].origin.startswith(f"recipe {name}: ")
    twin = {setting.key: setting for setting in explained(dataclasses.replace(table, oracle=False), cell)}
    changed = {key for key in found if key not in twin or found[key].value != twin[key].value}
    assert key in changed and changed <= {key, *TOLD}, "the twin differs in what is told alone"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("table1/cifar100/sym90", "is no cell; write TABLE/DATA/COLUMN/METHOD"),
        ("table1/cifar100/sym91/scanmix", "did you mean 'sym90'"),
        ("table1/cifar100/sym90/scanmax", "did you mean 'scanmix'"),
    ],
)
def test_what_is_no_cell_is_told(path: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        find_cell(path)


def test_recipes_chosen_for_one_noise_are_taken_when_asked_for(tmp_path: Path) -> None:
    cell = Cell("dividemix", "symmetric:0.9", 0)
    plain, told = find_table("table1-cifar10"), find_table("table1-cifar10", oracle=True)
    assert plain.recipe(cell) is None and told.recipe(cell) == "cifar10/sym90/dividemix"
    assert told.name == "table1-cifar10-oracle"
    assert "--recipe=cifar10/sym90/dividemix" in TableRun(told, tmp_path).arguments(cell)
    assert TableRun(told, tmp_path).wanted(cell)["settings"]["unlabeled_weight"] == 50


def test_a_recipe_for_one_noise_is_marked_and_has_a_twin_that_is_not() -> None:
    for name in recipe_names():
        data, noise, method = name.split("/")
        recipe = load_recipe(name)
        assert recipe.get("oracle", False) == (noise not in ("any", "fast")), name
        assert f"{data}/any/{method}" in recipe_names() and method in METHODS


def test_web_noise_is_a_variant_of_the_data(tmp_path: Path) -> None:
    table, cell = find_cell("table3/red-mini-imagenet/web40/scanmix")
    words = TableRun(table, tmp_path, root=Path("/data")).arguments(cell)
    assert words[:3] == ["train", "red-mini-imagenet:0.4", "--root=/data"]
    assert "--noise=none" in words and words[-1].endswith("scanmix-web-0.4-seed0")


def test_the_store_takes_each_run_once(tmp_path: Path) -> None:
    path = tmp_path / "store.jsonl"
    one = {"table": "t", "method": "m", "noise": "n", "seed": 0, "settings": "a", "last": 0.5}
    append(path, [one])
    before = path.read_text()
    append(path, [one, one | {"seed": 1}])
    assert path.read_text().startswith(before)
    assert [row["seed"] for row in read_store(path)] == [0, 1]
    path.write_text(before + "half a li")
    with pytest.raises(UserError, match=r"store.jsonl, line 2 is no JSON"):
        append(path, [one])
