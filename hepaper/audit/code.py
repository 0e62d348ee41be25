"""The paper's Methods beside its released code: every difference, whom this study follows, and what each changes here.

``differences.yml`` holds the differences. What can be measured without training is measured on the run's own scans
(:mod:`hepaper.audit.switches`), the rest by trainings with one thing switched (:mod:`hepaper.audit.trainings`), as far
as ``audit_code.trainings`` asks for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd
import yaml

from hepaper.audit import switches, trainings
from hepaper.audit.sentences import sentences
from hepaper.audit.trainings import FOLDER, GENERATOR, SEGMENTATION
from hepaper.classification.arms import arm_of
from hepaper.classification.train import steps_in_pass
from hepaper.comparison import SET_NAMES
from hepaper.parallel import for_each
from hepaper.params import AugmentationParams, ClassificationParams, Params, PreprocessParams
from hepaper.published import SPLIT_NAMES, load_published
from hepaper.study import Study, stage, write_csv, write_json
from hepaper.tables import _text

#: whose masks and windows are looked at; more of them change no figure
MOST_PATIENTS = 100
SEVERITIES = ("A", "B", "C", "none")
KINDS = ("agrees", "differs", "absent", "unstated")
FOLLOWS = ("both", "paper", "code", "own")
#: trainings that switch more than one difference, or one in another way than the released code's variant does
FURTHER: dict[str, dict[str, Any]] = {
    "checkpoint_external": {"classification.keep": "best_external"},
    "segmentation_all": {"segmentation.split": "all"},
}
#: training -> its name in figures and tables
TRAINING_NAMES = {
    "window": "Window 0 to 90 HU",
    "upsampling": "Finer voxels, neighbours 1.43 mm away",
    "mask": "Finer voxels, mask by B-splines",
    "box": "Largest component, own rectangles",
    "final_rate": "Final rate as a factor",
    "warmup": "Warm-up in the first epoch",
    "input": "Random and centre crops",
    "checkpoint_internal": "Best epoch, on training patients",
    "checkpoint_external": "Best epoch, on external patients",
    "together": "All regions' and classifier's at once",
    "generator": "Generator's optimiser and schedule",
    "segmentation_scan": "Segmentation split by scan",
    "segmentation_all": "Segmentation trained on all",
    "seed": "Nothing, but another seed",
}
#: all classifier's switches at once
TOGETHER = "together"
PARTS_TOGETHER = ("roi.", "classification.")


def load() -> dict[str, Any]:
    """``differences.yml``: repository, commit, differences."""
    text = resources.files("hepaper.audit").joinpath("differences.yml").read_text("utf-8")
    return yaml.safe_load(text)


def differences() -> list[dict[str, Any]]:
    """Every difference, in the pipeline's order; ``switch`` is there for all, empty where nothing can be switched."""
    return [{"switch": {}, "training": None, **row} for row in load()["differences"]]


def released() -> dict[str, Any]:
    """Every switch at once: dotted parameter -> value, as in ``params/as_released.yml``."""
    found: dict[str, Any] = {}
    for row in differences():
        found |= row["switch"]
    return found


def switch_of(training: str) -> dict[str, Any]:
    """What a training switches."""
    if training == TOGETHER:
        length = "classification.training_length"  # sets the arms apart; this one keeps its steps
        return {name: value for name, value in released().items() if name.startswith(PARTS_TOGETHER) and name != length}
    found = dict(FURTHER.get(training, {}))
    for row in differences():
        found |= row["switch"] if row["training"] == training else {}
    return found


def difference_table() -> pd.DataFrame:
    """The differences for reading: part, subject, paper, released code, severity, followed, parameters."""
    followed = {"both": "both", "paper": "paper", "code": "released code", "own": "our own"}
    rows = []
    for row in differences():
        rows.append(
            {
                "Part": row["part"],
                "Subject": row["subject"],
                "Paper": f"{row['paper']} [{row['paper_at']}]",
                "Released code": f"{row['code']} [{row['code_at']}]",
                "Severity": "–" if row["severity"] == "none" else row["severity"],
                "We follow": followed[row["follows"]],
                "Parameters that switch": "; ".join(f"{name}: {_yaml(value)}" for name, value in row["switch"].items()),
            }
        )
    return pd.DataFrame(rows)


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value).split("\n")[0]


def summary_table() -> pd.DataFrame:
    """How many differences of each severity there are, by kind."""
    table = pd.DataFrame(differences())
    counted = pd.crosstab(table["severity"], table["kind"]).reindex(SEVERITIES, fill_value=0)
    counted = counted.reindex(columns=list(KINDS), fill_value=0).assign(all=lambda rows: rows.sum(axis=1))
    counted.index = pd.Index(["A", "B", "C", "–"], name="Severity")
    counted.columns = pd.Index(["agree", "differ", "not in the code", "not in the paper", "all"])
    return counted


