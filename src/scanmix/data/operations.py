"""Image operations on whole batches, with parameters of their own for every image.

The usual transform runs image by image in Python; here a batch is changed by a handful of tensor calls, on
whatever device it lies, and still no two images share a draw. Two ranges of values occur:

- the RandAugment operations take float images that hold whole numbers 0..255 and give whole numbers back,
  rounded and clipped as Pillow does it on bytes (`ImageOps`, `ImageEnhance`, `Image.transform`);
- the contrastive operations (`color_jitter`, `grayscale`, `gaussian_blur`) take [0, 1] and do not round.

Only three channels have color; for any other number the color operations leave the images alone.
Shapes: B batch, C channels, H height, W width. Where a docstring gives none: images (B, C, H, W) and one
parameter an image (B,) to images (B, C, H, W).
"""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional


def _per_image(values: Tensor) -> Tensor:
    """Shape: (B,) -> (B, 1, 1, 1), to stand beside a batch of images."""
    return values.view(-1, 1, 1, 1)


def _uniform(low: float, high: float, count: int, generator: Generator, device: torch.device) -> Tensor:
    """Draw where the generator lives, then move: the values do not depend on the device of the images."""
    draws = torch.rand(count, generator=generator, device=generator.device)
    return (low + (high - low) * draws).to(device)


# Tone: each pixel goes through a curve.


def autocontrast(images: Tensor) -> Tensor:
    """Stretch every channel of every image to 0..255; a constant channel stays. Shape: (B, C, H, W) -> same.

    The quotients are exact; Pillow's, in floating point, are now and then one level lower.
    """
    low = images.amin(dim=(2, 3), keepdim=True)
    span = images.amax(dim=(2, 3), keepdim=True) - low
    stretched = ((images - low) * 255 / span.clamp(min=1)).floor()
    return torch.where(span > 0, stretched, images)


