"""Does the score work alike for everybody? AUC, sensitivity and specificity by subgroup, and tests that they differ.

That one subgroup's result is significant and another's is not says nothing: the difference itself is tested.
Altman DG, Bland JM. BMJ 2003;326:219.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from hepaper.beyond.scores import CROSS_VALIDATED, gather, require
from hepaper.classification.arms import NAMES, arm_of
from hepaper.comparison import p_worded, worded
from hepaper.errors import HepaperError
from hepaper.stats import _inputs, delong_test, delong_unpaired, holm, roc_auc
from hepaper.stats.comparisons import ChiSquare
from hepaper.stats.metrics import Interval, proportion
from hepaper.stats.roc import AucInterval, placements
from hepaper.study import Study, write_csv
from hepaper.tables import _text

_NAN = float("nan")
EVERYONE = "All patients"
#: population -> its splits; scores of training patients that the network has seen are not used
POPULATIONS = {
    "External": ("external_1", "external_2"),
    "Training, cross-validated": (CROSS_VALIDATED,),
}
_ENDS = ("", "_low", "_high")
MEASURES = ("auc", "sensitivity", "specificity")
PERFORMANCE = (
    "population", "variable", "level", "n", "he", "prevalence", "mean_score",
    *(f"{name}{end}" for name in (*MEASURES, "oracle", "gap") for end in _ENDS), "note",
)  # fmt: skip
TESTS = (
    "population", "variable", "levels", "patients", "unknown", "test", "statistic", "dof", "difference",
    "difference_low", "difference_high", "p_value", "p_holm", "note",
)  # fmt: skip
#: columns that may be missing from a table of patients: what is then not known is not compared
CLINICAL = ("sex", "age", "center", "onset_to_baseline_h", "baseline_ml", "location", "oracle_score")


# ---------------------------------------------------------------- patients and their groups


def patient_table(
    scored: pd.DataFrame, cohort: pd.DataFrame, volumes: pd.DataFrame, truth: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Scored patients with what else is known of them.

    Parameters
    ----------
    scored : DataFrame
        patient_id, split, label, score; a training patient may stand there twice, once cross-validated.
    cohort : DataFrame
        patient_id, and of sex, age (years), center, onset_to_baseline_h and location those that are known.
    volumes : DataFrame
        ``volumes/labels.csv``: patient_id, baseline_ml.
    truth : DataFrame, optional
        Of phantoms: patient_id, location, oracle_score.

    Returns
    -------
    DataFrame
        The rows of ``scored`` and the columns :data:`CLINICAL`, missing where unknown.

    Raises
    ------
    HepaperError
        If a column that every study has is missing.
    """
    require("predictions", scored)
    table = scored.reset_index(drop=True)
    known: dict[str, pd.Series] = {}
    for source in (truth, volumes, cohort):  # what the cohort table says of a patient counts most
        if source is None:
            continue
        require("table of patients", source, ("patient_id",))
        rows = source.drop_duplicates("patient_id").set_index("patient_id")
        known |= {name: rows[name] for name in CLINICAL if name in rows}
    for name in CLINICAL:
        values = known[name].reindex(table["patient_id"]).to_numpy() if name in known else np.full(len(table), np.nan)
        table[name] = values
    return table


def _cut(values: pd.Series, edges: Sequence[float], names: Sequence[str]) -> pd.Series:
    """Name of the interval each value lies in, an edge belonging to the one above it; missing stays missing."""
    number = pd.to_numeric(values, errors="coerce").to_numpy(float)
    place = np.searchsorted(np.asarray(edges), number, side="right")
    return pd.Series([None if np.isnan(x) else names[i] for x, i in zip(number, place, strict=True)], values.index)


