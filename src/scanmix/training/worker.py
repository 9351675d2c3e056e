"""The program of a worker process: it reads its job, computes with the first process, and ends with it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from safetensors import safe_open

from scanmix.config import UserError, build
from scanmix.data.examples import Examples
from scanmix.data.readers import reload
from scanmix.distributed.process_group import process_group
from scanmix.distributed.watchdog import end_with_parent
from scanmix.training import RunSettings
from scanmix.training.consensus import with_consensus
from scanmix.training.loop import run_worker


def main() -> None:
    """Train as the job folder says, which is the only argument on the command line."""
    end_with_parent()
    settings, examples, test = _read_job(Path(sys.argv[1]))
    try:
        run_worker(settings, examples, test, process_group(settings.processes, settings.device, {}))
    except (UserError, RuntimeError) as error:
        sys.exit(f"{error}")


def _read_job(folder: Path) -> tuple[RunSettings, Examples, Examples | None]:
    """Return settings, training data and test data; they are loaded again if they can be, else read from the job."""
    settings = build(RunSettings, json.loads((folder / "settings.json").read_text(encoding="utf-8")), where="job")
    if settings.source is None:
        examples = _read_examples(folder / "train")
        return settings, examples, _read_examples(folder / "test") if (folder / "test").exists() else None
    examples = with_consensus(reload(settings.source["train"]))
    if examples.fingerprint() != settings.fingerprint:
        raise UserError("its data is not that of process 0; the data has changed")
    return settings, examples, reload(settings.source["test"]) if "test" in settings.source else None


def _read_examples(path: Path) -> Examples:
    with safe_open(path, framework="pt") as file:
        images, labels = file.get_tensor("images"), file.get_tensor("labels")
        decided = file.get_tensor("decided") if "decided" in file.keys() else None  # no mapping
        about = json.loads(file.metadata()["about"])
    ids = tuple(str(i) for i in range(len(labels)))
    return Examples(
        images, labels, tuple(about["class_names"]), ids, name=about["name"], flip=about["flip"], decided=decided
    )


if __name__ == "__main__":
    main()
