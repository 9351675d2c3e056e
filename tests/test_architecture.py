"""The design's rules about the source itself: layers, sizes, names, and what a method may be told."""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from scanmix.methods import METHODS
from scanmix.methods.ssr import SSR

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "scanmix"
FILES = sorted(PACKAGE.rglob("*.py"))
MAX_FILE, MAX_METHOD_FILE, MAX_FUNCTION = 350, 200, 60
MAX_SCANMIX = 250
"""Lines of `methods/scanmix.py`, with its 42 settings and what each of them adds to its passes."""
BANNED_FILES = {"utils", "util", "helpers", "common", "core", "base", "misc"}
ORACLE = {
    "true_labels", "true_label", "clean_labels", "clean_label",
    "noise_rate", "noise_type", "noise_kind",
}  # fmt: skip
BLIND_FOLDERS = ("methods", "blocks", "pretrain")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def parameters(function: Function | ast.Lambda) -> list[str]:
    given = function.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    return [argument.arg for argument in named if argument is not None]


def oracle_leaks(source: str) -> list[str]:
    """Parameters that would tell a method the truth, settings that would, and reads of true labels."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, Function | ast.Lambda):
            found += [f"line {node.lineno}: parameter {name}" for name in parameters(node) if name in ORACLE]
        if isinstance(node, ast.ClassDef):
            fields = [item.target for item in node.body if isinstance(item, ast.AnnAssign)]
            names = [field.id for field in fields if isinstance(field, ast.Name)]
            found += [f"line {node.lineno}: field {name}" for name in names if name in ORACLE]
        if isinstance(node, ast.Attribute) and node.attr in {"true_labels", "noise"}:
            found.append(f"line {node.lineno}: reads .{node.attr}")
    return found


def lint_imports(source_folder: Path) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys; from importlinter.cli import lint_imports; "
        f"sys.exit(lint_imports(config_filename={str(ROOT / 'pyproject.toml')!r}, no_cache=True))"
    )
    return subprocess.run(
        [sys.executable, "-c", code], cwd=source_folder, env=with_path(source_folder), capture_output=True, text=True
    )


def with_path(folder: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(folder)}


def test_imports_go_down_only() -> None:
    done = lint_imports(PACKAGE.parent)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("data/examples.py", "import scanmix.networks"),
        ("blocks/losses.py", "from scanmix import methods"),
        ("config/__init__.py", "import scanmix.data"),
        ("helpers.py", ""),
    ],
)
def test_the_contract_fails_on_an_import_upwards_or_an_unknown_package(tmp_path: Path, file: str, line: str) -> None:
    shutil.copytree(PACKAGE, tmp_path / "scanmix", ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "scanmix" / file).open("a") as handle:
        handle.write(f"\n{line}\n")
    done = lint_imports(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_are_short(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    limit = MAX_METHOD_FILE if path.parent.name == "methods" else MAX_FILE
    limit = MAX_SCANMIX if path.name == "scanmix.py" else limit
    assert len(source.splitlines()) <= limit
    for function in functions(ast.parse(source)):
        assert function.end_lineno is not None
        length = function.end_lineno - function.lineno + 1
        assert length <= MAX_FUNCTION, f"{function.name} has {length} lines"


OWN_LAZY = {
    "__main__.py": {"scanmix.cli"},  # the first Ctrl-C is caught while it is imported
    # an ONNX file predicts without PyTorch
    "export/loading.py": {"scanmix.distributed.engine", "scanmix.export.encoded", "scanmix.model"},
    "report/findings.py": {"scanmix.review.decisions", "scanmix.review.rows"},  # they bring a server along
}
"""Our own packages that are imported inside functions, outside of the command line, which starts without PyTorch."""
OTHERS_LAZY = {
    "cleanlab", "fcntl", "lightning_fabric", "mlflow", "msvcrt", "onnx", "onnxruntime", "pandas", "pyarrow", "scipy",
    "sklearn", "timm", "torch", "transformers", "wandb",
}  # fmt: skip
"""Packages of others: extras, one system's own, and what takes long to import."""


def lazy_imports(path: Path) -> set[str]:
    """Modules that are imported inside functions."""
    found: set[str] = set()
    for function in functions(ast.parse(path.read_text(encoding="utf-8"))):
        for node in ast.walk(function):
            if isinstance(node, ast.ImportFrom):
                found.add(str(node.module))
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
    return found


def test_no_import_hides_in_a_function_to_dodge_a_layer() -> None:
    for path in FILES:
        name = path.relative_to(PACKAGE).as_posix()
        if name.startswith("cli/"):
            continue
        lazy = lazy_imports(path)
        assert {module for module in lazy if module.startswith("scanmix.")} == OWN_LAZY.get(name, set()), name
        others = {module.partition(".")[0] for module in lazy} - {"scanmix", "importlib"}
        assert others <= OTHERS_LAZY, name


