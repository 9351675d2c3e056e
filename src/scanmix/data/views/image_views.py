"""Views of images: batches of uint8 images in, batches of normalized float images out, each image with its own draws.

A view never loops over images in Python, runs on the device of the images, and takes all randomness from the generator
it is given. Legend: N examples, B batch, C channels, H height, W width.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import torch
import torch.nn.functional as F
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor

from scanmix.config import STRICT, UserError
from scanmix.data.examples import Kind
from scanmix.data.views.augmentations import augment, cutout, draw_augmentations, draw_holes
from scanmix.data.views.distortions import color_jitter, gaussian_blur, grayscale
from scanmix.data.views.feature_views import FeatureViews, FeatureViewSettings, given_statistics, make_feature_views
from scanmix.data.views.sampling import View, draw_by_part

Probability = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ViewSettings:
    """Settings of the views of images. Defaults are those of the ScanMix code at 32x32 (its augmentation lists)."""

    mean: tuple[float, ...] | None = None
    """Channel means in 0..1; by default measured on the training images."""
    std: tuple[float, ...] | None = None
    """Channel standard deviations in 0..1; by default measured on the training images."""
    flip: bool | None = None
    """Whether views may be flipped horizontally; by default as the data set says (digits: no)."""
    crop: Annotated[int, Field(ge=1)] | None = None
    """Side in pixels of the crop that networks see: random in weak and strong views, the center in eval views. By
    default the whole image."""
    crop_padding: Annotated[int, Field(ge=0)] | None = None
    """Weak view: zero padding in pixels before the random crop; by default 1/8 of the side (4 at 32), 0 with `crop`."""
    strong_operations: Annotated[int, Field(ge=0)] = 4
    """Strong view: number of RandAugment operations an image, drawn with replacement."""
    cutout: Annotated[int, Field(ge=1)] | None = None
    """Strong view: largest side of the hole in pixels; by default half the side of the image (16 at 32)."""
    contrast_scale: tuple[float, float] = (0.2, 1.0)
    """Contrastive view: area of the random crop, as a share of the image."""
    contrast_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Contrastive view: aspect ratio of the random crop."""
    contrast_rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Contrastive view: largest rotation in degrees (none in SimCLR)."""
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)
    """Contrastive view: strengths of brightness, contrast, saturation and hue (`color_jitter`)."""
    jitter_probability: Probability = 0.8
    """Contrastive view: share of images whose colors are jittered."""
    grayscale_probability: Probability = 0.2
    """Contrastive view: share of images that are made gray."""
    blur_probability: Probability = 0.0
    """Contrastive view: share of images that are blurred (0 in SimCLR at 32x32, 0.5 in MoCo-v2)."""


class Views:
    """The four views of a batch of uint8 images of one size: eval, weak, strong and contrastive."""

    dtype: ClassVar[torch.dtype] = torch.uint8
    """Type of the images that the views are made of."""

    def __init__(self, settings: ViewSettings, *, mean: Tensor, std: Tensor, flip: bool) -> None:
        """Store the settings, the measured statistics in 0..1 and whether to flip. Shape: mean (C,), std (C,)."""
        self.settings = settings
        self.mean, self.std, self.flip = mean.view(-1, 1, 1), std.view(-1, 1, 1), flip

    def eval_view(self, images: Tensor) -> Tensor:
        """Normalize the image, or its center crop, for losses, features and predictions. Shape: (B, C, H, W)."""
        if self.settings.crop is not None:
            images = center(images, self.settings.crop)
        return self._normalized(images)

    def weak(self, images: Tensor, generator: Generator, parts: Sequence[int] | None = None) -> Tensor:
        """Take a random crop of the zero-padded image and flip half of the images. Shape: (B, C, H, W)."""
        padding, crop = self.settings.crop_padding, self.settings.crop
        if padding is None:
            padding = images.shape[-1] // 8 if crop is None else 0
        largest = largest_offsets(images, padding, crop)

        def draw(count: int) -> tuple[Tensor, Tensor]:
            return self._mirrored(count, generator), draw_offsets(count, largest, generator)

        mirrored, offsets = draw_by_part(draw, parts, len(images))
        return self._normalized(shift(images, padding, mirrored, offsets, crop))

    def strong(self, images: Tensor, generator: Generator, parts: Sequence[int] | None = None) -> Tensor:
        """Flip, crop if set, RandAugment, normalize, Cutout, in the order of the ScanMix code. Shape: (B, C, H, W)."""
        s, crop = self.settings, self.settings.crop
        height, width = images.shape[2:] if crop is None else (crop, crop)
        hole, largest = s.cutout or max(1, width // 2), largest_offsets(images, 0, crop)

        def draw(count: int) -> tuple[Tensor, ...]:
            return (
                self._mirrored(count, generator),
                draw_offsets(count, largest, generator),
                *draw_augmentations(count, s.strong_operations, generator),
                *draw_holes(count, hole, height, width, generator),
            )

        mirrored, offsets, choices, shares, half, middle = draw_by_part(draw, parts, len(images))
        images = self._flipped(images, mirrored) if crop is None else shift(images, 0, mirrored, offsets, crop)
        return cutout(self._normalized(augment(images, choices, shares)), half, middle)

    def contrastive(self, images: Tensor, generator: Generator) -> Tensor:
        """Make SimCLR's view: random resized crop, flip, color jitter, gray, blur if set. Shape: (B, C, H, W)."""
        s = self.settings
        boxes = random_boxes(len(images), s.contrast_scale, s.contrast_ratio, generator)
        angles = (2 * torch.rand(len(images), generator=generator, device=generator.device) - 1) * s.contrast_rotation
        flipped = self._flipped(images, self._mirrored(len(images), generator))
        view = resized_crop(flipped.float().div_(255), boxes, angles.deg2rad(), s.crop)
        color_jitter(view, *s.jitter, generator=generator, apply_probability=s.jitter_probability)
        grayscale(view, s.grayscale_probability, generator)
        if s.blur_probability > 0:
            view = _some_blurred(view, s.blur_probability, generator)
        return view.sub_(self.mean).div_(self.std)

    def random_view(self, kind: Literal["weak", "strong"]) -> View:
        """Return the weak or the strong view, for settings that choose one."""
        return self.weak if kind == "weak" else self.strong

    def contrastive_settings(self) -> dict[str, Any]:
        """Return all settings that a contrastive view depends on, for cache keys; they include those of eval views."""
        fields = dataclasses.asdict(self.settings)
        wanted = ("contrast", "jitter", "grayscale", "blur")
        return {name: value for name, value in fields.items() if name.startswith(wanted)} | self._shared_settings()

    def strong_settings(self) -> dict[str, Any]:
        """Return all settings that a strong view depends on, for cache keys."""
        s = self.settings
        return {"strong_operations": s.strong_operations, "cutout": s.cutout} | self._shared_settings()

    def measured(self) -> ViewSettings:
        """Return the settings with the measured mean and standard deviation, and the flip, filled in."""
        return dataclasses.replace(
            self.settings,
            mean=tuple(self.mean.flatten().tolist()),
            std=tuple(self.std.flatten().tolist()),
            flip=self.flip,
        )

    def _shared_settings(self) -> dict[str, Any]:
        crop = {} if self.settings.crop is None else {"crop": self.settings.crop}
        return {"mean": self.mean.flatten().tolist(), "std": self.std.flatten().tolist(), "flip": self.flip, **crop}

    def _normalized(self, images: Tensor) -> Tensor:
        return images.float().div_(255).sub_(self.mean).div_(self.std)

    def _mirrored(self, count: int, generator: Generator) -> Tensor:
        """Draw which images are flipped. Shape: -> (B,) bool."""
        if not self.flip:
            return torch.zeros(count, dtype=torch.bool, device=generator.device)
        return torch.rand(count, generator=generator, device=generator.device) < 0.5

    def _flipped(self, images: Tensor, mirrored: Tensor) -> Tensor:
        return mirror(images, mirrored) if self.flip else images


