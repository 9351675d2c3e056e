"""The methods: one file per paper, and `METHODS`, which gives each its name."""

from __future__ import annotations

from scanmix.methods.accord import Accord
from scanmix.methods.augdesc import AugDesc
from scanmix.methods.bootstrap import Bootstrap
from scanmix.methods.c2d import C2D
from scanmix.methods.cleannet import CleanNet
from scanmix.methods.co_teaching import CoTeaching
from scanmix.methods.co_teaching_plus import CoTeachingPlus
from scanmix.methods.contract import Method, State, first_part, known_labels
from scanmix.methods.cores import Cores
from scanmix.methods.cross_entropy import CrossEntropy
from scanmix.methods.d2l import D2L
from scanmix.methods.decoupling import Decoupling
from scanmix.methods.deep_self import DeepSelf
from scanmix.methods.disc import DISC
from scanmix.methods.dividemix import DivideMix
from scanmix.methods.drpl import DRPL
from scanmix.methods.elr import ELR
from scanmix.methods.elr_plus import ELRPlus
from scanmix.methods.exact_em import ExactEM
from scanmix.methods.famus import FaMUS
from scanmix.methods.fsr import FSR
from scanmix.methods.incv import INCV
from scanmix.methods.jocor import JoCoR
from scanmix.methods.joint import Joint
from scanmix.methods.linear import Linear
from scanmix.methods.loss_correction import Backward, Forward
from scanmix.methods.m_correction import MCorrection, MCorrectionSH
from scanmix.methods.mentormix import MentorMix
from scanmix.methods.mentornet import MentorNet
from scanmix.methods.mentornet_dd import MentorNetDD
from scanmix.methods.metacleaner import MetaCleaner
from scanmix.methods.mixup import MixUp
from scanmix.methods.mlnt import MLNT
from scanmix.methods.moit_plus import MOITPlus
from scanmix.methods.ncr import NCR
from scanmix.methods.neighbors import Neighbors
from scanmix.methods.pencil import Pencil
from scanmix.methods.pes import PES
from scanmix.methods.pes_semi import PESSemi
from scanmix.methods.propagate import Propagate
from scanmix.methods.robust_losses import GCE, SCE
from scanmix.methods.scan import Scan
from scanmix.methods.scan_dividemix import ScanDivideMix
from scanmix.methods.scanmix import ScanMix
from scanmix.methods.sop import SOP, SOPPlus
from scanmix.methods.ssr import SSR, SSRPlus
from scanmix.methods.wann import WANN

__all__ = ["METHODS", "Method", "State", "first_part", "known_labels"]

METHODS: dict[str, type[Method]] = {
    "cross_entropy": CrossEntropy,
    "mixup": MixUp,
    "bootstrap": Bootstrap,
    "gce": GCE,
    "sce": SCE,
    "forward": Forward,
    "backward": Backward,
    "decoupling": Decoupling,
    "co_teaching": CoTeaching,
    "co_teaching_plus": CoTeachingPlus,
    "jocor": JoCoR,
    "cleannet": CleanNet,
    "mentornet": MentorNet,
    "mentornet_dd": MentorNetDD,
    "incv": INCV,
    "d2l": D2L,
    "m_correction": MCorrection,
    "m_correction_sh": MCorrectionSH,
    "pencil": Pencil,
    "joint": Joint,
    "metacleaner": MetaCleaner,
    "mlnt": MLNT,
    "deep_self": DeepSelf,
    "mentormix": MentorMix,
    "drpl": DRPL,
    "elr": ELR,
    "elr_plus": ELRPlus,
    "moit_plus": MOITPlus,
    "cores": Cores,
    "sop": SOP,
    "sop_plus": SOPPlus,
    "pes": PES,
    "pes_semi": PESSemi,
    "ncr": NCR,
    "fsr": FSR,
    "ssr": SSR,
    "ssr_plus": SSRPlus,
    "disc": DISC,
    "dividemix": DivideMix,
    "augdesc": AugDesc,
    "famus": FaMUS,
    "c2d": C2D,
    "scan": Scan,
    "scan_dividemix": ScanDivideMix,
    "scanmix": ScanMix,
    "accord": Accord,
    "exact_em": ExactEM,
    "neighbors": Neighbors,
    "linear": Linear,
    "wann": WANN,
    "propagate": Propagate,
}
"""Name -> class, roughly from the oldest to the newest. A new method needs one line here."""
