"""Every number and statement that the paper prints in a table, a figure or its abstract, beside this run's.

A row is one of them. The paper's side comes from ``audit/published.yml`` and, for settings, from ``params/paper.yml``;
ours from what the stages left in the run folder. The verdict is :mod:`hepaper.beside.rules`'.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from hepaper.audit import load_published
from hepaper.audit.check import source as place_of
from hepaper.augmentation.sets import needed
from hepaper.beside import rules
from hepaper.beside.made import MADE, Made
from hepaper.beside.rules import MUST, OTHER, Estimate, Judgement
from hepaper.comparison import EXTERNAL, p_worded
from hepaper.figures.style import NETWORK_NAMES
from hepaper.params import Params, load_params
from hepaper.preprocess import TIMEPOINTS
from hepaper.published import METRICS, SPLIT_NAMES, SPLITS
from hepaper.roi import POSITIONS
from hepaper.segmentation import benchmark, compare
from hepaper.stats import chi_square
from hepaper.study import Study, study_files

#: key -> the part of the paper, in its order; one section of the page each
ITEMS = {
    "fig1": "Figure 1: recruitment",
    "table1": "Table 1: the cohort",
    "methods": "Figure 2 and Methods: definitions and settings",
    "fig3": "Figure 3: four segmentation networks",
    "fig4": "Figure 4: the full-scale model",
    "fig5": "Figure 5: synthetic images",
    "table2": "Table 2: readers",
    "table3": "Table 3 and Figure 6: the classifiers",
    "words": "Abstract, Results and Discussion: statements in words",
}

GENERATED = "phantoms, drawn by a generator that was set after the paper's Table 1"
OWN_SIZE = "another cohort has its own size"
SIMULATED = "simulated readers: their answers are a rule and not a judgement"
A_P_VALUE = "a p-value depends on the number of patients or images; the difference it is about has its own row"
A_PICTURE = "the paper shows a picture and prints no number"
OTHER_FEATURES = "not made with Inception's features, which these numbers are defined by"
#: features of Inception's last layer; the covariance of fewer images is singular, and the FID far too high
INCEPTION_FEATURES = 2048
_IQR_OF_SD = 1.349  # interquartile range of a normal distribution with standard deviation 1
_NO_INTERVAL = "the paper prints no interval: its number is taken as exact"
_FROM_COUNTS = "the paper's interval is ours, from its counts"
_FROM_SD = "the paper's interval is ours, from its standard deviation"
_BY_IMAGE = "; intervals as if an image's ratings were one"

_METRIC_NAMES = {
    "auc": "AUC", "accuracy": "Accuracy", "sensitivity": "Sensitivity", "specificity": "Specificity", "npv": "NPV",
    "ppv": "PPV",
}  # fmt: skip
_SETS = {
    "UKAN-Balanced": "ukan_balanced", "UKAN-Semibalanced": "ukan_semibalanced", "Real-Imbalanced": "real_imbalanced",
}  # fmt: skip
#: the paper's name of a network -> ours; of two variants the first that was trained
_NETWORKS = {
    "U-Mamba": ("umamba_enc", "umamba_bot"), "nnU-Net": ("nnunet",), "nnFormer": ("nnformer",), "UNETR++": ("unetrpp",),
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One number or statement. Text is ready to print; numbers are NaN where there are none."""

    item: str  # key of ITEMS
    group: str  # whose number it is: a set, a network, an arm
    quantity: str
    unit: str
    level: str  # of rules.LEVELS
    published: str
    ours: str
    difference: str
    verdict: str  # of rules.VERDICTS
    reason: str
    note: str
    where: str  # in the paper
    made_by: str
    page: str
    anchor: str
    published_value: float
    published_low: float
    published_high: float
    ours_value: float
    ours_low: float
    ours_high: float
    difference_value: float
    difference_low: float
    difference_high: float
    margin: float


TEXT = tuple(field.name for field in fields(Row) if field.type == "str")


# ---------------------------------------------------------------- words


def said(x: Estimate, digits: int) -> str:
    """``0.645 (0.474 to 0.816)``, without the brackets where there is no interval; empty where not defined."""
    if not x.known:
        return ""

    def shown(value: float) -> str:
        return f"{round(value, digits) + 0.0:,.{digits}f}".replace("-", "−")

    return f"{shown(x.value)} ({shown(x.low)} to {shown(x.high)})" if x.has_interval else shown(x.value)


