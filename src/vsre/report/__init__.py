"""The report: figures of run folders as one HTML file, a console table, or Markdown; several seeds as one result."""

from vsre.report.inputs import ReportMeta, ReportRun
from vsre.report.page import write_report
from vsre.report.results import as_json, markdown_table, result_table
from vsre.report.seeds import seeds_table, write_seeds

__all__ = [
    "ReportMeta",
    "ReportRun",
    "as_json",
    "markdown_table",
    "result_table",
    "seeds_table",
    "write_report",
    "write_seeds",
]
