"""Finished runs measured: accuracy, its significance, and calibration.

Nothing is imported here: an ONNX file predicts, and is calibrated, without PyTorch.
"""
