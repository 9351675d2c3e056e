"""How encoders compute: in which precision, and compiled or not."""

import shutil
from pathlib import Path
from typing import get_args

import pytest
import torch

import scanmix
from scanmix.distributed.engine import Precision
from scanmix.distributed.process_group import products_in
from scanmix.training import Run

NETWORK = {"widths": [4, 8], "blocks": [1, 1], "stem_stride": 2}


def allowed() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


class Watching:
    """A logger that notes what a GPU may round while a run is in training."""

    def __init__(self) -> None:
        self.seen: list[tuple[bool, bool]] = []

    def log_metrics(self, metrics: object, step: int) -> None:
        self.seen.append(allowed())

    def log_hyperparams(self, params: object) -> None:
        return

    def finalize(self, status: str) -> None:
        return


def trained(
    precision: Precision = "32-true", *, compiled: bool = False, out: Path | None = None
) -> tuple[Run, Watching]:
    examples, test = scanmix.load("digits", per_class=8, limit_test=40)
    watching = Watching()
    run = scanmix.train(
        examples, test=test, method="cross_entropy", epochs=2, lr_drop=1, batch_size=32, network=NETWORK, out=out,
        precision=precision, compiled=compiled, loggers=[watching], progress=False,
    )  # fmt: skip
    return run, watching


@pytest.mark.parametrize("precision", get_args(Precision))
def test_a_gpu_rounds_products_to_tf32_where_that_is_asked_for_alone(precision: Precision) -> None:
    before = allowed()
    _, watching = trained(precision)
    assert watching.seen and set(watching.seen) == {(precision == "tf32",) * 2}
    assert allowed() == before, "what the program had set is set again"


def test_what_was_set_is_set_again_after_an_error() -> None:
    before = allowed()
    with pytest.raises(KeyError), products_in("tf32"):
        raise KeyError
    assert allowed() == before


def test_a_cpu_computes_the_same_in_tf32() -> None:
    exact, rounded = trained()[0], trained("tf32")[0]
    losses = [[line["learn/loss"] for line in run.metrics] for run in (exact, rounded)]
    assert losses[0] == losses[1]


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # of PyTorch, by its own compiler
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a compiler of C++")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_compiled_encoders_learn_the_same_but_for_rounding(
    precision: Precision, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, compile_it = list[torch.nn.Module](), torch.nn.Module.compile

    def noted(module: torch.nn.Module) -> None:
        made.append(module)
        compile_it(module)

    monkeypatch.setattr(torch.nn.Module, "compile", noted)
    plain, compiled = trained(precision)[0], trained(precision, compiled=True, out=tmp_path / "run")[0]
    assert len(made) == 1
    losses = [torch.tensor([line["learn/loss"] for line in run.metrics]) for run in (plain, compiled)]
    torch.testing.assert_close(*losses, rtol=1e-5 if precision == "32-true" else 1e-2, atol=0)
    images = scanmix.load("digits")[0].images[:20]
    again = scanmix.open_run(tmp_path / "run")
    assert again.settings.processes.compiled
    torch.testing.assert_close(
        torch.as_tensor(again.predict_proba(images)), torch.as_tensor(plain.predict_proba(images)), atol=2e-2, rtol=0
    )
