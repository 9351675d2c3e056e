"""Which labels are wrong, what they should be, and how far to believe either."""

from scanmix.audit.evidence import Evidence, evidence_of, training_data
from scanmix.audit.table import Audit
from scanmix.audit.weigh import audit

__all__ = ["Audit", "Evidence", "audit", "evidence_of", "training_data"]
