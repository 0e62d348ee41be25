"""From the run's preprocessed scans to a planned, preprocessed nnU-Net dataset with a split by patient."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd

from hepaper import machine
from hepaper.errors import HepaperError
from hepaper.params import SegmentationParams
from hepaper.preprocess import TIMEPOINTS, scan_path
from hepaper.segmentation.environment import CONFIGURATION, DATASET, DATASET_ID, PLANS
from hepaper.study import Study, write_json


def training_cases(study: Study, cohort: pd.DataFrame) -> dict[str, tuple[Path, Path]]:
    """Case name -> (scan, reference mask) for the training split only; both scans of each patient.

    Raises
    ------
    HepaperError
        If no training patient has a reference mask.
    """
    patients = sorted(cohort.loc[cohort["split"] == "train", "patient_id"])
    asked = study.params.segmentation.train_patients
    if asked is not None and asked < len(patients):
        chosen = np.random.default_rng([study.params.study.seed, 3]).choice(len(patients), asked, replace=False)
        patients = [patients[place] for place in sorted(chosen)]
    cases = {}
    for patient in patients:
        for timepoint in TIMEPOINTS:
            mask = scan_path(study, patient, timepoint, mask=True)
            if mask.is_file():
                cases[f"{patient}_{timepoint}"] = (scan_path(study, patient, timepoint), mask)
    if not cases:
        raise HepaperError(
            "no training patient has a reference mask (baseline_mask, followup_mask in the cohort table); "
            "a segmentation network cannot be trained without"
        )
    return cases


def split_by_patient(cases: list[str], fraction: float, seed: int) -> tuple[list[str], list[str]]:
    """Training and validation cases; all scans of a patient fall on one side."""
    patients = sorted({case.rsplit("_", 1)[0] for case in cases})
    count = max(1, round(fraction * len(patients)))
    if count >= len(patients):
        raise HepaperError(f"{len(patients)} patient(s) with masks are too few to hold out {count} for validation")
    held = set(np.random.default_rng([seed, 4]).permutation(patients)[:count])
    validation = [case for case in cases if case.rsplit("_", 1)[0] in held]
    return [case for case in cases if case not in set(validation)], validation


def build(study: Study, cohort: pd.DataFrame, base: Path) -> None:
    """Write the raw dataset (paths, no copies), then let nnU-Net fingerprint, plan and preprocess it."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprint_dataset,
        plan_experiment_dataset,
        preprocess_dataset,
    )

    settings = study.params.segmentation
    cases = training_cases(study, cohort)
    raw = base / "raw" / DATASET
    write_json(
        raw / "dataset.json",
        {
            "channel_names": {"0": "CT"},
            "labels": {"background": 0, "hematoma": 1},
            "numTraining": len(cases),
            "file_ending": ".nii.gz",
            "overwrite_image_reader_writer": "SimpleITKIO",
            "dataset": {
                case: {"images": [os.path.relpath(image, raw)], "label": os.path.relpath(mask, raw)}
                for case, (image, mask) in cases.items()
            },
        },
    )
    workers = machine.workers(study.params.study.workers)
    extract_fingerprint_dataset(DATASET_ID, num_processes=workers, verbose=False, show_progress_bar=False)
    plan_experiment_dataset(DATASET_ID)
    preprocessed = base / "preprocessed" / DATASET
    plans_file = preprocessed / f"{PLANS}.json"
    plans = json.loads(plans_file.read_text("utf-8"))
    adapt_plans(plans, settings, study.params.study.seed)
    write_json(plans_file, plans)
    preprocess_dataset(DATASET_ID, configurations=(CONFIGURATION,), num_processes=(workers,), show_progress_bar=False)
    train, validation = split_by_patient(list(cases), settings.validation_fraction, study.params.study.seed)
    write_json(preprocessed / "splits_final.json", [{"train": train, "val": validation}])


def adapt_plans(plans: dict, settings: SegmentationParams, seed: int) -> None:
    """Put the study's settings into nnU-Net's plans, in place.

    ``plans["hepaper"]`` carries what our trainers read. A patch size or a feature list of our own replaces the
    planner's network; strides and kernels then follow from nnU-Net's own rule for that patch and spacing.
    """
    configuration = plans["configurations"][CONFIGURATION]
    configuration["batch_size"] = settings.batch_size
    plans["hepaper"] = {
        "epochs": settings.epochs,
        "iterations_per_epoch": settings.iterations_per_epoch,
        "validation_iterations": settings.validation_iterations,
        "learning_rate": settings.learning_rate,
        "momentum": settings.momentum,
        "weight_decay": settings.weight_decay,
        "checkpoint_every": settings.checkpoint_every,
        "seed": seed,
    }
    if settings.patch_size is None and settings.features is None:
        return
    from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props

    patch = list(settings.patch_size or configuration["patch_size"])
    features = list(settings.features or configuration["architecture"]["arch_kwargs"]["features_per_stage"])
    _, strides, kernels, admissible, _ = get_pool_and_conv_props(configuration["spacing"], patch, 4, 999)
    if [int(n) for n in admissible] != patch:
        raise HepaperError(
            f"segmentation.patch_size {patch} cannot be halved as nnU-Net's rule wants; the nearest that can is "
            f"{[int(n) for n in admissible]}"
        )
    stages = min(len(features), len(strides))
    if stages < 3:  # nnU-Net's deep supervision gives its coarsest output no weight: with one output nothing is left
        raise HepaperError(
            f"segmentation.patch_size {patch} and segmentation.features {features} make a network of {stages} stage(s), "
            "and nnU-Net's deep supervision needs three; give three features or more and a patch large enough for them"
        )
    kwargs = configuration["architecture"]["arch_kwargs"]
    kwargs.update(
        n_stages=stages,
        features_per_stage=features[:stages],
        strides=[[int(n) for n in stride] for stride in strides[:stages]],
        kernel_sizes=[[int(n) for n in kernel] for kernel in kernels[:stages]],
        n_conv_per_stage=[2] * stages,
        n_conv_per_stage_decoder=[2] * (stages - 1),
    )
    configuration["patch_size"] = patch
