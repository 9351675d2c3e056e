"""Semantic noise: labels that are the mistakes of a network; and any noise of the command line, added to examples."""

from scanmix.semantic_noise.apply import apply_noise
from scanmix.semantic_noise.labels import LABELLERS, Labeling, semantic_labels

__all__ = ["LABELLERS", "Labeling", "apply_noise", "semantic_labels"]
