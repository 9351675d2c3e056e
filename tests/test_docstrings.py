"""What docstrings of public functions must say: the shapes of tensors, and each argument where there are many."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "scanmix"
FILES = sorted(PACKAGE.rglob("*.py"))
MANY = 5
"""Arguments that a signature may have without an `Args:` section."""
ARRAYS = re.compile(r"\b(Tensor|ndarray)\b")
SHAPE = re.compile(r"Shape:|\([A-Z][\w+]*(?: x [\w+]+)*, ?[^)]*\)|\bscalar\b")
"""`Shape: (B, C) -> (B,)`, or a shape beside the name of what has it."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def public_functions(tree: ast.Module) -> Iterator[tuple[str, Function]]:
    """Functions and methods that others call: no leading underscore, at the top of a module or of a public class."""
    for node in tree.body:
        if isinstance(node, Function) and not node.name.startswith("_"):
            yield node.name, node
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for item in node.body:
                if isinstance(item, Function) and (item.name == "__init__" or not item.name.startswith("_")):
                    yield f"{node.name}.{item.name}", item


def arguments(function: Function) -> list[ast.arg]:
    given = function.args
    return [each for each in [*given.posonlyargs, *given.args, *given.kwonlyargs] if each.arg not in ("self", "cls")]


def faults(source: str, commands: bool = False) -> list[str]:
    """What the docstrings of a module lack; of `commands` each option has its help beside it, not in an `Args:`."""
    found = []
    for name, function in public_functions(ast.parse(source)):
        text = ast.get_docstring(function) or ""
        if not text:
            found.append(f"{name}: no docstring")
            continue
        taken = [each.annotation for each in arguments(function) if each.annotation is not None]
        annotations = [ast.unparse(each) for each in [*taken, function.returns] if each is not None]
        if any(ARRAYS.search(each) for each in annotations) and not SHAPE.search(text):
            found.append(f"{name}: no shape of its tensors")
        if not commands and len(arguments(function)) > MANY and "Args:" not in text:
            found.append(f"{name}: {len(arguments(function))} arguments and no `Args:`")
        if "Args:" in text:
            listed = text.partition("Args:")[2]
            missing = [each.arg for each in arguments(function) if not re.search(rf"\b{each.arg}\b.*:", listed)]
            found += [f"{name}: `Args:` lacks {each}" for each in missing]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_docstrings_say_shapes_and_arguments(path: Path) -> None:
    assert faults(path.read_text(encoding="utf-8"), commands=path.parent.name == "cli") == []


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("def f(x: int) -> int:\n    return x", "no docstring"),
        ("def f(x: Tensor) -> float:\n    'Add it up.'", "no shape"),
        ("class A:\n    def f(self, x: int) -> list[Tensor]:\n        'Cut it.'", "no shape"),
        ("def f(a, b, c, d, e, g):\n    'Do it.'", "no `Args:`"),
        ("def f(a, b):\n    '''Do it.\n\n    Args:\n        a: one.\n    '''", "lacks b"),
    ],
)
def test_a_fault_is_found(source: str, fault: str) -> None:
    assert fault in " ".join(faults(source))
