"""The model card of an exported folder: its training data, its measured accuracy, and how to use it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from scanmix.config import last_ten, percent, read_toml
from scanmix.export.classifier import DTYPES, INPUTS, ONNX_FILE, OUTPUT, input_shape
from scanmix.export.onnx_file import OPSET, Agreement
from scanmix.features import EncoderRecord
from scanmix.model import Model
from scanmix.training import Run

MOST_NAMES = 100
"""Most class names in the card; `model.json` has all."""


def made_with(run_folder: Path) -> Mapping[str, str]:
    """Return the versions of the packages that a run was made with, by name."""
    versions: Mapping[str, str] = read_toml(run_folder / "run.toml").get("versions", {})
    return versions


def model_card(run: Run, versions: Mapping[str, str], use: str) -> str:
    """Return the card as Markdown.

    Args:
        run: the exported run.
        versions: what `made_with` returns.
        use: the section on how to run the exported files.
    """
    sections = [
        f"# {_plain(run.about['name'])}: {run.settings.method}",
        f"A classifier of {_what(run.model)}, trained with ScanMix on labels that may be wrong.",
        "## Data",
        _data(run),
        "## Training",
        _training(run, versions),
        "## Scores",
        _scores(run),
        "## Use",
        use,
        "## Limits",
        "\n".join(f"- {limit}" for limit in _limits(run)),
    ]
    return "\n\n".join(sections) + "\n"


def onnx_use(model: Model, agreement: Agreement) -> str:
    """Return how to run the ONNX file, and how it was checked, as Markdown."""
    name, dtype = INPUTS[model.kind], DTYPES[model.kind]
    inside = "Scaling to 0..1, normalization," if model.kind == "image" else "Standardization of each feature,"
    return f"""{_command(model)} It needs onnxruntime,
and no PyTorch. From Python:

```python
import json

import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("{ONNX_FILE}")
class_names = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])
{name} = np.zeros({(1, *input_shape(model))}, np.{dtype})  # yours: any number of them
probabilities = session.run(["{OUTPUT}"], {{"{name}": {name}}})[0]
```

Input `{name}`: {dtype}, ({", ".join(map(str, ("N", *input_shape(model))))}). Output `{OUTPUT}`: float32,
(N, {len(model.class_names)}).
{_content(model)}
{inside} the sum of the networks' logits and softmax are inside.{_opset(model)}

Checked when it was written: on {agreement.inputs}, no probability differs from PyTorch's by more than
{agreement.difference:.1e}."""


def apart_use(model: Model, reason: str) -> str:
    """Return, as Markdown, why the ONNX file is a head alone, and where its features come from."""
    assert model.encoder is not None  # of such models alone
    (height, width), encoder = model.size, _encoders(model.encoder.record)
    return f"""The file is the head alone: {reason}. Its vectors are features of {encoder}, in half precision,
as `scanmix embed` writes them. `encoder.json` holds the encoder: `scanmix predict FOLDER images/` reads pictures of
{height}x{width} pixels, opens it, refuses weights with another hash, and needs PyTorch and the encoder's package. Where
the encoder lies elsewhere, `--encoder MODEL` says so."""


def safetensors_use(model: Model) -> str:
    """Return how to load the weights, as Markdown."""
    name = INPUTS[model.kind]
    return f"""{_command(model)} From Python:

```python
import numpy as np
from scanmix.model import load_model

model = load_model(".")
{name} = np.zeros({(1, *input_shape(model))}, np.{DTYPES[model.kind]})  # yours: any number of them
probabilities = model.predict_proba({name})
```

