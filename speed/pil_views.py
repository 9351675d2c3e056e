"""Views of one image at a time, through Pillow and NumPy alone.

torchvision's transforms are wrappers over the calls below; what it spends on top (draws by torch, copies in `ToTensor`
and `Normalize`) is left out, which makes this baseline harder to beat.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from scanmix.data.views import Views, ViewSettings

PilImage = Image.Image
View = Callable[[PilImage], Tensor]


@dataclass(frozen=True)
class PlainView:
    """To a tensor, normalized."""

    mean: Tensor
    std: Tensor

    def __call__(self, image: PilImage) -> Tensor:
        pixels = np.array(image, copy=True)
        pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
        tensor = torch.from_numpy(pixels).permute(2, 0, 1).contiguous().float().div_(255)
        return tensor.sub_(self.mean).div_(self.std)


@dataclass(frozen=True)
class WeakView:
    """Random crop of the padded image, flip."""

    plain: View
    padding: int
    flip: bool

    def __call__(self, image: PilImage) -> Tensor:
        width, height = image.size
        padded = ImageOps.expand(image, self.padding, fill=0)
        left, top = random.randint(0, 2 * self.padding), random.randint(0, 2 * self.padding)
        cropped = padded.crop((left, top, left + width, top + height))
        return self.plain(flipped(cropped, self.flip))


@dataclass(frozen=True)
class StrongView:
    """Flip, operations drawn with replacement, Cutout."""

    plain: View
    operations: int
    hole: int
    flip: bool

    def __call__(self, image: PilImage) -> Tensor:
        image = flipped(image, self.flip)
        for operation, low, high in random.choices(OPERATIONS, k=self.operations):
            image = operation(image, low + random.random() * (high - low))
        tensor = self.plain(image)
        height, width = tensor.shape[1:]
        half = random.randint(1, self.hole) // 2
        y, x = random.randrange(height), random.randrange(width)
        tensor[:, max(0, y - half) : y + half, max(0, x - half) : x + half] = 0
        return tensor


@dataclass(frozen=True)
class ContrastiveView:
    """Random resized crop, flip, color jitter, gray."""

    plain: View
    settings: ViewSettings
    flip: bool

    def __call__(self, image: PilImage) -> Tensor:
        settings = self.settings
        box = random_box(image, settings.contrast_scale, settings.contrast_ratio)
        image = image.crop(box).resize(image.size, Image.Resampling.BILINEAR)
        image = flipped(image, self.flip)
        if random.random() < settings.jitter_probability:
            image = jittered(image, *settings.jitter)
        if image.mode == "RGB" and random.random() < settings.grayscale_probability:
            gray = image.convert("L")
            image = Image.merge("RGB", (gray, gray, gray))
        return self.plain(image)


@dataclass(frozen=True)
class SingleViews:
    """The four views, with the settings of the batched ones."""

    plain: View
    weak: View
    strong: View
    contrastive: View


def like(views: Views, side: int) -> SingleViews:
    """Return the views of one image that draw as the batched `views` of images of this side do."""
    settings, plain = views.settings, PlainView(views.mean, views.std)
    padding = side // 8 if settings.crop_padding is None else settings.crop_padding
    return SingleViews(
        plain=plain,
        weak=WeakView(plain, padding, views.flip),
        strong=StrongView(plain, settings.strong_operations, settings.cutout or max(1, side // 2), views.flip),
        contrastive=ContrastiveView(plain, settings, views.flip),
    )


def to_pixels(images: Tensor) -> np.ndarray:
    """Return what `Image.fromarray` takes. Shape: (N, C, H, W) -> (N, H, W, 3) or (N, H, W)."""
    pixels = images.permute(0, 2, 3, 1).contiguous().numpy()
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels


def flipped(image: PilImage, flip: bool) -> PilImage:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip and random.random() < 0.5 else image


def random_box(
    image: PilImage, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[int, int, int, int]:  # fmt: skip
    """Left, top, right, bottom: ten tries at a share of the area and an aspect ratio, then all of it."""
    width, height = image.size
    for _ in range(10):
        area = width * height * random.uniform(*scale)
        aspect = math.exp(random.uniform(math.log(ratio[0]), math.log(ratio[1])))
        wide, high = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < wide <= width and 0 < high <= height:
            left, top = random.randint(0, width - wide), random.randint(0, height - high)
            return left, top, left + wide, top + high
    return 0, 0, width, height


def jittered(image: PilImage, brightness: float, contrast: float, saturation: float, hue: float) -> PilImage:
    def factor(strength: float) -> float:
        return random.uniform(max(0.0, 1 - strength), 1 + strength)

    image = ImageEnhance.Brightness(image).enhance(factor(brightness))
    image = ImageEnhance.Contrast(image).enhance(factor(contrast))
    if image.mode != "RGB":
        return image
    image = ImageEnhance.Color(image).enhance(factor(saturation))
    hues, saturations, values = image.convert("HSV").split()
    turned = np.array(hues, copy=True) + np.uint8(int(random.uniform(-hue, hue) * 255) % 256)
    return Image.merge("HSV", (Image.fromarray(turned), saturations, values)).convert("RGB")


def affine(image: PilImage, matrix: tuple[float, ...]) -> PilImage:
    return image.transform(image.size, Image.Transform.AFFINE, matrix)


OPERATIONS: tuple[tuple[Callable[[PilImage, float], PilImage], float, float], ...] = (
    (lambda image, _: image, 0, 0),
    (lambda image, _: ImageOps.autocontrast(image), 0, 0),
    (lambda image, _: ImageOps.equalize(image), 0, 0),
    (lambda image, degrees: image.rotate(degrees), -30, 30),
    (lambda image, threshold: ImageOps.solarize(image, int(threshold)), 0, 256),
    (lambda image, bits: ImageOps.posterize(image, int(bits)), 4, 8),
    (lambda image, factor: ImageEnhance.Color(image).enhance(factor), 0.05, 0.95),
    (lambda image, factor: ImageEnhance.Contrast(image).enhance(factor), 0.05, 0.95),
    (lambda image, factor: ImageEnhance.Brightness(image).enhance(factor), 0.05, 0.95),
    (lambda image, factor: ImageEnhance.Sharpness(image).enhance(factor), 0.05, 0.95),
    (lambda image, slope: affine(image, (1, slope, 0, 0, 1, 0)), -0.1, 0.1),
    (lambda image, slope: affine(image, (1, 0, 0, slope, 1, 0)), -0.1, 0.1),
    (lambda image, share: affine(image, (1, 0, share * image.size[0], 0, 1, 0)), -0.1, 0.1),
    (lambda image, share: affine(image, (1, 0, 0, 0, 1, share * image.size[1])), -0.1, 0.1),
)
"""The fourteen of the strong view, each with the range of its amount."""
