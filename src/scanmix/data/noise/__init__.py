"""Noise added to labels: symmetric, asymmetric, instance-dependent, or from a file."""

from scanmix.data.noise.label_noise import (
    DRAWN,
    add_noise,
    asymmetric,
    from_file,
    load_noise,
    save_noise,
    select,
    symmetric,
)  # fmt: skip
from scanmix.data.noise_spec import FORMS, SEMANTIC_NETWORKS, NoiseSpec, parse_noise

__all__ = [
    "DRAWN", "FORMS", "SEMANTIC_NETWORKS", "NoiseSpec", "add_noise", "asymmetric", "from_file", "load_noise",
    "parse_noise", "save_noise", "select", "symmetric",
]  # fmt: skip