def test_no_file_has_a_name_that_says_nothing() -> None:
    names = {part for path in FILES for part in path.relative_to(PACKAGE).with_suffix("").parts}
    assert not names & BANNED_FILES


@pytest.mark.parametrize("folder", BLIND_FOLDERS)
def test_oracle_rule(folder: str) -> None:
    leaks = {
        path.name: found
        for path in sorted((PACKAGE / folder).rglob("*.py"))
        if (found := oracle_leaks(path.read_text(encoding="utf-8")))
    }
    assert not leaks


@pytest.mark.parametrize(
    "source",
    [
        "def start(self, data, *, noise_rate): ...",
        "async def epoch(true_labels): ...",
        "class ScanMix:\n    noise_type: str = 'symmetric'",
        "f = lambda clean_labels: 1",
        "def epoch(data):\n    return data.true_labels",
    ],
)
def test_oracle_rule_can_fail(source: str) -> None:
    assert oracle_leaks(source)


CHANGED_BY_ANOTHER_PAPER = {
    "co_teaching_plus": "co_teaching", "jocor": "co_teaching", "famus": "dividemix", "augdesc": "dividemix",
}  # fmt: skip
"""A method whose algorithm in its own paper is another paper's with one step, or one loss, changed."""


def inherited_from_another_paper(methods: Mapping[str, Any]) -> list[str]:
    """Methods that subclass a method which is not of their own paper."""
    return [
        f"{name} inherits from {key}"
        for name, method in methods.items()
        for key, other in methods.items()
        if other in method.__mro__[1:]
        and method.about.paper != other.about.paper
        and CHANGED_BY_ANOTHER_PAPER.get(name) != key
    ]


def test_only_a_variant_of_the_same_paper_inherits() -> None:
    assert not inherited_from_another_paper(METHODS)


def test_the_rule_on_inheritance_can_fail() -> None:
    stranger = type("Stranger", (SSR,), {"about": SSR.about._replace(paper="another paper")})
    variant = type("Variant", (SSR,), {})
    methods = {**METHODS, "stranger": stranger, "variant": variant}
    assert inherited_from_another_paper(methods) == ["stranger inherits from ssr"]


def test_the_command_line_starts_without_torch() -> None:
    if not (PACKAGE / "cli.py").exists() and not (PACKAGE / "cli").exists():
        pytest.skip("the command line is not there")
    code = "import sys, scanmix.cli; sys.exit('torch is imported' if 'torch' in sys.modules else 0)"
    done = subprocess.run([sys.executable, "-c", code], env=with_path(PACKAGE.parent), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_config_needs_no_torch() -> None:
    for path in (PACKAGE / "config").rglob("*.py"):
        assert not re.search(r"^\s*(import|from) torch", path.read_text(encoding="utf-8"), re.MULTILINE)


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_between_modules(folder: Path) -> dict[str, set[str]]:
    """Module -> modules of ours that it imports anywhere: at the top, in functions, and for types alone."""
    paths = {module_of(path): path for path in sorted(folder.rglob("*.py"))}
    found: dict[str, set[str]] = {}
    for module, path in paths.items():
        found[module] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: a relative import"
                inside = {f"{node.module}.{alias.name}" for alias in node.names}
                found[module] |= (inside & paths.keys()) or ({str(node.module)} & paths.keys())
            elif isinstance(node, ast.Import):
                found[module] |= {alias.name for alias in node.names} & paths.keys()
    return found


def circles(imports: dict[str, set[str]]) -> list[set[str]]:
    """Strongly connected components of more than one node, or of one that imports itself."""
    reached: dict[str, set[str]] = {}
    for start in imports:
        seen, waiting = set[str](), [start]
        while waiting:
            new = imports[waiting.pop()] - seen
            seen |= new
            waiting += new
        reached[start] = seen
    found = [{other for other in reached[one] if one in reached[other]} for one in imports if one in reached[one]]
    return [each for place, each in enumerate(found) if each not in found[:place]]


def test_no_two_modules_import_each_other() -> None:
    assert circles(imports_between_modules(PACKAGE)) == []


def test_no_two_packages_import_each_other() -> None:
    packages: dict[str, set[str]] = {}
    for module, imported in imports_between_modules(PACKAGE).items():
        package = ".".join(module.split(".")[:2])
        others = {".".join(other.split(".")[:2]) for other in imported}
        packages.setdefault(package, set()).update(others - {package})
    assert len(packages) > 20 and circles(packages) == []


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [{"b", "c"}]
    assert circles({"a": {"a"}, "b": set()}) == [{"a"}]
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
