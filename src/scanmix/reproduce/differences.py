"""What a small table has otherwise than the paper, in words: pictures, network and epochs."""

from __future__ import annotations

from scanmix.networks.preact_resnet import PreActResNetSettings
from scanmix.reproduce.explain import settings_of
from scanmix.reproduce.paper import published
from scanmix.reproduce.tables import Cell, ResultTable

AMOUNTS = {"per_class": "training images of each class", "limit_test": "test images"}
"""Key of `ResultTable.load` -> what it is a number of."""


def differences(table: ResultTable) -> str:
    """Return what the runs of a table that shows the paper's figures have otherwise than the paper's runs.

    Epochs are those of each method; of one whose recipe has stages, the epochs of all of them.
    """
    if table.paper is None:
        return ""
    networks, epochs = set(), []
    for method in table.methods:
        settings = settings_of(table, Cell(method, table.noises[0], 0))
        networks.add(_words(settings.network))
        epochs.append(f"{method} {settings.build_method().epochs}")
    pictures = [f"{table.load[key]:,} {words}" for key, words in AMOUNTS.items() if key in table.load]
    return (
        f"They are for {table.paper[1]}: {published()['protocols'][table.paper[1]]}. Here: {table.source}, "
        f"{' and '.join(pictures) or 'all images'}; {' or '.join(sorted(networks))}; epochs: {', '.join(epochs)}."
    )


def _words(network: object) -> str:
    """Name a network by what decides its size."""
    if isinstance(network, PreActResNetSettings):
        stem = "" if network.stem_stride == 1 else f", stem of stride {network.stem_stride}"
        numbers = (" ".join(map(str, part)) for part in (network.widths, network.blocks))
        return f"a PreAct-ResNet of {' channels and blocks '.join(numbers)}{stem}"
    return type(network).__name__.removesuffix("Settings")
