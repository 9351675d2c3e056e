"""What `make release` refuses, and what it does otherwise, in a checkout of its own."""

import os
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from release.tag import refusal

TAG = Path(__file__).parents[2] / "release" / "tag.py"
TODAY = date(2031, 5, 17)
GIT = {"GIT_AUTHOR_NAME": "ann", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "ann", "GIT_COMMITTER_EMAIL": "a@b"}


def git(root: Path, *words: str) -> str:
    environment = {**os.environ, **GIT, "GIT_CONFIG_GLOBAL": os.devnull}
    return subprocess.run(["git", *words], cwd=root, check=True, capture_output=True, text=True, env=environment).stdout


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout of version 0.3.0 whose `make dist` is short, and works unless a file `broken` is there."""
    (tmp_path / "release").mkdir()
    shutil.copyfile(TAG, tmp_path / "release" / "tag.py")
    (tmp_path / "release" / "dist.py").write_text("import os, sys\nsys.exit(os.path.exists('broken'))\n")
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "0.3.0"\n')
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## 0.3.0 (2031-05-17)\n\n## 0.2.0 (2026-11-30)\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "all")
    return tmp_path


def change(root: Path, name: str, before: str, after: str) -> None:
    path = root / name
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))
    git(root, "commit", "-qam", "changed")


def test_a_version_that_is_ready_is_not_refused(root: Path) -> None:
    assert refusal(root, "0.3.0", TODAY) is None
    assert refusal(root, "0.3.0", date(2031, 6, 1)) is None


def test_each_thing_that_is_not_ready_is_told(root: Path) -> None:
    assert "has version 0.3.0, not 0.4.0" in str(refusal(root, "0.4.0", TODAY))
    assert "dates 0.3.0 2031-05-17, and today is 2031-05-16" in str(refusal(root, "0.3.0", date(2031, 5, 16)))
    (root / "new.py").touch()
    assert str(refusal(root, "0.3.0", TODAY)).endswith("?? new.py")
    (root / "new.py").unlink()
    git(root, "tag", "v0.3.0")
    assert "v0.3.0 is tagged already" in str(refusal(root, "0.3.0", TODAY))


@pytest.mark.parametrize("heading", ["## 0.3.0", "## 0.3.0 (unreleased)", "## 0.2.9 (2031-05-17)", ""])
def test_the_newest_heading_is_of_the_version_and_has_a_date(root: Path, heading: str) -> None:
    change(root, "CHANGELOG.md", "## 0.3.0 (2031-05-17)", heading)
    assert "must be '## 0.3.0 (2031-05-17)'" in str(refusal(root, "0.3.0", TODAY))


def release(root: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    line = [sys.executable, "-m", "release.tag", *words]
    return subprocess.run(line, cwd=root, capture_output=True, text=True, env={**os.environ, **GIT})


def test_it_tags_what_was_built_and_uploads_nothing(root: Path) -> None:
    change(root, "CHANGELOG.md", "2031-05-17", "2026-11-30")
    assert "name the version" in release(root).stderr
    assert release(root, "0.4.0").returncode == 1 and not git(root, "tag")
    (root / ".git" / "info" / "exclude").write_text("broken\n__pycache__\n")
    (root / "broken").touch()
    assert "nothing was tagged" in release(root, "0.3.0").stderr and not git(root, "tag")
    (root / "broken").unlink()
    done = release(root, "0.3.0")
    assert done.returncode == 0 and git(root, "tag").split() == ["v0.3.0"]
    assert "python -m twine upload dist/scanmix-0.3.0-py3-none-any.whl dist/scanmix-0.3.0.tar.gz" in done.stdout