def plain(value: Any) -> str:
    """A setting as a person writes it: ``5 × 0.5 × 0.5``, ``0.0001``, ``yes``."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        between = ", " if any(isinstance(item, str) for item in value) else " × "
        return between.join(map(plain, value))
    if isinstance(value, (int, float)):
        return f"{value:,}" if isinstance(value, int) else np.format_float_positional(value, trim="-")
    return "not set" if value is None else NETWORK_NAMES.get(value, str(value))


def _percent(x: Estimate) -> Estimate:
    return Estimate(100 * x.value, 100 * x.low, 100 * x.high)


# ---------------------------------------------------------------- what the rows are made from


class Sources:
    """The paper and a run, each part read once."""

    def __init__(self, study: Study):
        self.study = study
        self.paper = load_published()

    @property
    def params(self) -> Params:
        return self.study.params

    @property
    def phantoms(self) -> bool:
        return self.params.cohort.source == "phantom"

    @cached_property
    def settings(self) -> Params:
        """The paper's own settings."""
        return load_params(study_files("params") / "paper.yml")

    def results(self, stage: str, *keys: str) -> Any:
        """A recorded number; None where it or anything on the way to it is not there."""
        found: Any = self.study.results(stage)
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        return found

    def table(self, *parts: str) -> pd.DataFrame:
        """A table of the run; empty where it is not there or has no row."""
        path = self.study.path(*parts)
        if not path.is_file() or not path.read_text("utf-8").strip():
            return pd.DataFrame()
        return self.study.read(*parts)

    @cached_property
    def performance(self) -> pd.DataFrame:
        return self.table("statistics", "performance.csv")

    @property
    def smallest_gain(self) -> float:
        """The smallest difference between its classifiers' AUC that the paper reports."""
        return min(
            float(printed["delta"])
            for split, models in self.paper["delong"].items()
            if split != "source"
            for printed in models.values()
        )

    @cached_property
    def at(self) -> Callable[[Any, Any, Any], Estimate]:
        """An estimate with the statistics' confidence, at 95 %."""
        confidence = self.params.statistics.confidence
        return lambda value, low, high: rules.at_level(rules.estimate(value, low, high), confidence)


def _where(table: pd.DataFrame, **keys: Any) -> pd.Series:
    """The first row with these values; empty where there is none."""
    for column, value in keys.items():
        if column not in table:
            return pd.Series(dtype=object)
        table = table[table[column] == value]
    return table.iloc[0] if len(table) else pd.Series(dtype=object)


def _row(
    item: str,
    quantity: str,
    made: Made,
    level: str,
    published: str | Estimate,
    ours: str | Estimate,
    judged: Judgement,
    *,
    group: str = "",
    unit: str = "",
    digits: int = 3,
    where: str = "",
    note: str = "",
) -> Row:
    theirs, mine = (side if isinstance(side, Estimate) else Estimate(math.nan) for side in (published, ours))
    return Row(
        item, group, quantity, unit, level,
        published if isinstance(published, str) else said(published, digits),
        ours if isinstance(ours, str) else said(ours, digits),
        said(judged.difference, digits), judged.verdict, judged.reason, note, where, made.function, made.page,
        made.anchor, theirs.value, theirs.low, theirs.high, mine.value, mine.low, mine.high, judged.difference.value,
        judged.difference.low, judged.difference.high, judged.margin,
    )  # fmt: skip


# ---------------------------------------------------------------- Figure 1 and Table 1


def figure1(of: Sources) -> Iterator[Row]:
    """Patients and centres: settings of a phantom cohort, facts of another one."""
    where = place_of(of.paper, "patients")
    sizes = of.paper["patients"]["n"]
    entries = [(SPLIT_NAMES[split], sizes[split], of.results("cohort", split)) for split in SPLITS]
    entries.append(("All sets", sizes["total"], of.results("cohort", "eligible")))
    entries.append(("Centres", of.paper["centers"]["total"], of.results("cohort", "centers")))
    for quantity, published, ours in entries:
        if ours is None:
            judged = Judgement(rules.ABSENT)
        elif of.phantoms:
            judged = rules.setting(ours, published)
        else:
            judged = Judgement(rules.NOT_COMPARABLE, OWN_SIZE)
        yield _row(
            "fig1", quantity, MADE["patients"], MUST if of.phantoms else OTHER, rules.estimate(published),
            rules.estimate(ours), judged, group="" if quantity == "Centres" else "Eligible patients", digits=0, where=where,
        )  # fmt: skip


def median_interval(values: np.ndarray) -> Estimate:
    """The median with the interval between order statistics that holds it with 95 % or more; none below 6 values."""
    from scipy import stats

    values = np.sort(values[np.isfinite(values)])
    if not values.size:
        return Estimate(math.nan)
    # the k-th smallest and largest: fewer than k of n coins fall on one side with at most 2.5 %
    k = int(stats.binom.ppf(0.025, values.size, 0.5))
    middle = float(np.median(values))
    return Estimate(middle, float(values[k - 1]), float(values[-k])) if k >= 1 else Estimate(middle)


