"""What two processes (gloo, CPU) must agree on; run by `test_process_group.py`: two_processes.py RANK PORT FOLDER.

Each check gets the engine of its process; every process writes down how it went.
"""

import copy
import functools
import json
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from scanmix.blocks.divide import clean_probability
from scanmix.blocks.losses import nt_xent, scan_loss, semi_supervised_loss
from scanmix.blocks.meta import Weights, example_gradients, gradient, outputs_at, weights_of
from scanmix.blocks.neighbors import nearest_neighbors
from scanmix.config import UserError
from scanmix.data.batches import TrainingData, shard_rows
from scanmix.data.views import ViewSettings, make_views
from scanmix.distributed.engine import SINGLE_PROCESS, BatchNorm, Engine
from scanmix.distributed.process_group import Processes, process_group
from scanmix.methods import Method
from scanmix.methods.cleannet import CleanNet
from scanmix.methods.dividemix import DivideMix
from scanmix.methods.famus import FaMUS
from scanmix.methods.fsr import FSR
from scanmix.methods.mentornet_dd import MentorNetDD
from scanmix.methods.metacleaner import MetaCleaner
from scanmix.methods.mlnt import MLNT
from scanmix.methods.scanmix import ScanMix
from scanmix.networks.batch_norm import synchronized, unsynchronized
from scanmix.networks.inference import per_sample_losses, predict_all
from scanmix.networks.peer import Peer, make_encoder, make_peer
from scanmix.networks.preact_resnet import PreActResNetSettings
from scanmix.pretrain.cache import cached
from scanmix.pretrain.moco import MoCo, _in_parts, moco
from scanmix.pretrain.scan import Clustering
from scanmix.pretrain.simclr import SimCLR

SMALL = PreActResNetSettings(widths=(4, 8), blocks=(1, 1), final_norm=True)
equal = functools.partial(torch.testing.assert_close, rtol=1e-6, atol=1e-9)


def made_data(engine: Engine, count: int) -> TrainingData:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 4, (count,), generator=generator)
    views = make_views(ViewSettings(crop_padding=1), pixels, flip=True)
    return TrainingData(pixels, labels, 4, views, engine.generator)


def made_network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = SMALL.build(1)
        return nn.Sequential(encoder, nn.Linear(encoder.num_features, 4)).double()


def by_all(views: Callable[[int], Tensor]) -> Tensor:
    """What both processes see, in the order of the whole batch. Shape: 2 x (B, ...) -> (2 B, ...)."""
    return torch.stack([views(0), views(1)], 1).flatten(0, 1)


def same_gradients(
    engine: Engine, views: Callable[[int], Tensor], loss_of: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]
) -> None:
    """The averaged gradient of the own rows is that of one process which sees the rows of both."""
    alone = made_network().train()
    shared = synchronized(copy.deepcopy(alone), engine.world)
    loss = loss_of(lambda rows: rows, alone(by_all(views)))
    loss.backward()
    ours = loss_of(engine.all_gather, shared(views(engine.rank)))
    engine.backward(ours, shared)
    equal(ours, loss)
    for mine, whole in zip(shared.parameters(), alone.parameters(), strict=True):
        equal(mine.grad, whole.grad)
    for here, there in zip(shared.buffers(), alone.buffers(), strict=True):
        equal(here, there)


def drawn_views(data: TrainingData, index: Tensor, turns: int = 1) -> Callable[[int], Tensor]:
    """Return the weak views that a process draws of its rows, `turns` of each."""

    def views(rank: int) -> Tensor:
        own = shard_rows(index, rank, 2)
        draws = replace(SINGLE_PROCESS, rank=rank).generator("learn", 0, "views")
        return torch.cat([data.views.weak(data.images[own], draws) for _ in range(turns)]).double()

    return views


