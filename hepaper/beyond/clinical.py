"""What volume and time add to the image score: logistic models of training patients, applied outside as they are.

Performance is compared on patients that no model was fitted to. On the patients of the fit, the test is that of the
added coefficients: DeLong's test of nested models loses its meaning there (Demler OV, Pencina MJ, D'Agostino RB. Stat
Med 2012;31:2577-2587).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special, stats

from hepaper.beyond.scores import CROSS_VALIDATED, gather, logit, to_learn_from
from hepaper.beyond.subgroups import patient_table
from hepaper.classification.arms import NAMES, REFERENCE
from hepaper.comparison import EXTERNAL, ONE_CLASS, SET_NAMES, p_worded, worded
from hepaper.published import SPLIT_NAMES
from hepaper.stats import delong_test, holm, roc_auc
from hepaper.study import Study, write_csv
from hepaper.tables import _text

_NAN = float("nan")
IMAGE, VOLUME, BOTH, ALONE = "Image", "Image + volume", "Image + volume + time", "Volume + time"
#: model -> its predictors
MODELS = {
    IMAGE: ("image",),
    VOLUME: ("image", "log_ml"),
    BOTH: ("image", "log_ml", "log_h"),
    ALONE: ("log_ml", "log_h"),
}
#: smaller model, larger model, and the question of the test
NESTED = (
    (IMAGE, VOLUME, "does volume add to the image?"),
    (VOLUME, BOTH, "does time add to image and volume?"),
    (IMAGE, BOTH, "do volume and time add to the image?"),
    (ALONE, BOTH, "does the image add to volume and time?"),
)
PREDICTORS = {"image": "logit of the image score", "log_ml": "log of volume (mL)", "log_h": "log of time (h)"}
ORACLE_IMAGE, ORACLE_TIME, TRUE_RISK = "Oracle, image", "Oracle, image + time", "True risk"
#: a scan minutes after onset, and a trace of blood: smaller values would rule a fit on the log scale
_LEAST_H, _LEAST_ML = 0.25, 0.1
_NODES = 48
_LATENT = ("oracle_score", "visible_logit", "hidden_logit", "true_risk", "onset_to_baseline_h")
_ENDS = ("", "_low", "_high")
TESTS = ("smaller", "larger", "question", "patients", "he", "chi2", "dof", "p_value", "p_holm", "note")
COEFFICIENTS = ("model", "predictor", "coefficient", "low", "high", "patients", "he", "scores", "note")
ADDED = (
    "split", "model", "kind", "n", "he", *(f"{name}{end}" for name in ("auc", "delta") for end in _ENDS), "p_value",
    "p_holm", *(f"{name}{end}" for name in ("brier", "brier_change") for end in _ENDS), "note",
)  # fmt: skip

Array = NDArray[np.float64]


# ---------------------------------------------------------------- the data


def clinical_data(table: pd.DataFrame) -> pd.DataFrame:
    """The predictors of every patient of :func:`hepaper.beyond.subgroups.patient_table`.

    Adds image (logit of the score), log_ml and log_h, and leaves out patients of whom one of them is not known: all
    models see the same patients. Times below a quarter of an hour count as that, volumes below 0.1 mL as that.
    """
    added = table.assign(
        image=logit(table["score"].to_numpy(float)),
        log_ml=np.log(np.maximum(pd.to_numeric(table["baseline_ml"], errors="coerce"), _LEAST_ML)),
        log_h=np.log(np.maximum(pd.to_numeric(table["onset_to_baseline_h"], errors="coerce"), _LEAST_H)),
    )
    return added.dropna(subset=list(PREDICTORS))


# ---------------------------------------------------------------- fits


@dataclass(frozen=True)
class Fit:
    """A logistic model: coefficients and standard errors, the intercept first; NaN with a note where it has none."""

    predictors: tuple[str, ...]
    coefficients: tuple[float, ...]
    errors: tuple[float, ...]
    log_likelihood: float
    patients: int
    he: int
    note: str = ""

    def probabilities(self, data: pd.DataFrame) -> Array:
        """P(HE) of each row of ``data``, NaN of a model that could not be fitted."""
        design = np.c_[np.ones(len(data)), data[list(self.predictors)].to_numpy(float)]
        return special.expit(design @ np.array(self.coefficients))


def fit_model(training: pd.DataFrame, predictors: tuple[str, ...], smallest: int = 5) -> Fit:
    """Maximum-likelihood logistic regression of HE on some predictors.

    Parameters
    ----------
    training : DataFrame
        :func:`clinical_data` of training patients: label and the predictors.
    predictors : column names
    smallest : int
        Fewest patients of a class.

    Returns
    -------
    Fit
        All NaN, with a note, where there are fewer patients of a class, a predictor does not vary or follows from
        the others, or the classes are separated, so that no finite coefficients are the most likely.
    """
    from statsmodels.api import Logit
    from statsmodels.tools.sm_exceptions import ConvergenceWarning, PerfectSeparationWarning

    label = training["label"].to_numpy(float)
    values = training[list(predictors)].to_numpy(float)
    he = int(label.sum())
    width = len(predictors) + 1
    none = (_NAN,) * width

    def without(note: str) -> Fit:
        return Fit(predictors, none, none, _NAN, len(label), he, note)

    if min(he, len(label) - he) < smallest:
        return without(f"{he} HE and {len(label) - he} NHE to learn from, {smallest} of each needed")
    spread = values.std(axis=0)
    if not (spread > 1e-12).all():
        return without(f"{PREDICTORS[predictors[int(np.argmin(spread))]]}: the same for all")
    # fitted on standardised predictors, where the search for the maximum is well conditioned
    centre = values.mean(axis=0)
    design = np.c_[np.ones(len(label)), (values - centre) / spread]
    if np.linalg.matrix_rank(design) < width:
        return without("one predictor follows from the others")
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        warnings.simplefilter("error", PerfectSeparationWarning)
        warnings.simplefilter("error", RuntimeWarning)
        try:
            found = Logit(label, design).fit(disp=0, maxiter=100)
            covariance = found.cov_params()
        except (ConvergenceWarning, PerfectSeparationWarning, RuntimeWarning, np.linalg.LinAlgError):
            return without("no finite fit: the predictors separate the classes")
    back = np.diag(np.r_[1.0, 1 / spread])
    back[0, 1:] = -centre / spread
    coefficients = back @ found.params
    errors = np.sqrt(np.diag(back @ covariance @ back.T))
    return Fit(predictors, tuple(coefficients), tuple(errors), float(found.llf), len(label), he)


def fit_models(training: pd.DataFrame, smallest: int = 5) -> dict[str, Fit]:
    """Every model of :data:`MODELS`; see :func:`fit_model`."""
    return {name: fit_model(training, predictors, smallest) for name, predictors in MODELS.items()}


def coefficients(fits: Mapping[str, Fit], scores: str, confidence: float = 0.95) -> pd.DataFrame:
    """Coefficients with Wald limits, a row a model and predictor; ``scores`` says how the patients were scored."""
    quantile = float(stats.norm.ppf(0.5 + confidence / 2))
    rows = []
    for name, fit in fits.items():
        for predictor, value, error in zip(
            ("intercept", *fit.predictors), fit.coefficients, fit.errors, strict=True
        ):  # fmt: skip
            low, high = value - quantile * error, value + quantile * error
            rows.append((name, predictor, value, low, high, fit.patients, fit.he, scores, fit.note))
    return pd.DataFrame(rows, columns=list(COEFFICIENTS))


def likelihood_ratio_tests(fits: Mapping[str, Fit]) -> pd.DataFrame:
    """Whether the added predictors make training patients' outcomes more likely than chance would (:data:`NESTED`).

    Twice the gain in log-likelihood, chi-square with as many degrees of freedom as predictors were added. ``p_holm`` is
    corrected for the number of questions.
    """
    rows = []
    for smaller, larger, question in NESTED:
        small, large = fits[smaller], fits[larger]
        chi2, dof = 2 * (large.log_likelihood - small.log_likelihood), len(large.predictors) - len(small.predictors)
        # rounding may leave the larger model a hair below the smaller one
        p = float(stats.chi2.sf(max(chi2, 0.0), dof)) if np.isfinite(chi2) else _NAN
        note = small.note or large.note
        rows.append((smaller, larger, question, large.patients, large.he, chi2, dof, p, _NAN, note))
    table = pd.DataFrame(rows, columns=list(TESTS))
    table["p_holm"] = holm(table["p_value"].to_numpy(float))
    return table


# ---------------------------------------------------------------- oracles


def oracle_with_time(truth: pd.DataFrame) -> Array:
    """Risk of phantoms for someone who sees all that the image shows and knows the time from onset, (n,).

    The image's oracle averages over both hidden causes, time and noise; here time is known, as it is to any clinician,
    and noise alone is averaged over.

    Parameters
    ----------
    truth : DataFrame
        ``cohort/truth.csv``: visible_logit, hidden_logit, true_risk, onset_to_baseline_h.
    """
    from hepaper.cohort.phantom.latent import NOISE_WEIGHT, ONSET_LOG_SD, ONSET_MEDIAN_H, ONSET_WEIGHT

    onset = np.log(np.maximum(truth["onset_to_baseline_h"].to_numpy(float), 0.05) / ONSET_MEDIAN_H) / ONSET_LOG_SD
    visible = truth["visible_logit"].to_numpy(float)
    # the intercept, which differs between splits, is what risk and causes leave over
    intercept = special.logit(truth["true_risk"].to_numpy(float)) - visible - truth["hidden_logit"].to_numpy(float)
    known = intercept + visible - ONSET_WEIGHT * onset
    noise = NOISE_WEIGHT * stats.norm.ppf((np.arange(_NODES) + 0.5) / _NODES)
    return special.expit(known[:, None] + noise).mean(axis=1)


def oracles(data: pd.DataFrame, truth: pd.DataFrame | None) -> dict[str, Array]:
    """The best scores there could be of each row of ``data``: from the image, with time as well, and the risk itself.

    Empty where nobody knows them, which is everywhere but in phantoms.
    """
    if (
        truth is None
        or not {"patient_id", *_LATENT} <= set(truth)
        or not data["patient_id"].isin(truth["patient_id"]).all()
    ):
        return {}
    rows = truth.set_index("patient_id").loc[data["patient_id"]]
    known = rows["oracle_score"].to_numpy(float), oracle_with_time(rows), rows["true_risk"].to_numpy(float)
    return dict(zip((ORACLE_IMAGE, ORACLE_TIME, TRUE_RISK), known, strict=True))


def population_oracles(patients: int, seed: int) -> dict[str, float]:
    """AUC of the three oracles in a population of phantoms, where chance no longer matters.

    The patients are those of :func:`hepaper.cohort.phantom.cohort.oracle_auc`, whose area is the first.
    """
    from hepaper.cohort.phantom import latent

    step, parts = 50_000, []
    for first in range(0, patients, step):
        count = min(step, patients - first)
        center = latent.centers(np.arange(first, first + count))
        drawn = latent.draw(latent.uniforms(seed + 2**32, first, count), center, np.full(count, -1))
        known = pd.DataFrame({name: drawn[name] for name in _LATENT}).assign(he=drawn["he"])
        parts.append(known.assign(with_time=oracle_with_time(known))[["he", "oracle_score", "with_time", "true_risk"]])
    everyone = pd.concat(parts)
    names = (ORACLE_IMAGE, ORACLE_TIME, TRUE_RISK)
    return {
        name: roc_auc(everyone["he"], everyone[column]).auc
        for name, column in zip(names, everyone.columns[1:], strict=True)
    }


# ---------------------------------------------------------------- outside


def mean_limits(values: Array, confidence: float = 0.95) -> tuple[float, float]:
    """Student's t limits of a mean, NaN of fewer than two values."""
    if values.size < 2:
        return _NAN, _NAN
    half = stats.t.ppf(0.5 + confidence / 2, values.size - 1) * values.std(ddof=1) / np.sqrt(values.size)
    return float(values.mean() - half), float(values.mean() + half)