AnyViews: TypeAlias = Views | FeatureViews
AnyViewSettings: TypeAlias = ViewSettings | FeatureViewSettings
"""The two are told apart by their keys when they are read: each has keys that the other refuses."""

VIEW_SETTINGS: dict[Kind, type[AnyViewSettings]] = {"image": ViewSettings, "vector": FeatureViewSettings}


def make_views(
    settings: AnyViewSettings, images: Tensor, *, flip: bool, device: torch.device | None = None
) -> AnyViews:
    """Make views of training examples; statistics that `settings` does not give are measured on `images`.

    Shape: (N, C, H, W) uint8, or (N, D, 1, 1) float32 for vectors.

    Args:
        settings: of images, or of vectors.
        images: all training examples.
        flip: whether a mirrored image keeps its class, if `settings` does not say.
        device: where views are computed; by default where the images are.
    """
    if isinstance(settings, FeatureViewSettings):
        return make_feature_views(settings, images, device)
    if settings.mean is None or settings.std is None:
        mean, std = channel_statistics(images)
    else:
        mean, std = given_statistics(settings.mean, settings.std, images.shape[1])
    keep_class = flip if settings.flip is None else settings.flip
    device = images.device if device is None else device
    return Views(settings, mean=mean.to(device), std=std.to(device), flip=keep_class)


