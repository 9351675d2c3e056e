"""What predicts: networks, views and class names, in memory and on disk; and how each label fared in training."""

from scanmix.model.model import Model, Outputs, Pixels, load_model, save_model, truth_of

__all__ = ["Model", "Pixels", "Outputs", "load_model", "save_model", "truth_of"]