def added_value(
    fits: Mapping[str, Fit],
    data: pd.DataFrame,
    truth: pd.DataFrame | None = None,
    confidence: float = 0.95,
    smallest: int = 5,
) -> pd.DataFrame:
    """Every fitted model on the external patients, beside the oracles.

    Parameters
    ----------
    fits : {model: Fit}
        :func:`fit_models`; they stay as they are.
    data : DataFrame
        :func:`clinical_data` of all patients.
    truth : DataFrame, optional
        ``cohort/truth.csv`` of phantoms.
    confidence : float
    smallest : int
        Fewest patients of a class for a test of two AUCs.

    Returns
    -------
    DataFrame
        Columns :data:`ADDED`, a row a split and model. ``delta`` is the AUC minus that of the image alone (paired
        DeLong), ``p_holm`` corrected for all such differences of models in the table. ``brier`` is the mean squared
        error of the probability, ``brier_change`` that minus the image model's (below 0 is better); limits are those
        of a mean. NaN with a note where a model could not be fitted or a split has one class.
    """
    rows = []
    for split in EXTERNAL:
        here = data[data["split"] == split]
        if here.empty:
            continue
        label = here["label"].to_numpy(float)
        models = {name: ("model", fit.probabilities(here), fit.note) for name, fit in fits.items()}
        models |= {name: ("oracle", score, "") for name, score in oracles(here, truth).items()}
        base = models[IMAGE][1]
        for name, (kind, score, note) in models.items():
            row: dict[str, Any] = dict.fromkeys(ADDED, _NAN)
            row |= {"split": split, "model": name, "kind": kind, "n": len(here), "he": int(label.sum()), "note": note}
            if not np.isfinite(score).all():
                rows.append(row)
                continue
            error = (score - label) ** 2
            row |= dict(
                zip(("brier", "brier_low", "brier_high"), (error.mean(), *mean_limits(error, confidence)), strict=True)
            )
            compared = name != IMAGE and bool(np.isfinite(base).all())
            if compared:
                change = error - (base - label) ** 2
                names = ("brier_change", "brier_change_low", "brier_change_high")
                row |= dict(zip(names, (change.mean(), *mean_limits(change, confidence)), strict=True))
            if 0 < label.sum() < len(label):
                area = roc_auc(label, score, confidence)
                row |= {"auc": area.auc, "auc_low": area.ci_low, "auc_high": area.ci_high}
                if compared:
                    test = delong_test(label, score, base, confidence)
                    row["delta"] = test.delta
                    if min(label.sum(), len(label) - label.sum()) >= smallest:
                        row |= {"delta_low": test.ci_low, "delta_high": test.ci_high, "p_value": test.p_value}
                    else:
                        row["note"] = f"differences not tested: fewer than {smallest} patients of a class"
            else:
                row["note"] = ONE_CLASS
            rows.append(row)
    table = pd.DataFrame(rows, columns=list(ADDED))
    table["p_holm"] = holm(table["p_value"].where(table["kind"] == "model").to_numpy(float))
    return table