def patient_groups(table: pd.DataFrame, onset_cut_h: float = 6.0) -> pd.DataFrame:
    """The subgroup of every patient, a column a variable.

    Sex, centre and location as they are; age below or above the median, and baseline volume by thirds, of the
    *training* patients, so that no external patient has a say in the groups; time from onset to the baseline CT up to
    ``onset_cut_h`` hours or longer.

    Parameters
    ----------
    table : DataFrame
        :func:`patient_table`.
    onset_cut_h : float

    Returns
    -------
    DataFrame
        Ordered categories on the index of ``table``. A variable that nobody has a value of is left out.
    """
    training = table[table["split"].isin(("train", CROSS_VALIDATED))].drop_duplicates("patient_id")
    groups: dict[str, pd.Series] = {}
    order: dict[str, list[str]] = {}

    def put(variable: str, values: pd.Series, levels: Iterable[str]) -> None:
        if values.notna().any():
            groups[variable], order[variable] = values, list(levels)

    def as_text(column: str, form: str) -> pd.Series:
        return table[column].map(lambda value: None if pd.isna(value) or value == "" else form.format(value))

    for variable, column, form in (("Sex", "sex", "{}"), ("Centre", "center", "Centre {}")):
        values = as_text(column, form)
        put(variable, values, sorted(values.dropna().unique(), key=lambda name: (len(name), name)))
    age = pd.to_numeric(training["age"], errors="coerce").dropna()
    if len(age):
        cut = float(age.median())
        names = (f"below {cut:g} years", f"{cut:g} years or older")
        put("Age", _cut(table["age"], [cut], names), names)
    names = (f"up to {onset_cut_h:g} h", f"later than {onset_cut_h:g} h")
    # an edge belongs to the group above it, and six hours to those within six hours
    put("Onset to CT", _cut(table["onset_to_baseline_h"], [np.nextafter(onset_cut_h, np.inf)], names), names)
    volume = pd.to_numeric(training["baseline_ml"], errors="coerce").dropna()
    if len(volume):
        low, high = np.quantile(volume, [1 / 3, 2 / 3])
        three = (f"below {low:.1f} mL", f"{low:.1f} to {high:.1f} mL", f"above {high:.1f} mL")
        put("Volume", _cut(table["baseline_ml"], [low, high], three), three)
    values = as_text("location", "{}")
    put("Location", values, values.dropna().value_counts().index)
    return pd.DataFrame(
        {name: pd.Categorical(values, order[name], ordered=True) for name, values in groups.items()},
        index=table.index,
    )


# ---------------------------------------------------------------- performance


def _too_few(label: pd.Series, smallest: int) -> str:
    """Why an AUC of these patients would say nothing; empty where it would."""
    counts = {"HE": int(label.sum()), "NHE": int((1 - label).sum())}
    few = [f"{count} {name} only" if count else f"no {name}" for name, count in counts.items() if count < smallest]
    return ", ".join(few)


def measured(
    here: pd.DataFrame,
    threshold: float = _NAN,
    confidence: float = 0.95,
    interval: Interval = "wilson",
    auc_interval: AucInterval = "logit",
    smallest: int = 5,
) -> dict[str, Any]:
    """Performance among some patients; see :func:`subgroup_performance`."""
    label, score = here["label"].astype(int), here["score"].astype(float)
    found: dict[str, Any] = dict.fromkeys(PERFORMANCE[3:], _NAN)
    found |= {"n": len(here), "he": int(label.sum()), "note": _too_few(label, smallest)}
    if len(here):
        found |= {"prevalence": float(label.mean()), "mean_score": float(score.mean())}
    called = score >= threshold
    for name, right, of in (("sensitivity", called, label == 1), ("specificity", ~called, label == 0)):
        if np.isfinite(threshold) and of.sum() >= smallest:
            share = proportion(int((right & of).sum()), int(of.sum()), confidence, interval)
            found |= _with_limits(name, share.value, share.ci_low, share.ci_high)
    if found["note"]:
        return found
    area = roc_auc(label, score, confidence, auc_interval)
    found |= _with_limits("auc", area.auc, area.ci_low, area.ci_high)
    oracle = here["oracle_score"].astype(float)
    if oracle.notna().all():
        best = roc_auc(label, oracle, confidence, auc_interval)
        test = delong_test(label, oracle, score, confidence)
        found |= _with_limits("oracle", best.auc, best.ci_low, best.ci_high)
        found |= _with_limits("gap", test.delta, test.ci_low, test.ci_high)
    return found


def _with_limits(name: str, value: float, low: float, high: float) -> dict[str, float]:
    return dict(zip((f"{name}{end}" for end in _ENDS), (value, low, high), strict=True))


def _populations(table: pd.DataFrame, populations: Mapping[str, Sequence[str]]) -> Iterable[tuple[str, pd.DataFrame]]:
    for name, splits in populations.items():
        here = table[table["split"].isin(splits)]
        if len(here):
            yield name, here


