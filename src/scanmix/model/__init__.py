"""Trained models, in memory and on disk; and training dynamics: each network's losses and predictions by epoch."""

from scanmix.model.model import Model, Outputs, Pixels, load_model, save_model, truth_of

__all__ = ["Model", "Pixels", "Outputs", "load_model", "save_model", "truth_of"]
