"""Image models of Hugging Face: `hf:NAME`, on the hub or in a folder; needs the extra `hf`.

Legend: B batch, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from scanmix.config import UserError, install
from scanmix.features.encoder import FrozenEncoder
from scanmix.features.preparation import Interpolation, Preparation
from scanmix.files import in_words
from scanmix.files.tensors import digest

RESAMPLING: dict[int, Interpolation] = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers of the ways to resize; for others bicubic is taken."""
POOLER = "pooler"
"""What the names of weights of a pooled output hold."""


def open_hf(text: str, device: torch.device) -> FrozenEncoder:
    """Return an image model: its pooled output, or the first token where the weights of that output are missing.

    A model of images and texts, such as CLIP, gives its features of images. Pictures are prepared as the image
    processor beside the model says. Nothing of the repository is run, and weights are read from safetensors alone.

    Args:
        text: what follows `hf:`: the name of a repository, or a folder that `save_pretrained` wrote.
        device: where it computes.

    Raises:
        UserError: transformers is not installed, the model cannot be had, or it is none of images.
    """
    model, missing, processor = _loaded(text)
    prepared = _preparation(processor, text)
    lost = sorted(name for name in missing if POOLER not in name)
    if lost:
        raise UserError(f"hf:{text} has no weights for {lost[0]} ({len(lost)} tensors in all); choose another model")
    weights = digest({name: tensor for name, tensor in model.state_dict().items() if name not in missing})
    model.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
    network, output = _images_to_features(model, pooled=not missing)
    return FrozenEncoder(f"hf:{text}", f"hf {type(model).__name__} {output}", weights, network, prepared, device=device)


def _loaded(text: str) -> tuple[Any, set[str], Any]:
    """Return the model, the names of weights that it has and its file lacks, and the image processor."""
    try:
        import transformers
    except ImportError:
        raise UserError(f"hf:{text} needs transformers: {install('hf')}") from None
    try:
        with _quiet(transformers.utils.logging):
            processor = transformers.AutoImageProcessor.from_pretrained(text)
            model, report = transformers.AutoModel.from_pretrained(
                text, output_loading_info=True, use_safetensors=True, dtype=torch.float32
            )
    except Exception as error:  # hubs fail in many ways
        raise UserError(
            f"hf:{text} cannot be had ({in_words(error)}); on a machine without a network, copy the folder of the "
            "model there (config.json, preprocessor_config.json, model.safetensors) and say hf:FOLDER"
        ) from None
    return model, set(report["missing_keys"]), processor


@contextmanager
def _quiet(logging: Any) -> Iterator[None]:
    """Keep transformers from drawing bars and reports while the block runs."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _images_to_features(model: Any, pooled: bool) -> tuple[Callable[[Tensor], Tensor], str]:
    """Return a function from prepared pictures to features, and in a word which output it takes."""
    if hasattr(model, "get_image_features"):  # of images and texts

        def of_images(images: Tensor) -> Tensor:
            found = model.get_image_features(pixel_values=images)
            features: Tensor = found if isinstance(found, Tensor) else found.pooler_output
            return features

        return of_images, "image features"

    def of_outputs(images: Tensor) -> Tensor:
        found = model(pixel_values=images)
        output: Tensor | None = getattr(found, "pooler_output", None) if pooled else None
        if output is not None:
            return output.flatten(1)
        last: Tensor = found.last_hidden_state
        return last[:, 0] if last.ndim == 3 else last.mean((2, 3))

    return of_outputs, "pooled" if pooled else "first token"


def _preparation(processor: Any, name: str) -> Preparation:
    """Translate the settings of an image processor: resize, center crop, scale to 0..1, normalize."""
    if not processor.do_rescale or abs(255 * processor.rescale_factor - 1) > 1e-3:
        raise UserError(f"hf:{name} wants pixels scaled by other than 1/255, which is not known here; choose another")
    resized = _size(processor.size)
    cut = _size(processor.crop_size) if getattr(processor, "do_center_crop", False) else resized
    mean, std = (processor.image_mean, processor.image_std) if processor.do_normalize else ((0.0,) * 3, (1.0,) * 3)
    return Preparation(
        size=cut, mean=tuple(map(float, mean)), std=tuple(map(float, std)), crop=min(1.0, cut[0] / resized[0]),
        interpolation=RESAMPLING.get(processor.resample, "bicubic"),
    )  # fmt: skip


def _size(size: Any) -> tuple[int, int]:
    """Return (h, w) of a size that names height and width, or the shorter side."""
    found = dict(size)
    if found.get("height") and found.get("width"):
        return int(found["height"]), int(found["width"])
    side = found.get("shortest_edge") or found.get("longest_edge")
    if not side:
        raise UserError(f"the image processor gives no size in pixels ({found}); choose another model")
    return int(side), int(side)
