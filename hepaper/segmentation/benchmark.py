"""The networks on equal terms: the same patients, patch, settings and steps (paper, Fig. 3), and which one goes on."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pandas as pd

from hepaper import images, machine
from hepaper.parallel import for_each, progress
from hepaper.preprocess import scan_path
from hepaper.segmentation import compare, costs, dataset
from hepaper.segmentation.environment import CONFIGURATION, DATASET
from hepaper.segmentation.metrics import case_metrics
from hepaper.segmentation.predict import Segmenter
from hepaper.segmentation.train import train
from hepaper.study import Study, stage, write_csv, write_json


def network_folder(study: Study, network: str, learning_rate: float | None = None) -> Path:
    """``segmentation/benchmark/<network>`` for the comparison proper, ``…/rate_<r>/<network>`` for a further rate."""
    base = study.path("segmentation", "benchmark")
    first = study.params.benchmark.learning_rates[0]
    if learning_rate is None or learning_rate == first:
        return base / network
    return base / f"rate_{learning_rate:g}" / network


def load_segmenter(study: Study, network: str, learning_rate: float | None = None) -> Segmenter:
    """A network that the benchmark trained."""
    model = network_folder(study, network, learning_rate) / "model"
    return Segmenter.of(model, study.params.benchmark, study.params.study.device)


def winner(study: Study) -> str:
    """The network that the benchmark chose."""
    return json.loads(study.path("segmentation", "benchmark", "winner.json").read_text("utf-8"))["network"]


def winning_segmenter(study: Study) -> Segmenter:
    """The benchmark's winner, as the benchmark trained it: the first of the paper's two steps."""
    return load_segmenter(study, winner(study))


def benchmark_prediction(study: Study, network: str, case: str, learning_rate: float | None = None) -> Path:
    """Where a network's mask of a validation case lies."""
    return network_folder(study, network, learning_rate) / "predictions" / f"{case}.nii.gz"


@stage("benchmark")
def run(study: Study) -> None:
    """Train every network at every rate, segment the validation patients, compare, choose."""
    from hepaper.cohort.stage import eligible_patients

    settings = study.params.benchmark
    folder = study.path("segmentation", "benchmark")
    cases = dataset.training_cases(study, eligible_patients(study), settings.patients, stream=5)
    base = dataset.build(study, cases, folder / "nnunet", settings, settings.networks)
    splits = json.loads((base / "preprocessed" / DATASET / "splits_final.json").read_text("utf-8"))
    validation = splits[0]["val"]
    train_all(study, base, validation)
    metrics = evaluate(study, validation)
    write_csv(folder / "metrics.csv", metrics)
    for network in settings.networks:
        mine = metrics[(metrics["network"] == network) & (metrics["learning_rate"] == settings.learning_rates[0])]
        write_csv(network_folder(study, network) / "metrics.csv", mine)
    table = measure_costs(study, validation[0])
    write_csv(folder / "costs.csv", table)
    chosen = metrics[metrics["learning_rate"] == settings.learning_rates[0]]
    seed = study.params.study.seed
    summary = compare.summarise(metrics, by=["learning_rate", "network"], seed=seed)
    comparisons = compare.compare_networks(chosen, "dice", seed=seed)
    write_csv(folder / "summary.csv", summary)
    write_csv(folder / "comparisons.csv", comparisons)
    won = compare.choose_winner(
        chosen, comparisons, table.set_index("network")["multiply_adds"].to_dict(), settings.winner
    )
    write_json(folder / "winner.json", won)
    study.record("benchmark", _results(study, splits[0], metrics, table, won))


def train_all(study: Study, base: Path, validation: list[str]) -> None:
    """Every network at every rate, and its masks of the validation cases.

    On a CPU side by side, one network a core: a small network leaves a second core mostly idle. On an accelerator one
    after the other, each with all of it.
    """
    settings = study.params.benchmark
    jobs = [
        (study, base, network, rate, validation) for rate in settings.learning_rates for network in settings.networks
    ]
    jobs.sort(key=lambda job: job[2] == "nnunet")  # the quickest last, so that no core waits long at the end
    alone = machine.device(study.params.study.device).type != "cpu"
    for_each(_train_one, jobs, "training and segmenting", 1 if alone else study.params.study.workers)


def _train_one(study: Study, base: Path, network: str, rate: float, validation: list[str]) -> None:
    train(base, network, rate, network_folder(study, network, rate), study.params.study.device, f"rate_{rate:g}")
    segment_cases(study, network, rate, validation)


