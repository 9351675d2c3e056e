"""The steps of a Dockerfile in folders; those of ours, which install PyTorch, are a step of CI."""

import os
import re
from pathlib import Path

import pytest

from release.container import ROOT, build, copy_allowed

STEPS = """# a comment
FROM python:3.11-slim
ARG EXTRAS=timm,onnx
WORKDIR /made
COPY one.txt two.txt ./
COPY src src
RUN cat one.txt src/deep/three.txt > all.txt && \\
    echo "$EXTRAS." >> all.txt
ENV HOME=/work
WORKDIR /work
USER 1000:1000
ENTRYPOINT ["sh", "-c"]
CMD ["echo $HOME > started"]
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    for name in ("one.txt", "two.txt", "src/deep/three.txt", "secret.txt", "src/__pycache__/a.pyc"):
        (tmp_path / "checkout" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "checkout" / name).write_text(f"{name}\n")
    (tmp_path / "checkout" / ".dockerignore").write_text("*\n!one.txt\n!two.txt\n!src\n**/__pycache__\n")
    copy_allowed(tmp_path / "checkout", tmp_path / "context")
    return tmp_path / "context"


def test_only_what_is_allowed_reaches_the_steps(context: Path) -> None:
    found = {path.relative_to(context).as_posix() for path in context.rglob("*") if path.is_file()}
    assert found == {"one.txt", "two.txt", "src/deep/three.txt"}


def test_steps_are_taken_in_their_folders(context: Path, tmp_path: Path) -> None:
    image = tmp_path / "image"
    assert build(STEPS, context, image, dict(os.environ)) == ["sh", "-c", "echo $HOME > started"]
    assert (image / "made" / "all.txt").read_text() == "one.txt\nsrc/deep/three.txt\n.\n", "no extra in place of two"
    assert (image / "work" / "started").read_text() == f"{image}/work\n"


@pytest.mark.parametrize("step", ["RUN false", "COPY missing.txt ./", "HEALTHCHECK NONE"])
def test_a_step_that_fails_ends_it(context: Path, tmp_path: Path, step: str) -> None:
    with pytest.raises((SystemExit, FileNotFoundError)):
        build(STEPS.replace("ENV HOME", f"{step}\nENV HOME"), context, tmp_path / "image", dict(os.environ))


def test_the_image_has_what_its_steps_copy() -> None:
    """Every file that COPY names passes `.dockerignore`, and is there."""
    text, allowed = (ROOT / "Dockerfile").read_text(), (ROOT / ".dockerignore").read_text().split()
    sources = [name for line in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE) for name in line.split()]
    assert sources and all(f"!{name}" in allowed and (ROOT / name).exists() for name in sources)
    assert 'RUN sh release/install.sh python . "$EXTRAS"' in text