def channel_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each channel in 0..1, computed in float64 by chunks.

    Shape: (N, C, H, W) -> (C,), (C,).
    """
    total = torch.zeros(images.shape[1], dtype=torch.float64, device=images.device)
    square = torch.zeros_like(total)
    for chunk in images.split(4096):
        values = chunk.double() / 255
        total += values.sum((0, 2, 3))
        square += values.square().sum((0, 2, 3))
    count = images.numel() / images.shape[1]
    mean = total / count
    std = (square / count - mean.square()).clamp(min=0).sqrt()
    return mean.float(), std.float().clamp(min=1e-3)


def mirror(images: Tensor, mirrored: Tensor) -> Tensor:
    """Flip the images that are `mirrored` horizontally. Shape: (B, C, H, W), (B,) bool -> (B, C, H, W)."""
    place = torch.arange(len(images), device=images.device)
    flipped = mirrored.to(images.device, non_blocking=True)
    return torch.cat([images, images.flip(-1)]).index_select(0, place + len(images) * flipped)


def largest_offsets(images: Tensor, padding: int, side: int | None) -> tuple[int, int]:
    """Return the largest row and column, in pixels, at which a crop of padded images may begin.

    Shape: images (B, C, H, W). `side` is that of the crop; by default the crop is as large as the images.

    Raises:
        UserError: the images are smaller than the crop.
    """
    height, width = images.shape[2:]
    high, wide = (0, 0) if side is None else (height - side, width - side)
    if min(high, wide) + 2 * padding < 0:
        raise UserError(f"views.crop = {side} is more than the images have ({width}x{height} pixels)")
    return high + 2 * padding, wide + 2 * padding


def draw_offsets(count: int, largest: tuple[int, int], generator: Generator) -> Tensor:
    """Draw the row and column at which a crop begins, up to `largest`; no draw if `largest` is 0. Shape: -> (B, 2)."""
    device, (high, wide) = generator.device, largest
    if high == wide == 0:
        return torch.zeros(count, 2, dtype=torch.long, device=device)
    # One integer draw for both directions if both are equal, as in all square images.
    if high == wide:
        return torch.randint(0, high + 1, (2, count), generator=generator, device=device).T
    draws = torch.rand(2, count, generator=generator, device=device)
    return (draws * (torch.tensor([[high], [wide]], device=device) + 1)).long().T


def shift(images: Tensor, padding: int, mirrored: Tensor, offsets: Tensor, side: int | None = None) -> Tensor:
    """Flip the images that are `mirrored`, pad them with zeros, and crop each at its own row and column.

    Shape: (B, C, H, W), (B,) bool, offsets (B, 2) -> (B, C, side, side); as large as the images without `side`.

    Args:
        images: the images.
        padding: zero padding in pixels on every side.
        mirrored: which images are flipped horizontally.
        offsets: row and column of the padded image at which the crop begins.
        side: side of the crop in pixels.
    """
    count, channels, *size = images.shape
    wide = size[1] + 2 * padding
    height, width = size if side is None else (side, side)
    mirrored, offsets = (drawn.to(images.device, non_blocking=True) for drawn in (mirrored, offsets))
    rows = offsets[:, :1] + torch.arange(height, device=images.device)  # (B, H)
    columns = offsets[:, 1:] + torch.arange(width, device=images.device)  # (B, W)
    columns = torch.where(mirrored.unsqueeze(1), wide - 1 - columns, columns)
    source = (rows.unsqueeze(2) * wide + columns.unsqueeze(1)).view(count, 1, height * width)
    picked = F.pad(images, (padding,) * 4).flatten(2).gather(2, source.expand(-1, channels, -1))
    return picked.view(count, channels, height, width)


def center(images: Tensor, side: int) -> Tensor:
    """Cut out the center square; an odd margin leaves the extra pixel at the bottom or right.

    Shape: (B, C, H, W) -> (B, C, side, side).

    Raises:
        UserError: the images are smaller than `side`.
    """
    height, width = images.shape[-2:]
    if side > min(height, width):
        raise UserError(f"views.crop = {side} is more than the images have ({width}x{height} pixels)")
    top, left = (height - side) // 2, (width - side) // 2
    return images[..., top : top + side, left : left + side]


def random_boxes(count: int, scale: tuple[float, float], ratio: tuple[float, float], generator: Generator) -> Tensor:
    """Draw crop boxes (left, top, width, height) as shares of the image, as torchvision does but without rounding.

    The area is uniform in `scale`, and the logarithm of width / height is uniform in that of `ratio`. The first of ten
    candidates that fits is taken; if none fits, the last is clipped. Shape: -> (B, 4).
    """
    device = generator.device
    area = torch.rand(count, 10, generator=generator, device=device) * (scale[1] - scale[0]) + scale[0]
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = (torch.rand(count, 10, generator=generator, device=device) * (high - low) + low).exp()
    width, height = (area * aspect).sqrt(), (area / aspect).sqrt()
    fits = (width <= 1) & (height <= 1)
    first = torch.where(fits.any(1), fits.int().argmax(1), torch.tensor(9, device=device)).view(-1, 1)
    width, height = width.gather(1, first).clamp(max=1), height.gather(1, first).clamp(max=1)
    place = torch.rand(count, 2, generator=generator, device=device)
    return torch.cat([place[:, :1] * (1 - width), place[:, 1:] * (1 - height), width, height], 1)


def resized_crop(images: Tensor, boxes: Tensor, angles: Tensor, side: int | None = None) -> Tensor:
    """Cut a box out of each image, rotated by an angle about its center, and resize it (bilinear).

    Positions outside the image take the nearest pixel of its border. `boxes` are shares of the image as of
    `random_boxes`, `angles` are in radians.
    Shape: (B, C, H, W), (B, 4), (B,) -> (B, C, side, side); as large as the images without `side`.
    """
    height, width = images.shape[2:] if side is None else (side, side)
    boxes, angles = (drawn.to(images.device, non_blocking=True) for drawn in (boxes, angles))
    left, top, wide, high = boxes.view(-1, 4, 1, 1).unbind(1)
    cos, sin = angles.view(-1, 1, 1).cos(), angles.view(-1, 1, 1).sin()
    # Positions in -1..1 of the output, multiplied by the box to give those of the input.
    across = (torch.arange(width, device=images.device) * 2 + 1) / width - 1
    down = ((torch.arange(height, device=images.device) * 2 + 1) / height - 1).unsqueeze(1)
    x = (wide * cos * across - wide * sin * down).add_(2 * left + wide - 1)
    y = (high * sin * across + high * cos * down).add_(2 * top + high - 1)
    grid = torch.stack([x, y], dim=-1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _some_blurred(images: Tensor, probability: float, generator: Generator) -> Tensor:
    draw = torch.rand(2, len(images), generator=generator, device=generator.device)
    draw = draw.to(images.device, non_blocking=True)
    blurred = gaussian_blur(images, 0.1 + 1.9 * draw[1])  # sigma U(0.1, 2): MoCo-v2
    return images.lerp_(blurred, (draw[0] < probability).float().view(-1, 1, 1, 1))
