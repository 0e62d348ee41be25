"""The paper's statistics as plain functions (paper, "Statistical analysis")."""

from hepaper.stats.agreement import fleiss_kappa, icc
from hepaper.stats.bootstrap import bootstrap_auc
from hepaper.stats.comparisons import anova, anova_from_summary, chi_square, holm, kruskal_wallis, mann_whitney
from hepaper.stats.metrics import classification_metrics
from hepaper.stats.roc import delong_covariance, delong_global, delong_test, delong_unpaired, roc_auc

__all__ = [
    "anova",
    "anova_from_summary",
    "bootstrap_auc",
    "chi_square",
    "classification_metrics",
    "delong_covariance",
    "delong_global",
    "delong_test",
    "delong_unpaired",
    "fleiss_kappa",
    "holm",
    "icc",
    "kruskal_wallis",
    "mann_whitney",
    "roc_auc",
]
