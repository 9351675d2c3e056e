"""The baseline does the same maths as scanmix, the same number of times; what measures is measured itself."""

import csv
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

import scanmix
from results import fast
from scanmix.blocks.divide import clean_probability
from scanmix.blocks.losses import nt_xent_one_way, scan_loss, semi_supervised_loss
from scanmix.blocks.mixmatch import sharpen
from scanmix.blocks.neighbors import nearest_neighbors
from scanmix.config import UserError
from scanmix.data.views import Views, ViewSettings, make_views
from scanmix.data.views.augmentations import AUGMENTATIONS, augment
from scanmix.distributed.engine import Engine
from scanmix.doctor import passes
from scanmix.networks.inference import per_sample_losses
from scanmix.networks.preact_resnet import PreActResNet, PreActResNetSettings
from scanmix.progress import Quiet
from speed import epochs, gpu, growth, labels, lower_bounds, neighbors, pictures, reference_loop, rows, stages
from speed.__main__ import PARTS, main
from speed.made import Workload, made_data, made_examples
from speed.pil_views import OPERATIONS, like, to_pixels
from speed.plain_network import PlainPreActResNet
from speed.timing import Timing, interleave, ready

COUNT, BATCH = 512, 64
TINY = Workload(
    "tiny", COUNT, (1, 8, 8), PreActResNetSettings(widths=(4, 8), blocks=(1, 1), stem_stride=2), ViewSettings()
)


@pytest.fixture
def setup() -> epochs.Setup:
    return epochs.prepare(TINY)


