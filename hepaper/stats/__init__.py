"""The paper's statistics as plain functions (paper, "Statistical analysis")."""

from hepaper.stats.agreement import fleiss_kappa, icc
from hepaper.stats.comparisons import anova, anova_from_summary, chi_square, kruskal_wallis, mann_whitney
from hepaper.stats.metrics import classification_metrics
from hepaper.stats.roc import delong_test, roc_auc

__all__ = [
    "anova",
    "anova_from_summary",
    "chi_square",
    "classification_metrics",
    "delong_test",
    "fleiss_kappa",
    "icc",
    "kruskal_wallis",
    "mann_whitney",
    "roc_auc",
]
