"""Rivals to synthetic images: remedies for imbalance that need no generator, at the same cost, on the same real images.

All have the network, the seed and the number of optimiser steps of the arm that saw real images only.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from hepaper.augmentation.sets import read_set
from hepaper.beyond.reliability import logistic_recalibration
from hepaper.classification.arms import NAMES, REFERENCE, TRAINING_SETS, arm_of
from hepaper.classification.model import Classifier, whole_input
from hepaper.classification.remedies import REMEDIES
from hepaper.classification.stage import (
    COLUMNS,
    in_turn_or_side_by_side,
    labelled_rois,
    patient_scores,
    steps_per_epoch,
    train_and_score,
)
from hepaper.comparison import EXTERNAL, ONE_CLASS, SET_NAMES, compare, p_worded, seed_aucs, seed_spread, worded
from hepaper.crops import load_crops, read_crops
from hepaper.errors import HepaperError
from hepaper.parallel import for_each
from hepaper.published import SPLIT_NAMES
from hepaper.stats import roc_auc
from hepaper.study import Study, write_csv
from hepaper.tables import _text

_NAN = float("nan")
#: folder under ``beyond/rivals/`` -> name in tables and figures
RIVALS = {
    "class_weights": "Class weights",
    "oversampling": "Oversampling",
    "focal": "Focal loss",
    "features": "Features, as they are",
    "smote": "Features, SMOTE",
}
NEIGHBOURS = 5  # of SMOTE, as in its paper
_ENDS = ("", "_low", "_high")
COMPARISON = (
    "split", "model", "kind", "n", "he", "auc", "auc_low", "auc_high", "delta", "delta_low", "delta_high", "p_value",
    "p_holm", "delta_main", "delta_main_low", "delta_main_high", "p_main", "p_main_holm", "prevalence", "mean_score",
    "in_the_large", "in_the_large_low", "in_the_large_high", "seeds", "seeds_low", "seeds_high", "note",
)  # fmt: skip

Array = NDArray[np.float64]


# ---------------------------------------------------------------- SMOTE on features


@torch.inference_mode()
def features_of(classifier: Classifier, crops: list[np.ndarray]) -> Array:
    """What the network's last layer sees of each crop (height, width) in [0, 1]: (n, width of the network)."""
    network: Any = classifier.network
    found = []
    for start in range(0, len(crops), 64):
        batch = whole_input(crops[start : start + 64], classifier.settings).to(classifier.device)
        found.append(network.forward_head(network.forward_features(batch), pre_logits=True).float().cpu().numpy())
    return np.concatenate(found).astype(float)


def balanced(features: Array, labels: NDArray[np.int64], seed: int) -> tuple[Array, NDArray[np.int64]]:
    """Slices and as many invented ones of the rarer class as make both classes equally frequent (SMOTE).

    An invented slice lies at random between a slice and one of its nearest neighbours of the same class, which are
    often slices of the same patient. Chawla NV, et al. J Artif Intell Res 2002;16:321-357.

    Parameters
    ----------
    features : (n, k)
    labels : (n,) 0 or 1
    seed : int

    Returns
    -------
    (n + invented, k), (n + invented,)
        The given slices first. Unchanged where the rarer class has one slice, or neither is rarer.

    Raises
    ------
    HepaperError
        If a class is missing.
    """
    from imblearn.over_sampling import SMOTE

    counts = np.bincount(labels, minlength=2)
    if not counts.all():
        raise HepaperError("the training slices are all of one class; SMOTE needs both HE and NHE")
    if counts.min() < 2 or counts[0] == counts[1]:
        return features, labels
    return SMOTE(k_neighbors=min(NEIGHBOURS, int(counts.min()) - 1), random_state=seed).fit_resample(features, labels)