@pytest.fixture
def halved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are told that every other label is clean: whole batches, so the counts of the table hold exactly."""
    p_clean = (torch.arange(COUNT) % 2).float()
    monkeypatch.setattr(reference_loop, "clean_probability", lambda losses: p_clean)
    for name in ("scanmix", "dividemix"):
        monkeypatch.setattr(f"scanmix.methods.{name}.clean_probabilities", lambda *_: torch.stack([p_clean] * 2))


def counted(monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> Counter[str]:
    """Images through encoders with and without gradients, and steps of optimizers."""
    found: Counter[str] = Counter()
    forwards: dict[type[nn.Module], Callable[..., Tensor]] = {
        network: network.forward for network in (PreActResNet, PlainPreActResNet)
    }

    def noted(self: nn.Module, images: Tensor) -> Tensor:
        found["learn" if torch.is_grad_enabled() else "look"] += len(images)
        return forwards[type(self)](self, images)

    handle = register_optimizer_step_post_hook(lambda *_: found.update(steps=1))
    with monkeypatch.context() as patch:
        for network in forwards:
            patch.setattr(network, "forward", noted)
        work()
    handle.remove()
    return found


CLEAN = COUNT // 2
AVERAGED = ", second peer averaged"
TABLE: dict[str, tuple[int, int, int]] = {  # look, learn, steps: the pass counts of both networks
    "ScanMix epoch, strong views": (2 * COUNT + 12 * CLEAN, 8 * CLEAN + 4 * COUNT, 2 * (CLEAN // 64 + COUNT // 128)),
    "ScanMix epoch, strong views" + AVERAGED: (
        2 * COUNT + 6 * CLEAN,
        4 * CLEAN + 2 * COUNT,
        CLEAN // 64 + COUNT // 128,
    ),
    "DivideMix epoch": (2 * COUNT + 12 * CLEAN, 8 * CLEAN, 2 * (CLEAN // 64)),
    "warm-up epoch, whole network, weak views": (0, 2 * COUNT, 2 * COUNT // 128),
    "warm-up epoch, head alone, strong views": (2 * COUNT, 0, 2 * COUNT // 128),
    "SCAN epoch, strong views": (0, 2 * COUNT, COUNT // 128),
    "SimCLR epoch and its sweep, contrastive views": (COUNT, 2 * COUNT, 1),
}


@pytest.mark.usefixtures("halved")
@pytest.mark.parametrize("name", TABLE)
def test_both_pass_as_many_images_as_the_table_says(
    name: str, setup: epochs.Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = next(case for case in epochs.cases(setup) if name in case.ours)
    expected = Counter(dict(zip(("look", "learn", "steps"), TABLE[name], strict=True)))
    assert counted(monkeypatch, case.ours[name]()) == expected
    both = Counter(dict(zip(("look", "learn", "steps"), TABLE[name.removesuffix(AVERAGED)], strict=True)))
    assert counted(monkeypatch, case.theirs(setup.plain)()) == both, "the reference always trains two"


def test_every_kind_of_epoch_is_counted(setup: epochs.Setup) -> None:
    assert [name for case in epochs.cases(setup) for name in case.ours] == list(TABLE)


@pytest.mark.usefixtures("halved")
def test_the_lower_bound_counts_the_same_passes() -> None:
    work = passes.stages(epochs.scanmix("strong"), COUNT, 0.5)["training"]
    assert (work.forward_only, work.forward_backward) == TABLE["ScanMix epoch, strong views"][:2]


def test_an_epoch_begins_from_the_same_weights_each_time(setup: epochs.Setup) -> None:
    before = {name: tensor.clone() for name, tensor in setup.state.peers[0].state_dict().items()}
    for case in list(epochs.cases(setup))[:2]:
        for ours in case.ours.values():
            ours()()
        case.theirs(setup.plain)()
    after = setup.state.peers[0].state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_reference_finds_the_losses_and_predictions_of_scanmix(setup: epochs.Setup) -> None:
    peer = setup.state.peers[0]
    losses, predictions = reference_loop.predict_all(reference_loop.Net(peer), setup.plain)
    found = per_sample_losses(peer, setup.data)
    torch.testing.assert_close(losses, found.losses)
    assert torch.equal(predictions, found.prediction)


def test_both_divide_alike() -> None:
    draws = torch.Generator().manual_seed(0)
    losses = torch.cat([torch.rand(300, generator=draws), 2 + torch.rand(200, generator=draws)])
    torch.testing.assert_close(reference_loop.clean_probability(losses), clean_probability(losses))


def test_both_minimize_the_same_losses() -> None:
    draws = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(12, 4, generator=draws), torch.rand(12, 4, generator=draws).softmax(1)
    theirs = reference_loop.mixmatch_loss(logits, targets, 6, 25.0)
    torch.testing.assert_close(theirs, semi_supervised_loss(logits, targets, 6, 25.0, 1.0).total)
    torch.testing.assert_close(reference_loop.sharpened(targets, 0.5), sharpen(targets, 0.5))
    one, two = nn.functional.normalize(torch.randn(2, 6, 5, generator=draws), dim=2)
    torch.testing.assert_close(reference_loop.contrast(one, two, 0.2), nt_xent_one_way(one, two, 0.2))
    torch.testing.assert_close(
        reference_loop.consistency_loss(logits, logits.flip(0)), scan_loss(logits, logits.flip(0), 5.0)[0]
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_views_of_one_image_are_those_of_a_batch(channels: int) -> None:
    images = made_examples(6, (channels, 16, 16)).images
    views = make_views(ViewSettings(), images, flip=True)
    assert isinstance(views, Views)
    single = like(views, 16)
    random.seed(0)  # one view in a hundred changes nothing
    single_images = [Image.fromarray(pixels) for pixels in to_pixels(images)]
    torch.testing.assert_close(torch.stack([single.plain(image) for image in single_images]), views.eval_view(images))
    for view in (single.weak, single.strong, single.contrastive):
        found = view(single_images[0])
        assert found.shape == images.shape[1:] and found.dtype == torch.float32 and bool(found.isfinite().all())
        assert not torch.equal(found, single.plain(single_images[0]))


@pytest.mark.parametrize("place", range(len(AUGMENTATIONS)))
def test_strong_operations_are_those_of_the_batch(place: int) -> None:
    images = made_examples(4, (3, 32, 32)).images
    (_, *limits, _), (one, *theirs) = AUGMENTATIONS[place], OPERATIONS[place]
    assert limits == theirs
    amount = limits[0] + 0.7 * (limits[1] - limits[0])
    expected = augment(images, torch.full((4, 1), place), torch.full((4, 1), 0.7))
    found = [np.asarray(one(Image.fromarray(pixels), amount)) for pixels in to_pixels(images)]
    difference = (torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).float() - expected).abs()
    assert float(difference.mean()) < 1  # of 255: roundings


def test_the_plain_network_is_the_same_with_channels_first(setup: epochs.Setup) -> None:
    encoder = setup.state.peers[0].encoder
    assert isinstance(encoder, PreActResNet)
    images, plain = setup.data.eval_view(slice(0, 32)), PlainPreActResNet(encoder)
    for mode in (True, False):
        torch.testing.assert_close(plain.train(mode)(images), encoder.train(mode)(images), rtol=1e-4, atol=1e-5)
    kept = [part.weight for part in plain.modules() if isinstance(part, nn.Conv2d) and part.kernel_size[0] > 1]
    assert all(weight.is_contiguous() for weight in kept)


def test_candidates_take_turns_and_prepare_untimed() -> None:
    order: list[str] = []

    def slow_to_prepare() -> Callable[[], object]:
        time.sleep(0.2)
        return lambda: order.append("b")

    times = interleave({"a": ready(lambda: order.append("a")), "b": slow_to_prepare}, 3, Quiet())
    assert order == ["a", "b"] * 3
    assert len(times["a"].wall) == len(times["b"].cpu) == 3
    assert times["b"].best < 0.1


def test_the_slower_number_of_workers_takes_one_turn() -> None:
    order: list[str] = []

    def runner(name: str, seconds: float) -> Callable[[], Callable[[], object]]:
        def run() -> None:
            order.append(name)
            time.sleep(seconds)

        return ready(run)

    tried = {"0": runner("0", 0.05), "2": runner("2", 0.01)}
    better, times = epochs.compared({"one": runner("one", 0), "two": runner("two", 0)}, tried, 3, Quiet())
    assert order == ["one", "two", "0", "2"] + ["one", "two", "2"] * 2
    assert better == "2" and list(times) == ["one", "two", "2"]
    assert len(times["one"].wall) == len(times["two"].wall) == len(times["2"].wall) == 3
    assert times["2"].best < 0.05


def test_a_row_says_how_many_times_as_fast(tmp_path: Path) -> None:
    row = rows.Row("it", Timing((2.0, 1.0), (1.0, 1.0)), "that", Timing((3.0, 4.0), (2.0, 2.5)), "note")
    assert row.cells == ("it", "1 s +100%", "that", "3 s +33%", "3.00 (1.50 to 4.00), cpu 2.00", "note")
    assert rows.Row("only a note").cells == ("only a note", "", "", "", "", "")
    rows.write(tmp_path / "deep" / "speed.md", {"part": [row]}, {"processor": "p"}, 2.0)
    text = (tmp_path / "deep" / "speed.md").read_text(encoding="utf-8")
    assert f"| {' | '.join(row.cells)} |" in text and "| processor | p |" in text
    (line,) = csv.DictReader((tmp_path / "deep" / "speed.csv").read_text(encoding="utf-8").splitlines())
    assert line["scanmix_wall"] == "[2.0, 1.0]" and line["ratio"] == "3.0000"


def test_time_in_views_is_found_in_views() -> None:
    data = made_data(TINY, Engine())
    views, draws = data.views, torch.Generator().manual_seed(0)
    assert isinstance(views, Views)

    def work() -> None:
        until = time.perf_counter() + 0.4
        while time.perf_counter() < until:
            views.strong(data.images[:], draws)

    found = stages.shares(work)
    assert max(found, key=found.__getitem__) == "views"
    assert sum(found.values()) == pytest.approx(1)
    assert stages.stage_of(None) == stages.REST


def test_stages_are_folders_and_files_that_exist() -> None:
    roots = [Path(scanmix.__file__).parents[1], Path(torch.__file__).parents[1]]
    assert all(any((root / place).exists() for root in roots) for place in stages.STAGES)


def test_operations_are_counted_by_hand() -> None:
    encoder = PreActResNet(PreActResNetSettings(widths=(4, 8), blocks=(1, 1)), 3)
    layers = lower_bounds.convolutions(encoder, torch.randn(2, 3, 8, 8))
    assert sum(layers.values()) == sum(isinstance(part, nn.Conv2d) for part in encoder.modules()) == 6
    stem = next(layer for layer in layers if layer.first)
    spent = lower_bounds.measure(stem, seconds=0.01)
    hand = 2 * 3 * 4 * 9 * 64  # multiplications and additions of each of 64 pixels
    assert (spent.look.operations, spent.learn.operations) == (hand, 2 * hand)  # images need no gradient
    assert 0 < spent.look.cpu < spent.learn.cpu < float("inf")


def test_exponent_of_a_power_law() -> None:
    assert growth.exponent((2, 4, 8), [3 * count**1.1 for count in (2, 4, 8)]) == pytest.approx(1.1)


@pytest.mark.long
def test_growth_is_measured_in_a_process_of_its_own() -> None:
    found = growth.in_a_process(200)
    assert found["count"] == 200 and len(found["wall"]) == growth.REPEATS
    assert 0 < found["program"] < found["peak"]


def test_every_search_finds_the_same_neighbors() -> None:
    features = neighbors.made_embeddings(300, 16)
    ours = nearest_neighbors(features, neighbors.K).numpy()
    for search in (neighbors.by_faiss(features), neighbors.by_sklearn(features)):
        if search is not None:
            assert neighbors.agreement(ours, search()) > 0.999
    found = np.array([[0, 3, 5], [4, 1, 2], [0, 1, 3]])
    assert neighbors.without_self(found).tolist() == [[3, 5], [4, 2], [0, 1]]


def test_made_files_load_again(tmp_path: Path) -> None:
    labels.made_run(tmp_path, 40, 10)
    assert len(scanmix.open_run(tmp_path / "run").audit()["id"]) == 40
    (tmp_path / "photos").mkdir()
    pictures.write_folder(tmp_path / "photos", 12, 64)
    train, _ = scanmix.load(tmp_path / "photos", size=16)
    assert train.images.shape == pictures.one_by_one(tmp_path / "photos", 16).shape == (12, 3, 16, 16)


def test_parts_run_alone_and_wrong_names_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(PARTS, "views", lambda bar: [ROW])
    monkeypatch.chdir(tmp_path)
    main(["views"])
    assert "a made row" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    main(["views"], Path("speed.md"))
    assert "a made row" in Path("speed.md").read_text(encoding="utf-8")
    with pytest.raises(UserError, match="did you mean 'views'"):
        main(["view"])


ROW = rows.Row("a made row", Timing((1.0,)))


def test_the_fast_recipes_are_compared_by_their_rows(tmp_path: Path) -> None:
    """What is known is not run again; the page has means, spreads and shares of the default's seconds."""
    made = [
        {"data": "digits", "noise": 0.8, "seed": seed, "way": way, "last": last, "last10": last, "seconds": seconds}
        for seed, way, last, seconds in (
            (0, "default", 0.96, 40.0), (1, "default", 0.98, 60.0), (0, "fast", 0.95, 12.0),
            (0, "label-free", 0.9, 30.0),
        )
    ]  # fmt: skip
    fast.write(made, tmp_path / "fast.csv")
    assert fast.read(tmp_path / "fast.csv") == made
    page = (tmp_path / "fast.md").read_text()
    assert "| 80% | default | 2 | 97.0 ± 1.4 | 50.0 ± 14.1 | 1.00 |" in page
    assert "| 80% | fast | 1 | 95.0 | 12.0 | 0.24 |" in page and "Self-supervised stages: 30.0 s." in page
    left = fast.tasks("digits", 0, made)
    assert left[0]["way"] == "label-free" and len(left) == 1 + 12 - 2
    assert not any((task["noise"], task["way"]) == (0.8, "default") for task in left)


def test_the_page_of_a_gpu_is_made_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every line runs; losses of two equal runs are equal, so those with a checkpoint between them are too."""
    monkeypatch.setattr(gpu, "two_processes", lambda device: "not compared")
    text = "\n".join(gpu.report(torch.device("cpu"), gpu.TINY))
    assert all(f"| {name} | 0 | 0 | yes |" in text for name in gpu.COMPARED)
    assert "300 epochs of ScanMix" in text and "NOT" not in text


def test_a_device_that_computes_other_losses_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([{"learn/total": 1.0}, {"learn/total": 1.1}, {"learn/total": 1.1}])
    monkeypatch.setattr(gpu, "two_epochs", lambda name, device, halved: next(losses))
    assert gpu.agreement("scanmix", torch.device("cpu")) == ("scanmix", "0.05", "0", "NO")
