"""A tiny encoder of random weights in an ONNX file: convolution of stride 4, ReLU, mean over the picture."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
METADATA = {"mean": "0.4,0.5,0.6", "std": "0.2,0.25,0.3"}
WIDTH = 6


def weights(seed: int = 0, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.3, (WIDTH, channels, 4, 4)).astype(np.float32)


def write_encoder(
    path: Path,
    *,
    seed: int = 0,
    size: int | str = 16,
    batch: int | str = "B",
    channels: int = 3,
    channels_last: bool = False,
    metadata: Mapping[str, str] = METADATA,
    pooled: bool = True,
    external: bool = False,
) -> Path:
    """Write the file; `pooled` has an output of vectors behind one of maps, else there are maps alone."""
    shape = [batch, size, size, channels] if channels_last else [batch, channels, size, size]
    kernel = numpy_helper.from_array(weights(seed, channels), "kernel")
    turned = [helper.make_node("Transpose", ["pictures"], ["turned"], perm=[0, 3, 1, 2])] if channels_last else []
    nodes = [
        *turned,
        helper.make_node("Conv", ["turned" if channels_last else "pictures", "kernel"], ["convolved"], strides=[4, 4]),
        helper.make_node("Relu", ["convolved"], ["maps"]),
        helper.make_node("GlobalAveragePool", ["maps"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["vectors"]),
    ]
    outputs = [helper.make_tensor_value_info("maps", TensorProto.FLOAT, [batch, WIDTH, None, None])]
    if pooled:
        outputs.append(helper.make_tensor_value_info("vectors", TensorProto.FLOAT, [batch, WIDTH]))
    entry = helper.make_tensor_value_info("pictures", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes if pooled else nodes[:-2], "tiny", [entry], outputs, [kernel])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model)
    onnx.save(
        model, path, save_as_external_data=external, location=f"{path.name}.data", size_threshold=0,
        all_tensors_to_one_file=True,
    )  # fmt: skip
    return path


def slow_features(pictures: np.ndarray, seed: int = 0) -> np.ndarray:
    """What the file computes of color pictures, one window after the other. Shape: (B, 3, H, W) uint8 -> (B, WIDTH)."""
    mean, std = (np.array(given)[:, None, None] for given in (MEAN, STD))
    found = np.zeros((len(pictures), WIDTH))
    for row, picture in enumerate(pictures):
        pixels = (picture / 255 - mean) / std
        windows = [
            pixels[:, top : top + 4, left : left + 4]
            for top in range(0, pixels.shape[1] - 3, 4)
            for left in range(0, pixels.shape[2] - 3, 4)
        ]
        for place, kernel in enumerate(weights(seed)):
            found[row, place] = np.mean([max(0.0, float((window * kernel).sum())) for window in windows])
    return found