# ---------------------------------------------------------------- for reading


def added_value_table(added: pd.DataFrame) -> pd.DataFrame:
    """:func:`added_value` as text."""
    rows = []
    for row in added.to_dict("records"):
        shown = {"Cohort": SPLIT_NAMES.get(row["split"], row["split"]), "Model": row["model"], "n": row["n"]}
        for name, title in (("auc", "AUC"), ("delta", "Minus image")):
            shown[title] = _text.interval(*(row[f"{name}{end}"] for end in _ENDS))
        shown["p, Holm"] = _text.p_value(row["p_holm"])
        for name, title in (("brier", "Brier score"), ("brier_change", "Change")):
            shown[title] = _text.interval(*(row[f"{name}{end}"] for end in _ENDS))
        rows.append(shown | {"Note": row["note"]})
    return pd.DataFrame(rows)


def coefficient_table(found: pd.DataFrame) -> pd.DataFrame:
    """:func:`coefficients` as text, the odds ratio of one unit of a predictor beside."""
    rows = []
    for row in found.to_dict("records"):
        ends = (row["coefficient"], row["low"], row["high"])
        ratio = _text.MISSING if row["predictor"] == "intercept" else _text.interval(*np.exp(ends))
        rows.append(
            {
                "Model": row["model"],
                "Predictor": PREDICTORS.get(row["predictor"], row["predictor"]),
                "Coefficient": _text.interval(*ends),
                "Odds ratio": ratio,
                "Patients": row["patients"],
                "HE": row["he"],
                "Image scores": row["scores"],
                "Note": row["note"],
            }
        )
    return pd.DataFrame(rows)


