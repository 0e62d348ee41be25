"""Do the intervals and tests keep their promise at these sample sizes, and what could they have found?

Coverage: how often a 95 % interval holds the truth. Size: how often a 5 % test rejects when there is nothing. Power: how
often it rejects when there is something. Each is measured on thousands of simulated studies whose truth is known, and
carries its own Monte Carlo error, the binomial standard error of a share of so many replicates.
"""

from hepaper.stats.simulate.curves import detectable, power
from hepaper.stats.simulate.design import Design, Reading
from hepaper.stats.simulate.intervals import coverage, exact_coverage
from hepaper.stats.simulate.nulls import size
from hepaper.stats.simulate.tally import ALPHA, TOLERANCE, VERDICTS, monte_carlo_error, verdict

__all__ = [
    "ALPHA",
    "TOLERANCE",
    "VERDICTS",
    "Design",
    "Reading",
    "coverage",
    "detectable",
    "exact_coverage",
    "monte_carlo_error",
    "power",
    "size",
    "verdict",
]
