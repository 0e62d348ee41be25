"""Digital head CT phantoms with hematomas that do or do not expand.

What the phantom is for: to run, test and explain the whole study where everything is known - the mask to the voxel,
the volume, the label, the risk - and where the best possible classifier (the oracle) is known too.

What the phantom is NOT:

- not patients, nor derived from any patient's images: anatomy is made of ellipsoids, tubes and waves;
- no evidence about hematoma expansion: the signs predict growth here because the generator was told so. Weights,
  and how often each sign occurs, are ours, chosen for an oracle AUC of about 0.85;
- no test of how a network does on real scans: real ones have older bleeds, tumors, metal, prior surgery, swelling,
  subarachnoid and subdural blood, and anatomy no formula has. Accuracies on phantoms are accuracies on phantoms;
- no physics simulation: noise, streaks, cupping and motion are painted, not made by projecting and reconstructing;
- no replacement for the paper's cohort: distributions were set to its published medians and percentages.

The true mask holds the parenchymal hematoma with its satellites; blood in the ventricles and calcifications are
bright but outside the mask.
"""

from hepaper.cohort.phantom.cohort import Patient, PhantomCohort, Scan, oracle_auc

__all__ = ["Patient", "PhantomCohort", "Scan", "oracle_auc"]
