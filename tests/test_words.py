"""The code speaks the field's language: no name and no comment in `src/` has a word that a reader must look up."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "scanmix"
FILES = sorted(PACKAGE.rglob("*.py"))

FIELD = {
    "learning": "train mode", "guessing": "inference", "sweep": "predict_all", "examine": "per_sample_losses",
    "belief": "predictions and per-sample losses", "looks": "sample_views", "in_turn": "sample_views",
    "own": "shard", "gather": "all_gather", "in_turns": "sharded_map", "agreed": "broadcast", "told": "broadcast_bytes",
    "joined": "process_group", "gathered": "launch", "take_part": "run_worker",
    "alone": "single process; outlier", "follow": "ema_update", "restart": "reset", "renew": "reinit_and_refit",
    "late": "last_layers", "sides": "training_turns", "learners": "training turns", "drawn": "Subset",
    "fetched": "OffloadedImages", "spread": "scatter", "remember": "append", "keep": "momentum or decay",
    "said": "prediction", "taught": "target", "witness": "score", "witnesses": "scores", "doubt": "label quality",
    "weigh": "score_labels", "given_share": "self_confidence", "count_forgotten": "forgetting_events",
    "trajectory": "training dynamics", "division": "clean-set metrics", "judged": "clean-set metrics",
    "kinds": "issue types", "twins": "duplicates", "isolated": "outlier", "foreign": "open_set",
    "write_aside": "atomic_write", "decisive": "config hash", "identity": "config hash",
    "learn": "forward_backward", "look": "forward_only", "wish": "DecisionRequest", "take_over": "recover",
    "label_free": "self_supervised", "room": "package", "floor": "layer; lower bound", "verb": "operation",
    "yardstick": "baseline", "race": "case", "ground": "setup", "contestant": "candidate",
}  # fmt: skip
"""Names that functions, classes, fields and parameters had -> the field's words for them."""
PROSE = (
    r"label-free", r"witness(es)?", r"yardsticks?", r"contestants?", r"verbs?", r"twins?", r"foreign",
    r"(the|each|every|which|of) (rooms?|floors?)(?!\()", r"the house", r"arrows? upwards",
    r"(is|are|be|was|were|of) no numbers?", r"writes? aside", r"sweeps?",
)  # fmt: skip
"""Words of docstrings and comments."""
EXCEPTIONS = {
    ("audit/table.py", "doubt"): "an attribute of audits in Python: public",
    ("data/readers/origin.py", "foreign"): "a key of run.toml",
    ("methods/steps/division.py", "division"): "of labels into clean and noisy ones, as DivideMix has it",
    ("methods/joint.py", "said"): "a key of checkpoints",
    ("methods/loss_correction.py", "identity"): "the identity matrix",
    ("reproduce/audits.py", "_spread"): "the statistic",
}
"""(File, name or word) -> why it stays."""


def declared(tree: ast.Module) -> Iterator[str]:
    """Names that others read: of functions, classes, parameters and fields."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        if isinstance(node, ast.arg):
            yield node.arg
        if isinstance(node, ast.ClassDef):
            fields = [item.target for item in node.body if isinstance(item, ast.AnnAssign)]
            yield from (field.id for field in fields if isinstance(field, ast.Name))


def private_names(source: str) -> set[str]:
    return {name for name in declared(ast.parse(source)) if name.strip("_").lower() in FIELD}


def prose(source: str) -> Iterator[str]:
    """Comments, and strings that stand alone as docstrings do."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value


def private_words(source: str) -> set[str]:
    wanted = re.compile(rf"\b({'|'.join(PROSE)})\b", re.IGNORECASE)
    return {found[0].lower() for text in prose(source) for found in wanted.finditer(text)}


def kept(path: Path) -> set[str]:
    name = path.relative_to(PACKAGE).as_posix()
    return {word for file, word in EXCEPTIONS if file == name}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_names_and_prose_are_the_fields(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    found = private_names(source) | private_words(source)
    if path.stem in FIELD:
        found.add(path.stem)
    assert found == kept(path), {name: FIELD.get(name.strip("_").lower(), "the field's word") for name in found}


def test_a_private_name_is_found() -> None:
    assert private_names("def sweep(x): ...") == {"sweep"}
    assert private_names("class A:\n    said: int\n    def f(self, own): ...") == {"said", "own"}
    assert private_words("x = 1  # two witnesses are heard") == {"witnesses"}
    assert private_words('"""Report to the floors below."""') == {"the floors"}
    assert not private_words('x = "label-free"')
