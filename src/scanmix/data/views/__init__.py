"""What networks see of examples: eval, weak, strong and contrastive views, made in batches on the device."""

from scanmix.data.views.image_views import (
    VIEW_SETTINGS,
    AnyViews,
    AnyViewSettings,
    Views,
    ViewSettings,
    make_views,
)  # fmt: skip

__all__ = ["VIEW_SETTINGS", "AnyViewSettings", "AnyViews", "ViewSettings", "Views", "make_views"]
