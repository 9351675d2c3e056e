"""Noise as the command line names it, put on examples; and semantic noise, which a network has to make."""

from scanmix.noises.asked import FORMS, NoiseSpec, apply_noise, parse_noise
from scanmix.noises.semantic import LABELLERS, Labeling, semantic_labels

__all__ = ["FORMS", "LABELLERS", "Labeling", "NoiseSpec", "apply_noise", "parse_noise", "semantic_labels"]
