"""The report: figures of run folders as one HTML file, a console table, or Markdown."""

from vsre.report.inputs import ReportMeta, ReportRun
from vsre.report.page import write_report
from vsre.report.results import as_json, markdown_table, result_table

__all__ = ["ReportMeta", "ReportRun", "as_json", "markdown_table", "result_table", "write_report"]