def subgroup_performance(
    table: pd.DataFrame,
    groups: pd.DataFrame,
    threshold: float = _NAN,
    confidence: float = 0.95,
    interval: Interval = "wilson",
    auc_interval: AucInterval = "logit",
    smallest: int = 5,
    populations: Mapping[str, Sequence[str]] = POPULATIONS,
) -> pd.DataFrame:
    """AUC, sensitivity and specificity of everybody and of each subgroup, a row each.

    Parameters
    ----------
    table : DataFrame
        :func:`patient_table`.
    groups : DataFrame
        :func:`patient_groups`.
    threshold : float
        One for all: patients scored at or above it are called expanders. NaN for no sensitivity and specificity.
    confidence, interval
        Of proportions.
    auc_interval
        On the logit scale by default: subgroups are small, and there it errs alike on both sides.
    smallest : int
        Fewest patients of a class for a number; below, NaN and a note.
    populations : {name: splits}

    Returns
    -------
    DataFrame
        Columns :data:`PERFORMANCE`: the share that expanded (prevalence) and the mean score beside it; oracle, the
        oracle's AUC of the same patients, and gap, the oracle's minus the model's (paired DeLong interval).
    """
    rows = []
    options = (threshold, confidence, interval, auc_interval, smallest)
    for population, here in _populations(table, populations):
        names = {"population": population, "variable": EVERYONE, "level": EVERYONE}
        rows.append(names | measured(here, *options))
        for variable in groups:
            of = groups.loc[here.index, variable]
            for level in of.cat.categories[of.cat.categories.isin(of.dropna().unique())]:
                names = {"population": population, "variable": str(variable), "level": str(level)}
                rows.append(names | measured(here[of == level], *options))
    return pd.DataFrame(rows, columns=list(PERFORMANCE))


# ---------------------------------------------------------------- do they differ?


def heterogeneity(groups: Sequence[tuple[ArrayLike, ArrayLike]]) -> ChiSquare:
    """Test that a score has the same AUC in several groups of different patients.

    Cochran's Q of the areas, (k - 1) degrees of freedom. The variance of an area is DeLong's, with the variance of the
    placements pooled over the groups, class by class, as analysis of variance pools it: a group's own variance from a
    handful of expanders is so uncertain that Q with it rejects far too often, and it is 0 in a group that happens to be
    separated perfectly.

    Parameters
    ----------
    groups : sequence of (y_true, y_score)
        Two or more, each with both classes.

    Returns
    -------
    ChiSquare
        NaN where no group has two patients of each class, or no placement varies.

    Raises
    ------
    HepaperError
        As :func:`hepaper.stats.roc_auc`, or with fewer than two groups.
    """
    if len(groups) < 2:
        raise HepaperError(f"at least two groups are compared, got {len(groups)}")
    parts = []
    for y_true, values in groups:
        positive = _inputs.labels(y_true)
        score = _inputs.scores("y_score", values, positive.size)
        parts.append([part[0] for part in placements(positive, score[None])])
    area = np.array([of_positives.mean() for of_positives, _ in parts])
    variance = np.zeros(len(parts))
    for place in (0, 1):
        own = [part[place] for part in parts]
        freedom = sum(values.size - 1 for values in own)
        spread = sum(float(((values - values.mean()) ** 2).sum()) for values in own)
        variance += spread / freedom / np.array([values.size for values in own]) if freedom else _NAN
    if not (variance > 0).all():
        return ChiSquare(_NAN, len(parts) - 1, _NAN)
    weight = 1 / variance
    statistic = float(weight @ (area - weight @ area / weight.sum()) ** 2)
    return ChiSquare(statistic, len(parts) - 1, float(stats.chi2.sf(statistic, len(parts) - 1)))


