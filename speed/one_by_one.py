"""Views of one image at a time, by torchvision's transforms as in published code; without torchvision, by Pillow.

`make bench` has an environment with torchvision.
"""

from __future__ import annotations

import dataclasses
import importlib.util

from scanmix.data.views import Views
from speed import pil_views
from speed.pil_views import SingleViews, StrongView, WeakView


def single_views(views: Views, side: int) -> tuple[SingleViews, str]:
    """Return torchvision's views where it is installed, else Pillow's; and the name of what makes them."""
    if importlib.util.find_spec("torchvision") is None:
        return pil_views.like(views, side), "Pillow"
    return by_torchvision(views, side), "torchvision"


def by_torchvision(views: Views, side: int) -> SingleViews:
    """Return the views of one image that draw as the batched `views` do, for square images of this side in pixels."""
    from torchvision import transforms

    s, by_pillow = views.settings, pil_views.like(views, side)
    plain = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize(views.mean.flatten().tolist(), views.std.flatten().tolist())]
    )
    flip = [transforms.RandomHorizontalFlip()] if views.flip else []
    jitter = transforms.RandomApply([transforms.ColorJitter(*s.jitter)], s.jitter_probability)
    crop = transforms.RandomResizedCrop(side, s.contrast_scale, s.contrast_ratio)
    assert isinstance(by_pillow.weak, WeakView) and isinstance(by_pillow.strong, StrongView)
    return SingleViews(
        plain=plain,
        weak=transforms.Compose([transforms.RandomCrop(side, by_pillow.weak.padding), *flip, plain]),
        strong=dataclasses.replace(by_pillow.strong, plain=plain),  # SCAN's operations are Pillow's
        contrastive=transforms.Compose(
            [crop, *flip, jitter, transforms.RandomGrayscale(s.grayscale_probability), plain]
        ),
    )
