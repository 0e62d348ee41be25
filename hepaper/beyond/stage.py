"""The stage: everything that a reviewer would ask of the scores and that the paper does not tell."""

from __future__ import annotations

import json

from hepaper.beyond import clinical, imbalance, subgroups
from hepaper.beyond.summary import run_scores
from hepaper.classification.arms import NAMES, arm_of
from hepaper.statistics import load_predictions, load_seeds, load_validated
from hepaper.study import Study, stage


@stage("beyond")
def run(study: Study) -> None:
    """Calibration, decisions, doubt, rivals of synthetic images, subgroups and clinical variables: CSVs in ``beyond/``."""
    settings = study.params.beyond
    predictions, seeds = load_predictions(study), load_seeds(study)
    validated = load_validated(study, predictions)
    main = NAMES[arm_of(study.params.classification.main)]
    threshold = json.loads(study.path("statistics", "thresholds.json").read_text("utf-8"))[main]
    arms = study.results("classification")["arms"]
    seen = {name: arm["he"] / arm["images"] for name, arm in arms.items()}
    options = settings.model_dump(exclude={"onset_cut_h", "smallest_group"})
    study.record("beyond", {"scores": run_scores(study, predictions, validated, seeds, seen, options)})
    smallest = settings.smallest_group
    study.record(
        "beyond",
        {
            "imbalance": imbalance.measure(study, predictions, seeds, smallest),
            "subgroups": subgroups.measure(study, predictions, validated, threshold, settings.onset_cut_h, smallest),
            "clinical": clinical.measure(study, predictions, validated, smallest),
        },
    )
