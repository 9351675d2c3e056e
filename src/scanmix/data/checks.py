"""Checks of the parts of `Examples`: each has the right type and shape, and names classes that exist.

Legend: N examples, A annotators, C classes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from scanmix.config import UserError, in_short


def check_labels(labels: Tensor, count: int, num_classes: int, what: str, least: int = 0) -> None:
    """Check labels. Shape: (N,) int64 in `least`..C - 1.

    Raises:
        UserError: they are something else; `what` is their name in the message.
    """
    if labels.dtype != torch.int64 or labels.shape != (count,):
        raise UserError(f"{what} must be {count} int64 numbers, not {labels.dtype} of shape {tuple(labels.shape)}.")
    if count and not least <= int(labels.min()) <= int(labels.max()) < num_classes:
        low, high = int(labels.min()), int(labels.max())
        raise UserError(f"{what} must lie in {least}..{num_classes - 1}, but run from {low} to {high}.")


def check_votes(
    votes: Tensor | None, annotators: tuple[str, ...], count: int, num_classes: int, no_vote: int, name: str
) -> None:
    """Check votes and the names of annotators.

    Args:
        votes: the class that each annotator gave each example. Shape: (N, A) int64 in `no_vote`..C - 1.
        annotators: A names.
        count: N.
        num_classes: C.
        no_vote: what stands for no vote.
        name: of the data, in the message.

    Raises:
        UserError: they do not fit together, or to N examples.
    """
    if votes is None:
        if annotators:
            raise UserError(f"{name} has {len(annotators)} annotators but no votes.")
        return
    if votes.dtype != torch.int64 or votes.shape != (count, len(annotators)):
        has = f"{votes.dtype} of shape {tuple(votes.shape)}"
        raise UserError(f"votes of {name} must be int64 of shape ({count}, {len(annotators)}), not {has}.")
    if len(set(annotators)) < len(annotators):
        raise UserError(f"{name} has {len(annotators)} annotators, but {len(set(annotators))} different names.")
    if votes.numel() and not no_vote <= int(votes.min()) <= int(votes.max()) < num_classes:
        low, high = int(votes.min()), int(votes.max())
        raise UserError(f"votes of {name} must lie in {no_vote}..{num_classes - 1}, but run from {low} to {high}.")


def check_mask(mask: Any, count: int, what: str) -> Tensor:
    """Return a mask as a tensor. Shape: N booleans -> (N,) bool.

    Raises:
        UserError: it is something else; `what` says of what it is one in the message.
    """
    try:
        found = torch.as_tensor(mask)
    except (TypeError, ValueError, RuntimeError):
        found = torch.tensor(0)
    if found.dtype != torch.bool or found.shape != (count,):
        raise UserError(f"{what} must be given as a mask of {count} booleans, not {in_short(mask)}")
    return found
