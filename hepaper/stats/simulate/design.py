"""Sizes of a study, and the truths it is simulated with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


def spoken(cohort: str) -> str:
    """A cohort's name in a sentence."""
    return cohort.replace("_", " ")


@dataclass(frozen=True)
class Design:
    """Sizes of a study, and the truths it is simulated with. Mappings go by cohort, in order.

    Attributes
    ----------
    name : str
    positives, negatives : {cohort: int}
        Patients with and without expansion.
    auc : {cohort: float}
    reference_auc : {cohort: float}
        Area of the model that others are compared with, for the power.
    sensitivity, specificity : {cohort: float}
    volume : (median, interquartile range)
        Of the baseline hematoma, mL.
    age_sd : {cohort: years}
    reading : Reading, optional
        The reader study; without it nothing about readers is simulated.
    """

    name: str
    positives: Mapping[str, int]
    negatives: Mapping[str, int]
    auc: Mapping[str, float]
    reference_auc: Mapping[str, float]
    sensitivity: Mapping[str, float]
    specificity: Mapping[str, float]
    volume: tuple[float, float]
    age_sd: Mapping[str, float]
    reading: Reading | None = None

    def patients(self, cohort: str) -> int:
        """Patients of a cohort."""
        return self.positives[cohort] + self.negatives[cohort]

    def sizes(self, cohort: str) -> str:
        """``112 HE, 401 NHE``."""
        return f"{self.positives[cohort]} HE, {self.negatives[cohort]} NHE"

    @property
    def cohorts(self) -> list[str]:
        """Those with two patients of each class or more: others have no variance to speak of."""
        return [name for name in self.positives if min(self.positives[name], self.negatives[name]) > 1]


@dataclass(frozen=True)
class Reading:
    """Sizes and truths of a reader study: ratings of 1 to 5, and calls of real or synthetic.

    ``called`` is the chance, by origin, that most readers call an image synthetic.
    """

    images: tuple[int, int]  # real, synthetic
    readers: int
    mean: float
    sd: float
    icc: float
    kappa: float
    called: tuple[float, float]
