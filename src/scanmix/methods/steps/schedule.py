"""The learning rate of a method whose settings say when it is divided by ten."""

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
