"""Make one of each kind of file that scanmix writes and later reads, with the version that is installed.

    python -m tests.stored.make

writes tests/stored/VERSION, which must not exist yet. Only public names and the command line are used, so that the
script outlives moves inside the package. It takes about three minutes, most of them for one cell of a table of results.
"""

import csv
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import scanmix
from tests.stored.bits import digest, machine, summary, tensors
from tests.stored.commands import COMMANDS, KILLED, METHODS, MOCO, PLAIN, RECIPE, VECTORS, trained
from tests.tiny import suited

HERE = Path(__file__).parent
TOP = Path(tempfile.gettempdir()) / "scanmix-stored"
"""Where the files are made: absolute paths stand in some, and readers replace this one by where they are."""


def say(*words: str, killed: tuple[str, str, int] | None = None) -> None:
    """Run a command in `TOP`, to its end, or until it is killed."""
    start = ["-m", "scanmix"] if killed is None else ["-c", KILLED, *map(str, killed)]
    environment = {**os.environ, "SCANMIX_CACHE": str(TOP / "cache"), "OMP_NUM_THREADS": "1"}
    print("scanmix", *words, flush=True)
    code = subprocess.run([sys.executable, *start, *words], cwd=TOP, env=environment).returncode
    if code != (0 if killed is None else -signal.SIGKILL):
        sys.exit(f"ended with {code}")


def make_data() -> None:
    """24 small images of three classes, every fourth under another class; and 30 vectors."""
    draws = np.random.default_rng(0)
    for i in range(24):
        folder = TOP / "photos" / "abc"[(i + (i % 4 == 0)) % 3]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = draws.integers(0, 70, (16, 16, 3), dtype=np.uint8)
        pixels[i % 3 * 5 : i % 3 * 5 + 5, :, i % 3] = 230
        Image.fromarray(pixels).save(folder / f"{i}.png")
    kinds = np.arange(30) % 3
    np.save(TOP / "vectors.npy", (draws.normal(0, 1, (30, 4)) + 3 * np.eye(3, 4)[kinds]).astype(np.float32))
    lines = [f"row{i},{'xyz'[kind]}\n" for i, kind in enumerate(kinds.tolist())]
    (TOP / "vectors.csv").write_bytes("".join(["id,label\n", *lines]).encode())
    for name, text in {"scanmix": RECIPE, "vectors": VECTORS, "plain": PLAIN, "moco": MOCO}.items():
        (TOP / f"{name}.toml").write_bytes(text.encode())


