"""Measuring finished runs: accuracy, its significance, and calibration.

Nothing is imported here, because an ONNX file predicts and is calibrated without PyTorch.
"""