def logistic_scores(training: Array, labels: NDArray[np.int64], features: Array, seed: int, smote: bool) -> Array:
    """P(HE) of slices by logistic regression on a network's features, learned from training slices.

    Features are standardised by the training slices, for SMOTE's distances and for the penalty alike; ridge penalty of
    strength 1, as scikit-learn has it.

    Parameters
    ----------
    training : (n, k)
    labels : (n,) 0 or 1
    features : (m, k)
        Of the slices to be scored.
    seed : int
    smote : bool
        Whether the classes are made equally frequent first (:func:`balanced`).

    Returns
    -------
    (m,)
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scale = StandardScaler().fit(training)
    known, classes = scale.transform(training), np.asarray(labels, np.int64)
    if smote:
        known, classes = balanced(known, classes, seed)
    model = LogisticRegression(max_iter=10_000).fit(known, classes)
    return model.predict_proba(scale.transform(features))[:, 1]


# ---------------------------------------------------------------- training


def _folder(study: Study, rival: str) -> Path:
    return study.path("beyond", "rivals", rival)


def _train_one(study: Study, remedy: str) -> None:
    training_set = read_set(study, TRAINING_SETS[REFERENCE])
    rois, labels = labelled_rois(study)
    steps = steps_per_epoch(study.params.classification, len(training_set))
    seed = study.params.study.seed
    train_and_score(
        study, training_set, rois, labels, seed, _folder(study, remedy), steps, remedy, keep_model=False
    )  # fmt: skip


def _score_by_features(study: Study) -> None:
    wanted = [rival for rival in ("features", "smote") if not (_folder(study, rival) / "predictions.csv").is_file()]
    if not wanted:
        return
    training_set = read_set(study, TRAINING_SETS[REFERENCE])
    rois, labels = labelled_rois(study)
    classifier = Classifier(study.path("classification", REFERENCE, "model"), study.params.study.device)
    training = features_of(classifier, read_crops(study.path(name) for name in training_set["image"]))
    features = features_of(classifier, load_crops(study, rois))
    known = training_set["label"].to_numpy().astype(int)
    for rival in wanted:
        scores = logistic_scores(training, known, features, study.params.study.seed, smote=rival == "smote")
        write_csv(_folder(study, rival) / "predictions.csv", patient_scores(rois, scores, labels))


def train_rivals(study: Study) -> pd.DataFrame:
    """Train and score every rival that has not been yet, ``beyond/rivals/<name>/predictions.csv``.

    ``class_weights``, ``oversampling`` and ``focal`` train the network of the arm that saw real images only, from its
    initial weights and for as many steps (:mod:`hepaper.classification.remedies`). ``features`` and ``smote`` keep that
    arm's trained network and replace its last layer by a logistic regression, without SMOTE and with it
    (:func:`logistic_scores`): what SMOTE does is the difference of these two. The features come from the images that
    the network has learned by heart, which no remedy on features can undo.

    Returns
    -------
    DataFrame
        model, patient_id, split, label, score.
    """
    remedies = [rival for rival in RIVALS if rival in REMEDIES]
    for_each(_train_one, [(study, remedy) for remedy in remedies], "training", in_turn_or_side_by_side(study))
    _score_by_features(study)
    return rival_predictions(study)


def rival_predictions(study: Study) -> pd.DataFrame:
    """What :func:`train_rivals` left: model, patient_id, split, label, score."""
    parts = [
        study.read("beyond", "rivals", rival, "predictions.csv")[COLUMNS].assign(model=name)
        for rival, name in RIVALS.items()
    ]
    return pd.concat(parts, ignore_index=True)[["model", *COLUMNS]]


# ---------------------------------------------------------------- comparison


def compare_rivals(
    rivals: pd.DataFrame,
    arms: Mapping[str, pd.DataFrame],
    reference: str,
    main: str,
    confidence: float = 0.95,
    seeds: pd.DataFrame | None = None,
    smallest: int = 5,
) -> pd.DataFrame:
    """Arms and rivals on the external patients: AUC, differences, and what a remedy did to the probabilities.

    Parameters
    ----------
    rivals : DataFrame
        model, patient_id, split, label, score.
    arms : {model: DataFrame}
        The study's arms (patient_id, split, label, score), ``reference`` and ``main`` among them.
    reference : str
        The arm without any remedy.
    main : str
        The arm that everything else is compared with as well: the paper's remedy. Where it is the reference, once.
    confidence : float
    seeds : DataFrame, optional
        model, seed, split, label, score of every seed.
    smallest : int
        Fewest patients of a class for a test.

    Returns
    -------
    DataFrame
        Columns :data:`COMPARISON`, a row a split and model. ``delta`` is the AUC minus the reference's (paired DeLong),
        ``p_holm`` corrected for all such differences in the table; ``delta_main`` likewise against ``main``.
        ``in_the_large`` is the shift of the logits that makes the mean score the share that expanded: below 0 the score
        is too high. ``seeds_low`` and ``seeds_high`` are the reference's lowest and highest AUC over its seeds: a
        difference within them is no larger than that of training once more. NaN with a note where a split has one
        class.

    Raises
    ------
    HepaperError
        If ``reference`` or ``main`` is not among the arms.
    """
    for name in (reference, main):
        if name not in arms:
            raise HepaperError(f"{name}: not among the arms {', '.join(arms)}")
    models = dict(arms) | {str(name): table for name, table in rivals.groupby("model", sort=False)}
    differences: dict[tuple[str, str], dict[str, Any]] = {}
    against = {reference: ("delta", "delta_low", "delta_high", "p_value", "p_holm")}
    against.setdefault(main, ("delta_main", "delta_main_low", "delta_main_high", "p_main", "p_main_holm"))
    for other, names in against.items():
        pairs = [(name, other) for name in models if name not in (reference, other)]
        found = compare(models, pairs, EXTERNAL, confidence, smallest)
        for test in found.to_dict("records"):
            values = [test[name] for name in ("delta", "ci_low", "ci_high", "p_value", "p_holm", "note")]
            key = (test["split"], test["model_a"])
            differences[key] = differences.get(key, {}) | dict(zip((*names, "note"), values, strict=True))
    spread = {} if seeds is None else _seed_spread(seeds, reference)
    rows = []
    for split, (name, table) in itertools.product(EXTERNAL, models.items()):
        here = table[table["split"] == split]
        if here.empty:
            continue
        label, score = here["label"].to_numpy(int), here["score"].to_numpy(float)
        row: dict[str, Any] = dict.fromkeys(COMPARISON, _NAN) | {"note": ""}
        row |= {"split": split, "model": name, "kind": "arm" if name in arms else "rival"}
        row |= {"n": len(here), "he": int(label.sum()), "prevalence": label.mean(), "mean_score": score.mean()}
        row |= differences.get((split, name), {}) | spread.get(split, {})
        if 0 < label.sum() < len(label):
            area = roc_auc(label, score, confidence)
            row |= {"auc": area.auc, "auc_low": area.ci_low, "auc_high": area.ci_high}
        else:
            row["note"] = ONE_CLASS
        fit = logistic_recalibration(label, score, confidence)
        row |= {f"in_the_large{end}": fit[f"in_the_large{end}"] for end in _ENDS}
        rows.append(row)
    return pd.DataFrame(rows, columns=list(COMPARISON))


def _seed_spread(seeds: pd.DataFrame, model: str) -> dict[str, dict[str, float]]:
    """Number of seeds, lowest and highest AUC of one model in each split."""
    spread = seed_spread(seed_aucs(seeds[seeds["model"] == model]))
    return {
        row["split"]: {"seeds": row["seeds"], "seeds_low": row["low"], "seeds_high": row["high"]}
        for row in spread.to_dict("records")
    }


def rivals_table(comparison: pd.DataFrame, reference: str, main: str) -> pd.DataFrame:
    """:func:`compare_rivals` as text."""
    rows = []
    for row in comparison.to_dict("records"):
        shown = {"Cohort": SPLIT_NAMES.get(row["split"], row["split"]), "Model": row["model"]}
        shown["AUC"] = _text.interval(*(row[f"auc{end}"] for end in _ENDS))
        shown[f"Minus {reference}"] = _text.interval(*(row[f"delta{end}"] for end in _ENDS))
        shown["p, Holm"] = _text.p_value(row["p_holm"])
        if main != reference:
            shown[f"Minus {main}"] = _text.interval(*(row[f"delta_main{end}"] for end in _ENDS))
            shown["p, Holm "] = _text.p_value(row["p_main_holm"])
        shown["Expanded"] = _text.count_percent(row["he"], row["n"])
        shown["Mean score"] = _text.number(row["mean_score"])
        shown["Calibration-in-the-large"] = _text.interval(*(row[f"in_the_large{end}"] for end in _ENDS))
        rows.append(shown | {"Note": row["note"]})
    return pd.DataFrame(rows)


# ---------------------------------------------------------------- the study's


def measure(
    study: Study, predictions: Mapping[str, pd.DataFrame], seeds: pd.DataFrame | None, smallest: int = 5
) -> dict[str, Any]:
    """Train the rivals, write ``beyond/rivals.csv`` and ``beyond/imbalance.csv``; returns numbers for the page.

    Parameters
    ----------
    predictions : {model: DataFrame}
        :func:`hepaper.statistics.load_predictions`; the study's arms are taken from it.
    seeds : DataFrame, optional
        ``classification/vit/seeds.csv``.
    smallest
        See :func:`compare_rivals`.
    """
    rivals = train_rivals(study)
    arms = {name: predictions[name] for name in NAMES.values() if name in predictions}
    reference, main = NAMES[REFERENCE], NAMES[arm_of(study.params.classification.main)]
    confidence = study.params.statistics.confidence
    comparison = compare_rivals(rivals, arms, reference, main, confidence, seeds, smallest)
    write_csv(study.path("beyond", "rivals.csv"), rivals)
    write_csv(study.path("beyond", "imbalance.csv"), comparison)
    return {"reference": reference, "main": main, **summary(comparison, reference, main, 1 - confidence)}


def summary(comparison: pd.DataFrame, reference: str, main: str, alpha: float) -> dict[str, Any]:
    """What the page says: which rivals differ from the reference and from the main arm, and every model's numbers."""
    rivals = comparison[comparison["kind"] == "rival"]
    columns = [
        "auc", "auc_low", "auc_high", "delta", "delta_low", "delta_high", "p_holm", "delta_main", "p_main_holm",
        "mean_score", "prevalence", "in_the_large", "in_the_large_low", "in_the_large_high", "seeds_low", "seeds_high",
    ]  # fmt: skip

    def differ(p: str, delta: str) -> dict[str, int]:
        sure = rivals[rivals[p] < alpha]
        return {"better": int((sure[delta] > 0).sum()), "worse": int((sure[delta] < 0).sum())}

    return {
        "compared": int(rivals["p_value"].notna().sum()),
        "against_reference": differ("p_holm", "delta"),
        "against_main": differ("p_main_holm", "delta_main"),
        "against_reference_text": _verdict(rivals, reference, ("delta", "delta_low", "delta_high", "p_holm"), alpha),
        "against_main_text": (
            _verdict(rivals, main, ("delta_main", "delta_main_low", "delta_main_high", "p_main_holm"), alpha)
            if main != reference
            else ""
        ),
        "shift_text": _shift_words(comparison, reference, main),
        "models": {
            str(name): {row["split"]: {c: row[c] for c in columns} for row in table.to_dict("records")}
            for name, table in comparison.groupby("model", sort=False)
        },
    }


