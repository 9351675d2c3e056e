"""One loss curve per method, kept: a refactor that changes a number must say so.

Written anew by `python -m pytest tests/methods --update-golden`.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from scanmix.data.batches import TrainingData
from scanmix.distributed.engine import Engine
from scanmix.methods import METHODS, Method
from scanmix.networks.inference import predict_all
from scanmix.networks.preact_resnet import PreActResNetSettings

FOLDER = Path(__file__).with_name("golden")


def curve(method: Method, data: TrainingData, network: PreActResNetSettings) -> list[dict[str, float]]:
    """Everything but seconds of each of the epochs, and last the mean of the predictor's squared logits."""
    state = method.start(data, network, Engine())
    found = []
    for epoch in range(method.epochs):
        results = method.epoch(state, data, epoch)
        found.append({key: value for key, value in results.items() if not key.startswith("seconds/")})
    logits = predict_all(method.predictor(state), data)
    return [*found, {"squared logits": float(logits.square().mean())}]


@pytest.mark.parametrize("name", sorted(METHODS))
def test_losses_are_what_they_were(
    name: str,
    methods: Callable[..., dict[str, Method]],
    data: TrainingData,
    network: PreActResNetSettings,
    request: pytest.FixtureRequest,
) -> None:
    found = curve(methods(3)[name], data, network)
    path = FOLDER / f"{name}.json"
    if request.config.getoption("--update-golden", default=False):
        path.write_text(json.dumps(found, indent=1) + "\n")
    kept = json.loads(path.read_text())
    assert len(found) == len(kept)
    for epoch, (now, then) in enumerate(zip(found, kept, strict=True)):
        assert now == pytest.approx(then, rel=1e-4, abs=1e-6), f"epoch {epoch}"


def test_no_curve_is_left_of_a_method_that_is_gone() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(METHODS)
