"""Pretrained features: pictures through a frozen encoder, computed once and kept.

encoder = open_encoder("timm:vit_small_patch14_dinov2.lvd142m")
features = embed(examples, encoder)
"""

from scanmix.features.embedding import embed
from scanmix.features.encoder import AnyEncoder, FrozenEncoder, JoinedEncoder
from scanmix.features.opening import is_encoder, open_encoder
from scanmix.features.preparation import Preparation
from scanmix.features.record import EncoderRecord, RunEncoder, as_vectors, check_same, record_of, reopened

__all__ = [
    "AnyEncoder", "EncoderRecord", "FrozenEncoder", "JoinedEncoder", "Preparation", "RunEncoder", "as_vectors",
    "check_same", "embed", "is_encoder", "open_encoder", "record_of", "reopened",
]  # fmt: skip