def subgroup_tests(
    table: pd.DataFrame,
    groups: pd.DataFrame,
    confidence: float = 0.95,
    smallest: int = 5,
    populations: Mapping[str, Sequence[str]] = POPULATIONS,
) -> pd.DataFrame:
    """For each variable, the test that all its subgroups have the same AUC.

    Two subgroups: the unpaired DeLong test of their difference (first minus second). More: :func:`heterogeneity`.
    Subgroups with fewer than ``smallest`` patients of a class take no part. ``p_holm`` is corrected for the number of
    variables tested in the same population.

    Parameters
    ----------
    table, groups, populations
        As for :func:`subgroup_performance`.
    confidence : float
    smallest : int

    Returns
    -------
    DataFrame
        Columns :data:`TESTS`; ``patients`` took part, of ``unknown`` the variable is not known.
    """
    rows = []
    for population, here in _populations(table, populations):
        for variable in groups:
            of = groups.loc[here.index, variable]
            parts = {str(level): part for level, part in here.groupby(of, observed=True)}
            left_out = {level: note for level, part in parts.items() if (note := _too_few(part["label"], smallest))}
            used = {level: part for level, part in parts.items() if level not in left_out}
            row: dict[str, Any] = dict.fromkeys(TESTS, _NAN)
            row |= {
                "population": population, "variable": str(variable), "levels": len(used),
                "patients": sum(map(len, used.values())), "unknown": int(of.isna().sum()), "test": "",
                "note": "; ".join(f"{level}: {note}" for level, note in left_out.items()),
            }  # fmt: skip
            pairs = [(part["label"].to_numpy(), part["score"].to_numpy(float)) for part in used.values()]
            if len(pairs) == 2:
                test = delong_unpaired(*pairs[0], *pairs[1], confidence)
                row |= {"test": "DeLong, unpaired", "statistic": test.z, "p_value": test.p_value}
                row |= _with_limits("difference", test.delta, test.ci_low, test.ci_high)
            elif pairs[2:]:
                found = heterogeneity(pairs)
                row |= {"test": "heterogeneity", "statistic": found.statistic, "dof": found.dof}
                row["p_value"] = found.p_value
            else:
                row["note"] = "; ".join(filter(None, ["fewer than two subgroups to compare", row["note"]]))
            rows.append(row)
    tests = pd.DataFrame(rows, columns=list(TESTS))
    for _, index in tests.groupby("population").groups.items():
        tests.loc[index, "p_holm"] = holm(tests.loc[index, "p_value"].to_numpy(float))
    return tests


# ---------------------------------------------------------------- for reading


def subgroup_table(performance: pd.DataFrame) -> pd.DataFrame:
    """:func:`subgroup_performance` as text."""
    rows = []
    for row in performance.to_dict("records"):
        shown = {
            "Patients": row["population"],
            "Variable": row["variable"],
            "Subgroup": row["level"],
            "n": row["n"],
            "HE": _text.count_percent(row["he"], row["n"]),
            "Mean score": _text.number(row["mean_score"]),
        }
        for name, title in (("auc", "AUC"), ("sensitivity", "Sensitivity"), ("specificity", "Specificity")):
            shown[title] = _text.interval(*(row[f"{name}{end}"] for end in _ENDS))
        shown["Oracle's AUC"] = _text.number(row["oracle"])
        rows.append(shown | {"Note": row["note"]})
    return pd.DataFrame(rows)


def subgroup_test_table(tests: pd.DataFrame) -> pd.DataFrame:
    """:func:`subgroup_tests` as text."""
    rows = []
    for row in tests.to_dict("records"):
        statistic = _text.number(row["statistic"], 2)
        named = {"heterogeneity": f"χ² = {statistic}", "DeLong, unpaired": f"t = {statistic}"}
        rows.append(
            {
                "Patients": row["population"],
                "Variable": row["variable"],
                "Subgroups": row["levels"],
                "n": row["patients"],
                "Difference of two": _text.interval(*(row[f"difference{end}"] for end in _ENDS)),
                "Test": named.get(row["test"], _text.MISSING),
                "p": _text.p_value(row["p_value"]),
                "p, Holm": _text.p_value(row["p_holm"]),
                "Note": row["note"],
            }
        )
    return pd.DataFrame(rows)


# ---------------------------------------------------------------- the study's


