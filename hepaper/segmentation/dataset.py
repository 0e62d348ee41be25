"""From the run's preprocessed scans to a planned, preprocessed nnU-Net dataset with its split."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hepaper import machine
from hepaper.errors import HepaperError
from hepaper.params import BenchmarkParams, SegmentationParams
from hepaper.preprocess import TIMEPOINTS, scan_path
from hepaper.segmentation import refinement
from hepaper.segmentation.environment import CONFIGURATION, DATASET, DATASET_ID, PLANS, use_nnunet
from hepaper.segmentation.networks import patches
from hepaper.study import Study, write_json


def training_cases(
    study: Study, cohort: pd.DataFrame, patients: int | None = None, stream: int = 3, refined: bool = False
) -> dict[str, tuple[Path, Path]]:
    """Case name -> (scan, mask) for the training split only; both scans of each patient.

    Parameters
    ----------
    study, cohort
        The run and its eligible patients.
    patients
        Draw so many of them; None takes all.
    stream
        Which of the seed's random streams draws them.
    refined
        Whether a mask that a person refined (:mod:`hepaper.segmentation.refinement`) takes the reference's place.

    Raises
    ------
    HepaperError
        If no training patient has a mask.
    """
    names = sorted(cohort.loc[cohort["split"] == "train", "patient_id"])
    if patients is not None and patients < len(names):
        chosen = np.random.default_rng([study.params.study.seed, stream]).choice(len(names), patients, replace=False)
        names = [names[place] for place in sorted(chosen)]
    cases = {}
    for patient in names:
        for timepoint in TIMEPOINTS:
            mask = scan_path(study, patient, timepoint, mask=True)
            corrected = refinement.refined_path(study, f"{patient}_{timepoint}")
            if refined and corrected.is_file():
                mask = corrected
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


def split_by_scan(cases: list[str], fraction: float) -> tuple[list[str], list[str]]:
    """Training and validation cases as nnU-Net would part them: fold 0 of as many as ``fraction`` makes, by scan.

    A patient's baseline and follow-up may fall on different sides.
    """
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    folds = max(2, round(1 / fraction))
    if len(cases) < folds:
        raise HepaperError(f"{len(cases)} scan(s) with masks are too few to hold out one in {folds} for validation")
    first = generate_crossval_split(sorted(cases), n_splits=folds)[0]
    return [str(case) for case in first["train"]], [str(case) for case in first["val"]]


def split_cases(
    cases: list[str], settings: BenchmarkParams | SegmentationParams, seed: int
) -> tuple[list[str], list[str]]:
    """Training and validation cases, as ``split`` of the params says; with ``all`` every case is both."""
    if settings.split == "all":
        return list(cases), list(cases)
    if settings.split == "scan":
        return split_by_scan(cases, settings.validation_fraction)
    return split_by_patient(cases, settings.validation_fraction, seed)


def build(
    study: Study,
    cases: Mapping[str, tuple[Path, Path]],
    base: Path,
    settings: BenchmarkParams | SegmentationParams,
    networks: Sequence[str],
) -> Path:
    """Write the raw dataset (paths, no copies), then let nnU-Net fingerprint, plan and preprocess it.

    Done once: what lies there finished is kept. Returns ``base`` as nnU-Net knows it.
    """
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprint_dataset,
        plan_experiment_dataset,
        preprocess_dataset,
    )

    base = use_nnunet(base)
    raw, preprocessed = base / "raw" / DATASET, base / "preprocessed" / DATASET
    if (preprocessed / "splits_final.json").is_file():  # the last thing written
        return base
    write_json(
        raw / "dataset.json",
        {
            "channel_names": {"0": "CT"},
            "labels": {"background": 0, "hematoma": 1},
            "numTraining": len(cases),
            "file_ending": ".nii.gz",
            "overwrite_image_reader_writer": "SimpleITKIO",
            "dataset": {
                case: {"images": [os.path.relpath(image.resolve(), raw)], "label": os.path.relpath(mask.resolve(), raw)}
                for case, (image, mask) in cases.items()
            },
        },
    )
    workers = machine.workers(study.params.study.workers)
    with (base / "nnunet.log").open("a", encoding="utf-8") as log, contextlib.redirect_stdout(log):
        extract_fingerprint_dataset(DATASET_ID, num_processes=workers, verbose=False, show_progress_bar=False)
        plan_experiment_dataset(DATASET_ID)
        plans_file = preprocessed / f"{PLANS}.json"
        plans = json.loads(plans_file.read_text("utf-8"))
        adapt_plans(plans, settings, study.params.study.seed, networks)
        write_json(plans_file, plans)
        preprocess_dataset(
            DATASET_ID, configurations=(CONFIGURATION,), num_processes=(workers,), show_progress_bar=False
        )
    train, validation = split_cases(list(cases), settings, study.params.study.seed)
    write_json(preprocessed / "splits_final.json", [{"train": train, "val": validation}])
    return base


def adapt_plans(
    plans: dict[str, Any], settings: BenchmarkParams | SegmentationParams, seed: int, networks: Sequence[str]
) -> None:
    """Put the study's settings into nnU-Net's plans, in place.

    ``plans["hepaper"]`` carries what our trainers read. A patch size, spacing or feature list of our own replaces the
    planner's; strides and kernels then follow from nnU-Net's own rule for that patch and spacing. All ``networks`` must
    admit the patch: the planner's is moved to the nearest one that they do, one from the params is refused by name.

    Raises
    ------
    HepaperError
        For a patch that a network does not admit (naming the nearest that it does), or one too small for the features.
    """
    configuration = plans["configurations"][CONFIGURATION]
    configuration["batch_size"] = settings.batch_size
    plans["hepaper"] = {
        "epochs": settings.epochs,
        "iterations_per_epoch": settings.iterations_per_epoch,
        "validation_iterations": settings.validation_iterations,
        "learning_rate": (
            settings.learning_rates[0] if isinstance(settings, BenchmarkParams) else settings.learning_rate
        ),
        "momentum": settings.momentum,
        "weight_decay": settings.weight_decay,
        "mirror_axes": list(settings.mirror_axes),
        "checkpoint_every": settings.checkpoint_every,
        "nnformer_embed_dim": settings.nnformer_embed_dim,
        "unetrpp_dims": list(settings.unetrpp_dims),
        "seed": seed,
    }
    from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props

    if settings.spacing_mm is not None:
        configuration["spacing"] = list(settings.spacing_mm)
    planned = [int(n) for n in configuration["patch_size"]]
    strides_of = patches.planner_strides(configuration["spacing"])
    if settings.patch_size is not None:
        patch = list(settings.patch_size)
        for network in networks:
            patches.require_admissible(network, patch, strides_of)
    else:
        patch = list(patches.common_patch(networks, planned, strides_of))
    if patch == planned and settings.features is None and settings.spacing_mm is None:
        return
    kwargs = configuration["architecture"]["arch_kwargs"]
    features = list(settings.features or kwargs["features_per_stage"])
    _, strides, kernels, _, _ = get_pool_and_conv_props(configuration["spacing"], patch, 4, 999999)
    stages = min(len(features), len(strides))
    if stages < 3:  # nnU-Net's deep supervision gives its coarsest output no weight: with one output nothing is left
        raise HepaperError(
            f"patch_size {patch} and features {features} make a network of {stages} stage(s), and nnU-Net's deep "
            "supervision needs three; give three features or more and a patch large enough for them"
        )
    kwargs.update(
        n_stages=stages,
        features_per_stage=features[:stages],
        strides=[[int(n) for n in stride] for stride in strides[:stages]],
        kernel_sizes=[[int(n) for n in kernel] for kernel in kernels[:stages]],
        n_conv_per_stage=[2] * stages,
        n_conv_per_stage_decoder=[2] * (stages - 1),
    )
    configuration["patch_size"] = patch
