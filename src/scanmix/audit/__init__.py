"""Which labels are wrong, what they should be, and how far to believe either."""

from scanmix.audit.evidence import Evidence, collect
from scanmix.audit.kept import has_evidence, load_evidence, save_evidence
from scanmix.audit.table import Audit
from scanmix.audit.weigh import audit

__all__ = ["Audit", "Evidence", "audit", "collect", "has_evidence", "load_evidence", "save_evidence"]
