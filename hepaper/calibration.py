"""Stage: do the study's intervals and tests keep their promise, and what could its cohorts have found?

Simulated twice: at the paper's sample sizes and at this run's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from hepaper.published import SPLIT_NAMES, SPLITS, load_published
from hepaper.stats.simulate import VERDICTS, Design, Reading, coverage, detectable, power, size
from hepaper.study import Study, stage, write_csv

BEST, REFERENCE = "ViT-1:2", "ViT-1:4"  # whose published values are the simulations' truths
PAPER, OWN = "the paper", "this run"


def paper_design() -> Design:
    """The paper's sample sizes; the truths are what it prints for its best model, its tables and its readers.

    Every value is taken as if it were the truth. The power is that of finding a model better than ``ViT-1:4``.
    """
    published = load_published()
    table1, table2, table3 = (published[name] for name in ("table1", "table2", "table3"))
    quality, identification = table2["quality"], table2["identification"]
    images = (table2["images"]["real"], table2["images"]["synthetic"])
    reading = Reading(
        images=images,
        readers=table2["readers"],
        mean=sum(quality["mean"].values()) / 2,
        sd=(sum(sd**2 for sd in quality["sd"].values()) / 2) ** 0.5,
        icc=quality["icc"],
        kappa=identification["fleiss_kappa"],
        called=(
            1 - identification["correct"]["real"] / images[0],
            identification["correct"]["synthetic"] / images[1],
        ),
    )
    return Design(
        name=PAPER,
        positives={split: published["patients"]["he"][split] for split in SPLITS},
        negatives={split: published["patients"]["nhe"][split] for split in SPLITS},
        auc={split: table3[split][BEST]["auc"][0] for split in SPLITS},
        reference_auc={split: table3[split][REFERENCE]["auc"][0] for split in SPLITS},
        sensitivity={split: table3[split][BEST]["sensitivity"][0] for split in SPLITS},
        specificity={split: table3[split][BEST]["specificity"][0] for split in SPLITS},
        volume=(table1["baseline_median_ml"]["train"], table1["baseline_iqr_ml"]["train"]),
        age_sd={split: table1["age_sd"][split] for split in SPLITS},
        reading=reading,
    )


def own_design(labels: pd.DataFrame) -> Design:
    """This run's sample sizes with the paper's truths; of readers nothing.

    Parameters
    ----------
    labels : DataFrame
        split and he, a row a patient. A split the run lacks is left out.
    """
    paper = paper_design()
    counts = {split: labels.loc[labels["split"] == split, "he"].astype(bool) for split in SPLITS}
    present = {split: he for split, he in counts.items() if len(he)}

    def here(values: Mapping[str, Any]) -> dict[str, Any]:
        return {split: values[split] for split in present}

    return Design(
        name=OWN,
        positives={split: int(he.sum()) for split, he in present.items()},
        negatives={split: int((~he).sum()) for split, he in present.items()},
        auc=here(paper.auc),
        reference_auc=here(paper.reference_auc),
        sensitivity=here(paper.sensitivity),
        specificity=here(paper.specificity),
        volume=paper.volume,
        age_sd=here(paper.age_sd),
    )


def designs(study: Study) -> list[Design]:
    """The paper's design, and this run's where its sizes are others."""
    cohort = study.read("cohort", "cohort.csv")[["patient_id", "split"]]
    own = own_design(study.read("volumes", "labels.csv").merge(cohort, on="patient_id"))
    paper = paper_design()
    same = (own.positives, own.negatives) == (paper.positives, paper.negatives)
    return [paper] if same else [paper, own]


def _rows(table: pd.DataFrame, names: Mapping[str, Any]) -> pd.DataFrame:
    for column, value in names.items():
        table = table[table[column] == value]
    return table


def summary(covered: pd.DataFrame, sizes: pd.DataFrame, enough: pd.DataFrame) -> dict[str, Any]:
    """What the book states: {"paper": ..., "own": ...}, the latter where it differs.

    Each has coverage (by quantity, cohort and method), size (by test and setting), detectable (by cohort and
    correlation), and intervals and tests: how many there are, used as they are meant, by verdict.
    """
    named: dict[str, Any] = {}
    for key, design in (("paper", PAPER), ("own", OWN)):
        intervals, tests, differences = (_rows(table, {"design": design}) for table in (covered, sizes, enough))
        if intervals.empty and tests.empty and differences.empty:
            continue
        found: dict[str, Any] = {"coverage": {}, "size": {}, "detectable": {}}
        for row in intervals.to_dict("records"):
            place = found["coverage"].setdefault(row["quantity"], {}).setdefault(row["cohort"], {})
            place[row["method"]] = {
                name: row[name]
                for name in ("truth", "coverage", "mc_error", "exact", "missed_below", "missed_above", "verdict")
            }
        for row in tests.to_dict("records"):
            place = found["size"].setdefault(row["test"], {})
            place[row["setting"]] = {name: row[name] for name in ("size", "mc_error", "verdict")}
        for row in differences.to_dict("records"):
            place = found["detectable"].setdefault(row["cohort"], {})
            place[f"{row['correlation']:g}"] = row["difference"]
        as_meant = {"intervals": _rows(intervals, {"misuse": ""}), "tests": _rows(tests, {"misuse": ""})}
        for name, table in as_meant.items():
            counts = table["verdict"].value_counts()
            found[name] = {"all": len(table), **{str(verdict): int(count) for verdict, count in counts.items()}}
        named[key] = found
    return named


@stage("calibration")
def run(study: Study) -> None:
    """``coverage.csv``, ``size.csv``, ``power.csv`` and ``detectable.csv``."""
    settings, seed, confidence = study.params.calibration, study.params.study.seed, study.params.statistics.confidence
    parts: dict[str, list[pd.DataFrame]] = {"coverage": [], "size": [], "power": []}
    for design in designs(study):
        print(f"{design.name}: {', '.join(f'{cohort} {design.sizes(cohort)}' for cohort in design.cohorts)}")
        parts["coverage"].append(
            coverage(design, settings.replicates, settings.resamples, seed, confidence, settings.tolerance)
        )
        parts["size"].append(size(design, settings.replicates, seed, 1 - confidence, tolerance=settings.tolerance))
        parts["power"].append(power(design, settings.power_replicates, seed, alpha=1 - confidence))
    # a run whose splits have patients of one class has nothing to add, and an empty table would blur the types
    tables = {name: pd.concat([m for m in made if len(m)], ignore_index=True) for name, made in parts.items()}
    tables["detectable"] = detectable(tables["power"])
    for name, table in tables.items():
        write_csv(study.path("calibration", f"{name}.csv"), table)
    study.record("calibration", summary(tables["coverage"], tables["size"], tables["detectable"]))


# ---------------------------------------------------------------- tables of the notebook


def _named(table: pd.DataFrame, what: str, rate: pd.Series) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "Sizes of": table["design"],
            "What": what,
            "Method": table["label"],
            "Errs (%)": [f"{100 * r:.1f} ± {100 * e:.1f}" for r, e in zip(rate, table["mc_error"], strict=True)],
            "Verdict": table["verdict"],
            "Why": table["misuse"],
        }
    )


def _errors(covered: pd.DataFrame, sizes: pd.DataFrame) -> pd.DataFrame:
    """Intervals and tests in one table, with how often each errs."""
    cohort = covered["cohort"].str.replace("_", " ")
    intervals = covered.assign(label=covered["method"] + ": " + covered["quantity"] + ", " + cohort)
    tests = sizes.assign(label=sizes["test"] + ": " + sizes["setting"])
    both = [_named(intervals, "interval", 1 - intervals["coverage"]), _named(tests, "test", tests["size"])]
    return pd.concat(both, ignore_index=True)


def verdict_table(covered: pd.DataFrame, sizes: pd.DataFrame) -> pd.DataFrame:
    """How many intervals and tests hold, used as they are meant; a row a design and kind, a column a verdict."""
    meant = _errors(covered, sizes)
    meant = meant[meant["Why"] == ""]
    counts = pd.crosstab([meant["Sizes of"], meant["What"]], meant["Verdict"])
    shown = counts.reindex(columns=list(VERDICTS), fill_value=0).reset_index()
    shown.columns.name = None
    return shown


def failing_table(covered: pd.DataFrame, sizes: pd.DataFrame) -> pd.DataFrame:
    """Intervals and tests that do not err as often as they say although used as they are meant, ± the Monte Carlo error."""
    shown = _errors(covered, sizes)
    shown = shown[(shown["Why"] == "") & shown["Verdict"].isin(("too liberal", "conservative"))]
    return shown.drop(columns="Why").reset_index(drop=True)


def misuse_table(covered: pd.DataFrame, sizes: pd.DataFrame) -> pd.DataFrame:
    """Intervals and tests used where they do not belong, what is wrong there, and what it does."""
    shown = _errors(covered, sizes)
    return shown[shown["Why"] != ""].reset_index(drop=True)


def detectable_table(enough: pd.DataFrame) -> pd.DataFrame:
    """The smallest difference of two AUCs found in four of five studies: a row a cohort, a column a correlation."""
    shown = enough.assign(
        text=[
            f"> {largest:.3f}" if pd.isna(difference) else f"{difference:.3f}"
            for difference, largest in zip(enough["difference"], enough["largest"], strict=True)
        ],
        column=[f"Correlation {value:g}" for value in enough["correlation"]],
        Cohort=enough["cohort"].map(SPLIT_NAMES).fillna(enough["cohort"]),
    )
    order = list(dict.fromkeys(shown["column"]))
    wide = shown.pivot_table(
        index=["design", "Cohort", "sizes"], columns="column", values="text", aggfunc="first", sort=False
    )[order].reset_index()
    wide.columns.name = None
    return wide.rename(columns={"design": "Sizes of", "sizes": "Patients"})


def simulated(study: Study) -> dict[str, pd.DataFrame]:
    """The stage's tables: coverage, size, power, detectable."""
    names = ("coverage", "size", "power", "detectable")
    # a method that belongs where it is used has nothing written under misuse
    return {name: study.read("calibration", f"{name}.csv").fillna({"misuse": ""}) for name in names}
