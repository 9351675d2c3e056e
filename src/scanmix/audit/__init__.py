"""The audit: which labels are probably wrong, which class they should have, and how certain that is."""

from scanmix.audit.columns import COLUMNS, Column
from scanmix.audit.evidence import Evidence, collect
from scanmix.audit.score import score_labels
from scanmix.audit.stored import has_evidence, load_evidence, save_evidence
from scanmix.audit.table import Audit
from scanmix.audit.untrained import audit_data, evidence_from_examples

__all__ = [
    "COLUMNS", "Audit", "Column", "Evidence", "audit_data", "collect", "evidence_from_examples", "has_evidence",
    "load_evidence", "save_evidence", "score_labels",
]  # fmt: skip
