"""The report: figures of run folders as one HTML file, a console table, or Markdown; several seeds as one result;
two runs compared; many runs on one page."""

from vsre.report.inputs import ReportMeta, ReportRun
from vsre.report.leaderboard import make_leaderboard
from vsre.report.leaderboard_page import write_leaderboard
from vsre.report.page import write_report
from vsre.report.paired import Comparison, compare_runs
from vsre.report.results import as_json, markdown_table, result_table
from vsre.report.seeds import seeds_table, write_seeds

__all__ = [
    "Comparison",
    "ReportMeta",
    "ReportRun",
    "as_json",
    "compare_runs",
    "make_leaderboard",
    "markdown_table",
    "result_table",
    "seeds_table",
    "write_leaderboard",
    "write_report",
    "write_seeds",
]