def review(run: str) -> None:
    """Decide about some labels, as the page of `scanmix review` does."""
    line = [sys.executable, "-u", "-m", "scanmix", "review", run, "--no-browser", "--who", "ann"]
    with subprocess.Popen(line, cwd=TOP, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().split()[-1]
        for wish in (
            {"rows": [0], "choice": "accept"}, {"rows": [1, 2], "choice": "exclude"}, {"rows": [3], "choice": "keep"},
            {"rows": [4], "choice": "relabel", "label": 1}, {"rows": [5, 6], "choice": "unsure"}, {},
        ):  # fmt: skip
            data = json.dumps({"since": 0, **wish}).encode()
            place = url + ("api/decisions" if wish else "api/undo")
            urllib.request.urlopen(urllib.request.Request(place, data, {"Content-Type": "application/json"}))
        server.send_signal(signal.SIGINT)


def make_runs() -> None:
    """One run of each kind, what is made of runs, and the cache that they leave."""
    say("noise", "photos", "--rate", "0.4", "--seed", "1", "--out", "noise.json")
    say(*trained("image"), "--logger", "tensorboard")
    review("runs/image")
    say("audit", "runs/image")
    say("report", "runs/image")
    say(*trained("second"))
    say(*trained("vectors"))
    say("predict", "runs/image", "photos", "--top", "2", "--out", "predicted/image.csv")
    say("predict", "runs/vectors", "vectors.npy", "--out", "predicted/vectors.csv")
    say("export", "runs/image", "--out", "exported/onnx")
    say("export", "runs/vectors", "--out", "exported/safetensors", "--format", "safetensors")
    say(*trained("moco"))
    say(*trained("semantic"))
    say("doctor", "photos", "--save-recipe", "advised.toml")
    say(*trained("advised"))
    say(*trained("killed"), killed=("os.rename", "last.pt", 4))
    say(*trained("stage"), killed=("open", ".unfinished.", 3))


class Stop:
    """A logger that ends a run, as Ctrl-C does, when the line of an epoch is written and its state is not."""

    def __init__(self, step: int) -> None:
        self.step = step

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        pass

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        if step == self.step:
            raise KeyboardInterrupt

    def finalize(self, status: str) -> None:
        pass


def make_states() -> None:
    """The state of every method in the middle of a run, and how the run ends."""
    torch.set_num_threads(1)
    examples, _ = scanmix.load(TOP / "vectors.npy")
    noisy = scanmix.add_noise(examples, "symmetric", rate=0.4, seed=1)
    (TOP / "bare.toml").touch()  # in place of the recipes that are shipped for vectors
    for method, settings in METHODS.items():
        print(method, flush=True)
        folder, ended = TOP / "states" / method, TOP / "ended" / "states" / method
        # Of ssr_plus the momentum of its large heads is left out, by stopping before the first step has counted.
        stop = Stop(1 if method in ("scan", "ssr_plus") else 3)
        examples = suited(method, noisy, TOP)
        try:
            scanmix.train(
                examples, method=method, seed=3, out=folder, recipe=str(TOP / "bare.toml"), cache=TOP / "other",
                threads=1, progress=False, network={"hidden": [4]}, loggers=[stop], **settings,
            )  # fmt: skip
            sys.exit(f"{method} came to its end")
        except KeyboardInterrupt:
            shutil.copytree(folder, ended)
        scanmix.resume(ended, progress=False)
        (folder / "checkpoint" / "before.pt").unlink(missing_ok=True)
        keep(ended, "metrics.jsonl", "model.safetensors")
    shutil.rmtree(TOP / "other")


def keep(folder: Path, *names: str) -> None:
    """Leave files of these names alone in a folder."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file() and path.name not in names:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def make_ends() -> None:
    """What becomes of the runs that were killed."""
    kept = TOP / "kept"
    shutil.copytree(TOP / "cache", kept)
    for name in ("killed", "stage"):
        shutil.copytree(TOP / "runs" / name, TOP / "ended" / name)
        say("resume", f"ended/{name}")
    for path in (TOP / "cache").iterdir():
        if path.is_file() and not (kept / path.name).exists():
            shutil.copy(path, TOP / "ended" / path.name)
    shutil.rmtree(TOP / "cache")
    kept.rename(TOP / "cache")
    for name in ("killed", "stage"):
        last = TOP / "ended" / name / "checkpoint" / "last.pt"
        (TOP / "ended" / name / "last.json").write_bytes(json.dumps(summary(last)).encode())
        keep(TOP / "ended" / name, "metrics.jsonl", "labels.csv", "model.safetensors", "last.json")


def make_small() -> None:
    """Leave out what is only bulk."""
    for name in ("second", "semantic", "advised"):
        shutil.rmtree(TOP / "runs" / name / "checkpoint")
    page = TOP / "runs" / "image" / "report.html"  # its beginning tells what it is, and no more of it is read
    page.write_bytes(page.read_bytes()[:8192])
    for path in TOP.rglob("*.lock"):
        path.write_bytes(path.read_bytes().replace(platform.node().encode(), b"elsewhere"))


def make_results() -> None:
    """A table of one cell, and the parts of the table of audits."""
    say("reproduce", "digits-small", "--only", "cross_entropy,symmetric:0.2", "--jobs", "1")
    keep(TOP / "results" / "runs", "run.toml", "metrics.jsonl", "model.json", "seconds")
    # The measurements themselves take an hour: those that the repository shows are put into files again.
    parts: dict[str, list[dict[str, Any]]] = {}
    with (HERE.parents[1] / "results" / "audit.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            score = {name: value if name == "auditor" else json.loads(value) for name, value in row.items()}
            if score["seed"] == 0:
                parts.setdefault(f"symmetric-{row['rate']}-seed0.json", []).append(score)
    (TOP / "results" / "runs" / "audit-digits").mkdir()
    for name, scores in parts.items():
        (TOP / "results" / "runs" / "audit-digits" / name).write_bytes(json.dumps(scores, indent=2).encode())
    say("reproduce", "audit-digits", "--seeds", "1")


def about() -> dict[str, Any]:
    """Where this was made, by what, and a hash of each file of tensors."""
    git = ["git", "-C", str(HERE), "rev-parse", "HEAD"]
    files = [path for path in sorted(TOP.rglob("*")) if path.suffix in (".pt", ".safetensors", ".unfinished")]
    return {
        "version": scanmix.__version__,
        "commit": subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip(),
        "made_in": str(TOP),
        "machine": machine(),
        "commands": {name: trained(name) for name in COMMANDS},
        "tensors": {path.relative_to(TOP).as_posix(): digest(tensors(path)) for path in files},
    }


def main() -> None:
    """Make everything in a folder of its own, and keep it."""
    target = HERE / scanmix.__version__
    if target.exists():
        sys.exit(f"{target} is there already; what is stored is never made again")
    shutil.rmtree(TOP, ignore_errors=True)
    for name in ("predicted", "exported", "ended"):
        (TOP / name).mkdir(parents=True)
    make_data()
    make_runs()
    make_ends()
    make_states()
    make_results()
    make_small()
    (TOP / "about.json").write_bytes((json.dumps(about(), indent=1) + "\n").encode())
    shutil.copytree(TOP, target)


if __name__ == "__main__":
    main()
