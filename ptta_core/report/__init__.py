"""What people look at: one run as one self-contained HTML file."""

from ptta_core.report.data import (
    ClipCard,
    FailureRow,
    GenerationPair,
    LookCard,
    ReportData,
    StageCount,
    ThetaRow,
    VerdictRow,
    theta_line,
    theta_table,
)
from ptta_core.report.page import write_report

__all__ = [
    "ClipCard", "FailureRow", "GenerationPair", "LookCard", "ReportData", "StageCount", "ThetaRow", "VerdictRow",
    "theta_line", "theta_table", "write_report",
]  # fmt: skip
