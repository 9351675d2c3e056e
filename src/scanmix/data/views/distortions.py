"""Color distortion and blur on whole batches, with strengths of their own for every image.

The usual transform runs image by image in Python; here a batch is changed by a handful of tensor calls, on whatever
device it lies, and still no two images share a draw. Images are in [0, 1] and nothing is rounded.

Only three channels have color; for any other number the color operations leave the images alone.
Shapes: B batch, C channels, H height, W width. Where a docstring gives none: images (B, C, H, W), changed in place and
returned, and one parameter an image (B,).
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional

from scanmix.data.views.augmentations import per_image

AT_ONCE = 128
"""Images whose intermediate results are held at once: a cache has room for those, and memory is slow."""


def _uniform(low: float, high: float, count: int, generator: Generator, device: torch.device) -> Tensor:
    """Draw where the generator lives, then move: the values do not depend on the device of the images."""
    draws = torch.rand(count, generator=generator, device=generator.device)
    return (low + (high - low) * draws).to(device)


def _some(count: int, probability: float, generator: Generator, device: torch.device) -> Tensor:
    """Return 1 for an image with `probability`, else 0. Shape: -> (B, 1, 1, 1) float32, to choose by `lerp`."""
    # Numbers, for on a CPU it is twenty times quicker to compute with them than to choose by a mask.
    return per_image((_uniform(0, 1, count, generator, device) < probability).float())


def _luma(images: Tensor) -> Tensor:
    """Gray of images in [0, 1], not rounded. Shape: (B, C, H, W) -> (B, 1, H, W), not in place."""
    if images.shape[1] != 3:
        return images.mean(dim=1, keepdim=True)
    red, green, blue = images.unbind(dim=1)
    return (red * 0.299).add_(green, alpha=0.587).add_(blue, alpha=0.114).unsqueeze(1)


def shift_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Turn the hue by `turns` of the full circle, exactly, through RGB -> HSV -> RGB.

    Images in [0, 1], C = 3. Value and saturation stay what they are; gray pixels have no hue and stay.
    """
    red, green, blue = images.unbind(dim=1)
    value = images.amax(dim=1)
    chroma = value - images.amin(dim=1)
    # Hue in sixths of the circle: 0 red, 2 green, 4 blue. The clamp only touches gray pixels.
    scale = chroma.clamp(min=1e-8).reciprocal_()
    near_red, near_green = (green - blue).mul_(scale), (blue - red).mul_(scale).add_(2)
    is_red, is_green = red.clone().eq_(value), green.clone().eq_(value)
    hue = (red - green).mul_(scale).add_(4).lerp_(near_green, is_green).lerp_(near_red, is_red)
    # A channel lies below the value by a share of the chroma that is a trapezoid over the circle of hues,
    # turned by a third of it from channel to channel.
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
    """Brightness, contrast, saturation, hue, always in this order, each image with its own strengths.

    Shape: (B, C, H, W) in [0, 1] -> same. The first three scale by a factor uniform in [1 - x, 1 + x] (never
    below 0) and clip to [0, 1]: the image, its distance from its mean gray, its distance from its own gray.
    The hue turns by a uniform share in [-hue, hue] of the circle (`shift_hue`). Without color (C other than
    3) the last two do nothing. An image is changed with `apply_probability`. The color distortion of SimCLR
    (Chen et al., arXiv:2002.05709, appendix A), where the order is drawn instead.
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
    """Change some images in place; where they have color, by saturation and turns too."""
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
    """Make an image gray with `probability`; nothing happens unless C = 3. Shape: (B, C, H, W) -> same."""
    if images.shape[1] != 3:
        return images
    gray = _luma(images).expand_as(images)
    return images.lerp_(gray, _some(len(images), probability, generator, images.device))


def gaussian_blur(images: Tensor, sigma: Tensor, max_sigma: float = 2.0) -> Tensor:
    """Return every image blurred with its own sigma in pixels, at most `max_sigma`; 0 leaves it as it is.

    The kernel reaches 3 * max_sigma pixels for all images, so one set of calls serves the batch; beyond the
    border the outermost pixels are repeated. MoCo-v2 (Chen et al., arXiv:2003.04297): sigma U(.1, 2).
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
