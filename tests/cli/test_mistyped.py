"""A mistyped line is answered at once: before PyTorch is loaded, which takes seconds, and before data are read."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

LINES = {
    "train missing/": "no folder, table or known data set 'missing/'",
    "train digits --noise symetric:0.2": "noise 'symetric:0.2' is not one of",
    "train digits --noise symmetric:2": "needs a rate between 0 and 1",
    "train digits --noise openset:nowhere:0.2": "no folder, table or known data set 'nowhere'",
    "train digits --noise file:nowhere.json": "nowhere.json: no such file or folder",
    "train digits --recipe nowhere": "unknown recipe 'nowhere'",
    "train digits --test nowhere": "no folder, table or known data set 'nowhere'",
    "train vectors.npy --labels nowhere.csv": "nowhere.csv: no such file or folder",
    "train webvision": "webvision comes in several variants; name one after a colon, such as webvision:50",
    "train digits:1": "digits comes in one form; there is but 'digits'",
    "train digist": "Did you mean 'digits'?",
    "train nowhere.csv": "nowhere.csv: no such file",
    "train digits --recipe nowhere.toml": "nowhere.toml: no such file",
    "doctor nowhere": "no folder, table or known data set 'nowhere'",
    "doctor digits --recipe nowhere": "unknown recipe 'nowhere'",
    "audit nowhere": "nowhere is no run, as it has no run.toml, and cannot be read as data: no folder",
    "audit digits --noise symetric:0.2": "noise 'symetric:0.2' is not one of",
    "embed nowhere --model onnx:net.onnx": "no folder, table or known data set 'nowhere'",
    "noise nowhere": "no folder, table or known data set 'nowhere'",
    "evaluate nowhere": "nowhere: no such folder",
    "evaluate run --data nowhere": "no folder, table or known data set 'nowhere'",
    "predict run nowhere.jpg --out out.csv": "nowhere.jpg: no such file or folder",
    "predict run vectors.npy --out out.csv --calibrate nowhere": "no folder, table or known data set 'nowhere'",
    "review nowhere": "nowhere: no such folder",
    "report nowhere --out report.html": "nowhere: no such folder",
    "resume nowhere": "nowhere: no such folder",
    "export nowhere --out exported": "nowhere: no such folder",
}
"""What is typed -> what is answered, in a folder with a run and a file of vectors."""
SCRIPT = """
import json, sys
sys.modules["torch"] = sys.modules["numpy"] = None  # an import of either is an error
from typer.testing import CliRunner
from scanmix.cli import app
found = {}
for line in json.load(sys.stdin):
    result = CliRunner().invoke(app, line.split())
    found[line] = (result.exit_code, result.output)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """What each line gets where neither PyTorch nor NumPy can be imported."""
    folder = tmp_path_factory.mktemp("typed")
    (folder / "run" / "model").mkdir(parents=True)
    for name in ("run/run.toml", "run/metrics.jsonl", "run/model/model.json", "vectors.npy"):
        (folder / name).touch()
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=folder, input=json.dumps(list(LINES)), text=True, capture_output=True,
        check=True,
    )  # fmt: skip
    found: dict[str, tuple[int, str]] = json.loads(ran.stdout)
    assert sorted(path.name for path in Path(folder).iterdir()) == ["run", "vectors.npy"], "nothing was written"
    return found


@pytest.mark.parametrize("line", LINES)
def test_a_mistyped_line_is_answered_without_pytorch(line: str, answers: dict[str, tuple[int, str]]) -> None:
    code, said = answers[line]
    assert code == 2 and LINES[line] in said, said
    assert len(said.strip().splitlines()) == 1
