"""Which labels are wrong, what they should be, and how far to believe either."""

from scanmix.audit.evidence import Evidence, collect
from scanmix.audit.finished import evidence_of, pictures_of, remember_decisions, training_data
from scanmix.audit.kept import save_evidence
from scanmix.audit.table import Audit
from scanmix.audit.weigh import audit

__all__ = [
    "Audit", "Evidence", "audit", "collect", "evidence_of", "pictures_of", "remember_decisions", "save_evidence",
    "training_data",
]  # fmt: skip
