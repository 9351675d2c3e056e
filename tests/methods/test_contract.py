"""The contract of a method is whole, nobody asks for more, and one dict line is enough for a method unlike the others.

`Duo` has two networks with a head of their own, epochs of two lengths, and a threshold that is not one half.
"""

import ast
import dataclasses
import itertools
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from typer.testing import CliRunner

import scanmix
from scanmix.blocks.divide import clean_probabilities
from scanmix.cli import app
from scanmix.config import STRICT, About, Batch, Count, Rate
from scanmix.data.batches import TrainingData, batches
from scanmix.data.examples import Examples
from scanmix.distributed.engine import Engine
from scanmix.distributed.meter import Meter
from scanmix.doctor import measure
from scanmix.doctor.passes import stages
from scanmix.methods import METHODS, Method
from scanmix.methods.contract import rows_of_a_step, sum_of_peers
from scanmix.methods.cross_entropy import CrossEntropy
from scanmix.model import load_model
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.inference import per_sample_losses
from scanmix.networks.passes import Passes, Stages
from scanmix.networks.peer import Heads, Peer, make_peer
from scanmix.networks.preact_resnet import PreActResNet
from scanmix.training import Run, open_run, resolve
from scanmix.training.loop import resume, train
from tests.interrupted import Order, Victim
from tests.tiny import NETWORK, settings

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "scanmix"
MEMBERS = sorted({*Method.__annotations__, *(name for name in vars(Method) if not name.startswith("_"))})


def missing(cls: type) -> list[str]:
    """Members of the contract that a class lacks; a field of a dataclass is one it has."""
    fields = {field.name for field in dataclasses.fields(cls)}
    return [name for name in MEMBERS if name not in fields and not hasattr(cls, name)]


def test_the_contract_has_members() -> None:
    assert MEMBERS == [
        "State", "about", "clean_threshold", "epoch", "epochs", "heads", "largest_batch", "passes", "predictor",
        "self_supervised", "start",
    ]  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_a_method_keeps_the_contract(name: str) -> None:
    assert missing(METHODS[name]) == []


@pytest.mark.parametrize("member", ["heads", "clean_threshold", "passes", "predictor", "about"])
def test_a_member_that_is_missing_or_misspelled_is_found(member: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CrossEntropy, f"{member}s", getattr(CrossEntropy, member), raising=False)
    monkeypatch.delattr(CrossEntropy, member)
    assert missing(CrossEntropy) == [member]


def asked_past_the_contract(source: str) -> list[str]:
    """Uses of a method that the contract does not know: its class by name, or an attribute that may not be there."""
    classes = {cls.__name__ for cls in METHODS.values()}
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("scanmix.methods."):
            found.append(f"line {node.lineno}: imports {node.module}")
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args):
            continue
        if node.func.id in ("getattr", "hasattr") and "method" in ast.unparse(node.args[0]).lower():
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
        if node.func.id == "isinstance" and classes & set(ast.unparse(node.args[1]).split(" | ")):
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
    return found


OTHERS = [path for path in sorted(PACKAGE.rglob("*.py")) if "methods" not in path.relative_to(PACKAGE).parts[:1]]


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nobody_asks_past_the_contract(path: Path) -> None:
    assert asked_past_the_contract(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line",
    [
        "from scanmix.methods.scan import Scan",
        "getattr(method, 'heads', None)",
        "hasattr(settings.build_method(), 'pretrain')",
        "isinstance(it, Scan)",
        "isinstance(it, int | ScanMix)",
    ],
)
def test_who_asks_past_the_contract_is_found(line: str) -> None:
    assert len(asked_past_the_contract(line)) == 1


def one_projector(num_features: int) -> dict[str, nn.Module]:
    return {"projector": nn.Linear(num_features, 4)}


