"""Stage 10 as a whole: a kit for readers, their ratings (or simulated ones until there are any), and the analysis.

What people are at work with lies in ``readers/`` of the run folder, which no stage ever empties: the sealed key of the
kit that :func:`make` wrote, and ``ratings.csv`` once :func:`take` has collected it. The stage's own folder holds the
kit that its simulated readers read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from hepaper.errors import HepaperError
from hepaper.reader_study.analysis import Analysis, analyse
from hepaper.reader_study.collect import collect, read_ratings
from hepaper.reader_study.kit import SCALES, Key, as_generated, make_kit
from hepaper.reader_study.readers import image_measures, simulate, strangeness
from hepaper.study import Study, stage, write_csv

FOLDER = "reader_study"
KEY = ("readers", "key.json")
RATINGS = ("readers", "ratings.csv")
_TABLES = tuple(field.name for field in dataclasses.fields(Analysis) if field.name != "results")


def _kit(study: Study, out: Path, key: Path) -> Key:
    """Draw maximum slices of training patients with HE, and as many synthetic images."""
    from hepaper.augmentation.dataset import training_rois

    settings = study.params.reader_study
    rois = training_rois(study)
    rois = rois[(rois["label"] == 1) & (rois["position"] == "max")]
    real = pd.DataFrame({"path": [study.path("rois", name) for name in rois["image"]], "used_in_training": True})
    made = study.read("augmentation", "synthetic.csv")
    synthetic = pd.DataFrame({"path": [study.path(name) for name in made["image"]]})
    return make_kit(
        real,
        synthetic,
        out,
        key,
        image_px=study.params.augmentation.image_size,
        display_px=settings.image_px,
        per_class=min(settings.per_class, len(real), len(synthetic)),
        seed=study.params.study.seed,
        real_from="training",
    )


def make(study: Study, out: Path) -> Key:
    """Write the readers' kit to ``out`` and its sealed key to ``readers/`` of the run folder.

    Raises
    ------
    HepaperError
        If the study has no synthetic images yet, or a kit with other images is out already.
    """
    return _kit(study, out, study.path(*KEY))


def take(study: Study, files: Sequence[Path]) -> pd.DataFrame:
    """Join what the readers sent back with the key into ``readers/ratings.csv``, which the next run analyses.

    Raises
    ------
    HepaperError
        If no kit was made, or a file does not fit it.
    """
    if not study.path(*KEY).is_file():
        raise HepaperError(f"{study.folder}: no kit was made for readers; run hepaper reader-study make first")
    ratings = collect(study.path(*KEY), files)
    write_csv(study.path(*RATINGS), ratings)
    return ratings


def image_path(study: Study, origin: str, name: str) -> Path:
    """Where the image of a kit lies in the run folder."""
    return study.path("rois", name) if origin == "real" else study.path("augmentation", "synthetic", name)


def oddness(study: Study, key: Key) -> np.ndarray:
    """How far each image of a kit lies from what other real training ROIs with HE are like, by plain measures."""
    from hepaper.augmentation.dataset import training_rois

    size = study.params.augmentation.image_size
    shown = [as_generated(image_path(study, row.origin, row.image), size) for row in key.table.itertuples()]
    rois = training_rois(study)
    rois = rois[(rois["label"] == 1) & ~rois["image"].isin(key.table["image"])]
    others = [as_generated(study.path("rois", name), size) for name in rois["image"]]
    return strangeness(image_measures(shown), image_measures(others))


@stage("reader_study")
def run(study: Study) -> None:
    """``ratings.csv`` and the tables of the analysis; from people where ``readers/ratings.csv`` is there."""
    settings, seed = study.params.reader_study, study.params.study.seed
    folder = study.path(FOLDER)
    if study.path(*RATINGS).is_file():
        ratings = read_ratings(study.path(*RATINGS))
    else:
        key = _kit(study, folder / "kit", folder / "key.json")
        ratings = simulate(key.table, oddness(study, key), settings.simulated_readers, seed)
    write_csv(folder / "ratings.csv", ratings)
    analysis = analyse(ratings, dict.fromkeys(SCALES, settings.margin), seed)
    for part in _TABLES:
        write_csv(folder / f"{part}.csv", getattr(analysis, part))
    study.record("reader_study", analysis.results)


def load_analysis(study: Study) -> Analysis:
    """The analysis as the stage left it."""
    tables = {part: pd.read_csv(study.path(FOLDER, f"{part}.csv")) for part in _TABLES}
    return Analysis(**tables, results=study.results("reader_study"))
