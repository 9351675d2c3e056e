"""Label noise: symmetric, asymmetric, instance-dependent, or from a file."""

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

__all__ = ["DRAWN", "add_noise", "asymmetric", "from_file", "load_noise", "save_noise", "select", "symmetric"]