def likelihood_table(tests: pd.DataFrame) -> pd.DataFrame:
    """:func:`likelihood_ratio_tests` as text."""
    return pd.DataFrame(
        {
            "Question": tests["question"].str.capitalize(),
            "χ²": tests["chi2"].map(lambda value: _text.number(value, 2)),
            "Degrees of freedom": tests["dof"],
            "p": tests["p_value"].map(_text.p_value),
            "p, Holm": tests["p_holm"].map(_text.p_value),
            "Note": tests["note"],
        }
    )


# ---------------------------------------------------------------- the study's


def measure(
    study: Study,
    predictions: Mapping[str, pd.DataFrame],
    cross_validated: pd.DataFrame | Mapping[str, pd.DataFrame] | None,
    smallest: int = 5,
) -> dict[str, Any]:
    """``beyond/clinical_fits.csv``, ``_tests.csv`` and ``_added.csv``; returns numbers for the page.

    The image score is that of the arm without synthetic images, whose cross-validation alone is clean.

    Parameters
    ----------
    predictions, cross_validated
        As for :func:`hepaper.beyond.scores.gather`.
    smallest
        See :func:`fit_model` and :func:`added_value`.
    """
    confidence = study.params.statistics.confidence
    model = NAMES[REFERENCE]
    truth = study.read("cohort", "truth.csv") if study.path("cohort", "truth.csv").is_file() else None
    scored = gather({model: predictions[model]}, cross_validated)[model]
    learned_from, how = to_learn_from(scored)
    outside = scored[~scored["split"].isin(("train", CROSS_VALIDATED))]
    cohort, volumes = study.read("cohort", "cohort.csv"), study.read("volumes", "labels.csv")
    training, data = (
        clinical_data(patient_table(rows, cohort, volumes, truth)) for rows in (learned_from, outside)
    )  # fmt: skip
    fits = fit_models(training, smallest)
    tests, added = likelihood_ratio_tests(fits), added_value(fits, data, truth, confidence, smallest)
    write_csv(study.path("beyond", "clinical_fits.csv"), coefficients(fits, how, confidence))
    write_csv(study.path("beyond", "clinical_tests.csv"), tests)
    write_csv(study.path("beyond", "clinical_added.csv"), added)
    results = {"model": model, "scores": how, **summary(fits, tests, added, 1 - confidence)}
    if truth is not None and study.params.cohort.source == "phantom":
        results["population"] = population_oracles(study.params.cohort.oracle_patients, study.params.study.seed)
    return results