def effect_table(effects: Mapping[str, str]) -> pd.DataFrame:
    """What each difference changes here: part, subject, severity, the sentence. Differences of severity A come first."""
    rows = [
        {
            "Severity": row["severity"],
            "Part": row["part"],
            "Subject": row["subject"],
            "What it changes here": effects[row["id"]].replace("`", ""),
        }
        for row in sorted(differences(), key=lambda row: SEVERITIES.index(row["severity"]))
        if row["severity"] != "none"
    ]
    return pd.DataFrame(rows)


def training_table(compared: pd.DataFrame) -> pd.DataFrame:
    """``trainings.csv`` for reading."""
    rows = []
    for row in compared.to_dict("records"):
        rows.append(
            {
                "Switched": TRAINING_NAMES[row["training"]],
                "Set": SET_NAMES[row["split"]],
                "Patients": row["n"],
                "HE": row["he"],
                "AUC, ours": _text.number(row["auc"]),
                "AUC, switched": _text.number(row["auc_switched"]),
                "Difference": _text.interval(row["delta"], row["low"], row["high"]),
                "p": _text.p_value(row["p_value"]),
                "p, Holm": _text.p_value(row["p_holm"]),
                "Finding": ": ".join(word for word in (row["finding"], row["note"]) if isinstance(word, str) and word),
            }
        )
    columns = "Switched|Set|Patients|HE|AUC, ours|AUC, switched|Difference|p|p, Holm|Finding"
    return pd.DataFrame(rows, columns=columns.split("|"))


def dice_table(dice: pd.DataFrame) -> pd.DataFrame:
    """``dice.csv`` for reading."""
    rows = []
    for row in dice.to_dict("records"):
        rows.append(
            {
                "Switched": TRAINING_NAMES[row["training"]],
                "Set": SPLIT_NAMES.get(row["group"], row["group"]),
                "Patients": row["patients"],
                "Dice, ours": _text.number(row["dice"]),
                "Dice, switched": _text.number(row["dice_switched"]),
                "Difference": _text.interval(row["delta"], row["low"], row["high"]),
                "Finding": row["finding"],
            }
        )
    return pd.DataFrame(rows, columns=["Switched", "Set", "Patients", "Dice, ours", "Dice, switched", "Difference",
                        "Finding"])  # fmt: skip


# ---------------------------------------------------------------- the stage


@stage("audit_code")
def run(study: Study) -> None:
    """``measured.json``, ``slices.csv``, ``kept.csv``, ``hu.csv``, ``rates.csv``, ``trainings.csv``, ``dice.csv``."""
    measured = measure(study)
    deltas = trainings.seed_deltas(study.read("classification", "vit", "seeds.csv"))
    write_csv(study.path(FOLDER, "seeds.csv"), deltas)
    compared, dice, failed = train(study, deltas)
    write_csv(study.path(FOLDER, "trainings.csv"), compared)
    write_csv(study.path(FOLDER, "dice.csv"), dice)
    for name in ("checkpoint_internal", "checkpoint_external"):
        measured[name] = trainings.chosen_epoch(study, name, switch_of(name))
    write_json(study.path(FOLDER, "measured.json"), measured)
    about = load()
    asked = list(study.params.audit_code.trainings)
    rows = differences()
    study.record(
        "audit_code",
        {
            "repository": about["repository"],
            "commit": about["commit"],
            "rows": len(rows),
            "counts": {name: sum(row["severity"] == name for row in rows) for name in SEVERITIES},
            "effect": sentences(measured, compared, dice, deltas, asked, failed),
        },
    )


def measure(study: Study) -> dict[str, Any]:
    """Everything that takes no training; tables are written on the way."""
    from hepaper.cohort.stage import eligible_patients
    from hepaper.segmentation import dataset

    params, paper = study.params, load_published()
    cohort = eligible_patients(study)
    scans = study.read("preprocessed", "scans.csv")
    cases = dataset.training_cases(study, cohort, params.segmentation.train_patients, refined=True)
    rois = study.read("rois", "rois.csv")
    labels = study.read("volumes", "labels.csv").set_index("patient_id")["he"]
    he = rois["patient_id"].isin(labels.index[labels.to_numpy(bool)]) & (rois["split"] == "train")
    measured: dict[str, Any] = {
        "outside": switches.outside(scans, params.preprocess.spacing_mm),
        "outside_paper": switches.outside(_scanner_pixels(scans, params), PreprocessParams().spacing_mm),
        "sides": switches.sides(list(cases), params.segmentation.validation_fraction),
        "voxel_labels": switches.voxel_labels(
            study.read("volumes", "volumes.csv"), params.volume.growth_ml, params.volume.growth_fraction
        ),
        "shapes": switches.shapes(rois[he]) | {"batch": params.augmentation.batch_size},
        **_regions(study, [str(patient) for patient in cohort["patient_id"]]),
        **_rates(study, paper),
    }
    external = rois[(rois["split"] != "train") & rois["patient_id"].isin(labels.index)]
    shown = external if len(external) else rois
    arm, audit = arm_of(params.classification.main), params.audit_code
    measured["head"] = switches.head_choices(study, arm, shown, audit.heads, params.study.seed)
    return measured