def table1(of: Sources) -> Iterator[Row]:
    """The cohort by set, the tests across sets, and our tests on the paper's own counts."""
    from hepaper.cohort.stage import eligible_patients
    from hepaper.tables.table1 import table1 as numbers

    paper, where = of.paper["table1"], place_of(of.paper, "table1")
    cohort, labels = eligible_patients(of.study), of.study.read("volumes", "labels.csv")
    volumes = of.study.read("volumes", "volumes.csv")
    mine = numbers(cohort, volumes, labels, as_numbers=True)
    unlike = GENERATED if of.phantoms else ""
    wide = volumes[volumes["source"] == "predicted"].pivot(
        index="patient_id", columns="timepoint", values="mesh_ml"
    )  # fmt: skip
    for split in SPLITS:
        here = cohort.loc[cohort["split"] == split, "patient_id"]
        n, size = len(here), int(of.paper["patients"]["n"][split])
        published: dict[str, tuple[str, str, int, Estimate, float, str]] = {
            "male": ("Male", "%", 1, _percent(rules.from_counts(paper["male"][split], size)), 100 * rules.margin("share"),
                     _FROM_COUNTS),
            "age": ("Age, mean", "years", 1, rules.from_mean(float(paper["age_mean"][split]), float(paper["age_sd"][split]), size),
                    rules.margin("cohort", float(paper["age_sd"][split])), _FROM_SD),
            "yes": ("Hematoma expansion", "%", 1, _percent(rules.from_counts(of.paper["patients"]["he"][split], size)),
                    100 * rules.margin("share"), _FROM_COUNTS),
        }  # fmt: skip
        for key, name in (("baseline", "Baseline volume, median"), ("followup", "Follow-up volume, median")):
            wide_sd = float(paper[f"{key}_iqr_ml"][split]) / _IQR_OF_SD
            published[key] = (
                name, "mL", 1, rules.estimate(paper[f"{key}_median_ml"][split]), rules.margin("cohort", wide_sd),
                _NO_INTERVAL,
            )  # fmt: skip
        for key, (quantity, unit, digits, theirs, margin, note) in published.items():
            row = _where(mine, key=key, split=split)
            if key in ("male", "yes"):
                ours = _percent(rules.from_counts(row["value"], n)) if n else Estimate(math.nan)
            elif key == "age":
                ours = rules.from_mean(row["value"], row["spread"], n)
            else:
                measured = wide[key].reindex(here).to_numpy(float) if key in wide else np.array([])
                ours = median_interval(measured)
            judged = rules.compared(ours, theirs, margin, n, unlike=unlike, absent="no patients in this set")
            yield _row("table1", quantity, MADE["table1"], OTHER, theirs, ours, judged,
                       group=SPLIT_NAMES[split], unit=unit, digits=digits, where=where, note=note)  # fmt: skip
    names = {
        "sex": "Sex across sets, p", "age": "Age across sets, p", "he": "Expansion across sets, p",
        "baseline": "Baseline volume across sets, p", "followup": "Follow-up volume across sets, p",
    }  # fmt: skip
    for key, name in names.items():
        p = float(_where(mine, key=key)["p_value"])
        judged = (
            Judgement(rules.NOT_COMPARABLE, A_P_VALUE) if math.isfinite(p) else Judgement(rules.ABSENT, "not tested")
        )
        yield _row("table1", name, MADE["table1"], OTHER, rules.estimate(paper["p_value"][key]), rules.estimate(p), judged,
                   where=where, group="All sets")  # fmt: skip
    yield from _tests_of_the_paper(of)


def _tests_of_the_paper(of: Sources) -> Iterator[Row]:
    """Our tests on the paper's own summaries."""
    from hepaper.audit.cohort import age_summaries, anova_range

    paper, patients = of.paper["table1"], of.paper["patients"]
    where, group = place_of(of.paper, "table1"), "Our test on the paper's numbers"
    for key, quantity, counts in (
        ("sex", "Sex, chi-square p", (paper["male"], paper["female"])),
        ("he", "Expansion, chi-square p", (patients["he"], patients["nhe"])),
    ):
        p = chi_square([[part[split] for part in counts] for split in SPLITS]).p_value
        printed = paper["p_value"][key]
        yield _row("table1", quantity, MADE["arithmetic"], MUST, rules.estimate(printed), rules.estimate(p),
                   rules.arithmetic(p, printed), where=where, group=group)  # fmt: skip
    found, printed = anova_range(*age_summaries(of.paper)), paper["p_value"]["age"]
    yield _row(
        "table1", "Age, ANOVA p", MADE["age"], MUST, rules.estimate(printed),
        Estimate(found.p_value, found.low, found.high),
        rules.arithmetic(found.p_value, printed, (found.low, found.high)), where=where, group=group,
        note="in brackets: all that unrounded means and standard deviations can give",
    )  # fmt: skip


# ---------------------------------------------------------------- Methods

