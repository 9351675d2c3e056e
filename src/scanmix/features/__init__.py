"""Pretrained features: pictures through a frozen encoder, computed once and kept.

encoder = open_encoder("timm:vit_small_patch14_dinov2.lvd142m")
features = embed(examples, encoder)
"""

from scanmix.features.embedding import embed
from scanmix.features.encoder import AnyEncoder, FrozenEncoder, JoinedEncoder
from scanmix.features.opening import is_encoder, open_encoder
from scanmix.features.preparation import Preparation

__all__ = ["AnyEncoder", "FrozenEncoder", "JoinedEncoder", "Preparation", "embed", "is_encoder", "open_encoder"]
