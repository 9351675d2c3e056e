"""The encoder that is none: vectors go through, nothing is learned, and a peer with it is a linear classifier."""

import torch

from scanmix.networks.encoders import settings_class
from scanmix.networks.no_layers import NoLayers, NoLayersSettings


def test_vectors_go_through() -> None:
    encoder = NoLayersSettings(kind="none").build(5)
    rows = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    assert isinstance(encoder, NoLayers) and encoder.num_features == 5
    assert torch.equal(encoder(rows), rows)
    assert not list(encoder.parameters()) and not list(encoder.buffers())
    assert encoder.blocks() == [] and encoder.last_stage() == []


def test_its_name_stands_for_it_among_vectors_alone() -> None:
    assert settings_class("vector", {"kind": "none"}) is NoLayersSettings
