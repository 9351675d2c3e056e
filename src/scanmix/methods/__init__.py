"""One file per paper; the dict below is all there is to know about where they are."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

from torch import Tensor

from scanmix.config import About
from scanmix.data.batches import TrainingData
from scanmix.distributed.engine import Engine
from scanmix.methods.bootstrap import Bootstrap
from scanmix.methods.c2d import C2D
from scanmix.methods.co_teaching import CoTeaching
from scanmix.methods.co_teaching_plus import CoTeachingPlus
from scanmix.methods.cross_entropy import CrossEntropy
from scanmix.methods.d2l import D2L
from scanmix.methods.decoupling import Decoupling
from scanmix.methods.dividemix import DivideMix
from scanmix.methods.elr import ELR
from scanmix.methods.elr_plus import ELRPlus
from scanmix.methods.exact_em import ExactEM
from scanmix.methods.joint import Joint
from scanmix.methods.loss_correction import Backward, Forward
from scanmix.methods.m_correction import MCorrection, MCorrectionSH
from scanmix.methods.mentormix import MentorMix
from scanmix.methods.mentornet import MentorNet
from scanmix.methods.mixup import MixUp
from scanmix.methods.pencil import Pencil
from scanmix.methods.pes import PES
from scanmix.methods.pes_semi import PESSemi
from scanmix.methods.scan import Scan
from scanmix.methods.scan_dividemix import ScanDivideMix
from scanmix.methods.scanmix import ScanMix
from scanmix.methods.ssr import SSR, SSRPlus
from scanmix.networks.encoders import NetworkSettings
from scanmix.networks.inference import Predictor
from scanmix.networks.peer import Peer


class State(Protocol):
    """What every method's state holds; all of its fields are saved."""

    peers: list[Peer]
    p_clean: Tensor | None


class Method(Protocol):
    """Hyper-parameters and the three things the loop asks of them."""

    State: ClassVar[Any]
    self_supervised: ClassVar[bool]
    about: ClassVar[About]

    @property
    def epochs(self) -> int:
        """How often the loop calls `epoch`."""

    def start(self, data: TrainingData, network: NetworkSettings, engine: Engine) -> Any:
        """Return the state before the first epoch."""

    def epoch(self, state: Any, data: TrainingData, epoch: int) -> dict[str, float]:
        """Advance the state by one epoch; return what is worth writing down."""

    def predictor(self, state: Any) -> Predictor:
        """Return the network that stands for the state."""


METHODS: dict[str, type[Method]] = {
    "cross_entropy": CrossEntropy,
    "mixup": MixUp,
    "bootstrap": Bootstrap,
    "forward": Forward,
    "backward": Backward,
    "decoupling": Decoupling,
    "co_teaching": CoTeaching,
    "co_teaching_plus": CoTeachingPlus,
    "mentornet": MentorNet,
    "d2l": D2L,
    "m_correction": MCorrection,
    "m_correction_sh": MCorrectionSH,
    "pencil": Pencil,
    "joint": Joint,
    "mentormix": MentorMix,
    "elr": ELR,
    "elr_plus": ELRPlus,
    "pes": PES,
    "pes_semi": PESSemi,
    "ssr": SSR,
    "ssr_plus": SSRPlus,
    "dividemix": DivideMix,
    "c2d": C2D,
    "scan": Scan,
    "scan_dividemix": ScanDivideMix,
    "scanmix": ScanMix,
    "exact_em": ExactEM,
}
"""Name -> class, roughly from the oldest to the newest."""
