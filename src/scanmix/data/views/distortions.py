"""Color distortion and blur on whole batches, with strengths drawn for each image.

The usual transform runs image by image in Python; here a batch is changed by a few tensor calls on its device. Images
are in [0, 1] and nothing is rounded. Images have color if C = 3; color operations leave all others unchanged.
Legend: B batch, C channels, H height, W width.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional

from scanmix.data.views.augmentations import per_image

AT_ONCE = 128
"""Images that are changed at once, so that intermediate results stay in the cache of the processor.
revisit: depends on the size of that cache."""


def _uniform(low: float, high: float, count: int, generator: Generator, device: torch.device) -> Tensor:
    """Draw on the device of the generator, then move, so that values do not depend on `device`. Shape: -> (B,)."""
    draws = torch.rand(count, generator=generator, device=generator.device)
    return (low + (high - low) * draws).to(device, non_blocking=True)


def _some(count: int, probability: float, generator: Generator, device: torch.device) -> Tensor:
    """Return 1 for an image with `probability`, else 0. Shape: -> (B, 1, 1, 1) float32, to choose by `lerp`."""
    # Floats, because on a CPU `lerp` is twenty times faster than a choice by a mask. revisit: depends on PyTorch.
    return per_image((_uniform(0, 1, count, generator, device) < probability).float())


def _luma(images: Tensor) -> Tensor:
    """Return the luma of images in [0, 1], not rounded. Shape: (B, C, H, W) -> (B, 1, H, W)."""
    if images.shape[1] != 3:
        return images.mean(dim=1, keepdim=True)
    red, green, blue = images.unbind(dim=1)
    return (red * 0.299).add_(green, alpha=0.587).add_(blue, alpha=0.114).unsqueeze(1)


def shift_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Turn the hue by `turns` of the full circle, through RGB -> HSV -> RGB.

    Value and saturation stay; gray pixels have no hue and stay. Shape: (B, 3, H, W) in [0, 1], in place, (B,) -> same.
    """
    red, green, blue = images.unbind(dim=1)
    value = images.amax(dim=1)
    chroma = value - images.amin(dim=1)
    # Hue in sixths of the circle: 0 red, 2 green, 4 blue. The clamp changes gray pixels only.
    scale = chroma.clamp(min=1e-8).reciprocal_()
    near_red, near_green = (green - blue).mul_(scale), (blue - red).mul_(scale).add_(2)
    is_red, is_green = red.clone().eq_(value), green.clone().eq_(value)
    hue = (red - green).mul_(scale).add_(4).lerp_(near_green, is_green).lerp_(near_red, is_red)
    # Each channel is the value minus a share of the chroma. The share is a trapezoid over the hue circle, shifted by a
    # third of the circle from channel to channel.
    for channel, start in zip((red, green, blue), (5, 3, 1), strict=True):
        sixths = hue + (turns * 6 + start).view(-1, 1, 1)
        sixths.sub_((sixths / 6).floor_(), alpha=6)
        share = torch.minimum(sixths, 4 - sixths).clamp_(0, 1)
        torch.addcmul(value, share, chroma, value=-1, out=channel)
    return images


def color_jitter(
    images: Tensor,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
    generator: Generator,
    apply_probability: float = 1.0,
) -> Tensor:
    """Change brightness, contrast, saturation and hue, in this order, by strengths drawn for each image.

    This is the color distortion of SimCLR (Chen et al., arXiv:2002.05709, appendix A), except that SimCLR draws the
    order. The first three multiply by a factor uniform in [1 - x, 1 + x], not below 0, and clip to [0, 1].
    Shape: (B, C, H, W) in [0, 1], in place -> same.

    Args:
        images: the images.
        brightness: x of the factor of the image.
        contrast: x of the factor of its difference from its mean gray level.
        saturation: x of the factor of its difference from its gray version; only if C = 3.
        hue: largest turn of the hue as a share of the circle, either way (`shift_hue`); only if C = 3.
        generator: source of all draws.
        apply_probability: share of images that are changed.
    """

    def factors(strength: float) -> Tensor:
        draws = _uniform(max(0.0, 1 - strength), 1 + strength, len(images), generator, images.device)
        return per_image(draws)

    strengths, color = [factors(brightness), factors(contrast)], []
    if images.shape[1] == 3:
        color = [factors(saturation), _uniform(-hue, hue, len(images), generator, images.device)]
    strengths += [_some(len(images), apply_probability, generator, images.device), *color]
    for part in zip(images.split(AT_ONCE), *(strength.split(AT_ONCE) for strength in strengths), strict=True):
        _jitter(*part)
    return images


def _jitter(images: Tensor, brightness: Tensor, contrast: Tensor, applied: Tensor, *color: Tensor) -> None:
    """Change the images with `applied` = 1 in place; `color` holds saturation and turns if C = 3."""
    changed = (images * brightness).clamp_(0, 1)
    mean = _luma(changed).mean(dim=(1, 2, 3), keepdim=True)
    changed.sub_(mean).mul_(contrast).add_(mean).clamp_(0, 1)
    if color:
        saturation, turns = color
        gray = _luma(changed)
        changed.sub_(gray).mul_(saturation).add_(gray).clamp_(0, 1)
        shift_hue(changed, turns)
    images.lerp_(changed, applied)


def grayscale(images: Tensor, probability: float, generator: Generator) -> Tensor:
    """Make each image gray with `probability`, if C = 3. Shape: (B, C, H, W), in place -> same."""
    if images.shape[1] != 3:
        return images
    gray = _luma(images).expand_as(images)
    return images.lerp_(gray, _some(len(images), probability, generator, images.device))


def gaussian_blur(images: Tensor, sigma: Tensor, max_sigma: float = 2.0) -> Tensor:
    """Return each image blurred with its own sigma in pixels, at most `max_sigma`; 0 leaves an image unchanged.

    The kernel reaches 3 * `max_sigma` pixels for all images, so that one set of calls serves the batch. Beyond the
    border, the outermost pixels are repeated. MoCo-v2 (Chen et al., arXiv:2003.04297) draws sigma from U(0.1, 2).
    Shape: (B, C, H, W), (B,) -> (B, C, H, W).
    """
    radius = math.ceil(3 * max_sigma)
    offsets = torch.arange(-radius, radius + 1, device=images.device)
    weights = torch.exp(-0.5 * (offsets / sigma.clamp(min=1e-3).unsqueeze(1)).square())
    weights = (weights / weights.sum(dim=1, keepdim=True)).to(images.dtype)
    for dim, padding in ((2, (0, 0, radius, radius)), (3, (radius, radius, 0, 0))):
        padded = functional.pad(images, padding, mode="replicate")
        blurred = torch.zeros_like(images)
        for tap, weight in enumerate(weights.unbind(dim=1)):
            blurred.addcmul_(padded.narrow(dim, tap, images.shape[dim]), per_image(weight))
        images = blurred
    return images
