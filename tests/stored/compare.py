"""Comparing what is made now with what a version has stored."""

import csv
import io
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.stored.bits import digest, machine, summary, tensors

REL, ABS = 1e-4, 1e-6
"""Tolerances of the golden curves, for results in floating point of another processor."""
HALF = 2**-9
"""Two steps of half precision, in which a run keeps losses and probabilities: what rounding may add in its tables."""
JUDGED = ("suggested", "p_clean", "confidence", "margin", "kind", "suggestion", "reason", "expected_wrong")
"""Columns of labels.csv that the noise model gives since 0.2.0: runs of older versions are judged by it, too."""
SINCE = {"network": {"stem_norm"}, "processes": {"compiled"}, "settings": {"propagate_classes", "reg_covar"}}
"""Settings that runs of 0.1.0 did not have, by section."""
Files = dict[str, tuple[bytes, int]]


@dataclass(frozen=True)
class Place:
    """A copy of what a version has stored; commands run in it.

    Attributes:
        folder: of the copy.
        about: what `about.json` says.
    """

    folder: Path
    about: dict[str, Any]

    @property
    def exact(self) -> bool:
        """Whether results in floating point must be the same to the bit."""
        return bool(self.about["machine"] == machine())

    def words(self, name: str, out: str | None = None) -> list[str]:
        """The command that made a run, and where it is to go.

        The network of 0.1.0 had no batch norm after its first convolution, and its recipes do not say so.
        """
        *words, folder = self.about["commands"][name]
        older = ["--set", "network.stem_norm=false"] if "photos" in words else []
        return [*words[:2], *older, *words[2:], out or folder]

    def as_made(self, text: str) -> str:
        """A text with the paths of the place where the files were made."""
        return text.replace(str(self.folder), self.about["made_in"])


def files(folder: Path) -> Files:
    """Bytes and time of every file below a folder."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Lines of JSON but for what a clock says."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in line.items() if not key.startswith("seconds")} for line in lines]


def rows_of(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def settings_of(path: Path) -> dict[str, Any]:
    """All of a run.toml but the versions of the software."""
    return {key: value for key, value in tomllib.loads(path.read_text(encoding="utf-8")).items() if key != "versions"}


def same_settings(now: Path, then: Path) -> None:
    """Two run.toml are equal, but for the versions of the software and for settings that are newer than the second."""
    found, kept = settings_of(now), settings_of(then)
    assert found.pop("labels", None) == {"trust_decided": True}, "since 0.2.0"
    found.pop("trusted_fingerprint", None)
    for section, since in SINCE.items():
        newer = found[section].keys() - kept[section].keys()
        assert newer <= since, "since 0.2.0"
        found[section] = {key: value for key, value in found[section].items() if key not in newer}
    assert found == kept


def table_of(text: str) -> list[dict[str, Any]]:
    """Rows of a CSV by id or path, numbers as numbers; what the noise model gives is left out."""
    rows = [{key: number(cell) for key, cell in row.items()} for row in csv.DictReader(io.StringIO(text, newline=""))]
    rows = [{key: cell for key, cell in row.items() if key not in JUDGED} for row in rows]
    return sorted(rows, key=lambda row: str(row.get("id", row.get("path"))))


def same_rows(now: str, then: str, rel: float = REL, abs: float = ABS) -> None:
    """Texts are equal, numbers nearly so."""
    for one, other in zip(table_of(now), table_of(then), strict=True):
        numbers = {key: value for key, value in other.items() if isinstance(value, float)}
        assert {key: one[key] for key in numbers} == pytest.approx(numbers, rel=rel, abs=abs)
        assert {**one, **numbers} == other


def number(cell: str) -> Any:
    try:
        return float(cell)
    except ValueError:
        return cell


def same_table(place: Place, found: Path, kept: Path) -> None:
    now, then = place.as_made(found.read_bytes().decode()), kept.read_bytes().decode()
    if place.exact:
        assert table_of(now) == table_of(then)
    else:
        same_rows(now, then, HALF, HALF / 4)


def same_tensors(place: Place, found: Path, kept: Path) -> None:
    now, then = tensors(found), tensors(kept)
    if place.exact:
        assert digest(now) == digest(then)
        return
    assert now.keys() == then.keys()
    for name, tensor in then.items():
        assert torch.allclose(now[name].double(), tensor.double(), rtol=REL, atol=1e-5), name


def same_results(place: Place, found: Path, kept: Path) -> None:
    """Curves, model and labels of a run, computed anew, are those that were stored."""
    now, then = lines_of(found / "metrics.jsonl"), lines_of(kept / "metrics.jsonl")
    newer = {key for key in now[-1] if key not in then[-1]}
    assert newer <= {"balanced_accuracy", "classes_never_predicted"}, "since 0.2.0"
    now = [{key: value for key, value in line.items() if key not in newer} for line in now]
    assert len(now) == len(then)
    for one, other in zip(now, then, strict=True):
        assert one == (other if place.exact else pytest.approx(other, rel=REL, abs=ABS)), f"epoch {other['epoch']}"
    same_tensors(place, found / "model" / "model.safetensors", kept / "model" / "model.safetensors")
    if (kept / "labels.csv").is_file():
        same_table(place, found / "labels.csv", kept / "labels.csv")
    if (kept / "checkpoint").is_dir():
        same_state(place, found, summary(kept / "checkpoint" / "last.pt"))
    if (kept / "last.json").is_file():
        same_state(place, found, json.loads((kept / "last.json").read_text(encoding="utf-8")))


def same_state(place: Place, run: Path, then: dict[str, Any]) -> None:
    """The last checkpoint is of the same settings and data, and where that can be, of the same bits."""
    now = summary(run / "checkpoint" / "last.pt")
    assert (now["identity"], now["epoch"]) == (then["identity"], then["epoch"])
    assert not place.exact or now == then