@dataclasses.dataclass
class DuoState:
    """Two networks, and what they have lost so far."""

    peers: list[Peer]
    losses: Tensor  # (N,) running mean of the loss of each given label
    p_clean: Tensor | None = None  # (2, N)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Duo:
    """Each network learns what the other believes; longer epochs also pull the projections of two views together."""

    State: ClassVar[type[DuoState]] = DuoState
    self_supervised: ClassVar[bool] = False
    heads: ClassVar[Heads | None] = staticmethod(one_projector)
    clean_threshold: ClassVar[float | None] = 0.3
    about: ClassVar[About] = About(
        "two networks that learn from what the other believes", "For tests.", networks=2, rows=2, cost_in_words="2 to 4"
    )
    predictor = sum_of_peers
    largest_batch = rows_of_a_step

    epochs: Count = 4  # E
    short: Count = 2  # epochs without the projections
    batch_size: Batch = 32  # B
    learning_rate: Rate = 0.05  # of SGD

    def start(self, data: TrainingData, network: NetworkSettings, engine: Engine) -> DuoState:
        peers = [make_peer(network, data, engine, name, 0.9, 5e-4, one_projector) for name in ("a", "b")]
        return DuoState(peers, torch.zeros(len(data), device=engine.device))

    def epoch(self, state: DuoState, data: TrainingData, epoch: int) -> dict[str, float]:
        meter = Meter()
        losses = torch.stack([per_sample_losses(peer, data).losses for peer in state.peers])
        state.losses = 0.5 * state.losses + 0.5 * losses.mean(0)
        state.p_clean = state.peers[0].engine.broadcast(clean_probabilities(losses))
        with meter.timed("learn"):
            for side, peer in enumerate(state.peers):
                self._train(peer, state.p_clean[1 - side], data, epoch, side, meter)
        return meter.results()

    def passes(self, count: int, clean: float) -> Stages:
        first = Passes(forward_backward=2 * count, forward_only=2 * count, weak=2 * count)
        longer = Passes(forward_backward=4 * count, strong=4 * count) * max(0, self.epochs - self.short)
        return {"training": first * self.epochs + longer}

    def _train(self, peer: Peer, weights: Tensor, data: TrainingData, epoch: int, side: int, meter: Meter) -> None:
        order, draws = data.generators(f"learn {side}", epoch, "order", "views")
        peer.train()
        for index in map(peer.shard, batches(data.everything, self.batch_size, order)):
            logits, rows = peer.logits(data.views.weak(data.images[index], draws)), peer.all_gather(index)
            loss = (weights[rows] * F.cross_entropy(logits, data.labels[rows], reduction="none")).mean()
            if epoch >= self.short:
                views = torch.cat(data.sample_views(data.views.strong, (index, index), draws))
                one, other = peer.all_gather(peer.heads["projector"](peer.encoder(views))).chunk(2)
                loss = loss - F.cosine_similarity(one, other).mean()
            meter.add("learn", loss=loss)
            peer.step(loss, self.learning_rate)


@pytest.fixture(autouse=True)
def duo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "duo", Duo)


def noisy() -> Examples:
    return scanmix.add_noise(scanmix.load("digits", per_class=6)[0], "symmetric", rate=0.4, seed=0)


def train_duo(folder: Path, name: str, **more: Any) -> Run:
    (folder / "bare.toml").touch()
    return train(
        noisy(), test=scanmix.load("digits", limit_test=30)[1], method="duo", recipe=str(folder / "bare.toml"),
        out=folder / name, cache=folder / "cache", network=NETWORK, threads=1, progress=False, device="cpu",
        **settings("duo", epochs=4), **more,
    )  # fmt: skip


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """Images that really went through a network."""
    found = {"forward_backward": 0, "forward_only": 0}
    forward = PreActResNet.forward

    def counted(self: PreActResNet, images: Tensor) -> Tensor:
        found["forward_backward" if torch.is_grad_enabled() else "forward_only"] += len(images)
        return forward(self, images)

    monkeypatch.setattr(PreActResNet, "forward", counted)
    yield found


def test_it_keeps_the_contract() -> None:
    assert missing(Duo) == []


