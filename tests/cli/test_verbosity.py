"""How much a command says, numbers for scripts, and completion of the shell."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from scanmix.cli import app
from scanmix.methods import METHODS
from scanmix.training import open_run

TINY = [
    "--method", "cross_entropy", "--set", "epochs=1", "--set", "network.widths=[4]", "--set", "network.blocks=[1]",
    "--set", "network.stem_stride=2", "--per-class", "4", "--limit-test", "30", "--threads", "1",
]  # fmt: skip


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCANMIX_CACHE", str(tmp_path / "cache"))
    return tmp_path


def typed(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def test_quiet_prints_errors_alone() -> None:
    done = typed("train", "digits", *TINY, "--out", "run", "-q")
    assert (done.exit_code, done.output) == (0, "")
    assert open_run("run").finished
    failed = typed("train", "digist", "-q")
    assert failed.exit_code == 2 and failed.stdout == ""
    assert failed.stderr.startswith("Error: no folder") and len(failed.stderr.splitlines()) == 1
    both = typed("methods", "-q", "-v")
    assert both.exit_code == 2 and "leave one of them out" in both.stderr


def test_verbose_also_prints_versions_and_where_an_error_arose() -> None:
    plain, more = typed("methods"), typed("methods", "-v")
    assert more.stdout == plain.stdout, "what is read by others is the same"
    assert "torch 2." in more.stderr and "seconds by the clock" in more.stderr and plain.stderr == ""
    failed = typed("train", "digist", "-v")
    assert failed.exit_code == 2
    assert "Traceback" in failed.stderr and "check_source" in failed.stderr
    assert failed.stderr.splitlines()[-1].startswith("Error: no folder")
    assert "Traceback" not in typed("train", "digist").stderr


@pytest.mark.parametrize("name", [each.callback.__name__ for each in app.registered_commands if each.callback])
def test_every_command_takes_both(name: str) -> None:
    shown = typed(name, "--help").stdout
    assert "--quiet" in shown and "--verbose" in shown


def test_numbers_for_a_script() -> None:
    assert typed("train", "digits", *TINY, "--out", "run").exit_code == 0
    said = typed("evaluate", "run", "--json", "found.json")
    assert said.exit_code == 0, said.output
    found = json.loads(Path("found.json").read_text())
    assert found["num_examples"] == 30 and len(found["class_accuracy"]) == 10
    assert found["accuracy"] == open_run("run").last_accuracy
    low, high = found["accuracy_interval"]
    assert low < found["accuracy"] < high and f"within {100 * low:.1f} to {100 * high:.1f} %" in said.stdout
    assert found["never_predicted"], "one epoch is little"
    assert f"images of them: {', '.join(found['never_predicted'])}" in said.stderr
    assert typed("methods", "--json", "methods.json").exit_code == 0
    methods = json.loads(Path("methods.json").read_text())
    assert [each["method"] for each in methods] == list(METHODS)
    assert {"setting": "tau", "default": "", "meaning": ""}.keys() == methods[0]["settings"][0].keys()
    assert typed("methods", "ssr", "--json", "one.json").exit_code == 0
    assert [each["method"] for each in json.loads(Path("one.json").read_text())] == ["ssr"]
    refused = typed("evaluate", "run", "--json", "nowhere/found.json")
    assert refused.exit_code == 2 and "no such folder" in refused.stderr


def test_a_run_goes_on_with_other_threads() -> None:
    assert typed("train", "digits", *TINY, "--out", "run").exit_code == 0
    ended = typed("resume", "run", "--threads", "2")
    assert ended.exit_code == 0 and "finished already" in ended.stdout


def test_the_shell_completes_commands() -> None:
    assert "--install-completion" in typed("--help").stdout
    completed = CliRunner().invoke(
        app, [], env={"_SCANMIX_COMPLETE": "complete_bash", "COMP_WORDS": "scanmix rep", "COMP_CWORD": "1"}
    )
    assert set(completed.stdout.split()) >= {"report", "reproduce"}
