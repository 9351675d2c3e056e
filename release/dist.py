"""`make dist`: build the wheel and the source distribution into dist/, look into both, install and use the wheel.

Every Python of `PYTHONS` that this machine has gets a bare environment: `release/install.sh`, then `USE`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.11", "3.12", "3.13")
TOGETHER = 2
"""Environments that are made at the same time."""
ROOM = 12_000_000_000
"""Bytes that `TOGETHER` environments take where pip finds PyTorch built for GPUs alone, and some to spare."""
USE = (
    ("train", "digits", "--per-class", "8", "--set", "epochs=2", "--set", "pretrain.epochs=1", "--out", "run"),
    ("report", "run"),
    ("review", "run", "--static", "share.html"),
)
"""Commands that need what is shipped beside the code: recipes, templates, the files of the review page."""


def main() -> None:
    """Build, check and install; end with code 1 and a sentence at the first thing that is wrong."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    run([sys.executable, "-m", "build", "--outdir", str(ROOT / "dist"), str(ROOT)])  # the wheel from the sdist
    wheel, sdist = (ROOT / "dist" / f"scanmix-{version}{end}" for end in ("-py3-none-any.whl", ".tar.gz"))
    run([sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(sdist)])
    if missing := [*missing_in_wheel(wheel), *missing_in_sdist(sdist, version)]:
        sys.exit(f"dist: not shipped: {', '.join(missing)}")
    with ThreadPoolExecutor(TOGETHER) as pool:
        jobs = {
            name: pool.submit(is_installed_and_used, name, python, wheel, version) for name, python in found_pythons()
        }
    checked = [name for name, job in jobs.items() if job.result()]
    if not checked:
        sys.exit(f"dist: none of Python {', '.join(PYTHONS)} is on this machine: the wheel was not installed anywhere")
    print(f"dist: {wheel.name} and {sdist.name}, used with Python {', '.join(checked)}")


def missing_in_wheel(wheel: Path) -> list[str]:
    """Return the files of the package that a wheel lacks: code, recipes, templates, the review page, `py.typed`."""
    package = ROOT / "src" / "scanmix"
    files = {path.relative_to(package.parent).as_posix() for path in package.rglob("*") if path.is_file()}
    with zipfile.ZipFile(wheel) as archive:
        return sorted(name for name in files - set(archive.namelist()) if "__pycache__" not in name)


def missing_in_sdist(sdist: Path, version: str) -> list[str]:
    """Return what a source distribution lacks of what is needed to test and document it."""
    wanted = (
        "tests/conftest.py",
        "docs/index.md",
        "mkdocs.yml",
        "CHANGELOG.md",
        "LICENSE",
        "constraints.txt",
        "Makefile",
    )
    with tarfile.open(sdist) as archive:
        names = set(archive.getnames())
    return [name for name in wanted if f"scanmix-{version}/{name}" not in names]


def found_pythons() -> Iterator[tuple[str, str]]:
    """Yield (version, command) of every Python of `PYTHONS` that starts: on the path, or installed by pyenv or uv."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    uv = Path.home() / ".local" / "share" / "uv" / "python"
    for version in PYTHONS:
        folders = [*pyenv.glob(f"versions/{version}.*"), *uv.glob(f"cpython-{version}.*")]
        for python in (f"python{version}", *(str(folder / "bin" / "python") for folder in sorted(folders))):
            tried = [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
            try:
                told = subprocess.run(tried, capture_output=True, text=True).stdout.strip()
            except OSError:
                continue
            if told == version:
                yield version, python
                break
        else:
            print(f"dist: no Python {version} here: not checked with it", flush=True)


def is_installed_and_used(name: str, python: str, wheel: Path, version: str) -> bool:
    """Install a wheel in a bare environment and use it there; False, and a line, if the disk is too full for that."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="scanmix-dist-") as folder:
        if shutil.disk_usage(folder).free < ROOM:
            print(f"dist: Python {name} not checked: less than {ROOM / 1e9:.0f} GB free in {folder}", flush=True)
            return False
        run([python, "-m", "venv", f"{folder}/venv"])
        bare = {key: text for key, text in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
        bare |= {"SCANMIX_CACHE": f"{folder}/cache", "OMP_NUM_THREADS": "1"}
        run(["sh", str(ROOT / "release" / "install.sh"), f"{folder}/venv/bin/python", str(wheel)], env=bare)
        scanmix = f"{folder}/venv/bin/scanmix"
        told = subprocess.run([scanmix, "--version"], capture_output=True, text=True, env=bare, cwd=folder).stdout
        if version not in told.split():
            sys.exit(f"dist: `scanmix --version` of Python {name} says {told!r}, not {version}")
        for words in USE:
            run([scanmix, *words], env=bare, cwd=folder)
    print(f"dist: Python {name}: installed and used in {time.monotonic() - began:.0f} s", flush=True)
    return True


def run(words: Sequence[str], env: Mapping[str, str] | None = None, cwd: str | None = None) -> None:
    """Run a command; if it fails, show what it printed and end with code 1."""
    done = subprocess.run(words, env=env, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"{done.stdout}\ndist: failed with code {done.returncode}: {' '.join(words)}")


if __name__ == "__main__":
    main()
