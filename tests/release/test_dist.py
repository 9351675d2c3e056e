"""What `make dist` would find missing, and where it looks for Pythons; the whole of it is a step of CI."""

import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from release.dist import ROOT, found_pythons, missing_in_sdist, missing_in_wheel


def test_a_wheel_must_have_every_file_of_the_package(tmp_path: Path) -> None:
    package = ROOT / "src" / "scanmix"
    names = [path.relative_to(package.parent).as_posix() for path in package.rglob("*") if path.is_file()]
    lost = {"scanmix/recipes/digits/any/scanmix.toml", "scanmix/review/page/index.html", "scanmix/py.typed"}
    assert lost < set(names)
    for left_out, missing in ((set[str](), []), (lost, sorted(lost))):
        with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
            for name in set(names) - left_out:
                archive.writestr(name, "")
        assert missing_in_wheel(tmp_path / "a.whl") == missing


def test_an_sdist_must_have_tests_and_docs(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.add(ROOT / "LICENSE", "scanmix-9.9/LICENSE")
    missing = missing_in_sdist(tmp_path / "a.tar.gz", "9.9")
    assert "tests/conftest.py" in missing and "docs/index.md" in missing and "LICENSE" not in missing


def test_pythons_are_those_that_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the path, or installed by pyenv; one that does not start, or is another, is none."""
    for place, printed in (("path/python3.11", "3.11"), ("pyenv/versions/3.12.1/bin/python", "3.12"),
                           ("path/python3.13", "3.9"), ("path/python3.12", "")):  # fmt: skip
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(f"#!/bin/sh\necho {printed}\n")
        (tmp_path / place).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}{os.pathsep}/bin")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert list(found_pythons()) == [
        ("3.11", "python3.11"), ("3.12", str(tmp_path / "pyenv" / "versions" / "3.12.1" / "bin" / "python"))
    ]  # fmt: skip
