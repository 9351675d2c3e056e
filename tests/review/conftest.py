"""A made-up audit and its page: twelve labels or fifty thousand, without training anything."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from scanmix.audit import Audit
from scanmix.blocks.label_quality import RateInterval
from scanmix.review import Decisions, Review
from scanmix.review.rows import make_queue
from scanmix.review.thumbnails import Thumbnails

CLASSES = ("ant", "bee", "cat <b>", "dog")
MakeAudit = Callable[..., Audit]
MakeReview = Callable[..., Review]


def made_up(
    count: int = 12, classes: Sequence[str] = CLASSES, paths: Sequence[str] | None = None, decided: Sequence[str] = (),
    excluded: tuple[tuple[str, str, str], ...] = (),
) -> Audit:  # fmt: skip
    """A third of the labels wrong, a sixth hard, the others fine; row i is given class i and suggested the next.

    `decided` are words of an earlier round for the last rows.
    """
    names = np.array(classes, dtype=object)
    given = np.arange(count) % len(names)
    wrong, hard = count // 3, count // 6
    suggested = np.where(np.arange(count) < wrong, (given + 1) % len(names), given)
    rng = np.random.default_rng(0)
    class_probs = rng.dirichlet(np.ones(len(names)), count).astype(np.float32) * 0.2
    class_probs[np.arange(count), suggested] += 0.8
    kind = np.array(["wrong"] * wrong + ["hard"] * hard + ["fine"] * (count - wrong - hard), dtype=object)
    p_clean = np.linspace(0, 1, count).astype(np.float32)
    columns = {
        "id": np.array([f"made/{i:05d}" for i in range(count)], dtype=object),
        "path": np.array(paths or [""] * count, dtype=object),
        "given": names[given],
        "suggested": names[suggested],
        "p_clean": p_clean,
        "score": p_clean,
        "confidence": class_probs.max(1),
        "kind": kind,
        "against": np.array(["a b"] * wrong + [""] * (count - wrong), dtype=object),
        "suggestion": np.array(["set_aside"] * count, dtype=object),
        "reason": np.array([f"because of <i>{i}</i>" for i in range(count)], dtype=object),
    }
    if decided or excluded:
        columns["decided"] = np.array([*[""] * (count - len(decided)), *decided], dtype=object)
    return Audit(
        columns=columns,
        excluded=excluded,
        order=np.arange(count)[::-1],
        class_names=tuple(classes),
        class_probs=class_probs,
        neighbors=(np.arange(count)[:, None] + np.arange(1, 9)) % count,
        epochs=(1, 2, 3),
        losses=rng.random((3, 2, count)).astype(np.float32),
        noise_rate=RateInterval(0.3, 0.2, 0.4),
        readings=("Said in words.",),
        confusion=np.eye(len(names)),
    )


@pytest.fixture
def make_audit() -> MakeAudit:
    return made_up


@pytest.fixture
def make_review(tmp_path: Path) -> MakeReview:
    """The page of an audit in a folder; pictures come from `paths` (by row) or are plain squares."""

    def make(
        count: int = 12, *, folder: Path = tmp_path, paths: Sequence[str] | None = None, again: bool = False,
        by: str = "worst", **more: object,
    ) -> Review:  # fmt: skip
        audit = made_up(count, paths=paths, **more)  # type: ignore[arg-type]
        squares = (torch.arange(count) % 256).to(torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 1, 8, 8)
        sources = squares if paths is None else paths[::-1]
        decisions = Decisions(folder, audit, "ann")
        decisions.recover()
        queue = make_queue(audit, again, by)
        return Review("made up", audit, queue, decisions, Thumbnails(sources, audit.order.tolist()))

    return make