{_content(model)}"""


def _data(run: Run) -> str:
    """Return the table of the data and its label noise."""
    names = [_plain(name) for name in run.class_names]
    more = f" and {len(names) - MOST_NAMES} more, in `model.json`" if len(names) > MOST_NAMES else ""
    model, noise = run.model, run.noise
    what = _what(model)
    image = f"{model.size[0]}x{model.size[1]} pixels, {'gray' if model.channels == 1 else 'color'}"
    return _table({
        "data": f"{_plain(run.about['name'])}, {run.about['num_examples']} training {what}",
        what: image if model.kind == "image" else f"{model.channels} features",
        f"classes ({len(names)})": ", ".join(names[:MOST_NAMES]) + more,
        "noise added": run.about.get("noise", "none; the labels are as they came"),
        "wrong labels, asked for": _percent(noise.asked),
        "wrong labels, actual": _percent(noise.actual),
        "wrong labels, estimated": _percent(noise.estimated),
    })  # fmt: skip


def _training(run: Run, versions: Mapping[str, str]) -> str:
    """Return the table of settings."""
    settings = run.settings
    made = [f"{name} {version}" for name, version in versions.items()]
    encoder = {} if run.model.encoder is None else {"pretrained encoder": _encoders(run.model.encoder.record)}
    if settings.finetuned is not None:
        encoder = {"fine-tuned from": _encoders(settings.finetuned)}
    return _table({
        "method": settings.method,
        **encoder,
        "recipe": settings.recipe or "none, the defaults of the method",
        "settings chosen by knowing the noise": "yes" if settings.oracle else "no",
        "epochs": str(len(run.metrics)),
        "seed": str(settings.seed),
        "networks": str(len(run.model.predictor.members)),
        "made with": ", ".join(made) or "unknown",
    })  # fmt: skip


def _scores(run: Run) -> str:
    """Return the table of accuracies on the test data."""
    what = _what(run.model)
    if not run.accuracies:
        return f"None: there were no test {what}."
    table = _table({
        "last epoch": f"{_percent(run.last_accuracy)} (this model)",
        "balanced accuracy": f"{_percent(run.last_balanced_accuracy)} (the mean over classes)",
        f"mean of {last_ten(len(run.accuracies))}": _percent(run.last10_accuracy),
        "best epoch": f"{_percent(run.best_accuracy)} (chosen by the test {what}: an upper bound, not this model's)",
    })  # fmt: skip
    matched = any(line.get("accuracy_after_matching") for line in run.metrics)
    note = "\n\nMeasured after the best matching of clusters with classes, which true labels decide." if matched else ""
    return f"Accuracy on the test {what} of the run.\n\n{table}{note}"


def _limits(run: Run) -> Iterator[str]:
    """Yield sentences about what the classifier cannot do."""
    what = _what(run.model)
    yield f"It always names one of its classes, also for {what} of something else."
    yield "A probability says which class the networks prefer, not how often they are right, unless calibrated."
    if run.noise.actual is None:
        yield "How many training labels are wrong is not known; an estimate is only as good as the model."
    if run.accuracies:
        yield f"The scores hold for {what} like the test {what}, as far as the labels of those are right."
    else:
        yield f"It was not measured. `scanmix evaluate` does so, on {what} whose labels can be trusted."
    if run.model.encoder is not None or run.settings.finetuned is not None:
        begin = "It sees through a pretrained encoder" if run.model.encoder else "It began as a pretrained network"
        yield (
            f"{begin}, whose weights have a license and training data: look at their page. "
            "One that has seen the test images, or their labels, makes the scores look better than they are."
        )
    if run.settings.oracle:
        yield "Its settings were chosen by someone who knew the noise: on other labels expect less."
    yield "Labels that are wrong in one direction (all wolves called dogs) are learned, not corrected."


def _what(model: Model) -> str:
    """Return what it classifies, in words."""
    return "images" if model.kind == "image" else "feature vectors"


def _encoders(record: EncoderRecord) -> str:
    """Return name, hash and license of each part of a pretrained network, in words."""
    return ", joined with ".join(
        f"{_plain(part.short)} (weights {str(part.digest)[:16]}, license {_plain(part.license or 'not known')})"
        for part in record.parts
    )


def _opset(model: Model) -> str:
    """Return the version of the operators; a file with an encoder inside has that of the encoder."""
    return f" Opset {OPSET}." if model.encoder is None else " So is the pretrained encoder."


def _command(model: Model) -> str:
    """Return how the command line predicts with the folder."""
    if model.kind == "vector":
        return "`scanmix predict FOLDER new.npy` takes vectors as they were given for training, one a row."
    return "`scanmix predict FOLDER images/` reads, scales and cuts images as in training."


def _content(model: Model) -> str:
    """Return what the numbers of an input mean."""
    if model.kind == "vector":
        return "Features are in the order of training, and not standardized."
    height, width = model.size
    colors = "gray" if model.channels == 1 else "in the order red, green, blue"
    cut = " Images are scaled (bicubic) until the shorter side fits, and the center is cut out."
    return f"Pixels are 0..255, {colors}.{cut if height == width else ''}"


def _table(rows: Mapping[str, Any]) -> str:
    """Return rows of name and value as a Markdown table."""
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items())])


def _percent(share: float | None) -> str:
    """Return a share (0..1) in percent, or words if it is not known."""
    return percent(share, missing="not known")


def _plain(name: str) -> str:
    """Return a name as a table cell: without line breaks, and with the characters of Markdown escaped."""
    return "".join(f"\\{sign}" if sign in "\\`*_[]<>|#" else sign for sign in " ".join(str(name).split()))
