"""Augmentation, image quality and reader study as stages, on a run folder of drawn blobs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hepaper import montage, tables
from hepaper.augmentation import quality_stage, sets
from hepaper.augmentation import stage as augmentation
from hepaper.augmentation.features import InDomainEncoder
from hepaper.errors import HepaperError
from hepaper.params import Params, make_params
from hepaper.reader_study import stage as reading
from hepaper.roi import POSITIONS
from hepaper.study import Study

PARAMS = {
    "study": {"device": "cpu", "workers": 1},
    "augmentation": {
        "image_size": 32, "base_channels": 8, "channel_multipliers": [1], "res_blocks": 1, "token_channels": [8, 16],
        "timesteps": 60, "beta_end": 0.3, "epochs": 1, "batch_size": 8, "sampling_steps": 4, "rotate_deg": 180,
    },
    "quality": {
        "features": "encoder", "bootstrap": 20, "setting_images": 6, "memorised_quantile": 0.1,
        "settings": ["ddpm:60", "ddim:5", "dpmsolver++:4"],
    },
    "reader_study": {"per_class": 5, "image_px": 48},
}  # fmt: skip


def blob(rng: np.random.Generator) -> np.ndarray:
    """An ROI: a bright disc somewhere on noisy grey, 8-bit."""
    y, x = np.indices(rng.integers(24, 44, 2))
    disc = np.hypot(y - y.max() / 2 - rng.uniform(-4, 4), x - x.max() / 2) < rng.uniform(6, 12)
    return np.clip(90 + 110 * disc + 12 * rng.standard_normal(disc.shape), 0, 255).astype(np.uint8)


def make_run(folder: Path, external_he: int = 3) -> Study:
    """Eight training patients, five of them with HE, and four external ones, three slices each."""
    rng = np.random.default_rng(0)
    patients = [(f"T{n}", "train", n < 5) for n in range(8)] + [
        (f"E{n}", "external_1", n < external_he) for n in range(4)
    ]
    rows = []
    (folder / "rois").mkdir(parents=True)
    for patient, split, _ in patients:
        for position in POSITIONS:
            name = f"{patient}_{position}.png"
            Image.fromarray(blob(rng)).save(folder / "rois" / name)
            rows.append({"patient_id": patient, "split": split, "position": position, "image": name})
    pd.DataFrame(rows).to_csv(folder / "rois" / "rois.csv", index=False)
    (folder / "volumes").mkdir()
    labels = pd.DataFrame([{"patient_id": patient, "he": he} for patient, _, he in patients])
    labels.to_csv(folder / "volumes" / "labels.csv", index=False)
    for stage in ("augmentation/quality", "reader_study"):
        (folder / stage).mkdir(parents=True)
    return Study(make_params(PARAMS), folder=folder)


def run(stage, study: Study) -> None:
    """The stage's own work, without the bookkeeping around it."""
    stage.run.__wrapped__(study)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    made = make_run(tmp_path_factory.mktemp("run"))
    run(augmentation, made)
    encoder = InDomainEncoder.train(quality_stage._pictures(made, made.read("rois", "rois.csv")), 0, 32, steps=5)
    encoder.save(made.path("augmentation", "quality", "encoder.safetensors"))  # a quick one: the stage takes it up
    run(quality_stage, made)
    run(reading, made)
    return made


def test_nobody_but_training_patients_is_in_a_set(study: Study) -> None:
    """Oracle: the run's own table of splits; and the arithmetic of 15 HE and 9 NHE images, which need nothing."""
    split = study.read("rois", "rois.csv").set_index("image")["split"]
    for name in sets.SETS:
        table = sets.read_set(study, name)
        real = table[table["origin"] == "real"]["image"].str.removeprefix("rois/")
        assert set(split[real]) == {"train"}
        assert len(table) == 24
    assert study.results("augmentation")["sets"]["ukan_balanced"] == {"he_real": 15, "he_synthetic": 0, "nhe": 9}
    assert study.results("augmentation")["drawn"] == 15  # as many as there were to learn from


