"""Two runs side by side: their parameters, numbers, tables and figures, with the differences, on one page."""

from hepaper.compare.runs import compare_runs

__all__ = ["compare_runs"]