def equalize(images: Tensor) -> Tensor:
    """Even out the histogram of every channel of every image. Shape: (B, C, H, W) -> same.

    A channel with fewer than 255 pixels below its brightest value has no step to even out and stays.
    """
    batch, channels, height, width = images.shape
    pixels = images.long().reshape(batch * channels, height * width)
    offsets = 256 * torch.arange(len(pixels), device=images.device).unsqueeze(1)
    counts = torch.bincount((pixels + offsets).flatten(), minlength=256 * len(pixels)).view(-1, 256)
    brightest = counts.gather(1, pixels.amax(dim=1, keepdim=True))
    step = (height * width - brightest) // 255
    below = counts.cumsum(dim=1) - counts
    curve = ((below + step // 2) // step.clamp(min=1)).clamp(max=255)
    evened = curve.gather(1, pixels).view_as(images).to(images.dtype)
    return torch.where(step.view(batch, channels, 1, 1) > 0, evened, images)


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Invert the pixels at or above the threshold (0..256)."""
    return images + (images >= _per_image(threshold)) * (255 - 2 * images)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the highest `bits` bits; a fraction of a bit is cut off."""
    step = torch.exp2(8 - _per_image(bits.floor()))
    return (images / step).floor() * step


# Enhancement: blends of the image (factor 1) and a poorer version of itself (factor 0).


def _blend(poorer: Tensor, images: Tensor, factor: Tensor) -> Tensor:
    return (poorer + _per_image(factor) * (images - poorer)).floor().clamp(0, 255)


def _gray_levels(images: Tensor) -> Tensor:
    """Whole-number luma, in 16-bit fixed point as in Pillow. Shape: (B, C, H, W) -> (B, 1, H, W)."""
    if images.shape[1] != 3:
        return (images.mean(dim=1, keepdim=True) + 0.5).floor()
    red, green, blue = images.unbind(dim=1)
    # Every sum stays below 2**24, so float32 holds it exactly.
    return ((red * 19595 + green * 38470 + blue * 7471 + 32768) / 65536).floor().unsqueeze(1)


def color(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the gray image; nothing happens unless C = 3."""
    return _blend(_gray_levels(images), images, factor) if images.shape[1] == 3 else images


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the mean gray level of the image."""
    mean = (_gray_levels(images).mean(dim=(1, 2, 3), keepdim=True) + 0.5).floor()
    return _blend(mean, images, factor)


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with black."""
    return (images * _per_image(factor)).floor().clamp(0, 255)


def sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the image smoothed by the kernel (1 1 1; 1 5 1; 1 1 1) / 13, whose outermost pixels stay."""
    rows = images[:, :, :-2] + images[:, :, 1:-1] + images[:, :, 2:]
    sums = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    smooth = images.clone()
    inner = smooth[:, :, 1:-1, 1:-1]
    inner.copy_(((sums + 4 * inner) / 13 + 0.5).floor_())
    return _blend(smooth, images, factor)


# Geometry: every output pixel takes the nearest input pixel, or black outside the image.


def affine(images: Tensor, matrix: Tensor) -> Tensor:
    """Output pixel (x, y) is the input pixel under matrix @ (x + 1/2, y + 1/2, 1); black where there is none.

    Shape: (B, C, H, W), (B, 2, 3) -> (B, C, H, W). Positions count from the top left corner.
    """
    batch, channels, height, width = images.shape
    columns = torch.arange(width, device=images.device) + 0.5
    rows = torch.arange(height, device=images.device).unsqueeze(1) + 0.5
    weights = matrix[..., None, None]
    x = (weights[:, 0, 0] * columns + weights[:, 0, 1] * rows + weights[:, 0, 2]).floor()
    y = (weights[:, 1, 0] * columns + weights[:, 1, 1] * rows + weights[:, 1, 2]).floor()
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    source = (y.clamp(0, height - 1) * width + x.clamp(0, width - 1)).long()
    picked = images.flatten(2).gather(2, source.view(batch, 1, -1).expand(-1, channels, -1))
    return picked.view_as(images) * inside.unsqueeze(1)


def _moved(amounts: Tensor, row: int, column: int) -> Tensor:
    """Add `amounts` to one entry of the identity. Shape: (B,) -> (B, 2, 3)."""
    matrix = torch.eye(2, 3, device=amounts.device).repeat(len(amounts), 1, 1)
    matrix[:, row, column] += amounts
    return matrix


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Turn counterclockwise about the center."""
    center_x, center_y = images.shape[3] / 2, images.shape[2] / 2
    cosine, sine = torch.cos(torch.deg2rad(degrees)), torch.sin(torch.deg2rad(degrees))
    # The map goes from output to input, so it turns the other way.
    x = torch.stack([cosine, -sine, center_x - cosine * center_x + sine * center_y], dim=1)
    y = torch.stack([sine, cosine, center_y - sine * center_x - cosine * center_y], dim=1)
    return affine(images, torch.stack([x, y], dim=1))


def shear_x(images: Tensor, slope: Tensor) -> Tensor:
    """Row y takes its pixels from `slope * y` further right."""
    return affine(images, _moved(slope, 0, 1))


def shear_y(images: Tensor, slope: Tensor) -> Tensor:
    """Column x takes its pixels from `slope * x` further down."""
    return affine(images, _moved(slope, 1, 0))


def translate_x(images: Tensor, fraction: Tensor) -> Tensor:
    """Take pixels from `fraction` of the width further right."""
    return affine(images, _moved(fraction * images.shape[3], 0, 2))


def translate_y(images: Tensor, fraction: Tensor) -> Tensor:
    """Take pixels from `fraction` of the height further down."""
    return affine(images, _moved(fraction * images.shape[2], 1, 2))


def _unchanged(images: Tensor, amount: Tensor) -> Tensor:
    return images


# The fourteen operations of the SCAN and ScanMix augmentation, each with the range of its uniform magnitude.
# Geometric ranges are symmetric, so their sign is random; the four blends only ever weaken.
AUGMENTATIONS: tuple[tuple[Callable[[Tensor, Tensor], Tensor], float, float], ...] = (
    (_unchanged, 0, 0),
    (lambda images, _: autocontrast(images), 0, 0),
    (lambda images, _: equalize(images), 0, 0),
    (rotate, -30, 30),
    (solarize, 0, 256),
    (posterize, 4, 8),
    (color, 0.05, 0.95),
    (contrast, 0.05, 0.95),
    (brightness, 0.05, 0.95),
    (sharpness, 0.05, 0.95),
    (shear_x, -0.1, 0.1),
    (shear_y, -0.1, 0.1),
    (translate_x, -0.1, 0.1),
    (translate_y, -0.1, 0.1),
)


def random_augment(images: Tensor, count: int, generator: Generator) -> Tensor:
    """Apply `count` operations to each image, drawn from `AUGMENTATIONS` with replacement.

    Shape: (B, C, H, W) uint8, or floats that are whole numbers 0..255 -> same. RandAugment (Cubuk et al.,
    arXiv:1909.13719) as SCAN changed it (Van Gansbeke et al., arXiv:2005.12320): every magnitude is drawn
    anew, not one for all.
    """
    batch, kinds, device = len(images), len(AUGMENTATIONS), images.device
    choices = torch.randint(kinds, (count, batch), generator=generator, device=generator.device)
    uniform = torch.rand((count, batch), generator=generator, device=generator.device)
    ranges = torch.tensor([(low, high) for _, low, high in AUGMENTATIONS], device=generator.device)
    low, high = ranges[choices].unbind(dim=-1)
    magnitudes = (low + uniform * (high - low)).to(device)
    order = choices.argsort(dim=1, stable=True).to(device)
    # The sizes of all groups of all rounds come to the host at once: one wait, however many rounds.
    sizes = functional.one_hot(choices, kinds).sum(dim=1).tolist()
    exact = images.dtype if images.is_floating_point() else torch.float32
    place = torch.arange(batch, device=device)  # of each image in a round that is sorted by operation
    for grouped, magnitude, split in zip(order, magnitudes, sizes, strict=True):
        groups = images.index_select(0, place[grouped]).split_with_sizes(split)
        amounts = magnitude[grouped].split_with_sizes(split)
        changed = [
            operation(group.to(exact), amount).to(images.dtype) if operation is not _unchanged else group
            for (operation, _, _), group, amount in zip(AUGMENTATIONS, groups, amounts, strict=True)
            if len(group)
        ]
        images = torch.cat(changed) if changed else images
        place = grouped.argsort()
    return images.index_select(0, place)


def cutout(images: Tensor, max_side: int, generator: Generator) -> Tensor:
    """Set a square hole of every image to 0, the mean color once images are normalized.

    Shape: (B, C, H, W) -> same. The side is uniform over 1..max_side, the center over all pixels; the hole
    reaches side // 2 pixels to both sides of the center, cut at the border: its length is even, and a side of
    1 is no hole (as in the ScanMix code; Cutout itself: DeVries and Taylor, arXiv:1708.04552).
    """
    batch, _, height, width = images.shape

    def draw(low: int, high: int) -> Tensor:
        values = torch.randint(low, high, (batch, 1), generator=generator, device=generator.device)
        return values.to(images.device)

    half = draw(1, max_side + 1) // 2
    center_y, center_x = draw(0, height), draw(0, width)
    rows, columns = torch.arange(height, device=images.device), torch.arange(width, device=images.device)
    in_rows = (rows >= center_y - half) & (rows < center_y + half)
    in_columns = (columns >= center_x - half) & (columns < center_x + half)
    return images.masked_fill((in_rows.unsqueeze(2) & in_columns.unsqueeze(1)).unsqueeze(1), 0)


def _luma(images: Tensor) -> Tensor:
    """Gray of images in [0, 1], not rounded. Shape: (B, C, H, W) -> (B, 1, H, W)."""
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
    near_green, near_blue = (blue - red).mul_(scale).add_(2), (red - green).mul_(scale).add_(4)
    hue = torch.where(value == green, near_green, near_blue)
    hue = torch.where(value == red, (green - blue).mul_(scale), hue)
    # A channel lies below the value by a share of the chroma that is a trapezoid over the circle of hues,
    # turned by a third of it from channel to channel.
    starts = turns.unsqueeze(1) * 6 + torch.tensor([5.0, 3.0, 1.0], device=images.device)
    sixths = hue.unsqueeze(1) + starts[:, :, None, None]
    sixths.sub_((sixths / 6).floor_(), alpha=6)
    share = torch.minimum(sixths, 4 - sixths).clamp_(0, 1)
    return torch.addcmul(value.unsqueeze(1), share, chroma.unsqueeze(1), value=-1)


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
        return _per_image(draws)

    changed = (images * factors(brightness)).clamp_(0, 1)
    mean = _luma(changed).mean(dim=(1, 2, 3), keepdim=True)
    changed = changed.sub_(mean).mul_(factors(contrast)).add_(mean).clamp_(0, 1)
    if images.shape[1] == 3:
        gray = _luma(changed)
        changed = changed.sub_(gray).mul_(factors(saturation)).add_(gray).clamp_(0, 1)
        changed = shift_hue(changed, _uniform(-hue, hue, len(images), generator, images.device))
    applied = _uniform(0, 1, len(images), generator, images.device) < apply_probability
    return torch.where(_per_image(applied), changed, images)


def grayscale(images: Tensor, probability: float, generator: Generator) -> Tensor:
    """Make an image gray with `probability`; nothing happens unless C = 3. Shape: (B, C, H, W) -> same."""
    if images.shape[1] != 3:
        return images
    applied = _uniform(0, 1, len(images), generator, images.device) < probability
    return torch.where(_per_image(applied), _luma(images), images)


def gaussian_blur(images: Tensor, sigma: Tensor, max_sigma: float = 2.0) -> Tensor:
    """Blur every image with its own sigma in pixels, at most `max_sigma`; 0 leaves it as it is.

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
            blurred.addcmul_(padded.narrow(dim, tap, images.shape[dim]), _per_image(weight))
        images = blurred
    return images
