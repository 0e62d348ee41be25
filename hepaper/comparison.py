"""The three arms compared: thresholds, tables of performance, DeLong's tests, seeds, and the sentence that sums them up.

Pure functions of tables. A split with too few patients gives rows of NaN with a note, never an error.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from hepaper.errors import HepaperError
from hepaper.published import METRICS, load_published
from hepaper.stats import classification_metrics, delong_covariance, delong_test, holm, roc_auc
from hepaper.stats.metrics import Interval
from hepaper.stats.roc import youden_threshold

#: "train_cv": training patients, each scored by a network that did not learn from that patient
SPLITS = ("train", "train_cv", "external_1", "external_2")
EXTERNAL = ("external_1", "external_2")
BOTH = "external"  # the patients of both, in the table of the oracle
SET_NAMES = {"external_1": "external set 1", "external_2": "external set 2"}
#: pairs of arms, the first minus the second, as the paper prints them; with EXTERNAL the family of Holm's correction
PAIRS = (("ViT-1:2", "ViT-1:1"), ("ViT-1:2", "ViT-1:4"), ("ViT-1:1", "ViT-1:4"))
#: arms whose cross-validated scores are too good
SYNTHETIC = ("ViT-1:1", "ViT-1:2")

#: patients in the smaller class below which a difference is not tested
SMALLEST = 5

ONE_CLASS = "only one of HE and NHE among these patients"
NOBODY = "no patients"
OPTIMISTIC = "optimistic: the generator of its synthetic images has seen these patients"

Rule = Literal["youden_cv", "youden", "half"]
Source = Literal["cross-validated", "apparent", "fixed"]
Predictions = Mapping[str, pd.DataFrame]


# ---------------------------------------------------------------- words


def worded(value: float | None, low: float | None = None, high: float | None = None, digits: int = 3) -> str:
    """``0.645 (0.474 to 0.816)``; ``0.645 (no interval)`` and ``not defined`` where numbers are missing."""

    def shown(x: float | None) -> str:
        # rounded before it is printed, so that no minus sign stands before 0.000
        return "" if x is None or not math.isfinite(x) else f"{round(x, digits) + 0.0:.{digits}f}".replace("-", "−")

    if not shown(value):
        return "not defined"
    ends = f"{shown(low)} to {shown(high)}" if shown(low) and shown(high) else "no interval"
    return f"{shown(value)} ({ends})"


def p_worded(p: float) -> str:
    """``p = 0.012``, ``p < 0.001``, ``not tested``."""
    if not math.isfinite(p):
        return "not tested"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


# ---------------------------------------------------------------- thresholds


@dataclass(frozen=True)
class Threshold:
    """Patients scored at or above ``value`` are called expanders; ``source`` says whose scores it was chosen on."""

    value: float
    source: Source

    def __str__(self) -> str:
        rule = "fixed" if self.source == "fixed" else f"Youden, {self.source}"
        return f"{self.value:.3f} ({rule})"


def choose_threshold(predictions: pd.DataFrame, rule: Rule, validated: pd.DataFrame | None = None) -> Threshold:
    """The decision threshold of one model, from training patients only.

    A network that knows its training patients by heart scores them near 0 and 1, and any threshold between is as good
    as another there. Scores by networks that had not seen the patient are spread like those of a new one: ``youden_cv``
    maximises sensitivity + specificity on them, ``youden`` on the apparent scores, and ``half`` is 0.5.

    Parameters
    ----------
    predictions : DataFrame
        split, label (0 | 1), score.
    rule : "youden_cv", "youden" or "half"
    validated : DataFrame, optional
        label, score of the training patients from cross-validation. Without it (or with one class in it) ``youden_cv``
        takes the apparent scores; ``source`` says so.

    Raises
    ------
    HepaperError
        If the rule needs training patients of both classes and there are none.
    """
    if rule == "half":
        return Threshold(0.5, "fixed")
    if rule == "youden_cv" and validated is not None and validated["label"].nunique() == 2:
        return Threshold(youden_threshold(validated["label"], validated["score"]), "cross-validated")
    training = predictions[predictions["split"] == "train"]
    return Threshold(youden_threshold(training["label"], training["score"]), "apparent")


# ---------------------------------------------------------------- performance


def _too_few(part: pd.DataFrame) -> str:
    if part.empty:
        return NOBODY
    return ONE_CLASS if part["label"].nunique() < 2 else ""


def performance(
    predictions: Predictions,
    thresholds: Mapping[str, float],
    confidence: float = 0.95,
    interval: Interval = "wilson",
    validated: Predictions | None = None,
) -> pd.DataFrame:
    """AUC (DeLong's interval) and the metrics of Table 3 at a frozen threshold, a row a split and model.

    Parameters
    ----------
    predictions : {model: DataFrame}
        split, label (0 | 1), score.
    thresholds : {model: float}
    confidence, interval
        Of the proportions: "wilson", or "wald" as in the paper.
    validated : {model: DataFrame}, optional
        label, score: cross-validated training patients, the rows of split ``train_cv``.

    Returns
    -------
    DataFrame
        split, model, n, he, threshold, each metric with ``_low`` and ``_high``, note. NaN where a class is missing.
    """
    columns = [f"{metric}{end}" for metric in METRICS for end in ("", "_low", "_high")]
    rows = []
    for split, (model, table) in itertools.product(SPLITS, predictions.items()):
        if split == "train_cv":
            if validated is None or model not in validated:
                continue
            part = validated[model]
        else:
            part = table[table["split"] == split]
        row: dict[str, Any] = {"split": split, "model": model, "n": len(part), "he": int(part["label"].sum())}
        row |= {"threshold": thresholds[model]} | dict.fromkeys(columns, math.nan) | {"note": _too_few(part)}
        if not row["note"]:
            area = roc_auc(part["label"], part["score"], confidence)
            found = classification_metrics(part["label"], part["score"], thresholds[model], confidence, interval)
            row |= {"auc": area.auc, "auc_low": area.ci_low, "auc_high": area.ci_high}
            for metric in METRICS[1:]:
                share = getattr(found, metric)
                row |= {metric: share.value, f"{metric}_low": share.ci_low, f"{metric}_high": share.ci_high}
            if split == "train_cv" and model in SYNTHETIC:
                row["note"] = OPTIMISTIC
        rows.append(row)
    return pd.DataFrame(rows, columns=["split", "model", "n", "he", "threshold", *columns, "note"])


def validated_aucs(validated: Predictions, confidence: float = 0.95) -> pd.DataFrame:
    """The cross-validated AUC of each model, from all scores together and within folds.

    Each fold has a network of its own, whose scores may lie higher or lower throughout. ``auc`` compares all patients
    with all; ``within`` compares patients of one fold only and weights folds by their number of pairs (Forman G,
    Scholz M. SIGKDD Explor 2010;12:49-57). Folds hold different patients, so that the variances of ``within`` add.
    Both intervals take the networks as given: that they share training patients is not in them.

    Returns
    -------
    DataFrame
        model, folds, n, he, auc, auc_low, auc_high, within, within_low, within_high, note.
    """
    rows = []
    for model, table in validated.items():
        row: dict[str, Any] = {"model": model, "folds": table["fold"].nunique() if "fold" in table else 0}
        row |= {"n": len(table), "he": int(table["label"].sum())}
        note = _too_few(table)
        if not note:
            area = roc_auc(table["label"], table["score"], confidence)
            row |= {"auc": area.auc, "auc_low": area.ci_low, "auc_high": area.ci_high}
            note = OPTIMISTIC if model in SYNTHETIC else ""
        if row["folds"]:
            parts = [part for _, part in table.groupby("fold") if part["label"].nunique() == 2]
            pairs = np.array([part["label"].sum() * (1 - part["label"]).sum() for part in parts], float)
            areas = [roc_auc(part["label"], part["score"], confidence) for part in parts]
            if areas:
                weights = pairs / pairs.sum()
                centre = float(weights @ [area.auc for area in areas])
                error = math.sqrt(weights**2 @ [area.variance for area in areas])
                half = stats.norm.ppf(0.5 + confidence / 2) * error if error > 0 else math.nan
                row |= {"within": centre, "within_low": max(centre - half, 0), "within_high": min(centre + half, 1)}
                if math.isnan(half):
                    row |= {"within_low": math.nan, "within_high": math.nan}
        rows.append(row | {"note": note})
    columns = "model folds n he auc auc_low auc_high within within_low within_high note"
    return pd.DataFrame(rows, columns=columns.split())


def oracle_gaps(truth: pd.DataFrame, predictions: Predictions, confidence: float = 0.95) -> pd.DataFrame:
    """The oracle's AUC on the very patients each model scored, and DeLong's paired test of the gap.

    The oracle is the generator's own risk given all that a baseline image shows; no classifier of one baseline scan
    can be expected to do better. It has no row where a class is missing. Beside the splits stands :data:`BOTH`, all
    external patients together: the scores of one frozen model.

    Parameters
    ----------
    truth : DataFrame
        patient_id, oracle_score (``cohort/truth.csv``).
    predictions : {model: DataFrame}
        patient_id, split, label, score.
    """
    scores = truth.set_index("patient_id")["oracle_score"]
    rows = []
    groups = {split: (split,) for split in ("train", *EXTERNAL)} | {BOTH: EXTERNAL}
    for (model, table), (split, members) in itertools.product(predictions.items(), groups.items()):
        part = table[table["split"].isin(members) & table["patient_id"].isin(scores.index)]
        if part["label"].nunique() < 2:
            continue
        oracle = scores.reindex(part["patient_id"]).to_numpy()
        area = roc_auc(part["label"], oracle, confidence)
        test = delong_test(part["label"], oracle, part["score"], confidence)
        row = {"model": model, "split": split, "oracle_auc": area.auc, "oracle_low": area.ci_low}
        row |= {"oracle_high": area.ci_high, "model_auc": test.auc_b, "gap": test.delta, "gap_low": test.ci_low}
        rows.append(row | {"gap_high": test.ci_high, "p_value": test.p_value})
    columns = "model split oracle_auc oracle_low oracle_high model_auc gap gap_low gap_high p_value"
    return pd.DataFrame(rows, columns=columns.split())


# ---------------------------------------------------------------- DeLong's tests


def _published(split: str, a: str, b: str) -> tuple[float, str]:
    """The paper's difference and p, which it prints for ViT-1:2 against the others."""
    other, sign = (b, 1) if a == "ViT-1:2" else (a, -1) if b == "ViT-1:2" else ("", 0)
    printed = load_published()["delong"].get(split, {}).get(other)
    if not printed:
        return math.nan, ""
    return sign * printed["delta"], str(printed.get("p_value", f"<{printed.get('p_below')}"))


def compare(
    predictions: Predictions,
    pairs: Iterable[tuple[str, str]] = PAIRS,
    splits: Sequence[str] = EXTERNAL,
    confidence: float = 0.95,
    smallest: int = SMALLEST,
) -> pd.DataFrame:
    """DeLong's paired test of each pair in each split; all rows together are the family of Holm's correction.

    Parameters
    ----------
    predictions : {model: DataFrame}
        patient_id, split, label, score. Pairs of models that are not there are left out.
    pairs, splits
        Which comparisons the family has; the default is the paper's: three pairs in two external sets.
    smallest : int
        With fewer patients in a class there is a difference, but no test: its variance would be a guess.

    Returns
    -------
    DataFrame
        split, model_a, model_b, n (patients both scored), auc_a, auc_b, delta (a - b), ci_low, ci_high, z, p_value,
        p_holm, published_delta, published_p (as printed), note.
    """
    rows = []
    for split, (a, b) in itertools.product(splits, [pair for pair in pairs if set(pair) <= set(predictions)]):
        first, second = (predictions[name][predictions[name]["split"] == split] for name in (a, b))
        both = first.merge(second, on="patient_id", suffixes=("_a", "_b"))
        row: dict[str, Any] = {"split": split, "model_a": a, "model_b": b, "n": len(both)}
        note = _too_few(both.rename(columns={"label_a": "label"}))
        if (both["label_a"] != both["label_b"]).any():
            note = "the two have different labels for the same patients"
        if not note:
            row |= vars(delong_test(both["label_a"], both["score_a"], both["score_b"], confidence))
            fewest = int(both["label_a"].value_counts().min())
            if fewest < smallest or not math.isfinite(row["p_value"]):
                row |= dict.fromkeys(("ci_low", "ci_high", "z", "p_value"), math.nan)
                note = f"not tested: {fewest} patient{'s' * (fewest != 1)} in the smaller class"
        if not len(first) == len(second) == len(both):
            note = "; ".join(filter(None, [note, "only patients whom both scored"]))
        row["published_delta"], row["published_p"] = _published(split, a, b)
        rows.append(row | {"note": note})
    columns = "split model_a model_b n auc_a auc_b delta ci_low ci_high z p_value"
    table = pd.DataFrame(rows, columns=[*columns.split(), "published_delta", "published_p", "note"])
    table.insert(len(columns.split()), "p_holm", holm(table["p_value"].to_numpy(float)))
    return table


# ---------------------------------------------------------------- seeds


def seed_aucs(seeds: pd.DataFrame) -> pd.DataFrame:
    """AUC of every network: model, split, seed, n, he, auc; NaN where a class is missing. Seeds in their order.

    Parameters
    ----------
    seeds : DataFrame
        model, seed, patient_id, split, label, score.
    """
    rows = []
    for (model, split, seed), part in seeds.groupby(["model", "split", "seed"], sort=False):
        auc = math.nan if _too_few(part) else roc_auc(part["label"], part["score"]).auc
        rows.append((model, split, seed, len(part), int(part["label"].sum()), auc))
    return pd.DataFrame(rows, columns=["model", "split", "seed", "n", "he", "auc"])


def _change(values: ArrayLike) -> float:
    """Mean absolute difference of two of the values; NaN of one."""
    pairs = [abs(x - y) for x, y in itertools.combinations(np.asarray(values, float), 2)]
    return float(np.mean(pairs)) if pairs else math.nan


def seed_spread(aucs: pd.DataFrame) -> pd.DataFrame:
    """Spread of the AUC between seeds, a row a model and split.

    Returns
    -------
    DataFrame
        model, split, seeds, first (AUC of the first seed), mean, sd (n - 1), low, high (range), change: by how much
        two seeds differ on average. Spread is NaN with one seed.
    """
    rows = []
    for (model, split), part in aucs.groupby(["model", "split"], sort=False):
        auc = part["auc"].to_numpy(float)
        sd = float(auc.std(ddof=1)) if auc.size > 1 else math.nan
        rows.append((model, split, auc.size, auc[0], auc.mean(), sd, auc.min(), auc.max(), _change(auc)))
    return pd.DataFrame(rows, columns=["model", "split", "seeds", "first", "mean", "sd", "low", "high", "change"])


@dataclass(frozen=True)
class SeedTest:
    """Mean difference of two arms over seeds, with its interval for new patients and new seeds."""

    mean: float
    ci_low: float
    ci_high: float
    p_value: float
    dof: float


def mean_difference(delta: NDArray[np.float64], same_arm: float, two_arms: float, confidence: float = 0.95) -> SeedTest:
    """Interval and test of a mean difference over seeds, for new patients and new seeds.

    Seeds stand here where readers stand in radiology: Obuchowski NA, Rockette HE. Commun Stat Simul Comput
    1995;24:285-308, with the degrees of freedom of Hillis SL. Stat Med 2007;26:596-619.

    Parameters
    ----------
    delta : (seeds,)
        Difference in AUC of two arms trained with the same seed.
    same_arm, two_arms : float
        Covariance of the AUCs of two networks of different seeds, of one arm and of two arms, on the same patients.

    Returns
    -------
    SeedTest
        NaN, but for the mean, with fewer than two seeds or no variance at all.
    """
    count, mean, nan = delta.size, float(delta.mean()), math.nan
    if count < 2:
        return SeedTest(mean, nan, nan, nan, nan)
    interaction = float(delta.var(ddof=1)) / 2
    total = interaction + count * max(same_arm - two_arms, 0.0)
    if not total > 1e-12:
        return SeedTest(mean, nan, nan, nan, nan)
    dof = total**2 * (count - 1) / interaction**2 if interaction > 0 else math.inf
    error = math.sqrt(2 / count * total)
    half = float(stats.t.ppf(0.5 + confidence / 2, dof)) * error
    p_value = float(2 * stats.t.sf(abs(mean) / error, dof))
    return SeedTest(mean, max(mean - half, -1.0), min(mean + half, 1.0), p_value, dof)


def patients_and_seeds(
    label: ArrayLike, score_a: NDArray[np.float64], score_b: NDArray[np.float64], confidence: float = 0.95
) -> SeedTest:
    """The mean difference in AUC of two arms when other patients *and* other seeds could have been drawn.

    DeLong's test takes the two networks as given; the spread between seeds takes the patients as given. This takes
    neither: :func:`mean_difference` with DeLong's covariances.

    Parameters
    ----------
    label : (patients,) 0 or 1
    score_a, score_b : (seeds, patients)
        Row by row trained with the same seed.

    Returns
    -------
    SeedTest
        NaN, but for the mean, with fewer than two seeds, one patient in a class, or no variance at all.

    Raises
    ------
    HepaperError
        If the shapes differ, or as :func:`hepaper.stats.delong_covariance`.
    """
    if score_a.shape != score_b.shape or score_a.ndim != 2:
        raise HepaperError(f"scores: expected (seeds, patients) twice, got {score_a.shape} and {score_b.shape}")
    count = len(score_a)
    found = delong_covariance(label, np.concatenate([score_a, score_b]).T)
    delta = found.auc[:count] - found.auc[count:]
    if count < 2 or not np.isfinite(found.covariance).all():
        return SeedTest(float(delta.mean()), math.nan, math.nan, math.nan, math.nan)
    other = ~np.eye(count, dtype=bool)  # two different seeds
    a, b, cross = found.covariance[:count, :count], found.covariance[count:, count:], found.covariance[:count, count:]
    same_arm = float(a[other].mean() + b[other].mean()) / 2
    return mean_difference(delta, same_arm, float(cross[other].mean()), confidence)


def seed_differences(
    seeds: pd.DataFrame,
    pairs: Iterable[tuple[str, str]] = PAIRS,
    splits: Sequence[str] = EXTERNAL,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """The difference between arms over seeds, paired by seed, a row a split and pair.

    Returns
    -------
    DataFrame
        split, model_a, model_b, seeds; mean, sd, low, high: of a - b over seeds, with Student's interval for these
        patients; both_low, both_high, both_p: for new patients and seeds (:func:`patients_and_seeds`); change: by how
        much two seeds of one of these arms differ on average; between: by how much the two arms differ on average, with
        the same seed, whichever is better; note.
    """
    rows = []
    for split, (a, b) in itertools.product(splits, [pair for pair in pairs if set(pair) <= set(seeds["model"])]):
        part = seeds[(seeds["split"] == split) & seeds["model"].isin((a, b))]
        wide = part.pivot(index=["patient_id", "label"], columns=["model", "seed"], values="score").dropna()
        shared = [seed for seed in part["seed"].unique() if {(a, seed), (b, seed)} <= set(wide.columns)]
        row: dict[str, Any] = {"split": split, "model_a": a, "model_b": b, "seeds": len(shared)}
        label = wide.index.get_level_values("label").to_numpy()
        note = NOBODY if not len(label) else ONE_CLASS if np.unique(label).size < 2 else ""
        if not note and shared:
            scores = {name: np.stack([wide[(name, seed)].to_numpy(float) for seed in shared]) for name in (a, b)}
            areas = {name: np.array([roc_auc(label, one).auc for one in scores[name]]) for name in (a, b)}
            delta = areas[a] - areas[b]
            row |= {"mean": float(delta.mean()), "between": float(np.abs(delta).mean())}
            row |= {"change": float(np.mean([_change(areas[name]) for name in (a, b)]))}
            if len(shared) < 2:
                note = "one seed only"
            else:
                row["sd"] = float(delta.std(ddof=1))
                both = patients_and_seeds(label, scores[a], scores[b], confidence)
                row |= {"both_low": both.ci_low, "both_high": both.ci_high, "both_p": both.p_value}
                if row["sd"] > 1e-12:
                    quantile = float(stats.t.ppf(0.5 + confidence / 2, len(shared) - 1))
                    half = quantile * row["sd"] / math.sqrt(len(shared))
                    row |= {"low": max(row["mean"] - half, -1.0), "high": min(row["mean"] + half, 1.0)}
                else:
                    note = "the same difference with every seed: no spread to measure"
        rows.append(row | {"note": note})
    columns = "split model_a model_b seeds mean sd low high both_low both_high both_p change between note"
    return pd.DataFrame(rows, columns=columns.split())


# ---------------------------------------------------------------- the sentence


def _named(row: Mapping[str, Any]) -> str:
    better, worse = (row["model_a"], row["model_b"]) if row["delta"] > 0 else (row["model_b"], row["model_a"])
    sign = 1 if row["delta"] > 0 else -1
    low, high = sorted((sign * row["ci_low"], sign * row["ci_high"]))
    text = worded(abs(row["delta"]), low, high)
    where = SET_NAMES.get(row["split"], row["split"])
    return f"{better} above {worse} in {where} by {text}, {p_worded(row['p_holm'])} after Holm's correction"


def _of_seeds(differences: pd.DataFrame) -> str:
    """What a change of seed alone does, beside the arms."""
    known = differences.dropna(subset=["change", "mean"])
    if known.empty:
        return "What a change of seed alone does is not known: it takes several seeds an arm."
    change, largest = known["change"].mean(), known["mean"].abs().max()
    verdict = "no less than" if change >= largest else "less than"
    return (
        f"A change of seed alone moves the AUC of an arm by {change:.3f} on average, {verdict} the largest mean difference "
        f"between arms over seeds, {largest:.3f}."
    )


def conclusion(comparisons: pd.DataFrame, differences: pd.DataFrame, confidence: float = 0.95) -> str:
    """What the study says about its arms, by rule.

    1. Where no test can be done, it is *undefined*.
    2. A difference is *seen* where DeLong's p, corrected by Holm over the family, is below 1 - confidence. Where none
       is seen, none was found; the reach of the intervals says what is not excluded.
    3. A difference that is seen *holds* where the interval for new patients and new seeds lies wholly on the same side
       of 0. Where none holds, the difference is one between networks, not shown to be one between training sets; with
       one seed nobody can say.
    4. Where one pair holds in both sets with opposite signs, the sets *contradict* each other.
    5. Otherwise the differences that hold were *found*, and those that were only seen are named as such.

    Parameters
    ----------
    comparisons
        What :func:`compare` returns.
    differences
        What :func:`seed_differences` returns; may be empty.
    """
    tested = comparisons.dropna(subset=["p_holm"])
    if tested.empty:
        return (
            "Undefined: no difference between the arms can be tested, for no external set has enough patients with and "
            f"without expansion (at least {SMALLEST} of each)."
        )
    alpha = 1 - confidence
    seen = [row for row in tested.to_dict("records") if row["p_holm"] < alpha]
    seeds = {(row["split"], row["model_a"], row["model_b"]): row for row in differences.to_dict("records")}
    if not seen:
        reach = max(tested["ci_low"].abs().max(), tested["ci_high"].abs().max())
        return (
            f"No difference between the arms was found: {_counted(len(tested))} below {alpha:.2g} after Holm's correction, "
            f"the smallest corrected p being {tested['p_holm'].min():.3f}. That they are equal is not shown either: the "
            f"intervals reach as far as {reach:.3f}. {_of_seeds(differences)}"
        )
    holds, single = [], []
    for row in seen:
        over = seeds.get((row["split"], row["model_a"], row["model_b"]), {})
        low, high = over.get("both_low", math.nan), over.get("both_high", math.nan)
        holds.append(low > 0 if row["delta"] > 0 else high < 0)
        single.append(not (math.isfinite(low) and math.isfinite(high)))
    listed = "; ".join(_named(row) for row in seen)
    if not any(holds):
        if all(single):
            return (
                f"DeLong's test tells single networks apart ({listed}). Whether the training sets or the seeds made the "
                "difference cannot be said: it takes several seeds an arm."
            )
        return (
            f"A difference between the training sets was not shown. DeLong's test tells single networks apart ({listed}), "
            f"but over patients and seeds no such difference stays clear of 0. {_of_seeds(differences)}"
        )
    kept = [row for row, one in zip(seen, holds, strict=True) if one]
    rest = [row for row, one in zip(seen, holds, strict=True) if not one]
    signs: dict[tuple[str, str], set[bool]] = {}
    for row in kept:
        signs.setdefault((row["model_a"], row["model_b"]), set()).add(row["delta"] > 0)
    found = "; ".join(_named(row) for row in kept)
    if any(len(both) > 1 for both in signs.values()):
        return (
            f"The external sets contradict each other: {found}. No arm is better in general. {_of_seeds(differences)}"
        )
    more = f" Seen by DeLong's test, but not clear of 0 over seeds: {'; '.join(map(_named, rest))}." if rest else ""
    return (
        f"A difference between the arms was found, and it stays clear of 0 over patients and seeds: {found}.{more} "
        f"{_of_seeds(differences)}"
    )


def _counted(tests: int) -> str:
    return "the one paired test that can be done is not" if tests == 1 else f"none of {tests} paired tests is"


def of_the_papers_claim(comparisons: pd.DataFrame, confidence: float = 0.95) -> str:
    """How many of the paper's differences (ViT-1:2 above the others) DeLong's test with Holm's correction repeats."""
    claimed = comparisons[comparisons["published_delta"].notna()]
    tested = claimed.dropna(subset=["p_holm"])
    alike = (np.sign(tested["delta"]) == np.sign(tested["published_delta"])) & (tested["p_holm"] < 1 - confidence)
    if tested.empty:
        return "none can be tested"
    if len(tested) < len(claimed):
        return f"{int(alike.sum())} of the {len(tested)} that can be tested, of {len(claimed)}"
    return f"{int(alike.sum())} of {len(claimed)}"
