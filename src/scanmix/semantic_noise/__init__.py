"""Noise as the command line names it, put on examples; and semantic noise, which a network has to make."""

from scanmix.semantic_noise.apply import FORMS, NoiseSpec, apply_noise, parse_noise
from scanmix.semantic_noise.labels import LABELLERS, Labeling, semantic_labels

__all__ = ["FORMS", "LABELLERS", "Labeling", "NoiseSpec", "apply_noise", "parse_noise", "semantic_labels"]