def _verdict(rivals: pd.DataFrame, other: str, columns: tuple[str, ...], alpha: float) -> str:
    """One sentence or two: how many rivals were compared with ``other``, and which of them differ."""
    delta, low, high, p = columns
    tested = rivals.dropna(subset=[p])
    if tested.empty:
        return f"No rival can be compared with {other}: no external set has enough patients of both classes."
    sure = tested[tested[p] < alpha]
    count = f"{len(tested)} comparison{'s' * (len(tested) != 1)} of a rival with {other}"
    if sure.empty:
        reach = tested[[low, high]].abs().max().max()
        return (
            f"Of {count} none finds a difference after Holm's correction (smallest p {tested[p].min():.3f}). That "
            f"they are equal is not shown: the intervals of the differences reach as far as {reach:.3f}."
        )
    listed = "; ".join(
        f"{row['model']} is {'better' if row[delta] > 0 else 'worse'} in {SET_NAMES[row['split']]}, difference "
        f"{worded(row[delta], row[low], row[high])}, {p_worded(row[p])}"
        for row in sure.to_dict("records")
    )
    return f"Of {count} {len(sure)} find{'s' * (len(sure) == 1)} a difference after Holm's correction: {listed}."


def _shift_words(comparison: pd.DataFrame, reference: str, main: str) -> str:
    """How many expand in the first external set, and what each remedy makes of it."""
    for split in EXTERNAL:
        rows = comparison[comparison["split"] == split].set_index("model")
        if len(rows):
            break
    else:
        return ""
    share = rows["prevalence"].iloc[0]
    order = [reference, *([main] if main != reference else []), *(rows.index[rows["kind"] == "rival"])]
    listed = ", ".join(f"{rows.loc[name, 'mean_score']:.2f} ({name})" for name in order)
    return f"In {SET_NAMES[split]} {100 * share:.0f} % of the patients expand. The mean scores are {listed}."