def segment_cases(study: Study, network: str, learning_rate: float, cases: list[str]) -> None:
    """The masks of these cases, and how long each took (``seconds.csv``)."""
    folder = network_folder(study, network, learning_rate)
    if (folder / "seconds.csv").is_file():
        return
    segmenter = load_segmenter(study, network, learning_rate)
    seconds = []
    for case in progress(cases, f"segmenting, {network}"):
        patient, timepoint = case.rsplit("_", 1)
        scan = images.load_image(scan_path(study, patient, timepoint))
        started = time.perf_counter()
        mask = segmenter.segment(scan)
        seconds.append({"case": case, "seconds": time.perf_counter() - started})
        images.save_image(benchmark_prediction(study, network, case, learning_rate), mask)
    write_csv(folder / "seconds.csv", pd.DataFrame(seconds))


def evaluate(study: Study, cases: list[str]) -> pd.DataFrame:
    """One row a network, rate and validation scan: overlap, boundary and volume errors."""
    rows = []
    for case in cases:
        patient, timepoint = case.rsplit("_", 1)
        reference = images.load_image(scan_path(study, patient, timepoint, mask=True))
        truth, spacing = images.array(reference) > 0, images.spacing(reference)
        for rate in study.params.benchmark.learning_rates:
            for network in study.params.benchmark.networks:
                found = images.array(images.load_image(benchmark_prediction(study, network, case, rate))) > 0
                rows.append(
                    {
                        "network": network,
                        "learning_rate": rate,
                        "patient_id": patient,
                        "timepoint": timepoint,
                        **case_metrics(truth, found, spacing),
                    }
                )
    return pd.DataFrame(rows).sort_values(
        ["learning_rate", "network", "patient_id", "timepoint"], kind="stable", ignore_index=True
    )


def measure_costs(study: Study, case: str) -> pd.DataFrame:
    """One row a network: parameters, multiply-adds a patch, seconds and memory a scan."""
    rows = []
    patient, timepoint = case.rsplit("_", 1)
    for network in study.params.benchmark.networks:
        folder = network_folder(study, network)
        about = json.loads((folder / "model" / "model.json").read_text("utf-8"))
        rows.append(
            {
                "network": network,
                "parameters": about["parameters"],
                "multiply_adds": costs.multiply_adds(load_segmenter(study, network).network, about["patch"]),
                "seconds_scan": float(pd.read_csv(folder / "seconds.csv")["seconds"].median()),
                "memory_mb": costs.scan_memory_mb(
                    folder / "model", scan_path(study, patient, timepoint), study.params.study.device
                ),
            }
        )
    return pd.DataFrame(rows)


def training_logs(study: Study) -> dict[str, pd.DataFrame]:
    """Network -> its training log, of the comparison proper."""
    return {
        network: study.read("segmentation", "benchmark", network, "training_log.csv")
        for network in study.params.benchmark.networks
    }


def summary(study: Study) -> pd.DataFrame:
    """``summary.csv`` of the comparison proper: one row a network and measure."""
    table = study.read("segmentation", "benchmark", "summary.csv")
    return table[table["learning_rate"] == study.params.benchmark.learning_rates[0]].drop(columns="learning_rate")


def _rate(metrics: pd.DataFrame, learning_rate: float) -> dict[str, object]:
    means = metrics[metrics["learning_rate"] == learning_rate].groupby("network")["dice"].mean()
    order = means.sort_values(ascending=False, kind="stable")
    return {"learning_rate": learning_rate, "order": list(order.index), "dice_mean": order.to_dict()}


def _results(study: Study, split: dict, metrics: pd.DataFrame, table: pd.DataFrame, won: dict) -> dict[str, object]:
    settings = study.params.benchmark
    first = metrics[metrics["learning_rate"] == settings.learning_rates[0]]
    about = json.loads((network_folder(study, settings.networks[0]) / "model" / "model.json").read_text("utf-8"))
    plans = json.loads((network_folder(study, settings.networks[0]) / "model" / "plans.json").read_text("utf-8"))
    architecture = plans["configurations"][CONFIGURATION]["architecture"]["arch_kwargs"]
    by_network = {}
    for network in settings.networks:
        rows = first[first["network"] == network]
        by_network[network] = {
            "dice_mean": float(rows["dice"].mean()),
            "dice_median": float(rows["dice"].median()),
            "iou_mean": float(rows["iou"].mean()),
            **table.set_index("network").loc[network].to_dict(),
        }
    return {
        "patients": len({case.rsplit("_", 1)[0] for case in split["train"] + split["val"]}),
        "training_scans": len(split["train"]),
        "validation_scans": len(split["val"]),
        "validation_patients": int(first["patient_id"].nunique()),
        "patch": about["patch"],
        "spacing_mm": about["spacing_mm"],
        "stages": about["stages"],
        "strides": architecture["strides"],
        "kernel_sizes": architecture["kernel_sizes"],
        "rates": [_rate(metrics, rate) for rate in settings.learning_rates],
        "networks": by_network,
        "winner": won,
    }