#: dotted parameter -> quantity, unit, what made ours, place in Methods
_SETTINGS: dict[str, tuple[str, str, str, str]] = {
    "preprocess.spacing_mm": ("Voxels after resampling (z, y, x)", "mm", "grid", "Patient cohort and image acquisition"),
    "volume.growth_ml": ("Expansion: growth above", "mL", "expansion", "Patient cohort and image acquisition"),
    "volume.growth_fraction": ("Expansion: or growth above", "of the baseline volume", "expansion", "Patient cohort and image acquisition"),
    "benchmark.networks": ("Networks", "", "benchmark", "Automated hematoma segmentation"),
    "benchmark.patients": ("Patients", "", "benchmark", "Automated hematoma segmentation"),
    "benchmark.validation_fraction": ("Held out for validation", "of the patients", "benchmark", "Automated hematoma segmentation"),
    "benchmark.learning_rates.0": ("Learning rate", "", "benchmark_training", "Automated hematoma segmentation"),
    "benchmark.momentum": ("Momentum", "", "benchmark_training", "Automated hematoma segmentation"),
    "benchmark.weight_decay": ("Weight decay", "", "benchmark_training", "Automated hematoma segmentation"),
    "benchmark.epochs": ("Epochs", "", "benchmark_training", "Automated hematoma segmentation"),
    "benchmark.batch_size": ("Batch size", "", "benchmark_training", "Automated hematoma segmentation"),
    "segmentation.learning_rate": ("Learning rate", "", "full_training", "Automated hematoma segmentation"),
    "segmentation.momentum": ("Momentum", "", "full_training", "Automated hematoma segmentation"),
    "segmentation.weight_decay": ("Weight decay", "", "full_training", "Automated hematoma segmentation"),
    "segmentation.epochs": ("Epochs", "", "full_training", "Automated hematoma segmentation"),
    "segmentation.batch_size": ("Batch size", "", "full_training", "Automated hematoma segmentation"),
    "roi.window_level": ("Window level", "HU", "roi", "Diffusion-based synthetic minority data augmentation"),
    "roi.window_width": ("Window width", "HU", "roi", "Diffusion-based synthetic minority data augmentation"),
    "augmentation.image_size": ("Pixels a side", "", "diffusion", "Diffusion-based synthetic minority data augmentation"),
    "augmentation.timesteps": ("Denoising steps", "", "diffusion", "Diffusion-based synthetic minority data augmentation"),
    "augmentation.beta_start": ("First β", "", "diffusion", "Diffusion-based synthetic minority data augmentation"),
    "augmentation.beta_end": ("Last β", "", "diffusion", "Diffusion-based synthetic minority data augmentation"),
    "augmentation.epochs": ("Epochs", "", "diffusion", "Diffusion-based synthetic minority data augmentation"),
    "augmentation.optimizer": ("Optimiser", "", "diffusion", "Diffusion-based synthetic minority data augmentation"),
    "augmentation.learning_rate": ("Learning rate", "", "diffusion", "Diffusion-based synthetic minority data augmentation"),
    "augmentation.batch_size": ("Batch size", "", "diffusion", "Diffusion-based synthetic minority data augmentation"),
    "augmentation.schedule": ("Schedule of the rate", "", "diffusion", "Diffusion-based synthetic minority data augmentation"),
    "reader_study.per_class": ("Images of each kind, at most", "", "readers", "Diffusion-based synthetic minority data augmentation"),
    "classification.epochs": ("Epochs", "", "classifier", "ViT-based patient-level hematoma classification"),
    "classification.batch_size": ("Batch size", "", "classifier", "ViT-based patient-level hematoma classification"),
    "classification.learning_rate": ("First learning rate", "", "classifier", "ViT-based patient-level hematoma classification"),
    "classification.final_learning_rate": ("Last learning rate", "", "classifier", "ViT-based patient-level hematoma classification"),
    "classification.image_size": ("Pixels a side", "", "classifier", "ViT-based patient-level hematoma classification"),
    "classification.pretrained": ("Begins from ImageNet's weights", "", "classifier", "ViT-based patient-level hematoma classification"),
}  # fmt: skip


def _setting(params: Params, dotted: str) -> Any:
    value: Any = params
    for name in dotted.split("."):
        value = value[int(name)] if name.isdigit() else getattr(value, name)
    return value


def methods(of: Sources) -> Iterator[Row]:
    """Definitions and settings, the paper's (``params/paper.yml``) and this run's; and the paper's sums."""
    for dotted, (quantity, unit, made, where) in _SETTINGS.items():
        theirs, ours = _setting(of.settings, dotted), _setting(of.params, dotted)
        yield _row("methods", quantity, MADE[made], MUST, plain(theirs), plain(ours), rules.setting(ours, theirs),
                   group=f"Settings of {dotted.split('.')[0].replace('_', ' ')}", unit=unit, where=f"Methods, {where}",
                   note=f"parameter {dotted}")  # fmt: skip
    scans, benched = of.paper["segmentation"], of.paper["segmentation_benchmark"]
    patients = of.paper["patients"]
    slices = len(POSITIONS)
    sums = (
        ("Scans of all training patients", scans["scans"], len(TIMEPOINTS) * patients["n"]["train"], "grid", "segmentation"),
        ("Scans of the benchmark", benched["scans"], len(TIMEPOINTS) * benched["patients"], "grid", "segmentation_benchmark"),
        ("Images with expansion", of.paper["augmentation"]["images"]["Real-Imbalanced"]["real_he"],
         slices * patients["he"]["train"], "roi", "augmentation"),
        ("Images without expansion", of.paper["augmentation"]["images"]["Real-Imbalanced"]["real_nhe"],
         slices * patients["nhe"]["train"], "roi", "augmentation"),
    )  # fmt: skip
    for quantity, printed, ours, made, section in sums:
        yield _row("methods", quantity, MADE[made], MUST, rules.estimate(printed), rules.estimate(ours),
                   rules.arithmetic(ours, printed), group="Our rule on the paper's numbers", digits=0,
                   where=place_of(of.paper, section))  # fmt: skip
    images, people = of.results("roi", "images"), of.results("roi", "patients")
    if images is not None and people:
        share = images / people
        yield _row("methods", "Images a patient", MADE["roi"], MUST, rules.estimate(of.paper["slices"]["per_patient"]),
                   rules.estimate(share), rules.arithmetic(share, of.paper["slices"]["per_patient"]), group="This run",
                   digits=0, where=place_of(of.paper, "slices"))  # fmt: skip


# ---------------------------------------------------------------- Figures 3 and 4


def _measured(summary: pd.DataFrame, **keys: str) -> tuple[Estimate, int]:
    """The mean of a group's row of a summary, with its interval, and the patients behind it."""
    row = _where(summary, **keys)
    if not len(row):
        return Estimate(math.nan), 0
    return rules.estimate(row["mean"], row["mean_low"], row["mean_high"]), int(row["patients"])


