"""`make container`: the steps of the Dockerfile where no Docker is, in bare folders in place of an image.

A folder stands for `/`, a new environment for the Python of the base image, and the files that `.dockerignore` lets
through for the checkout. PyTorch comes from pip's usual index, and no extra is installed, which takes the longest.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GIVEN = {"TORCH_INDEX": "", "EXTRAS": ""}
"""`docker build --build-arg` of this build."""


def main() -> None:
    """Take every step of the Dockerfile, then start the program; end with code 1 at the first step that fails."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="scanmix-container-") as folder:
        subprocess.run([sys.executable, "-m", "venv", f"{folder}/venv"], check=True)
        allowed = Path(folder) / "allowed"
        copy_allowed(ROOT, allowed)
        environment = {name: text for name, text in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        environment["PATH"] = f"{folder}/venv/bin:{environment['PATH']}"
        start = build((ROOT / "Dockerfile").read_text(encoding="utf-8"), allowed, Path(folder) / "image", environment)
        print(f"container: built in {time.monotonic() - began:.0f} s; {start[0]} starts", flush=True)


def copy_allowed(root: Path, out: Path) -> None:
    """Copy what `.dockerignore` lets through: it excludes all, then names what is allowed."""
    lines = (root / ".dockerignore").read_text(encoding="utf-8").split()
    barred = [line.removeprefix("**/") for line in lines if line.startswith("**/")]
    for name in (line[1:] for line in lines if line.startswith("!")):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        if (root / name).is_dir():
            shutil.copytree(root / name, out / name, ignore=shutil.ignore_patterns(*barred))
        elif not any(fnmatch(name, pattern) for pattern in barred):
            shutil.copyfile(root / name, out / name)


def build(dockerfile: str, context: Path, image: Path, environment: dict[str, str]) -> list[str]:
    """Take the steps of a Dockerfile and return the command that starts the container, after trying it.

    Args:
        dockerfile: its text; of its instructions those in `step` are known.
        context: the folder that COPY copies from.
        image: the folder that stands for `/`.
        environment: the variables of the steps; ARG and ENV add to it.

    Raises:
        SystemExit: a step fails, or is not known here.
    """
    place, start = image, dict[str, list[str]]()
    lines = dockerfile.replace("\\\n", " ").splitlines()
    for line in (line for line in lines if line.strip() and not line.startswith("#")):
        word, rest = line.split(maxsplit=1)
        name, _, value = rest.partition("=")
        if word == "ARG":
            environment[name] = GIVEN.get(name, value)
        elif word == "ENV":
            environment[name] = f"{image}{value}"
        elif word == "WORKDIR":
            place = image / rest.lstrip("/")
            place.mkdir(parents=True, exist_ok=True)
        elif word == "COPY":
            *sources, target = rest.split()
            copy([context / source for source in sources], place / target)
        elif word == "RUN":
            run(["sh", "-c", rest], place, environment)
        elif word in ("ENTRYPOINT", "CMD"):
            start[word] = json.loads(rest)
        elif word not in ("FROM", "USER"):
            sys.exit(f"container: a step that is not known here: {line}")
    command = [*start["ENTRYPOINT"], *start["CMD"]]
    run(command, place, environment)
    return command


def copy(sources: list[Path], target: Path) -> None:
    """Copy files, and what folders hold, into a folder, as COPY does."""
    target.mkdir(parents=True, exist_ok=True)
    for source in sources:
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copyfile(source, target / source.name)


def run(words: list[str], place: Path, environment: dict[str, str]) -> None:
    """Run a step; if it fails, show what it printed and end with code 1."""
    done = subprocess.run(
        words, cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        sys.exit(f"{done.stdout}\ncontainer: failed with code {done.returncode}: {' '.join(words)}")


if __name__ == "__main__":
    main()