def test_a_trained_generator_is_not_trained_again(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: a training that must not be called; and a lost image, which is drawn again and is the same."""
    again = Study(study.params, folder=tmp_path / "run")
    shutil.copytree(study.folder, again.folder)
    lost = again.path("augmentation", "synthetic", "synthetic_00003.png")
    before = np.asarray(Image.open(lost)).astype(int)
    lost.unlink()
    monkeypatch.setattr(augmentation, "train", lambda *_: pytest.fail("trained again"))
    run(augmentation, again)
    assert np.abs(np.asarray(Image.open(lost)).astype(int) - before).max() <= 1


def test_held_out_images_were_never_learnt_from(study: Study, tmp_path: Path) -> None:
    """Oracle: labels and splits; where fewer than two external patients bled on, training patients who did not."""
    table, words = quality_stage.held_out(study)
    assert set(table["patient_id"]) == {"E0", "E1", "E2"}
    assert words == "9 real images of 3 external patients with expansion"
    table, words = quality_stage.held_out(make_run(tmp_path / "run", external_he=1))
    assert set(table["patient_id"]) == {"T5", "T6", "T7"}
    assert "without expansion" in words


def test_measures_of_every_set(study: Study) -> None:
    """Oracle: equal sets have equal measures; intervals hold their estimates; quality.json says what the stage did."""
    table = study.read("augmentation", "quality", "sets.csv")
    assert set(table["measure"]) >= {"frechet", "kid", "score", "precision", "recall", "density", "coverage"}
    assert (table["ci_low"] <= table["value"] + 1e-9).all()
    assert (table["value"] <= table["ci_high"] + 1e-9).all()
    wide = table.pivot(index="measure", columns="set", values="value")
    np.testing.assert_allclose(wide["ukan_balanced"], wide["real_imbalanced"])  # no synthetic image is needed here
    assert "FID" not in " ".join(table["label"])  # our encoder's distance is not called so
    assert json.loads(study.path("augmentation", "quality.json").read_text()) == study.results("quality")
    assert "FID" in " ".join(tables.quality_table(table)["Measure"])  # the paper's, in rows of its own


def test_settings_are_compared_with_the_first(study: Study) -> None:
    """Oracle: the steps are the network evaluations of an image; the first is no worse than itself; the chosen one is the
    cheapest that is not worse."""
    table = study.read("augmentation", "quality", "settings.csv")
    assert table["evaluations"].tolist() == [60, 5, 4]
    assert not table.loc[0, "worse"]
    assert table["reference_sampler"].tolist() == [True, False, False]
    chosen = table[table["chosen"]]
    assert len(chosen) == 1
    assert chosen["evaluations"].iloc[0] == table.loc[~table["worse"], "evaluations"].min()


def test_turned_and_mirrored_copies_are_found(study: Study) -> None:
    """Oracle: training images turned by a quarter and mirrored are copies; held-out ones and noise are not."""
    from hepaper.augmentation.dataset import training_rois

    real = training_rois(study).query("label == 1").reset_index(drop=True)
    outside = quality_stage.held_out(study)[0]
    pictures = {"real": quality_stage._pictures(study, real), "held_out": quality_stage._pictures(study, outside)}
    copies = np.ascontiguousarray(np.rot90(pictures["real"][:3], axes=(1, 2))[:, :, ::-1])
    noise = np.random.default_rng(1).random((3, 32, 32)).astype(np.float32)
    pool, turns = quality_stage._turned(pictures["real"], 180)
    patients = np.tile(real["patient_id"].to_numpy(), turns)
    synthetic = np.concatenate([copies, noise])
    found = quality_stage._copies(study, {**pictures, "synthetic": synthetic}, pool, patients, outside)
    threshold = found.tests["heldout"].threshold
    assert (found.fake.distance[:3] < 0.02).all()
    assert (found.fake.distance[:3] < threshold).all()
    assert (found.fake.distance[3:] > threshold).all()


def test_simulated_readers_until_people_have_read(study: Study, tmp_path: Path) -> None:
    """Oracle: five images of each origin and three readers; then the ratings that people sent back, and their number."""
    assert study.results("reader_study")["simulated"]
    assert len(study.read("reader_study", "ratings.csv")) == 30
    assert len(montage.rated_images(study)) == 6
    analysis = reading.load_analysis(study)
    printed = tables.table2_beside_published(analysis)
    assert printed.loc[printed["Items"].str.startswith("Correctly"), "Paper: synthetic"].item() == "24 (24.0%) of 100"

    people = Study(study.params, folder=tmp_path / "run")
    shutil.copytree(study.folder, people.folder)
    key = reading.make(people, tmp_path / "kit")
    files = []
    for reader, quality in (("R1", 4), ("R2", 3)):
        rows = [
            f"{key.study},{reader},{code},{place},{quality},{quality},real,5.0"
            for place, code in enumerate(key.table["code"], start=1)
        ]
        files.append(tmp_path / f"{reader}.csv")
        files[-1].write_text("\n".join(["study,reader,code,order,quality,authenticity,called,seconds", *rows]) + "\n")
    reading.take(people, files)
    run(reading, people)
    results = people.results("reader_study")
    assert not results["simulated"]
    assert (results["readers"], results["quality_real_mean"]) == (2, 3.5)


def test_no_kit_no_ratings(study: Study, tmp_path: Path) -> None:
    """Oracle: one line that names the command."""
    bare = Study(Params(), folder=tmp_path)
    with pytest.raises(HepaperError, match="no kit was made for readers; run hepaper reader-study make first"):
        reading.take(bare, [tmp_path / "R1.csv"])