def figure3(of: Sources) -> Iterator[Row]:
    """Dice and IoU of each network in the benchmark; the paper prints U-Mamba's alone."""
    where = place_of(of.paper, "segmentation_benchmark")
    summary = benchmark.summary(of.study)
    trained = of.params.benchmark
    scale = f"trained for {trained.epochs:,} of the paper's {of.settings.benchmark.epochs:,} epochs"
    for name, ours in _NETWORKS.items():
        network = next((one for one in ours if one in trained.networks), ours[0])
        for measure, title in (("dice", "Dice, mean"), ("iou", "IoU, mean")):
            printed = of.paper["segmentation_benchmark"].get(name, {}).get(measure)
            mine, patients = _measured(summary, network=network, measure=measure)
            theirs = rules.estimate(printed)
            judged = rules.compared(mine, theirs, rules.margin("overlap"), patients, absent="not trained in this run")
            yield _row("fig3", title, MADE["benchmark"], OTHER, theirs if theirs.known else "in the picture only", mine,
                       judged, group=name, where=where,
                       note=f"{scale}; {_NO_INTERVAL}" if theirs.known else scale)  # fmt: skip
    yield _picture("fig3", "Fig. 3A and B: training curves", MADE["curves"], f"{trained.epochs:,} epochs", where)
    yield _picture("fig3", "Fig. 3D: outlines", MADE["overlays"], "outlines of our scans", where)


def _picture(item: str, quantity: str, made: Made, ours: str, where: str) -> Row:
    return _row(item, quantity, made, OTHER, "a picture", ours, Judgement(rules.NOT_COMPARABLE, A_PICTURE), where=where)


def figure4(of: Sources) -> Iterator[Row]:
    """Dice and IoU of the full-scale model in each set, against reference masks where there are any."""
    where, paper = place_of(of.paper, "segmentation"), of.paper["segmentation"]
    trained = of.params.segmentation
    network = str(of.results("segmentation", "network") or "")
    scale = (
        f"{NETWORK_NAMES.get(network, network)}, trained for {trained.epochs:,} of the paper's "
        f"{of.settings.segmentation.epochs:,} epochs; {_NO_INTERVAL}"
    )
    metrics = of.table("segmentation", "full_scale", "metrics.csv")
    summary = pd.DataFrame()
    if len(metrics):
        summary = compare.summarise(metrics, by=["split"], measures=("dice", "iou"), seed=of.params.study.seed)
    for split in SPLITS:
        for measure, title in (("dice", "Dice, mean"), ("iou", "IoU, mean")):
            mine, patients = _measured(summary, split=split, measure=measure)
            theirs = rules.estimate(paper[measure][split])
            judged = rules.compared(
                mine, theirs, rules.margin("overlap"), patients, absent="no reference masks in this set"
            )
            yield _row("fig4", title, MADE["full_scale"], OTHER, theirs, mine, judged, group=SPLIT_NAMES[split], where=where,
                       note=scale)  # fmt: skip
    yield _picture("fig4", "Fig. 4A: training curves", MADE["full_training"], f"{trained.epochs:,} epochs", where)
    yield _picture("fig4", "Fig. 4C: outlines", MADE["cases"], "best, median and worst external scan", where)


# ---------------------------------------------------------------- Figure 5


def figure5(of: Sources) -> Iterator[Row]:
    """Training sets (arithmetic), their FID and inception score, and the loss."""
    paper, where = of.paper["augmentation"], place_of(of.paper, "augmentation")
    real = paper["images"]["Real-Imbalanced"]
    extra = dict(
        zip(("UKAN-Semibalanced", "UKAN-Balanced"), needed(real["real_he"], real["real_nhe"]), strict=True)
    )  # fmt: skip
    for name, count in extra.items():
        printed = paper["images"][name]["synthetic_he"]
        yield _row("fig5", f"Synthetic images needed, {name}", MADE["sets"], MUST, rules.estimate(printed), rules.estimate(count),
                   rules.arithmetic(count, printed), group="Our rule on the paper's images", digits=0,
                   where=where)  # fmt: skip
    for name in extra:
        yield _ratio(of, name, where)
    quality = of.table("augmentation", "quality", "sets.csv")
    for measure, title, key, label in (
        ("frechet", "FID", "fid", "FID"),
        ("score", "Inception score", "inception_score", "Inception score (IS)"),
    ):
        for name, ours in _SETS.items():
            if name not in paper[key]:
                continue
            row = _where(quality, set=ours, measure=measure)
            mine = rules.estimate(row.get("value"), row.get("ci_low"), row.get("ci_high"))
            theirs = rules.estimate(paper[key][name])
            judged = rules.compared(
                mine, theirs, rules.margin("distance", theirs.value), unlike=_unlike_features(row, label)
            )
            yield _row("fig5", title, MADE["quality"], OTHER, theirs, mine, judged, group=name, where=where,
                       note=f"ours: {row['label']}; {_NO_INTERVAL}" if len(row) else "")  # fmt: skip
    loss, epochs = of.results("augmentation", "final_loss"), of.results("augmentation", "epochs")
    ours = f"loss {loss:.4f} after {epochs:,} epochs" if loss is not None else ""
    yield _picture("fig5", "Fig. 5A: training loss", MADE["diffusion"], ours, where)
    yield _picture("fig5", "Fig. 5C: rated images", MADE["rated"], "examples by score", where)