def test_it_trains_and_is_audited_exported_and_loaded(tmp_path: Path) -> None:
    run = train_duo(tmp_path, "run")
    assert [line["epoch"] for line in run.metrics] == [1, 2, 3, 4]
    assert all(0 <= line["clean_purity"] <= 1 for line in run.metrics)
    audit = open_run(tmp_path / "run").audit()
    assert len(audit["id"]) == 60 and (tmp_path / "run" / "labels.csv").is_file()
    p_clean = run.snapshots[-1].p_clean if run.snapshots else None
    evidence = open_run(tmp_path / "run").evidence()
    assert p_clean is None and evidence.set_aside is not None
    last = evidence.snapshots[-1].p_clean
    assert last is not None and torch.equal(evidence.set_aside, (last <= 0.3).all(0)), "its own threshold"
    images = noisy().images
    assert torch.equal(load_model(tmp_path / "run").logits(images), run.model.logits(images))
    done = CliRunner().invoke(
        app, ["export", str(tmp_path / "run"), "--out", str(tmp_path / "out"), "--format", "safetensors"]
    )
    assert done.exit_code == 0, done.output
    assert torch.equal(load_model(tmp_path / "out").logits(images), run.model.logits(images))


@pytest.mark.parametrize("epochs", [1, 4])
def test_the_doctor_counts_what_it_does(epochs: int, rows: dict[str, int], tmp_path: Path) -> None:
    method = resolve("duo", "data", str(ROOT / "tests" / "published.toml"), {"epochs": epochs}).build_method()
    data = noisy()
    views = scanmix.data.views.make_views(scanmix.data.views.ViewSettings(), data.images, flip=False)
    training = TrainingData(data.images, data.labels, 10, views, Engine().generator)
    state = method.start(training, resolve("duo", "data", None, {"network": NETWORK}).network, Engine())
    for epoch in range(epochs):
        method.epoch(state, training, epoch)
    (work,) = stages(method, len(training), 0.5).values()
    assert (work.forward_backward, work.forward_only) == (rows["forward_backward"], rows["forward_only"])
    assert method.largest_batch(1000) == 64


def test_the_doctor_estimates_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "SECONDS", 0.01)
    asked = resolve("duo", "data", None, {"network": NETWORK}, device="cpu")
    found = measure.estimate(asked, noisy(), 0)
    assert list(found.stages) == ["training"] and found.stages["training"][0] > 0


def test_it_is_in_the_list_of_methods() -> None:
    said = CliRunner().invoke(app, ["methods", "duo"]).output
    assert "two networks that learn from what the other believes" in said and "epochs without the projections" in said
    assert "\n### duo\n" in CliRunner().invoke(app, ["methods", "--markdown"]).output


def in_a_process(folder: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Train in a process of its own, which knows the method by one dict line, too."""
    code = "import sys, pathlib; from tests.methods.test_contract import main; main(pathlib.Path(sys.argv[1]))"
    path = os.pathsep.join(map(str, (ROOT / "src", ROOT)))
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **environment},
    )


def main(folder: Path, kill_at_step: int = -1) -> None:
    """Train; kill this process after a step, if so told."""
    METHODS["duo"] = Duo
    steps = itertools.count()

    def after_a_step(*_: object) -> None:
        if next(steps) == kill_at_step:
            os.kill(os.getpid(), signal.SIGKILL)

    register_optimizer_step_post_hook(after_a_step)
    train_duo(folder, "run")


def numbers(run: Run) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if not key.startswith("seconds/")} for line in run.metrics]


@pytest.mark.parametrize("step", [pytest.param(5, marks=pytest.mark.long), 13])  # in a short epoch, in a longer one
def test_killed_it_goes_on_with_the_same_bits(step: int, victim: Victim, tmp_path: Path) -> None:
    assert victim.do(Order("tests.methods.test_contract.main", str(tmp_path), [step])).signal == signal.SIGKILL
    assert not open_run(tmp_path / "run").finished and len(open_run(tmp_path / "run").metrics) == step // 4
    again = resume(tmp_path / "run", cache=tmp_path / "cache", progress=False)
    assert numbers(again) == numbers(train_duo(tmp_path, "whole"))
    for file in ("labels.csv", "model/model.safetensors"):
        assert (tmp_path / "run" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file


@pytest.mark.long
def test_two_processes_train_it(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    where = {
        "TORCHELASTIC_RUN_ID": "duo", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
    }  # fmt: skip
    both = [in_a_process(tmp_path, {**where, "RANK": rank, "LOCAL_RANK": rank}) for rank in ("0", "1")]
    try:
        assert [one.wait(timeout=120) for one in both] == [0, 0]
    finally:
        for one in both:
            one.kill()
    run = open_run(tmp_path / "run")
    assert run.finished and run.settings.processes.world == 2 and len(run.audit()["id"]) == 60
