"""Where the model cards of earlier exports find `load_model`."""

from scanmix.model import load_model

__all__ = ["load_model"]