def _ratio(of: Sources, name: str, where: str) -> Row:
    """Images without expansion for one with it, in this run's set."""
    counts, printed = of.results("augmentation", "sets", _SETS[name]) or {}, of.paper["augmentation"]["ratio"][name]
    with_he = counts.get("he_real", 0) + counts.get("he_synthetic", 0)
    ratio = counts["nhe"] / with_he if with_he else math.nan
    if not with_he:
        judged = Judgement(rules.ABSENT)
    elif not counts["he_synthetic"]:
        judged = Judgement(rules.NOT_COMPARABLE, "expansion is this frequent without synthetic images")
    else:
        judged = rules.arithmetic(ratio, printed)
    return _row("fig5", f"Images without expansion for one with it, {name}", MADE["sets"], MUST, rules.estimate(printed),
                rules.estimate(ratio), judged, group="Training sets of this run", digits=2, where=where)  # fmt: skip


def _unlike_features(row: pd.Series, label: str) -> str:
    if len(row) and row["label"] != label:
        return OTHER_FEATURES
    if len(row) and row["images"] < INCEPTION_FEATURES:
        return f"from {int(row['images']):,} images; fewer than Inception has features ({INCEPTION_FEATURES:,})"
    return ""


# ---------------------------------------------------------------- Table 2


def table2(of: Sources) -> Iterator[Row]:
    """Scores, agreement and identification; of simulated readers nothing is compared."""
    paper, where = of.paper["table2"], place_of(of.paper, "table2")
    unlike = SIMULATED if of.results("reader_study", "simulated") else ""
    per_class = int(paper["images"]["real"])

    def recorded(key: str) -> Any:
        return of.results("reader_study", key)

    def row(
        quantity: str, theirs: Estimate, ours: Estimate, kind: str, group: str, note: str = "", digits: int = 3
    ) -> Row:
        units = min(recorded("images_real") or 0, recorded("images_synthetic") or 0)
        margin = rules.margin(kind, of.params.reader_study.margin if kind == "score" else 1.0)
        if kind == "share":
            theirs, ours, margin, digits = _percent(theirs), _percent(ours), 100 * margin, 1
        judged = rules.compared(ours, theirs, margin, units, "images of each kind", unlike)
        return _row("table2", quantity, MADE["readers"], OTHER, theirs, ours, judged, group=group, where=where, note=note,
                    digits=digits, unit="%" if kind == "share" else "")  # fmt: skip

    for scale, title in (("quality", "Image quality"), ("authenticity", "Authenticity")):
        of_scale = paper[scale]
        for origin in ("real", "synthetic"):
            images = recorded(f"images_{origin}") or 0
            name = f"{title}, {origin} images"
            theirs = rules.from_mean(float(of_scale["mean"][origin]), float(of_scale["sd"][origin]), per_class)
            mean, sd = recorded(f"{scale}_{origin}_mean"), recorded(f"{scale}_{origin}_sd_ratings")
            ours = rules.from_mean(mean, sd, images) if mean is not None and sd is not None else rules.estimate(mean)
            yield row("Score, mean", theirs, ours, "score", name, _FROM_SD + _BY_IMAGE, 2)
            for end, words in (("3_or_more", "Scores of 3 or more"), ("2_or_less", "Scores of 2 or less")):
                ratings = float(per_class * paper["readers"])
                theirs = _share_of_ratings(float(of_scale[f"score_{end}"][origin]) / ratings, per_class)
                share = recorded(f"{scale}_{origin}_{end}_share")
                ours = _share_of_ratings(share, images) if share is not None else Estimate(math.nan)
                yield row(words, theirs, ours, "share", name, _FROM_COUNTS + _BY_IMAGE)
        ours = rules.estimate(*(recorded(f"{scale}_icc{end}") for end in ("", "_low", "_high")))
        yield row("ICC(2,1)", rules.estimate(of_scale["icc"]), ours, "agreement", title, _NO_INTERVAL)
        p = recorded(f"{scale}_p_images")
        judged = Judgement(rules.NOT_COMPARABLE, A_P_VALUE) if p is not None else Judgement(rules.ABSENT)
        yield _row("table2", "Real against synthetic, Mann-Whitney p", MADE["readers"], OTHER, rules.estimate(of_scale["p_value"]),
                   rules.estimate(p), judged, group=title, where=where)  # fmt: skip
    found = paper["identification"]
    right, images = 0, 0
    for origin in ("real", "synthetic"):
        n, correct = recorded(f"images_{origin}") or 0, recorded(f"correct_{origin}") or 0
        right, images = right + correct, images + n
        yield row("Identified by majority", rules.from_counts(found["correct"][origin], per_class), rules.from_counts(correct, n),
                  "share", f"{origin.capitalize()} images", _FROM_COUNTS)  # fmt: skip
    yield row("Identified by majority", rules.from_counts(sum(found["correct"].values()), 2 * per_class),
              rules.from_counts(right, images), "share", "All images", _FROM_COUNTS)  # fmt: skip
    ours = rules.estimate(*(recorded(f"fleiss_kappa{end}") for end in ("", "_low", "_high")))
    note = f"the text prints {found['fleiss_kappa_in_text']}; {_NO_INTERVAL}"
    yield row("Fleiss' κ", rules.estimate(found["fleiss_kappa"]), ours, "agreement", "All images", note)


def _share_of_ratings(share: float, images: int) -> Estimate:
    """A share of ratings with Wilson's interval as if each image had been rated once: ratings of one are alike."""
    if not images:
        return Estimate(math.nan)
    found = rules.from_counts(share * images, images)
    # the count of images need not be whole: the interval of the nearest one is moved to the share itself
    return Estimate(share, max(0.0, share + found.low - found.value), min(1.0, share + found.high - found.value))


# ---------------------------------------------------------------- Table 3 and Figure 6


