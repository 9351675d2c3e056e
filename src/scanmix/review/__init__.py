"""A local web page on which a person checks doubtful labels: one process, no account, for this machine unless told."""

from scanmix.review.decisions import CORRECTED, Decisions
from scanmix.review.server import LOCK, Review, make_app, serve
from scanmix.review.static import write_static

__all__ = ["CORRECTED", "LOCK", "Decisions", "Review", "make_app", "serve", "write_static"]
