"""The views of the benchmarks' baseline where torchvision is: as many, as large and as normalized as scanmix's."""

import random

import pytest
import torch
from PIL import Image

from scanmix.data.views import Views, ViewSettings, make_views
from speed.made import made_examples
from speed.one_by_one import single_views
from speed.pil_views import to_pixels

pytest.importorskip("torchvision", reason="its own environment: make test-timm")


@pytest.mark.parametrize("channels", [1, 3])
def test_torchvision_looks_as_the_batched_views_do(channels: int) -> None:
    images = made_examples(200, (channels, 16, 16)).images
    views = make_views(ViewSettings(), images, flip=True)
    assert isinstance(views, Views)
    single, maker = single_views(views, 16)
    assert maker == "torchvision"
    pictures = [Image.fromarray(pixels) for pixels in to_pixels(images)]
    torch.testing.assert_close(torch.stack([single.plain(picture) for picture in pictures]), views.eval_view(images))
    random.seed(0)
    torch.manual_seed(0)
    for kind in ("weak", "strong", "contrastive"):
        ours = getattr(views, kind)(images, torch.Generator().manual_seed(0))
        theirs = torch.stack([getattr(single, kind)(picture) for picture in pictures])
        assert theirs.shape == ours.shape and theirs.dtype == ours.dtype
        assert (theirs != views.eval_view(images)).flatten(1).any(1).float().mean() > 0.95
        assert abs(theirs.mean() - ours.mean()) < 0.15 and abs(theirs.std() - ours.std()) < 0.15, kind
