"""Which epoch is kept, and on whom it is chosen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_classification import TINY, toy

from hepaper.classification import train as train_module
from hepaper.classification.keep import divide, held_out
from hepaper.classification.model import Classifier
from hepaper.classification.train import Chooser, train
from hepaper.errors import HepaperError


def a_set(he: int, nhe: int, synthetic: int = 0) -> tuple[pd.DataFrame, pd.DataFrame, pd.Series]:
    """A training set of three slices a patient, all patients' ROIs (four of them external), and labels."""
    labels = pd.Series({f"P{n:03d}": n < he for n in range(he + nhe)} | {f"X{n}": n < 2 for n in range(4)})
    rois = pd.DataFrame(
        [
            {"patient_id": name, "split": "external_1" if name[0] == "X" else "train", "image": f"{name}_{slice_}.png"}
            for name in labels.index
            for slice_ in range(3)
        ]
    )
    mine = rois[rois["split"] == "train"]
    table = pd.DataFrame(
        {"image": "rois/" + mine["image"], "label": labels.reindex(mine["patient_id"]).to_numpy().astype(int)}
    ).assign(origin="real", patient_id=mine["patient_id"].to_numpy(), split="train")
    made = pd.DataFrame({"image": [f"s{n}.png" for n in range(synthetic)]}).assign(
        label=1, origin="synthetic", patient_id="", split="train"
    )
    return pd.concat([table, made], ignore_index=True), rois, labels


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 30), st.integers(2, 40), st.integers(0, 50), st.integers(0, 1000))
def test_a_fifth_of_each_class_chooses_and_is_not_trained_on(he: int, nhe: int, synthetic: int, seed: int) -> None:
    """Oracle: properties: a fifth of each class, one at least, patient by patient; no image on both sides; synthetic
    images in proportion, and none of them chooses."""
    table, rois, labels = a_set(he, nhe, synthetic)
    away = held_out(table, seed)
    assert sum(labels[name] for name in away) == max(1, round(0.2 * he))
    assert sum(not labels[name] for name in away) == max(1, round(0.2 * nhe))
    trained, slices = divide(table, rois, labels, "best_internal", seed)
    assert len(slices) == 3 * len(away)
    assert not set(trained["image"]) & set(slices["image"])
    assert set(trained.loc[trained["origin"] == "real", "patient_id"]) == set(labels.index[:-4]) - away
    share = (he + nhe - len(away)) / (he + nhe)
    assert (trained["origin"] == "synthetic").sum() == round(share * synthetic)
    assert not slices["image"].str.startswith("s").any()


def test_external_patients_choose_and_everyone_is_trained_on() -> None:
    """Oracle: the definition: all slices of patients outside the training split, with their labels."""
    table, rois, labels = a_set(3, 4)
    trained, slices = divide(table, rois, labels, "best_external", 0)
    assert trained is table
    assert set(slices["image"].str.slice(5, 7)) == {"X0", "X1", "X2", "X3"}
    assert len(slices) == 12
    assert slices["label"].tolist() == [1] * 6 + [0] * 6


def test_one_patient_of_a_class_cannot_choose() -> None:
    """Oracle: one line that names the knob."""
    table, rois, labels = a_set(1, 4)
    with pytest.raises(HepaperError, match="two training patients of each class; set it to last"):
        divide(table, rois, labels, "best_internal", 0)


def test_the_first_of_the_best_epochs_is_kept() -> None:
    """Oracle: by hand: accuracies 1/4, 3/4, 3/4, 1/2 of a network that is set to call so; the second one's weights."""
    labels = np.array([1, 0, 0, 0])
    chooser = Chooser([np.zeros((16, 16), np.float32)] * 4, labels, TINY)

    class Calls(torch.nn.Module):
        def __init__(self, called: list[int], mark: float):
            super().__init__()
            self.called, self.mark = called, torch.nn.Parameter(torch.tensor(mark))

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.one_hot(torch.tensor(self.called), 2).float()

    called = ([1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 1])
    found = [chooser.look(Calls(list(c), float(n)), torch.device("cpu")) for n, c in enumerate(called)]
    assert found == [0.25, 0.75, 0.75, 0.5]
    assert float(chooser.weights["mark"]) == 1.0
    assert chooser.best == 0.75


def kept(folder: Path, **changes: Any) -> pd.DataFrame:
    train(*toy(), TINY.model_copy(update={"keep": "best_external", **changes}), 3, folder, "cpu", validation=toy(12, 5))
    return pd.read_csv(folder / "training_log.csv")


def test_training_leaves_the_best_epoch(tmp_path: Path) -> None:
    """Oracle: a training that ends with that epoch, of the same seed and an equally flat rate: the same weights; and the
    log's best accuracy is the share of slices that the model that was left calls right."""
    flat = {"learning_rate": 3e-3, "final_learning_rate": 3e-3}
    log = kept(tmp_path / "all", epochs=6, **flat)
    best = int(log["validation_accuracy"].idxmax())
    assert (log["validation_accuracy"].iloc[:best] < log["validation_accuracy"].iloc[best]).all()
    plain = TINY.model_copy(update={"epochs": best + 1, **flat})
    train(*toy(), plain, 3, tmp_path / "short", "cpu")
    left, short = (Classifier(tmp_path / name / "model", "cpu") for name in ("all", "short"))
    for name, value in short.network.state_dict().items():
        torch.testing.assert_close(left.network.state_dict()[name], value)
    crops, labels = toy(12, 5)
    right = np.mean((left.scores(crops) > 0.5) == labels)
    assert right == pytest.approx(log["validation_accuracy"].max())


def test_interrupted_choice_ends_where_it_would_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the training that was not interrupted: the same log and weights; the best so far is in the checkpoint."""
    whole = kept(tmp_path / "whole")
    seed_of = train_module.hash_seed

    def stop(*numbers: int) -> int:
        if numbers[1:] == (5,):
            raise KeyboardInterrupt
        return seed_of(*numbers)

    monkeypatch.setattr(train_module, "hash_seed", stop)
    with pytest.raises(KeyboardInterrupt):
        kept(tmp_path / "part")
    monkeypatch.setattr(train_module, "hash_seed", seed_of)
    pd.testing.assert_frame_equal(kept(tmp_path / "part"), whole)
    files = [(tmp_path / name / "model" / "network.safetensors").read_bytes() for name in ("whole", "part")]
    assert files[0] == files[1]
    assert "keep" in json.loads((tmp_path / "part" / "model" / "model.json").read_text())["settings"]


@pytest.mark.parametrize("validation", [None, ([], np.array([]))])
def test_nobody_to_choose_stops(tmp_path: Path, validation: Any) -> None:
    """Oracle: one line; nothing is trained."""
    with pytest.raises(HepaperError, match="best_internal needs slices to choose the epoch on; set it to last"):
        train(*toy(), TINY.model_copy(update={"keep": "best_internal"}), 3, tmp_path, "cpu", validation=validation)
    assert not list(tmp_path.iterdir())
