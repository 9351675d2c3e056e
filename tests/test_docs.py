"""What README and docs say about names, fields, commands and files is true of the code."""

import ast
import dataclasses
import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup
from typer.testing import CliRunner

import scanmix
from scanmix.cli import app
from scanmix.cli.shell import settings_from
from scanmix.config import GROUPS, UserError, dotted_keys, dump, merge, parse_assignment, recipe_names
from scanmix.data.noise import parse_noise
from scanmix.methods import METHODS
from scanmix.training import Run, RunSettings, resolve
from scanmix.training.finetune import METHOD, RECIPES

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FIDELITY, METHOD_PAGE = ROOT / "docs" / "fidelity.md", ROOT / "docs" / "methods.md"
ASSIGNMENT = re.compile(r"([a-z_.]+)=(.+)", re.DOTALL)
NOISE_ARGUMENT = re.compile(r"add_noise\((\w+)=(.+)\)")
PLAIN_DATA = "some-data-without-a-recipe"
ADDED = "taylor"
"""The method that `new-method.md` adds."""
PUBLISHED = str(ROOT / "tests" / "published.toml")  # without it, `folder/any/scanmix` is taken


FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language; "" is none."""
    return [content for name, content in FENCED.findall(text) if name == language]


def ticked(text: str) -> list[str]:
    """Everything between single backticks, outside of fenced blocks."""
    return re.findall(r"`([^`\n]+)`", FENCED.sub("", text))


def table_rows(text: str) -> Iterator[dict[str, str]]:
    """Every row of every table, by the header of its column."""
    header: list[str] = []
    for line in text.splitlines():
        if not line.startswith("|"):
            header = []
            continue
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if not header:
            header = cells
        elif set(line) - set("|- "):
            yield dict(zip(header, cells, strict=True))


def entries(text: str) -> Iterator[dict[str, str]]:
    """Every section of the third level that is a list of `- **Key**: text`: its keys, "Topic" and, if numbered, "#"."""
    for section in re.split(r"^(?=##+ )", text, flags=re.MULTILINE):
        heading, _, body = section.partition("\n")
        found = re.findall(r"^- \*\*([\w ]+)\*\*: (.+?)(?=\n\S|\n\n|\Z)", body.strip(), re.DOTALL | re.MULTILINE)
        if heading.startswith("### ") and found:
            number, dot, topic = heading.removeprefix("### ").partition(". ")
            row = {key: " ".join(value.split()) for key, value in found}
            assert len(row) == len(found), heading
            yield {"#": number, "Topic": topic} | row if dot else {"Topic": number} | row


def defaults() -> dict[str, Any]:
    """Every field of ScanMix, the network and the views with its default."""
    settings = resolve("scanmix", PLAIN_DATA, PUBLISHED)
    found: dict[str, Any] = {}

    def walk(prefix: str, instance: Any) -> None:
        for field in dataclasses.fields(instance):
            value = getattr(instance, field.name)
            found[prefix + field.name] = value
            if dataclasses.is_dataclass(value):
                walk(f"{prefix}{field.name}.", value)

    walk("", settings.build_method())
    walk("network.", settings.network)
    walk("views.", settings.views)
    return found


def chosen(assignment: str) -> Any:
    """What the code makes of a `field=value`."""
    settings = resolve("scanmix", PLAIN_DATA, PUBLISHED, parse_assignment(assignment))
    table = merge(settings.settings, {name: dump(getattr(settings, name)) for name in ("network", "views")})
    value: Any = table
    for part in assignment.partition("=")[0].split("."):
        value = value[part]
    return value


def plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


FIDELITY_TEXT = FIDELITY.read_text(encoding="utf-8")
FIDELITY_ROWS = list(entries(FIDELITY_TEXT))
NUMBERED = [row for row in FIDELITY_ROWS if "#" in row]
DEFAULTS = [
    token
    for row in [*FIDELITY_ROWS, *table_rows(FIDELITY_TEXT)]
    for token in ticked(row.get("Here", ""))
    if "=" in token
]
OTHERS = [token for row in FIDELITY_ROWS for token in ticked(row.get("Field", "")) if "=" in token]


def test_entries_are_numbered_and_each_names_a_field_or_says_why_not() -> None:
    assert [int(row["#"]) for row in NUMBERED] == list(range(1, len(NUMBERED) + 1))
    assert len(NUMBERED) >= 30
    for row in NUMBERED:
        assert row.keys() >= {"Paper", "Published code", "Here", "Field"}, row["Topic"]
        field = row["Field"]
        assert ticked(field) or "Not offered" in field or field.startswith("Nothing to select"), row["Topic"]


def test_every_entry_of_our_own_has_a_default_and_a_reason() -> None:
    own = [row for row in FIDELITY_ROWS if "#" not in row]
    assert len(own) >= 12
    for row in own:
        assert row.keys() >= {"Here", "What it does", "Why"}, row["Topic"]


@pytest.mark.parametrize("token", sorted(set(DEFAULTS)))
def test_a_default_in_the_tables_is_the_default_in_the_code(token: str) -> None:
    if noise := NOISE_ARGUMENT.fullmatch(token):
        parameter = inspect.signature(scanmix.add_noise).parameters[noise[1]]
        assert str(parameter.default).lower() == noise[2]
        return
    match = ASSIGNMENT.fullmatch(token)
    assert match, token
    assert chosen(token) == plain(defaults()[match[1]])


@pytest.mark.parametrize("token", sorted(set(OTHERS)))
def test_the_other_choice_is_one_that_the_code_takes(token: str) -> None:
    if noise := NOISE_ARGUMENT.fullmatch(token):
        assert noise[1] in inspect.signature(scanmix.add_noise).parameters
        return
    match = ASSIGNMENT.fullmatch(token)
    assert match, token
    assert chosen(token) != plain(defaults()[match[1]]), f"{token} is the default"


def test_a_wrong_field_or_value_in_the_tables_would_be_found() -> None:
    for wrong in ("entropy_wait=2.0", "clustering.epochs=-1", 'agreement="mine"'):
        with pytest.raises(UserError):
            chosen(wrong)
    assert chosen("entropy_weight=2.0") != defaults()["entropy_weight"]


def rival_choices() -> list[tuple[str, str]]:
    """Every `field=value` on the page of rivals, with each method that its section is about."""
    sections = re.split(r"^### ", (ROOT / "docs" / "rivals.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return [
        (method, token)
        for section in sections
        for method in re.findall(r"`(\w+)`", section.partition("\n")[0])
        for token in ticked(section)
        if ASSIGNMENT.fullmatch(token)
    ]


@pytest.mark.parametrize(("method", "token"), rival_choices())
def test_a_choice_on_the_page_of_rivals_is_one_that_its_method_takes(method: str, token: str) -> None:
    key = token.partition("=")[0]
    found = resolve(method, PLAIN_DATA, None, parse_assignment(token)).settings
    assert found[key] != dump(METHODS[method]()).get(key), f"{token} is the default"


def test_the_page_of_rivals_has_choices() -> None:
    assert {("mentormix", 'weight_statistics="running"'), ("ssr_plus", "include_self=false")} <= set(rival_choices())


def test_field_names_without_a_value_exist_too() -> None:
    """Outside the tables: single words with an underscore or a dot that look like fields."""
    known = set(defaults()) | {key for method in METHODS.values() for key in dotted_keys(method)}
    known |= {"p_clean", *METHODS, "network.", "views.", "dividemix."}
    text = FIDELITY.read_text(encoding="utf-8")
    names = {token for token in ticked(text) if re.fullmatch(r"[a-z]+(?:[_.][a-z]+)+", token)}
    assert names <= known, sorted(names - known)
    assert names, "none found: the pattern is wrong"


def test_the_page_of_methods_has_a_section_for_each_with_its_state() -> None:
    text = METHOD_PAGE.read_text(encoding="utf-8")
    made = CliRunner().invoke(app, ["methods", "--markdown"]).stdout
    assert text == made, "write it anew: scanmix methods --markdown > docs/methods.md"
    sections = re.split(r"^#{2,3} ", text, flags=re.MULTILINE)[1:]
    titles = [title for title, _ in GROUPS.values()]
    assert [section.partition("\n")[0] for section in sections if section.partition("\n")[0] in titles] == titles[:-1]
    sections = [section for section in sections if section.partition("\n")[0] not in titles]
    assert sorted(section.partition("\n")[0] for section in sections) == sorted(METHODS)
    for section in sections:
        name = section.partition("\n")[0]
        state = re.search(r"state: (.*?)^- ", section, re.MULTILINE | re.DOTALL)
        assert state, name
        assert set(ticked(state[1])) == {field.name for field in dataclasses.fields(METHODS[name].State)}


def command_lines() -> list[tuple[str, str]]:
    """Every `scanmix ...` in a fenced block or between backticks: (page, line)."""
    found: dict[tuple[str, str], None] = {}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        fenced = [line.strip() for block in blocks(text, "") for line in block.splitlines()]
        for line in [*fenced, *ticked(text)]:
            if re.match(r"scanmix( |$)", line) and not line.startswith("scanmix COMMAND"):
                found[page.name, line] = None
    return list(found)


def test_there_are_command_lines() -> None:
    assert {page for page, _ in command_lines()} >= {"README.md", "commands.md", "own-data.md"}


@pytest.mark.parametrize(("page", "line"), command_lines())
def test_a_command_line_is_one_that_the_program_takes(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    if not words:
        return
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    context = group.make_context("scanmix", words[:1])
    command = group.get_command(context, words[0])
    assert command is not None, f"no command {words[0]}"
    if not words[1:] and any(param.required for param in command.params):
        return  # the command is named in a sentence
    given = command.make_context(words[0], words[1:], parent=context).params
    if words[0] == "methods" and given["name"]:
        assert given["name"] in {*METHODS, "[NAME]", ADDED}
    if words[0] != "train" or given["method"] == ADDED:
        return
    parse_noise(given["noise"])
    recipe = given["recipe"] if given["recipe"] in recipe_names() else None
    assert recipe or not given["recipe"] or given["recipe"].endswith(".toml")
    settings = settings_from(given["set_"] or ())
    if given["finetune"]:
        network = {"network": {"kind": "timm", "name": given["finetune"].removeprefix("timm:")}}
        resolve(given["method"] or METHOD, RECIPES, recipe, merge(network, settings))
    else:
        resolve(given["method"], PLAIN_DATA, recipe, settings)


def test_recipes_in_the_docs_are_valid(tmp_path: Path) -> None:
    found = 0
    for page in PAGES:
        if page.name == "new-method.md":
            continue  # its recipe is for the method that it adds, see below
        for block in blocks(page.read_text(encoding="utf-8"), "toml"):
            (tmp_path / "mine.toml").write_text(block, encoding="utf-8")
            assert isinstance(resolve(None, PLAIN_DATA, str(tmp_path / "mine.toml")), RunSettings)
            found += 1
    assert found


@pytest.mark.long
def test_the_page_that_adds_a_method_adds_one(tmp_path: Path) -> None:
    """One file, one line, one recipe, put into a copy of the package: it trains, resumes, audits and predicts."""
    text = (ROOT / "docs" / "new-method.md").read_text(encoding="utf-8")
    (code,), (recipe,) = blocks(text, "python"), blocks(text, "toml")
    package = tmp_path / "scanmix"
    shutil.copytree(ROOT / "src" / "scanmix", package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "methods" / "taylor.py").write_text(code, encoding="utf-8")
    (package / "recipes" / "cifar10" / "any" / "taylor.toml").write_text(recipe, encoding="utf-8")
    dictionary = package / "methods" / "__init__.py"
    (line,) = re.findall(r'`("taylor": Taylor,)`', text)
    source = dictionary.read_text(encoding="utf-8").replace('"mixup": MixUp,', f'"mixup": MixUp,\n    {line}')
    dictionary.write_text(source.replace("\n__all__", "\nfrom scanmix.methods.taylor import Taylor\n\n__all__", 1))

    def say(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "scanmix", *words], cwd=tmp_path, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "Feng et al., IJCAI 2020" in say("methods", "taylor") and "Recipes for: cifar10" in say("methods", "taylor")
    say("train", "digits", "--per-class", "8", "--method", "taylor", "--set", "epochs=2", "--out", "run")
    assert "cross_entropy" in (tmp_path / "run" / "run.toml").read_text(), "the recipe of the data"
    say("resume", "run")
    say("audit", "run")
    say("doctor", "digits", "--method", "taylor")


def test_python_in_the_docs_uses_names_that_exist() -> None:
    found = 0
    for page in PAGES:
        for block in blocks(page.read_text(encoding="utf-8"), "python"):
            for node in ast.walk(ast.parse(block)):
                if not (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)):
                    continue
                if node.value.id == "scanmix":
                    assert node.attr in scanmix.__all__
                elif node.value.id == "run":
                    # metrics, settings, folder are set on the instance
                    assert hasattr(Run, node.attr) or f"self.{node.attr} =" in inspect.getsource(Run), node.attr
                found += 1
            for call in [node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Call)]:
                if isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) == "scanmix":
                    signature = inspect.signature(getattr(scanmix, call.func.attr))
                    named = {keyword.arg: None for keyword in call.keywords if keyword.arg}
                    signature.bind(*call.args, **named)
                    assert call.func.attr != "train" or set(named) <= set(signature.parameters)
    assert found


LINKS = [
    (page, target) for page in PAGES
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")) if "://" not in target
]  # fmt: skip


@pytest.mark.parametrize(("page", "target"), LINKS, ids=[f"{page.name}:{target}" for page, target in LINKS])
def test_a_relative_link_leads_somewhere(page: Path, target: str) -> None:
    path, _, anchor = target.partition("#")
    there = page.parent / path if path else page
    assert there.is_file(), target
    if anchor:
        headings = re.findall(r"^#+ (.+)$", there.read_text(encoding="utf-8"), re.MULTILINE)
        slugs = {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}
        assert anchor in slugs, target


def test_every_page_is_in_the_navigation_and_every_entry_is_a_page() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    entries = re.findall(r"^  - [^:]+: (\S+\.md)$", text, re.MULTILINE)
    assert sorted(entries) == sorted(
        page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")
    )


WIDEST = 120
WRAPPED = [
    README,
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "results" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]


@pytest.mark.parametrize("page", WRAPPED, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_line_is_too_wide(page: Path) -> None:
    lines = page.read_text(encoding="utf-8").splitlines()
    wide = [f"line {number} has {len(line)}" for number, line in enumerate(lines, 1) if len(line) > WIDEST]
    assert not wide


def quotations(page: Path) -> list[str]:
    """The paragraphs that are set off by `>`, each on one line."""
    found = re.findall(r"(?:^> .*\n)+", page.read_text(encoding="utf-8"), re.MULTILINE)
    return [" ".join(line.removeprefix("> ") for line in quotation.splitlines()) for quotation in found]


def test_all_pages_give_the_same_answer_on_which_method_to_take() -> None:
    (answer,) = quotations(ROOT / "docs" / "which-method.md")
    assert set(ticked(answer)) <= set(METHODS)
    for page in (README, ROOT / "docs" / "index.md", ROOT / "docs" / "audit.md"):
        assert quotations(page) == [answer], f"{page.name} says otherwise; which-method.md is where it is decided"


def test_the_readme_is_short_and_names_the_methods_of_its_tables() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 130
    named = {row["name"].strip("`") for row in table_rows(text) if "name" in row}
    assert {"cross_entropy", "mixup", "dividemix", "scan", "scan_dividemix", "scanmix"} <= named <= set(METHODS)


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = README.read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    honest: Any = scanmix.train
    short: dict[str, Any] = {
        "epochs": 2, "warmup": 1, "mild_warmup": 0, "minimum_steps": 0, "pretrain": {"epochs": 1},
        "clustering": {"epochs": 1}, "network": {"widths": [4, 8]}, "threads": 1, "progress": False,
    }  # fmt: skip
    monkeypatch.setattr(scanmix, "train", lambda *given, **asked: honest(*given, **asked, **short))
    monkeypatch.setenv("SCANMIX_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    run = names["run"]
    assert run.finished and len(run.audit()) == 18 and (tmp_path / "runs" / "first" / "labels.csv").is_file()
