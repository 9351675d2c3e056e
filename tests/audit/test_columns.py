"""The declared columns: what every audit has, in which order and of which type; the page of docs that lists them."""

import csv
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from scanmix.audit import COLUMNS, Audit, Evidence, score_labels
from scanmix.audit.arrays import evidence_from_arrays
from scanmix.audit.columns import (
    ALWAYS,
    ORIGINS,
    WITH_DECISIONS,
    WITH_DYNAMICS,
    WITH_NEIGHBORS,
    WITH_VOTES,
    columns_page,
    in_order,
    issue_in_words,
)
from scanmix.blocks.label_quality import EVEN, ISSUE_TYPES, MARGIN
from scanmix.cli import app
from scanmix.data.examples import DECIDED
from scanmix.model.dynamics import Snapshot

ROOT = Path(__file__).parents[2]
DTYPES = {str: "O", float: "f", int: "i"}


def evidence(features: bool = False, dynamics: bool = False, decisions: bool = False, votes: bool = False) -> Evidence:
    """Twelve labels of two classes, with as much as is asked for."""
    draw = np.random.default_rng(0)
    probs = draw.dirichlet(np.ones(2), 12)
    found = evidence_from_arrays(np.arange(12) % 2, probs, draw.normal(size=(12, 3)) if features else None)
    more: dict[str, Any] = {}
    if dynamics:
        losses = torch.rand(1, 12, generator=torch.Generator().manual_seed(0)).half()
        more["snapshots"] = [Snapshot(epoch, losses, found.labels.expand(1, -1).int()) for epoch in (1, 2)]
    if decisions:
        more["decided"] = (torch.arange(12) % len(DECIDED)).to(torch.int8)
    if votes:
        more |= {"votes": torch.arange(36).reshape(12, 3) % 2, "annotators": ("al", "bo", "cy")}
    return dataclasses.replace(found, **more)


@pytest.mark.parametrize("features", [False, True])
@pytest.mark.parametrize("dynamics", [False, True])
@pytest.mark.parametrize("decisions", [False, True])
@pytest.mark.parametrize("votes", [False, True])
def test_an_audit_has_the_declared_columns_in_their_order_and_of_their_types(
    features: bool, dynamics: bool, decisions: bool, votes: bool, tmp_path: Path
) -> None:
    found = score_labels(evidence(features, dynamics, decisions, votes))
    present = {
        ALWAYS: True, WITH_NEIGHBORS: features, WITH_DYNAMICS: dynamics, WITH_DECISIONS: decisions, WITH_VOTES: votes,
    }  # fmt: skip
    declared = [column for column in COLUMNS if present[column.when]]
    assert list(found) == [column.name for column in declared]
    for column in declared:
        assert found[column.name].dtype.kind == DTYPES[column.type], column.name
        assert column.type is not str or {type(cell) for cell in found[column.name]} == {str}, column.name
    found.to_csv(tmp_path / "labels.csv")
    with (tmp_path / "labels.csv").open(newline="") as file:
        assert next(csv.reader(file)) == list(found)


def test_what_is_not_declared_is_no_column() -> None:
    table = dict.fromkeys((column.name for column in COLUMNS), 0)
    assert list(in_order(dict(reversed(table.items())))) == list(table)
    with pytest.raises(KeyError, match=r"not declared in .*: colour"):
        in_order({**table, "colour": 0})
    del table["p_clean"]
    with pytest.raises(KeyError, match="p_clean"):
        in_order(table)


def test_kinds_and_origins_are_among_the_declared() -> None:
    asked = evidence(features=True, dynamics=True)
    for change in ({}, {"self_supervised": True}, {"set_aside": torch.arange(12) % 2 == 0}):
        found = score_labels(dataclasses.replace(asked, **change))
        assert set(found["kind"]) <= set(ISSUE_TYPES) and set(found["suggestion"]) <= set(ORIGINS)
    assert issue_in_words("out_of_scope") == "out of scope"
    assert (EVEN, MARGIN) == (1 / 2, 1 / 5), "the sentences of the issue types say so"


def test_the_command_needs_no_run_and_prints_what_stands_in_the_docs() -> None:
    done = CliRunner().invoke(app, ["audit", "--columns"])
    assert done.exit_code == 0 and done.stdout == columns_page() + "\n"
    page = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")
    assert columns_page() in page, "put what `scanmix audit --columns` prints under Columns in docs/audit.md"
    assert all(len(line) <= 120 for line in columns_page().splitlines())


def test_a_path_that_is_no_utf8_is_spelled_out_in_parquet(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    found: Audit = score_labels(dataclasses.replace(evidence(), paths=("p\udcff.png",) * 12))
    found.to_parquet(tmp_path / "labels.parquet")
    assert parquet.read_table(tmp_path / "labels.parquet").column("path").to_pylist() == [r"p\udcff.png"] * 12