def _units(row: pd.Series, metric: str) -> tuple[int, str]:
    """Patients behind a metric: of the smaller class for the AUC, of those that its denominator counts otherwise."""
    n, he = int(row["n"]), int(row["he"])
    if metric == "auc":
        return min(he, n - he), "patients in the smaller class"
    if metric in ("sensitivity", "specificity"):
        return (he, "patients with expansion") if metric == "sensitivity" else (n - he, "patients without expansion")
    if metric == "accuracy":
        return n, "patients"
    called = row["sensitivity"] * he + (1 - row["specificity"]) * (n - he)
    if not math.isfinite(called):
        return 0, "patients"
    return (round(called), "patients called HE") if metric == "ppv" else (n - round(called), "patients called NHE")


def table3(of: Sources) -> Iterator[Row]:
    """Three arms in three sets, the differences between their AUC, and the p-values."""
    where = place_of(of.paper, "table3")
    scale = (
        f"trained for {of.params.classification.epochs:,} of the paper's {of.settings.classification.epochs:,} epochs"
    )
    for split in SPLITS:
        for arm, metrics in of.paper["table3"][split].items():
            row = _where(of.performance, split=split, model=arm)
            for metric in METRICS:
                theirs = rules.estimate(*metrics[metric])
                ours = of.at(row.get(metric), row.get(f"{metric}_low"), row.get(f"{metric}_high"))
                margin = rules.margin("auc" if metric == "auc" else "share")
                units, what = _units(row, metric) if len(row) else (0, "patients")
                absent = _text(row.get("note")) or ("not defined" if len(row) else "no patients in this set")
                judged = rules.compared(ours, theirs, margin, units, what, absent=absent)
                yield _row("table3", _METRIC_NAMES[metric], MADE["performance"], OTHER, theirs, ours, judged,
                           group=f"{SPLIT_NAMES[split]}, {arm}", where=where, note=f"{scale}; {_note(split, metric)}".rstrip("; "))  # fmt: skip
    yield from _differences(of)
    counts = of.results("audit", "table3", "counts")
    if counts:
        for name, cells, right in (
            ("Cells that whole patients give", "cells", "cells_right"),
            ("Intervals that these counts give (Wald)", "intervals", "intervals_right"),
        ):
            yield _row("table3", name, MADE["confusion"], MUST, rules.estimate(counts[cells]), rules.estimate(counts[right]),
                       rules.arithmetic(counts[right], counts[cells]), group="Our formulas on the paper's counts",
                       digits=0, where=where)  # fmt: skip


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _note(split: str, metric: str) -> str:
    notes = []
    if split == "train":
        notes.append("apparent: the classifier has seen these patients")
    if metric != "auc":
        notes.append("the paper does not say how its threshold was found")
    if metric in ("npv", "ppv"):
        notes.append("depends on how frequent expansion is")
    return "; ".join(notes)


def _differences(of: Sources) -> Iterator[Row]:
    found, where = of.table("statistics", "comparisons.csv"), place_of(of.paper, "delong")
    for split in EXTERNAL:
        for other, printed in of.paper["delong"][split].items():
            row = _where(found, split=split, model_a="ViT-1:2", model_b=other)
            below = printed.get("p_value") is None
            p = float(printed["p_below"] if below else printed["p_value"])
            theirs = rules.from_p(float(printed["delta"]), p)
            ours = of.at(row.get("delta"), row.get("ci_low"), row.get("ci_high"))
            per = _where(of.performance, split=split, model="ViT-1:2")
            units, what = _units(per, "auc") if len(per) else (0, "patients")
            absent = _text(row.get("note")) or "not compared in this run"
            judged = rules.compared(ours, theirs, rules.margin("gain", of.smallest_gain), units, what, absent=absent)
            group = f"{SPLIT_NAMES[split]}, ViT-1:2 less {other}"
            note = f"the paper's interval follows from its p {'< ' if below else '= '}{p:g}"
            note += ", and is the widest that does" if below else ""
            yield _row("table3", "Difference of AUC", MADE["delong"], OTHER, theirs, ours, judged, group=group, where=where,
                       note=note)  # fmt: skip
            mine = row.get("p_value", math.nan)
            tested = len(row) and math.isfinite(mine)
            judged = Judgement(rules.NOT_COMPARABLE, A_P_VALUE) if tested else Judgement(rules.ABSENT, absent)
            yield _row("table3", "DeLong's test", MADE["delong"], OTHER, f"p {'< ' if below else '= '}{p:.3f}",
                       p_worded(mine) if tested else "", judged, group=group, where=where)  # fmt: skip


# ---------------------------------------------------------------- statements in words


def words(of: Sources) -> Iterator[Row]:
    """Statements, each put as an effect that lies above 0 if it holds."""
    yield _best_segmentation(of)
    yield from _alike_images(of)
    yield _best_classifier(of)
    yield _robust(of)
    yield _overlap_of_maps(of)


def _quote(of: Sources, key: str) -> tuple[str, str]:
    entry = of.paper["words"][key]
    return f"“{entry['quote']}”", str(entry["source"])


