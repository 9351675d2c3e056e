"""Learning rates of methods whose settings say when they are divided by ten."""

from __future__ import annotations

from typing import Protocol

from scanmix.blocks.schedules import step_decay
from scanmix.data.batches import TrainingData


class Scheduled(Protocol):
    """The settings that the schedule reads."""

    @property
    def epochs(self) -> int:
        """Epochs of the training."""

    @property
    def batch_size(self) -> int:
        """Examples of a step, which a duration in steps needs."""

    @property
    def learning_rate(self) -> float:
        """Learning rate of the first epoch."""


def decayed_rate(method: Scheduled, data: TrainingData, epoch: int, *drops: int | str) -> float:
    """Return `learning_rate` divided by ten once for each of the `drops`, which are durations, that `epoch` reached."""
    milestones = tuple(data.epochs_in(drop, method.batch_size, method.epochs) for drop in drops)
    return step_decay(method.learning_rate, 0.1, epoch, milestones)


class Dropping(Protocol):
    """The settings of a method that has one drop or two, and its own measure of a step."""

    @property
    def learning_rate(self) -> float:
        """Learning rate of the first epoch."""

    @property
    def lr_drop(self) -> int | str:
        """Duration until it is divided by ten."""

    @property
    def lr_second_drop(self) -> int | str | None:
        """Duration until it is divided by ten again; None: never."""

    def epochs_in(self, duration: int | str, count: int) -> int:
        """Return a duration in epochs of `count` examples."""


def rate_after_drops(method: Dropping, count: int, epoch: int) -> float:
    """Return `learning_rate` divided by ten for each of both drops that `epoch`, of `count` examples, has reached."""
    drops = [drop for drop in (method.lr_drop, method.lr_second_drop) if drop is not None]
    return step_decay(method.learning_rate, 0.1, epoch, tuple(method.epochs_in(drop, count) for drop in drops))
