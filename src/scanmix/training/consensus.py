"""The given labels of data that several annotators have labeled: what the model of annotators takes for the class."""

from __future__ import annotations

import dataclasses

import torch

from scanmix.blocks.annotators import fit_annotators, majority, several_votes
from scanmix.data.examples import Examples


def with_consensus(examples: Examples) -> Examples:
    """Return the examples with the consensus of their annotators as labels; without votes as they are.

    The consensus replaces the majority that a reader has put there. A label that a person has decided, or that is not
    the majority for another reason, stays; so a second call changes nothing. Every method trains on the likeliest
    class; how likely it is, none takes yet. `source` stays, so whoever loads the examples again has to call this too.
    """
    votes = examples.votes
    if votes is None or not several_votes(votes):
        return examples
    consensus = fit_annotators(votes, examples.num_classes).consensus
    is_open = examples.labels == majority(votes, examples.num_classes)
    if examples.decided is not None:
        is_open &= examples.decided == 0
    return dataclasses.replace(examples, labels=torch.where(is_open, consensus, examples.labels))
