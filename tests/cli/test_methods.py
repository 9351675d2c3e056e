"""`scanmix methods`: groups, what was measured, and the table for a script."""

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from scanmix.cli import app
from scanmix.config import GROUPS
from scanmix.methods import METHODS

RESULTS = Path(__file__).parents[2] / "results"


def measured() -> set[str]:
    """Methods with a row in `results/`: runs that tables count, and tables with a column of methods."""
    lines = (RESULTS / "store.jsonl").read_text(encoding="utf-8").splitlines()
    names = {json.loads(line)["method"] for line in lines}
    for path in RESULTS.glob("*.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            names |= {row.get("method", "") for row in csv.DictReader(file)}
    return names & METHODS.keys()


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_a_group_and_says_whether_it_was_measured(name: str) -> None:
    about = METHODS[name].about
    assert about.group in GROUPS and about.group != "others", "choose one of scanmix.config.GROUPS"
    assert about.measured == (name in measured()), "About.measured says what results/ has"


def test_no_group_is_empty_but_that_of_added_methods() -> None:
    assert {it.about.group for it in METHODS.values()} == set(GROUPS) - {"others"}


def test_every_method_stands_once_below_the_title_of_its_group() -> None:
    said = CliRunner().invoke(app, ["methods"]).stdout
    starts = [said.index(f"{title}: {meaning}") for group, (title, meaning) in GROUPS.items() if group != "others"]
    assert starts == sorted(starts) and said.startswith("The paper's own: ")
    tables = [said[start:stop] for start, stop in zip(starts, [*starts[1:], None], strict=True)]
    for table, group in zip(tables, GROUPS, strict=False):
        rows = [[cell.strip() for cell in line.split("│")] for line in table.splitlines() if line.startswith("│")]
        listed = {cells[1]: cells[7] for cells in rows if cells[1]}
        wanted = [name for name, it in METHODS.items() if it.about.group == group]
        assert list(listed) == wanted
        assert [word == "yes" for word in listed.values()] == [METHODS[name].about.measured for name in wanted]


def test_a_script_gets_all_methods_in_their_own_order(tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["methods", "--json", str(tmp_path / "all.json")]).exit_code == 0
    found = json.loads((tmp_path / "all.json").read_text())
    assert [each["method"] for each in found] == list(METHODS)
    for each in found:
        about = METHODS[each["method"]].about
        assert list(each) == ["method", "idea", "paper", "networks", "labels", "cost", "group", "measured", "settings"]
        assert (each["group"], each["measured"]) == (about.group, about.measured)