def measure(
    study: Study,
    predictions: Mapping[str, pd.DataFrame],
    cross_validated: pd.DataFrame | Mapping[str, pd.DataFrame] | None,
    threshold: float,
    onset_cut_h: float = 6.0,
    smallest: int = 5,
) -> dict[str, Any]:
    """``beyond/subgroups.csv`` and ``beyond/subgroup_tests.csv`` of the main arm; returns numbers for the page.

    Parameters
    ----------
    predictions, cross_validated
        As for :func:`hepaper.beyond.scores.gather`.
    threshold
        The main arm's, as the statistics stage chose it.
    onset_cut_h, smallest
        See :func:`patient_groups` and :func:`subgroup_performance`.
    """
    settings = study.params.statistics
    model = NAMES[arm_of(study.params.classification.main)]
    truth = study.read("cohort", "truth.csv") if study.path("cohort", "truth.csv").is_file() else None
    scored = gather({model: predictions[model]}, cross_validated)[model]
    table = patient_table(scored, study.read("cohort", "cohort.csv"), study.read("volumes", "labels.csv"), truth)
    groups = patient_groups(table, onset_cut_h)
    performance = subgroup_performance(
        table, groups, threshold, settings.confidence, settings.interval, smallest=smallest
    )
    tests = subgroup_tests(table, groups, settings.confidence, smallest)
    write_csv(study.path("beyond", "subgroups.csv"), performance)
    write_csv(study.path("beyond", "subgroup_tests.csv"), tests)
    return {"model": model, **summary(performance, tests, 1 - settings.confidence)}


def summary(performance: pd.DataFrame, tests: pd.DataFrame, alpha: float) -> dict[str, Any]:
    """What the page says of the external patients: how many variables were tested, and what was found."""
    population = next(iter(POPULATIONS))
    done = tests[(tests["population"] == population) & tests["p_value"].notna()]
    rows = performance[performance["population"] == population]
    everyone = rows[rows["variable"] == EVERYONE]
    of_groups = rows[(rows["variable"] != EVERYONE) & rows["auc"].notna()].sort_values("auc", kind="stable")
    found: dict[str, Any] = {
        "tested": len(done),
        "different": sorted(done.loc[done["p_holm"] < alpha, "variable"]),
        "different_uncorrected": sorted(done.loc[done["p_value"] < alpha, "variable"]),
        "subgroups": int((rows["variable"] != EVERYONE).sum()),
        "too_small": int((rows["variable"] != EVERYONE).sum() - len(of_groups)),
    }
    if len(everyone):
        found["everyone"] = {name: everyone[name].iloc[0] for name in ("n", "he", "auc", "auc_low", "auc_high")}
    for name, place in (("lowest", 0), ("highest", -1)):
        if len(of_groups):
            row = of_groups.iloc[place]
            found[name] = {
                column: row[column]
                for column in ("variable", "level", "n", "he", "auc", "auc_low", "auc_high", "oracle")
            }
    return found | {"tests_text": _tests_words(done, alpha), "range_text": _range_words(found)}


def _tests_words(done: pd.DataFrame, alpha: float) -> str:
    """One sentence or two: how many variables were tested, and in which the subgroups differ."""
    if done.empty:
        return "No two subgroups of the external patients are large enough to be compared."
    count = f"{len(done)} variable{'s' * (len(done) != 1)}"

    def listed(p: str) -> str:
        rows = done[done[p] < alpha].to_dict("records")
        return ", ".join(f"{row['variable']} ({p_worded(row[p])})" for row in rows)

    if sure := listed("p_holm"):
        return f"Of {count} tested in the external patients, after Holm's correction the AUC differs by {sure}."
    text = f"Of {count} tested in the external patients, none separates subgroups of different AUC"
    if maybe := listed("p_value"):
        return f"{text} after Holm's correction; without it there would be {maybe}."
    return f"{text}, with Holm's correction or without it."


def _range_words(found: Mapping[str, Any]) -> str:
    """The lowest and the highest AUC of a subgroup, and the oracle's AUC of the same patients."""
    if "lowest" not in found or found["lowest"] == found["highest"]:
        return ""
    parts = []
    for name in ("lowest", "highest"):
        row = found[name]
        oracle = f"; the oracle's {row['oracle']:.3f}" if np.isfinite(row["oracle"]) else ""
        about = f"{row['variable']}: {row['level']}, {row['he']} of {row['n']} expanded{oracle}"
        parts.append(f"{worded(row['auc'], row['auc_low'], row['auc_high'])} ({about})")
    return f"The AUCs of the subgroups run from {parts[0]} to {parts[1]}."


def computed(study: Study) -> dict[str, pd.DataFrame]:
    """The tables of rivals, subgroups and clinical variables in ``beyond/``, by name, for the notebook."""
    names = ("imbalance", "subgroups", "subgroup_tests", "clinical_fits", "clinical_tests", "clinical_added")
    found = {name: study.read("beyond", f"{name}.csv") for name in names}
    for table in found.values():
        for column in {"note", "test"} & set(table):  # an empty word was written as nothing
            table[column] = table[column].astype(object).fillna("")
    return found