def _best_segmentation(of: Sources) -> Row:
    table = of.table("segmentation", "benchmark", "comparisons.csv")
    trained = of.params.benchmark.networks
    mine = next((one for one in _NETWORKS["U-Mamba"] if one in trained), "umamba_enc")
    rivals = of.paper["words"]["best_segmentation"]["against"]
    effects, patients = [], 0
    for name in rivals:
        other = _NETWORKS[name][0]
        row, sign = _where(table, network_a=mine, network_b=other, measure="dice"), 1
        if not len(row):
            row, sign = _where(table, network_a=other, network_b=mine, measure="dice"), -1
        ends = [row.get(key, math.nan) * sign for key in ("difference", "difference_low", "difference_high")]
        effects.append(rules.estimate(ends[0], *sorted(ends[1:])))
        patients = int(row.get("patients", patients))
    told = "; ".join(
        f"{said(effect, 3)} above {name}" for name, effect in zip(rivals, effects, strict=True) if effect.known
    )
    quote, where = _quote(of, "best_segmentation")
    return _row("words", "Dice of U-Mamba above that of each other network", MADE["networks"], OTHER, quote, told,
                rules.claimed(effects, patients), where=where)  # fmt: skip


def _alike_images(of: Sources) -> Iterator[Row]:
    """Equivalence within the run's margin: twice the effect "margin less difference", for either sign."""
    quote, where = _quote(of, "not_different")
    unlike = SIMULATED if of.results("reader_study", "simulated") else ""
    limit = of.params.reader_study.margin
    for scale, title in (("quality", "quality"), ("authenticity", "authenticity")):
        found = rules.estimate(
            *(of.results("reader_study", f"{scale}_difference{end}") for end in ("", "_low", "_high"))
        )
        effects = [
            Estimate(limit - found.value, limit - found.high, limit - found.low),
            Estimate(limit + found.value, limit + found.low, limit + found.high),
        ]
        units = min(of.results("reader_study", f"images_{origin}") or 0 for origin in ("real", "synthetic"))
        yield _row(
            "words", f"Scores for {title} of synthetic images within {limit:g} of real ones'", MADE["effects"], OTHER, quote,
            said(found, 2), rules.claimed(effects, units, "images of each kind", unlike), where=where,
            note="that no difference was seen does not show that there is none: equivalence is asked for",
        )  # fmt: skip


def _best_classifier(of: Sources) -> Row:
    table = of.table("statistics", "comparisons.csv")
    effects, told, units = [], [], []
    for split in EXTERNAL:
        for other in of.paper["delong"][split]:
            row = _where(table, split=split, model_a="ViT-1:2", model_b=other)
            effect = of.at(row.get("delta"), row.get("ci_low"), row.get("ci_high"))
            effects.append(effect)
            per = _where(of.performance, split=split, model="ViT-1:2")
            if effect.known:
                told.append(f"{said(effect, 3)} above {other} in {SPLIT_NAMES[split].lower()}")
                units.append(_units(per, "auc")[0] if len(per) else 0)
    quote, where = _quote(of, "significantly_higher")
    judged = rules.claimed(effects, min(units, default=0), "patients in the smaller class")
    return _row("words", "AUC of ViT-1:2 above both others', in both external sets", MADE["delong"], OTHER, quote, "; ".join(told),
                judged, where=where, note="intervals are not corrected for four comparisons, as the paper's are not")  # fmt: skip


def _robust(of: Sources) -> Row:
    """The external AUC lies less than the margin below that of training patients whom the networks had not seen."""
    arm = str(of.paper["words"]["robust"]["model"])
    inside = _where(of.performance, split="train_cv", model=arm)
    before = of.at(inside.get("auc"), inside.get("auc_low"), inside.get("auc_high"))
    limit = rules.margin("gain", of.smallest_gain)
    effects, told, units = [], [], []
    for split in EXTERNAL:
        row = _where(of.performance, split=split, model=arm)
        after = of.at(row.get("auc"), row.get("auc_low"), row.get("auc_high"))
        change = rules.difference(after, before)
        effects.append(Estimate(change.value + limit, change.low + limit, change.high + limit))
        if change.known:
            told.append(f"{said(change, 3)} in {SPLIT_NAMES[split].lower()}")
            units += [_units(row, "auc")[0], _units(inside, "auc")[0]]
    quote, where = _quote(of, "robust")
    return _row(
        "words", f"External AUC of {arm} less than {limit:g} below the cross-validated one", MADE["validated"], OTHER, quote,
        "; ".join(told), rules.claimed(effects, min(units, default=0), "patients in the smaller class"), where=where,
    )  # fmt: skip


def _overlap_of_maps(of: Sources) -> Row:
    found = of.results("gradcam", "heat", "uniform") or {}
    effect = of.at(found.get("difference"), found.get("low"), found.get("high"))
    quote, where = _quote(of, "overlap_of_maps")
    told = f"{said(_percent(effect), 1)} percentage points" if effect.known else ""
    return _row("words", "Heat inside the hematoma beyond the hematoma's share of the crop", MADE["gradcam"], OTHER, quote, told,
                rules.claimed([effect], found.get("patients")), where=where)  # fmt: skip


# ---------------------------------------------------------------- all of it

_PARTS: dict[str, Callable[[Sources], Iterator[Row]]] = {
    "fig1": figure1, "table1": table1, "methods": methods, "fig3": figure3, "fig4": figure4, "fig5": figure5,
    "table2": table2, "table3": table3, "words": words,
}  # fmt: skip


def all_rows(study: Study) -> pd.DataFrame:
    """Every row of every item, in the paper's order; columns as the fields of :class:`Row`."""
    of = Sources(study)
    found = [asdict(row) for item in ITEMS for row in _PARTS[item](of)]
    return pd.DataFrame(found, columns=[field.name for field in fields(Row)])