def _scanner_pixels(scans: pd.DataFrame, params: Params) -> pd.DataFrame:
    """``scans.csv`` as it would be had phantoms not been coarsened in plane, to save time."""
    times = params.cohort.coarsen if params.cohort.source == "phantom" else 1
    return scans.assign(
        **{f"native_{axis}": scans[f"native_{axis}"] * times for axis in "yx"},
        **{f"native_{axis}_mm": scans[f"native_{axis}_mm"] / times for axis in "yx"},
    )


def _regions(study: Study, patients: list[str]) -> dict[str, Any]:
    """Slices, masks and windows: ``slices.csv``, ``kept.csv``, ``hu.csv`` and what they come to."""
    jobs = [(study, patient) for patient in patients[:: -(-len(patients) // MOST_PATIENTS)]]
    found = for_each(switches.look, jobs, "looking", study.params.study.workers)
    seen = [row for row in found if row is not None]
    histograms = {name: np.sum([row[name] for row in seen], axis=0) for name in ("inside", "around")}
    write_csv(study.path(FOLDER, "hu.csv"), pd.DataFrame({"hu": switches.HU, **histograms}))
    columns = ["patient_id", "kept", "area_lost", "mask_lost"]
    kept = pd.DataFrame([{name: row[name] for name in columns} for row in seen], columns=columns)
    write_csv(study.path(FOLDER, "kept.csv"), kept)
    plain = study.params.model_copy(update={"roi": switches.plain(study.params.roi)})
    apart = plain != study.params  # then these crops are none that a training could use
    ours = trainings.crop(study, plain, "plain") if apart else study.read("rois", "rois.csv")
    tables: list[pd.DataFrame] = []
    result: dict[str, Any] = {}
    for name in ("upsampling", "mask"):
        folder = f"plain_{name}" if apart else name
        other = trainings.crop(study, trainings.switched(plain, switch_of(name)), folder)
        table = switches.moved(ours, other)
        tables.append(table.assign(way=name))
        distance = table["shift_mm"].abs()
        result[name] = {
            "patients": len(table),
            "lost": int(ours["patient_id"].nunique() - len(table)),
            "shift_mean": float(distance.mean()),
            "shift_high": float(distance.max()),
            "other_slice": int((distance > study.params.preprocess.spacing_mm[0] / 2).sum()),
            "gap_mm": float(table["gap_mm"].median()),
        }
    write_csv(study.path(FOLDER, "slices.csv"), pd.concat(tables, ignore_index=True))
    result["kept"] = {name: float(kept["kept"].agg(name)) for name in ("mean", "min", "max")}
    result["centre"] = {name: float(kept[name].mean()) for name in ("area_lost", "mask_lost")}
    result["slice_mm"] = float(study.params.preprocess.spacing_mm[0])
    for name, window in (("window_paper", switches.PAPER_WINDOW), ("window_released", switches.RELEASED_WINDOW)):
        result[name] = switches.windowed(histograms["inside"], histograms["around"], *window)
    return result


def _rates(study: Study, paper: Mapping[str, Any]) -> dict[str, Any]:
    """``rates.csv``: both learning rates with the paper's settings; what they come to, and the steps of the arms."""
    classifier, generator = ClassificationParams(), AugmentationParams()
    images = paper["augmentation"]["images"]
    lengths = {
        name: steps_in_pass(sum(row.get(key, 0) for key in ("real_he", "synthetic_he", "real_nhe")), classifier)
        for name, row in images.items()
    }
    steps = lengths["UKAN-Semibalanced"]
    rates = {
        "classifier": switches.classifier_rates(classifier, steps),
        "generator": switches.generator_rates(generator),
    }
    table = pd.concat([rows.assign(of=name) for name, rows in rates.items()], ignore_index=True)
    write_csv(study.path(FOLDER, "rates.csv"), table)
    return {f"rate_{name}": switches.summed(rows) for name, rows in rates.items()} | {
        "steps": {name: length * classifier.epochs for name, length in lengths.items()}
    }


def train(study: Study, deltas: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, str]]:
    """The trainings that the params ask for: ``trainings.csv`` (classifiers), ``dice.csv`` (segmentation), and why some
    classifiers could not be trained."""
    asked = study.params.audit_code.trainings
    confidence = study.params.statistics.confidence
    tables: dict[str, pd.DataFrame] = {}
    parts = []
    for name in (name for name in SEGMENTATION if name in asked):
        scans = trainings.segmentation(study, name, switch_of(name))
        if scans is not None:
            parts.append(trainings.dice_compared(scans, confidence).assign(training=name))
    if GENERATOR in asked:
        predictions = trainings.generator(study, switch_of(GENERATOR))
        if predictions is not None:
            tables[GENERATOR] = predictions
    switches_of = {str(name): switch_of(name) for name in asked if name not in (*SEGMENTATION, GENERATOR)}
    predictions_of, failed = trainings.classifiers(study, switches_of)
    tables |= predictions_of
    tables = {name: tables[name] for name in asked if name in tables}
    arms = {name: study.read("classification", name, "predictions.csv") for name in map(trainings.arm_of, tables)}
    dice = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=trainings.DICE_COLUMNS)
    return trainings.compare(tables, arms, deltas, confidence), dice, failed
