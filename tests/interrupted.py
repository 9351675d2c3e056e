"""Work that is interrupted: killed before its n-th event, or left without room on the disk from there on.

An event is a file operation that changes something below the folder of the work (opened for writing, flushed,
renamed, removed, a folder made) or an optimizer step. Run as a script this file is the victim: it imports what is slow
to import once, and forks a process for each order it reads.

What a process leaves that is killed before an event is what the folder holds at that moment: a pass that is never
killed and copies the folder there stands for all the passes that are. Where nothing has changed since the event before,
a process would go on from the same files to the same end, so there is one copy of both.
"""

import contextlib
import dataclasses
import importlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sklearn.datasets
from PIL import Image

ROOT = Path(__file__).parents[1]
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}
"""Audit events of Python, besides "open"."""
Work = Callable[[Path], object]


@dataclass(frozen=True)
class Order:
    """What the victim is to do: `work` names a function of a module, called with the folder and `more`."""

    work: str
    folder: str
    more: Sequence[Any] = ()
    event: int = -1
    """At which event something happens; never, by default."""
    what: str = "kill"
    """"kill"; "limit": no file may grow from there on; or a file that takes all that is left of a file system."""
    copies: str = ""
    """A folder for what a process that is killed would leave, by the number of the event; no such copies if empty."""


@dataclass(frozen=True)
class Ended:
    """How it went."""

    signal: int
    code: int
    said: str
    events: Sequence[str]

    @property
    def is_well(self) -> bool:
        return self.signal == self.code == 0


class Victim:
    """A process that forks others; use as a context manager."""

    def __init__(self) -> None:
        path = os.pathsep.join([str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [sys.executable, __file__], env=environment, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
        )

    def __enter__(self) -> "Victim":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate(timeout=30)

    def do(self, order: Order) -> Ended:
        assert self.process.stdin is not None and self.process.stdout is not None
        print(json.dumps(dataclasses.asdict(order)), file=self.process.stdin, flush=True)
        return Ended(**json.loads(self.process.stdout.readline()))


def files_of(folder: Path, plain: Mapping[str, Callable[[bytes], Any]]) -> dict[str, Any]:
    """All files below a folder by their paths: their bytes, or by name what a function makes of them."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        read = plain.get(path.name, plain.get(path.suffix, bytes))
        found[path.relative_to(folder).as_posix()] = read(path.read_bytes())
    return found


def left_behind(victim: Victim, order: Order) -> tuple[Ended, list[tuple[int, Path]]]:
    """Do the work whole; return how it ended, and each event before which the folder has changed, with a copy of it."""
    copies = Path(order.folder).with_name("copies")
    shutil.rmtree(copies, ignore_errors=True)
    copies.mkdir()
    ended = victim.do(dataclasses.replace(order, copies=str(copies)))
    return ended, sorted((int(copy.name), copy) for copy in copies.iterdir())


def put_back(copy: Path, folder: Path) -> None:
    """Let a folder hold what its copy does, which is gone then."""
    shutil.rmtree(folder)
    copy.rename(folder)


def without_seconds(content: bytes) -> list[dict[str, Any]]:
    """Lines of JSON but for what a clock says."""
    lines = [json.loads(line) for line in content.splitlines()]
    return [{key: value for key, value in line.items() if not key.startswith("seconds")} for line in lines]


def spread(events: Sequence[str], count: int, wanted: Callable[[str], bool] = lambda event: True) -> list[int]:
    """Places of so many events of a kind, from the first to the last, as evenly as can be."""
    places = [place for place, event in enumerate(events) if wanted(event)]
    if count >= len(places):
        return places
    return sorted({places[round(part * (len(places) - 1) / max(1, count - 1))] for part in range(count)})


def _watch(folder: str, react: Callable[[str], None]) -> None:
    from torch.optim.optimizer import register_optimizer_step_post_hook

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if not flags & (os.O_WRONLY | os.O_RDWR):
                return
        elif event in CHANGES:
            path = arguments[0]
        else:
            return
        if isinstance(path, str | bytes | os.PathLike):
            full = os.path.abspath(os.fsdecode(path))
            if full.startswith(folder):
                react(f"{event.removeprefix('os.')} {os.path.relpath(full, folder)}")

    real = os.fsync

    def fsync(fd: Any) -> None:
        react("fsync")
        real(fd)

    sys.addaudithook(audit)
    os.fsync = fsync
    register_optimizer_step_post_hook(lambda *_: react("step"))


def _interrupt(order: Order) -> None:
    if order.what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif order.what == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    else:
        descriptor = os.open(order.what, os.O_WRONLY | os.O_CREAT)
        for size in (1 << 16, 1 << 10, 1):
            try:
                while os.write(descriptor, b"\0" * size):
                    pass
            except OSError:
                continue


def _live(order: Order, events: list[str]) -> None:
    copied: dict[Path, bytes] | None = None

    def react(event: str) -> None:
        nonlocal copied
        events.append(event)
        if order.copies and event != "step":
            paths = sorted(Path(order.folder).rglob("*"))
            now = {path: path.read_bytes() if path.is_file() else b"a folder" for path in paths}
            if now != copied:
                copied = now
                shutil.copytree(order.folder, Path(order.copies) / str(len(events) - 1))
        if len(events) - 1 == order.event:
            _interrupt(order)

    module, _, name = order.work.rpartition(".")
    work = getattr(importlib.import_module(module), name)
    os.chdir(order.folder)
    _watch(order.folder, react)
    work(Path(order.folder), *order.more)


def _fork(order: Order) -> Ended:
    said, told = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(said[1], 1)
        os.dup2(said[1], 2)
        for unused in (said[0], told[0]):
            os.close(unused)
        events: list[str] = []
        code = 0
        try:
            _live(order, events)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(told[1], json.dumps(events[:5000]).encode() or b"[]")
        os._exit(code)
    for unused in (said[1], told[1]):
        os.close(unused)
    text, listed = _drain(said[0], told[0])
    status = os.waitpid(child, 0)[1]
    return Ended(
        signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
        code=os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0,
        said=text.decode(errors="replace"),
        events=json.loads(listed or b"[]"),
    )


def _drain(*pipes: int) -> list[bytes]:
    """All that comes out of pipes until they are closed, whichever fills first."""
    import selectors

    content = {pipe: b"" for pipe in pipes}
    with selectors.DefaultSelector() as waiting:
        for pipe in pipes:
            waiting.register(pipe, selectors.EVENT_READ)
        while waiting.get_map():
            for key, _ in waiting.select():
                part = os.read(key.fd, 1 << 16)
                content[key.fd] += part
                if not part:
                    waiting.unregister(key.fd)
                    os.close(key.fd)
    return [content[pipe] for pipe in pipes]


def main() -> None:
    # Imported and read before the forks: once, not a thousand times.
    for module in (
        "tests.conftest", "scipy.optimize", "sklearn.datasets.data", "sklearn.mixture", "torch._dynamo",
        "torch.profiler", "scanmix.training.loop", "scanmix.cli", "scanmix.reproduce", "scanmix.report",
        "scanmix.review", "scanmix.export.folder",
    ):  # fmt: skip
        importlib.import_module(module)
    for extra in ("onnx", "onnxruntime", "pyarrow.parquet"):
        with contextlib.suppress(ImportError):
            importlib.import_module(extra)
    Image.init()
    sklearn.datasets.load_digits()
    for line in sys.stdin:
        print(json.dumps(dataclasses.asdict(_fork(Order(**json.loads(line))))), flush=True)


if __name__ == "__main__":
    main()
