"""A finished run as a folder that stands alone: the classifier as ONNX or safetensors, and its model card.

Nothing is imported here: `export.classifier` runs an ONNX file where there is no PyTorch.
"""
