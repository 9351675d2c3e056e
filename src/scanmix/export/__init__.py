"""Export of a finished run to a folder: the classifier as ONNX or safetensors, and its model card.

This file imports nothing, so that `export.loading` can run an ONNX file without PyTorch.
"""
