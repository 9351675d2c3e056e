"""The audit: which labels are probably wrong, which class they should have, and how certain that is."""

from scanmix.audit.columns import COLUMNS, Column
from scanmix.audit.evidence import Evidence, collect
from scanmix.audit.score import score_labels
from scanmix.audit.stored import has_evidence, load_evidence, save_evidence
from scanmix.audit.table import Audit

__all__ = [
    "COLUMNS", "Audit", "Column", "Evidence", "collect", "has_evidence", "load_evidence", "save_evidence",
    "score_labels",
]  # fmt: skip
