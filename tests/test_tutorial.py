"""The tutorial notebook: its cells run one after the other, and end as it says."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "tutorial.ipynb"


def cells() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in found if cell["cell_type"] == "code"]


def gain(words: str) -> float:
    """Points of accuracy between `accuracy 58.6% before, 84.7% after`."""
    before, after = map(float, re.findall(r"([\d.]+)%", words))
    return after - before


def test_it_is_stored_with_what_it_shows() -> None:
    shown = [output for cell in cells() for output in cell["outputs"]]
    assert all(output["output_type"] == "execute_result" for output in shown), "no error and no warning"
    pages = [page for output in shown for page in output["data"].get("text/html", [])]
    assert "data:image/png;base64," in "".join(pages)
    (words,) = ("".join(o["data"]["text/plain"]) for o in shown if "before," in "".join(o["data"]["text/plain"]))
    assert gain(words) > 10


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_its_cells_run_and_decisions_make_a_better_classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    shown = []
    for cell in cells():
        *statements, last = ast.parse("".join(cell["source"])).body
        exec(compile(ast.Module(statements, []), "<cell>", "exec"), names)
        if isinstance(last, ast.Expr):
            shown.append(eval(compile(ast.Expression(last.value), "<cell>", "eval"), names))
        else:
            exec(compile(ast.Module([last], []), "<cell>", "exec"), names)
    assert len(shown) == sum(bool(cell["outputs"]) for cell in cells())
    (words,) = (value for value in shown if isinstance(value, str) and "before," in value)
    assert gain(words) > 10
