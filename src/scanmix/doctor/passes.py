"""How many images a method sends through its networks, counted from its settings alone.

Legend: N training examples, B batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from scanmix.config import About, epochs_of
from scanmix.methods.c2d import C2D
from scanmix.methods.d2l import D2L
from scanmix.methods.dividemix import DivideMix
from scanmix.methods.exact_em import ExactEM
from scanmix.methods.loss_correction import Backward, Forward
from scanmix.methods.m_correction import MCorrection, MCorrectionSH
from scanmix.methods.pes import PES
from scanmix.methods.pes_semi import PESSemi
from scanmix.methods.scan import Scan
from scanmix.methods.scan_dividemix import ScanDivideMix
from scanmix.methods.scanmix import ScanMix
from scanmix.methods.ssr import SSR, SSRPlus
from scanmix.model.dynamics import is_due
from scanmix.pretrain.moco import MoCo
from scanmix.pretrain.stages import Pretraining


@dataclass(frozen=True)
class Work:
    """Counts of images: through one network, and made into views."""

    learn: float = 0.0
    """Forward and backward."""
    look: float = 0.0
    """Forward alone."""
    weak: float = 0.0
    strong: float = 0.0
    contrastive: float = 0.0

    def __add__(self, other: Work) -> Work:
        """Both, one after the other."""
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Work(*(one + two for one, two in pairs))

    def __mul__(self, times: float) -> Work:
        """The same, so many times."""
        return Work(*(times * count for count in dataclasses.astuple(self)))


Stages = dict[str, Work]
"""What each stage of a run has to do, in order."""


def stages(method: Any, count: int, clean: float) -> Stages:
    """Count the work of a run on `count` training examples, when a share `clean` of the labels looks right.

    Measuring accuracy is not counted; see `evaluating`.
    """
    counted = COUNTS.get(type(method), _steady)(method, count, clean)
    return {name: work for name, work in counted.items() if work != Work()}


def evaluating(method: Any, count: int, num_test: int) -> Work:
    """Count the work of measuring on `num_test` images after every epoch, and of the snapshots of all `count`."""
    snapshots = sum(is_due(epoch + 1, method.epochs) for epoch in range(method.epochs))
    return Work(look=members(method) * (num_test * method.epochs + count * snapshots))


def members(method: Any) -> int:
    """Return how many networks a method trains."""
    about: About = method.about
    return about.nets


def largest_batch(method: Any, count: int) -> int:
    """Return how many images the largest step with gradients holds, of `count` in all."""
    size = count if isinstance(method, ExactEM) else getattr(getattr(method, "dividemix", method), "batch_size", 0)
    views: list[tuple[int, int]] = [(method.about.rows, size)]
    views += [(2, getattr(method, name).batch_size) for name in ("pretrain", "clustering") if hasattr(method, name)]
    return max(many * min(count, size) for many, size in views)


def _steady(method: Any, count: int, clean: float) -> Stages:
    """As the method says of itself, in every epoch."""
    about = method.about
    return {"training": Work(learn=about.learn, look=about.look, weak=about.views) * (count * method.epochs)}


def _self_supervised(method: Scan | ScanDivideMix | ScanMix, count: int) -> Stages:
    """First features, and one sweep; then SCAN: each image and a neighbor."""
    second = method.clustering
    pairs = 2 * second.epochs * _whole(count, second.batch_size)
    return {
        "pre-training": _features(method.pretrain, count) + Work(look=count),
        "clustering": Work(learn=pairs, strong=pairs),
    }


def _features(method: Pretraining, count: int) -> Work:
    """Two views of each image: SimCLR learns from both, MoCo from one and only looks at the other."""
    if isinstance(method, MoCo):
        rows = method.epochs * _whole(min(count, method.images or count), method.batch_size)
        return Work(learn=rows, look=rows, contrastive=2 * rows)
    views = 2 * method.epochs * _whole(count, method.batch_size)
    return Work(learn=views, contrastive=views)


def _scan(method: Scan, count: int, clean: float) -> Stages:
    return _self_supervised(method, count) | {"training": Work(look=count)}


def _dividemix(method: DivideMix, count: int, clean: float) -> Stages:
    warmup = min(method.epochs, _epochs_in(method, method.warmup, count))
    views = Work(learn=2 * count, weak=2 * count) * warmup
    return {"training": views + _divided(method, count, clean, "weak") * (method.epochs - warmup)}


def _scan_dividemix(method: ScanDivideMix, count: int, clean: float) -> Stages:
    inner = method.dividemix
    warmup = min(inner.epochs, _epochs_in(inner, inner.warmup, count))
    naming = Work(look=2 * count if method.name_clusters else 0)
    head = Work(look=2 * count, strong=2 * count) * warmup
    rest = _divided(inner, count, clean, "weak") * (inner.epochs - warmup)
    return _self_supervised(method, count) | {"training": naming + head + rest}


def _scanmix(method: ScanMix, count: int, clean: float) -> Stages:
    severe = 1 - clean > method.severe_noise
    view = method.severe_view if severe else method.view
    warmup = min(method.epochs, _epochs_in(method, method.warmup, count))
    mild = 0 if severe else min(method.epochs - warmup, _epochs_in(method, method.mild_warmup, count))
    naming = Work(look=2 * count if method.name_clusters else 0)
    learners = 2 if method.second_peer == "trained" else 1
    rows = learners * count
    seen = Work(**{method.warmup_view: rows})
    first = seen + (Work(look=rows) if method.warmup_part == "head" else Work(learn=rows))
    second = seen + Work(learn=rows, look=2 * count)
    pairs = 2 * learners * _whole(count, method.cluster_batch_size)
    clusters = Work(learn=pairs) + Work(**{view: pairs})
    turn = _divided(method, count, clean, view, learners)
    turn += clusters if (method.severe_cluster_rate if severe else method.cluster_rate) else Work()
    training = naming + first * warmup + second * mild + turn * (method.epochs - warmup - mild)
    return _self_supervised(method, count) | {"training": training}


def _exact_em(method: ExactEM, count: int, clean: float) -> Stages:
    """Every image in every step; a step that is not halved is looked at once. Before and after each epoch is a look."""
    looks = 2 + (method.steps if method.halvings else 0)
    return {"training": Work(learn=method.steps * count, look=looks * count) * method.epochs}


def _correction(method: Forward, count: int, clean: float) -> Stages:
    """First without the labels held out, and with a look at all; then all."""
    first = epochs_of(method.estimation, -(-count // method.batch_size), method.epochs)
    learned = count - round(method.held_out * count)
    before = Work(learn=learned, weak=learned, look=count) * first
    return {"training": before + Work(learn=count, weak=count) * (method.epochs - first)}


def _d2l(method: D2L, count: int, clean: float) -> Stages:
    """As cross-entropy, and some batches of plain views."""
    probed = method.probes * min(method.probe_size, count)
    return {"training": Work(learn=count, weak=count, look=probed) * method.epochs}


def _m_correction(method: MCorrection, count: int, clean: float) -> Stages:
    """MixUp; from `begin` on a look before each batch, and from the epoch before it one at all examples."""
    begin = epochs_of(method.begin, -(-count // method.batch_size), method.epochs)
    judged = method.epochs - max(0, begin - 1)
    corrected = method.epochs - max(1, begin)  # there is no mixture before the first epoch is over
    plain = Work(learn=count, weak=count) * method.epochs
    return {"training": plain + Work(look=count) * corrected + Work(look=count, weak=count) * judged}


def _ssr(method: SSR, count: int, clean: float) -> Stages:
    """A look at all, then two views in each step; SSR+ with as many other images, twice."""
    rows = method.batch_size * max(1, count // method.batch_size)
    epoch = Work(look=count, learn=2 * rows, strong=2 * rows)
    if isinstance(method, SSRPlus):
        epoch += Work(look=rows, learn=rows, strong=rows, weak=rows)
    return {"training": epoch * method.epochs}


def _pes(method: PES, count: int, clean: float) -> Stages:
    """Warm-up, new last parts, then two looks at all and a step for each label that is predicted."""
    first = min(method.epochs, epochs_of(method.warmup, -(-count // method.batch_size), method.epochs))
    refit = Work(learn=count, weak=count) * method.refit_stage + Work(look=count, weak=count) * method.refit_head
    agreed = max(1, round(clean * count))
    turn = Work(look=2 * count, learn=agreed, weak=2 * count + agreed)
    before = Work(learn=count, weak=count) * first + refit * (first < method.epochs)
    return {"training": before + turn * (method.epochs - first)}


def _pes_semi(method: PESSemi, count: int, clean: float) -> Stages:
    """Warm-up, a new head, then two looks at all and steps with two views; unlabeled ones are guessed for."""
    first = min(method.epochs, epochs_of(method.warmup, -(-count // method.batch_size), method.epochs))
    head = Work(look=count, weak=count) * (method.refit if first < method.epochs else 0)
    few = round(method.batch_size * min(0.5, 1 - clean))
    steps = max(1, count // method.batch_size)
    turn = Work(look=2 * count + 2 * few * steps, learn=2 * method.batch_size * steps)
    turn += Work(weak=2 * count + 2 * method.batch_size * steps)
    return {"training": Work(learn=count, weak=count) * first + head + turn * (method.epochs - first)}


def _c2d(method: C2D, count: int, clean: float) -> Stages:
    first = {"pre-training": _features(method.pretrain, count) + Work(look=count)}
    return first | _dividemix(method.dividemix, count, clean)


def _divided(method: DivideMix | ScanMix, count: int, clean: float, view: str, learners: int = 2) -> Work:
    """Both peers look at all images; each learner takes one division: two views of each labeled and unlabeled image.

    The one who learns guesses for all of them, the other for the unlabeled ones.
    """
    labeled = max(1, round(clean * count))
    steps = -(-labeled // method.batch_size)
    again = max(1, -(-method.minimum_steps // steps))
    unlabeled = 2 * again * steps * min(method.batch_size, count - labeled)
    rows = 2 * again * labeled + unlabeled
    each = Work(look=rows + unlabeled, learn=rows) + Work(**{view: rows})
    return Work(look=2 * count) + each * learners


def _whole(count: int, batch: int) -> int:
    """Images in a pass that leaves a short last batch out, unless there is no other."""
    return count - count % batch if count >= batch else count


def _epochs_in(method: DivideMix | ScanMix, duration: int | str, count: int) -> int:
    return epochs_of(duration, -(-count // (2 * method.batch_size)), method.epochs)


COUNTS: dict[type, Callable[[Any, int, float], Stages]] = {
    DivideMix: _dividemix,
    Scan: _scan,
    ScanDivideMix: _scan_dividemix,
    ScanMix: _scanmix,
    C2D: _c2d,
    D2L: _d2l,
    MCorrection: _m_correction,
    MCorrectionSH: _m_correction,
    PES: _pes,
    PESSemi: _pes_semi,
    SSR: _ssr,
    SSRPlus: _ssr,
    ExactEM: _exact_em,
    Forward: _correction,
    Backward: _correction,
}
"""Methods whose epochs are not all alike."""