def gradient_of_nt_xent(engine: Engine, folder: Path) -> None:
    data = made_data(engine, 24)

    def loss_of(gather: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
        first, second = rows.chunk(2)
        return nt_xent(gather(nn.functional.normalize(first)), gather(nn.functional.normalize(second)), 0.2)

    same_gradients(engine, drawn_views(data, torch.arange(16), 2), loss_of)


def gradient_of_scan(engine: Engine, folder: Path) -> None:
    data = made_data(engine, 24)

    def loss_of(gather: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
        anchor, neighbor = rows.chunk(2)
        return scan_loss(gather(anchor), gather(neighbor), 5.0)[0]

    same_gradients(engine, drawn_views(data, torch.arange(20), 2), loss_of)


def gradient_of_uneven_batches(engine: Engine, folder: Path) -> None:
    """Of 7 labeled and 5 unlabeled rows each process has 4 and 3: one of each twice, as one process would see."""
    data = made_data(engine, 24)
    labeled, unlabeled = (drawn_views(data, index) for index in (torch.arange(7), torch.arange(7, 12)))
    targets = nn.functional.one_hot(torch.arange(14) % 4, 4).double()

    def loss_of(gather: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
        logits = gather(rows)
        assert len(logits) == 14
        return semi_supervised_loss(logits, targets, 8, 25.0, 1.0).total

    same_gradients(engine, lambda rank: torch.cat([labeled(rank), unlabeled(rank)]), loss_of)


def running_statistics_of_split_batches(engine: Engine, folder: Path) -> None:
    network = nn.BatchNorm1d(3)
    rows = torch.arange(24.0).view(8, 3)
    engine.backward(network(rows[engine.rank :: 2]).square().sum(), network)
    torch.testing.assert_close(network.running_mean, 0.1 * rows.mean(0))


def sweeps_and_what_follows(engine: Engine, folder: Path) -> None:
    """Losses, mixture and neighbors of two processes have the bits of one, also where the last batch is short."""
    for count in (40, 512, 1100):
        data = made_data(engine, count)
        peer = make_peer(SMALL, data, engine, "a")
        alone = make_peer(SMALL, data, SINGLE_PROCESS, "a")
        belief, expected = per_sample_losses(peer, data), per_sample_losses(alone, data)
        assert torch.equal(belief.losses, expected.losses) and torch.equal(belief.prediction, expected.prediction)
        p_clean = engine.broadcast(clean_probability(belief.losses))
        assert torch.equal(p_clean, clean_probability(expected.losses))
        features, wanted = predict_all(peer.encoder, data, engine), predict_all(alone.encoder, data)
        assert torch.equal(features, wanted)
        assert torch.equal(engine.broadcast(nearest_neighbors(features, 5)), nearest_neighbors(wanted, 5))


def bytes_of_the_first(engine: Engine, folder: Path) -> None:
    """Only the first has a cache; what it finds there, all have."""
    engine = replace(engine, cache=folder if engine.rank == 0 else None)
    table = torch.arange(5.0)
    assert engine.broadcast_bytes(lambda: b"") == b""
    first = cached(engine, "stage", "key", lambda path: {"table": table})
    second = cached(engine, "stage", "key", lambda path: {"table": torch.zeros(0)})
    assert torch.equal(first["table"], table) and torch.equal(second["table"], table)


def weights_that_differ(engine: Engine, folder: Path) -> None:
    network = made_network()
    engine.check_equal(network)
    if engine.rank == 1:
        next(network.parameters()).data.view(-1)[0] += 1e-3
    try:
        engine.check_equal(network)
    except UserError:
        return
    raise AssertionError("nobody noticed")


def two_epochs_of_scanmix(engine: Engine, folder: Path) -> None:
    """Weights, buffers, division and losses stay the same in both, with clean sets of different sizes."""
    settings: tuple[BatchNorm, ...] = ("synchronized", "split")
    for batch_norm in settings:
        engine = replace(engine, batch_norm=batch_norm)
        data = made_data(engine, 61)
        method = ScanMix(
            epochs=3, warmup=1, pretrain=SimCLR(epochs=1, batch_size=30),
            clustering=Clustering(epochs=1, batch_size=30), num_neighbors=4,
            batch_size=8, cluster_batch_size=30, severe_noise=0.1,
        )  # fmt: skip
        state = method.start(data, SMALL, engine)
        lines = [method.epoch(state, data, epoch) for epoch in range(method.epochs)]
        numbers = [value for line in lines for name, value in line.items() if not name.startswith("seconds")]
        held = [*(tensor for peer in state.peers for tensor in peer.state_dict().values()), state.p_clean]
        for tensor in [torch.tensor(numbers), *(one for one in held if one is not None)]:
            assert torch.equal(engine.broadcast(tensor.clone()), tensor)
        assert all(isinstance(peer, Peer) for peer in state.peers)


def peers_in_parallel(engine: Engine, folder: Path) -> None:
    """Each process trains one peer; both then hold both, momentum included, and these have moved."""
    engine = replace(engine, parallel="peers")
    data = made_data(engine, 40)
    method = DivideMix(epochs=2, warmup=1, batch_size=8)
    state = method.start(data, SMALL, engine)
    before = copy.deepcopy([peer.state_dict() for peer in state.peers])
    for epoch in range(method.epochs):
        method.epoch(state, data, epoch)
    for peer, old in zip(state.peers, before, strict=True):
        assert peer.engine is engine
        momenta = [held["momentum_buffer"] for held in peer.optimizer.state_dict()["state"].values()]
        assert momenta
        for tensor in [*momenta, *peer.state_dict().values()]:
            assert torch.equal(engine.broadcast(tensor.clone()), tensor)
        assert not torch.equal(peer.classifier.weight, old["classifier.weight"])
    assert state.p_clean is not None and torch.equal(engine.broadcast(state.p_clean.clone()), state.p_clean)


def keys_of_both(engine: Engine, folder: Path) -> None:
    """Every process has the keys of all, in the order of the batch, and MoCo ends with the same weights in both."""
    data, index = made_data(engine, 40), torch.randperm(40, generator=torch.Generator().manual_seed(0))[:13]
    encoder = make_encoder(SMALL, 1, engine, "encoder").eval()

    def keys(rank: int) -> Tensor:
        draws = replace(engine, rank=rank).generator("moco", 0, "views")
        rows: Tensor = encoder(data.views.contrastive(data.images[shard_rows(index, rank, 2)], draws))
        return rows

    found = _in_parts(encoder, index, 1, data, engine, data.generator("moco", 0, "views"))
    torch.testing.assert_close(found, by_all(keys)[:13])

    settings = MoCo(kind="moco", epochs=2, batch_size=13, projection_size=8, queue_size=20, learning_rate=0.1)
    weights = moco(settings, encoder, data, engine, None)
    for tensor in weights.values():
        assert torch.equal(engine.broadcast(tensor.clone()), tensor)


def gradients_through_a_step(engine: Engine, folder: Path) -> None:
    """Both have the whole batch, and batch norms send nothing; before and after it, they do."""
    alone = made_network().train()
    shared = synchronized(copy.deepcopy(alone), engine.world)
    data, labels = made_data(engine, 24), torch.arange(16) % 4
    views = drawn_views(data, torch.arange(16))

    def found(network: nn.Module, rows: Tensor) -> Tensor:
        def losses(at: Weights) -> Tensor:
            return nn.functional.cross_entropy(outputs_at(network, at, rows), labels, reduction="none")

        weights = weights_of(network)
        slope, _ = gradient(lambda at: losses(at)[:8].mean(), weights)
        return example_gradients(losses, weights, slope, 0.1)

    with unsynchronized(shared):
        ours = found(shared, engine.all_gather(views(engine.rank)))
    equal(ours, found(alone, by_all(views)))
    equal(engine.all_gather(shared(views(engine.rank))), alone(by_all(views)))


def methods_that_look_ahead(engine: Engine, folder: Path) -> None:
    """Weights and numbers stay the same in both."""
    for method in LOOKING_AHEAD:
        data = replace(made_data(engine, 41), trusted=torch.arange(41) % 3 == 0)
        state = method.start(data, SMALL, engine)
        lines = [method.epoch(state, data, epoch) for epoch in range(method.epochs)]
        numbers = [value for line in lines for name, value in line.items() if not name.startswith("seconds")]
        held = [tensor for peer in state.peers for tensor in peer.state_dict().values()]
        for tensor in [torch.tensor(numbers), *held]:
            assert torch.equal(engine.broadcast(tensor.clone()), tensor), type(method).__name__


LOOKING_AHEAD: list[Method] = [
    MLNT(epochs=3, burn_in=1, rounds=2, batch_size=20, synthetic=2),
    FSR(epochs=3, burn_in=1, batch_size=20),
    FaMUS(epochs=2, warmup=1, batch_size=8),
    MentorNetDD(epochs=2, batch_size=20),
    MetaCleaner(epochs=2, batch_size=15),
    CleanNet(epochs=2, burn_in=1, batch_size=20, verifier_steps=6, verifier_batch=8, references=3),
]

CHECKS = [
    gradient_of_nt_xent, gradient_of_scan, gradient_of_uneven_batches, running_statistics_of_split_batches,
    sweeps_and_what_follows, bytes_of_the_first, weights_that_differ, two_epochs_of_scanmix, peers_in_parallel,
    keys_of_both, gradients_through_a_step, methods_that_look_ahead,
]  # fmt: skip


def main(rank: str, port: str, folder: str) -> None:
    torch.set_num_threads(1)
    where = {"LOCAL_RANK": rank, "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    with process_group(Processes(devices=2), "cpu", where) as (own, world, device):
        for check in CHECKS:
            went = "ok"
            try:
                check(Engine(device=device, rank=own, world=world), Path(folder))
            except Exception:
                went = traceback.format_exc()
            (Path(folder) / f"{check.__name__}.{rank}.json").write_text(json.dumps(went))


if __name__ == "__main__":
    main(*sys.argv[1:])
