"""Label noise by its name on the command line; and semantic noise, whose labels come from a network."""

from scanmix.semantic_noise.apply import FORMS, NoiseSpec, apply_noise, parse_noise
from scanmix.semantic_noise.labels import LABELLERS, Labeling, semantic_labels

__all__ = ["FORMS", "LABELLERS", "Labeling", "NoiseSpec", "apply_noise", "parse_noise", "semantic_labels"]