def summary(fits: Mapping[str, Fit], tests: pd.DataFrame, added: pd.DataFrame, alpha: float) -> dict[str, Any]:
    """What the page says: the fits, the tests in training, and every model's numbers outside."""
    columns = ["auc", "auc_low", "auc_high", "delta", "delta_low", "delta_high", "p_holm"]
    columns += ["brier", "brier_change", "brier_change_low", "brier_change_high"]
    return {
        "fits": {
            name: dict(zip(("intercept", *fit.predictors), fit.coefficients, strict=True)) for name, fit in fits.items()
        },
        "patients": fits[BOTH].patients,
        "he": fits[BOTH].he,
        "note": fits[BOTH].note,
        "tests": {
            f"{row['larger']} against {row['smaller']}": {
                name: row[name] for name in ("chi2", "dof", "p_value", "p_holm")
            }
            for row in tests.to_dict("records")
        },
        "outside": {
            str(split): {row["model"]: {c: row[c] for c in columns} for row in table.to_dict("records")}
            for split, table in added.groupby("split")
        },
        "tests_text": _tests_words(tests, fits[BOTH], alpha),
        "outside_text": _outside_words(added, alpha),
    }


def _tests_words(tests: pd.DataFrame, fit: Fit, alpha: float) -> str:
    """The answers to the questions of :data:`NESTED`, in one sentence."""
    if tests["p_holm"].isna().all():
        return f"No model could be fitted ({fit.note})."
    answers = []
    for row in tests.to_dict("records"):
        verdict = "undecided" if np.isnan(row["p_holm"]) else "yes" if row["p_holm"] < alpha else "not shown"
        answers.append(f"{row['question']} {verdict} ({p_worded(row['p_holm'])})")
    return f"In {fit.patients} training patients, {fit.he} of them with HE: {'; '.join(answers)}."


def _outside_words(added: pd.DataFrame, alpha: float) -> str:
    """What volume and time change outside, a sentence or two an external set."""
    sentences = []
    for row in added[added["model"] == BOTH].to_dict("records"):
        where = SET_NAMES[row["split"]]
        if np.isnan(row["delta"]):
            sentences.append(f"In {where} the change of the AUC is not defined ({row['note']}).")
            continue
        change = worded(row["delta"], row["delta_low"], row["delta_high"])
        brier = worded(row["brier_change"], row["brier_change_low"], row["brier_change_high"])
        verdict = "too few patients of a class for a test"
        if np.isfinite(row["p_holm"]):
            verdict = f"{p_worded(row['p_holm'])} after Holm's correction"
            verdict += "" if row["p_holm"] < alpha else ": no difference is shown"
        sentences.append(
            f"In {where} volume and time change the AUC by {change}, {verdict}. The Brier score changes by {brier}."
        )
    return " ".join(sentences)
