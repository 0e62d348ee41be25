"""A cohort of real files through intake and preprocessing: what is kept, what is left out, and that nobody is named."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from conftest import write_cohort

from hepaper import images, preprocess
from hepaper.cohort import stage
from hepaper.errors import HepaperError
from hepaper.params import make_params
from hepaper.study import Study, stage_named

IDS = ["MUELLER_HANS", "SCHMIDT_EVA", "ROSSI_ANNA", "DUPONT_JEAN", "KOWALSKI_JAN"]
PRIVATE = re.compile(r"mueller|schmidt|rossi|dupont|kowalski|hospital|19501224|secret", re.IGNORECASE)


def real_study(table: Path, folder: Path, **sections: dict) -> Study:
    values = {
        "study": {"workers": 1},
        "cohort": {"source": "table", "table": str(table)},
        "preprocess": {"spacing_mm": [5.0, 2.0, 2.0]},
        **sections,
    }
    return Study(make_params(values), folder=folder)


def mark_headers(folder: Path) -> None:
    """Put a name into the text fields of every NIfTI header and into an extension."""
    for path in folder.glob("*.nii.gz"):
        source = nib.load(path)
        scan = nib.Nifti1Image(np.asarray(source.dataobj), source.affine, source.header)
        scan.header["descrip"] = b"MUELLER HANS 19501224"
        scan.header["aux_file"] = b"secret"
        scan.header["intent_name"] = b"SCHMIDT"
        scan.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"ROSSI ANNA secret"))
        nib.save(scan, path)


@pytest.fixture(scope="module")
def taken_in(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path, str]:
    """The study, the user's folder, and all that was printed on the way."""
    import contextlib
    import io

    folder = tmp_path_factory.mktemp("user") / "MUELLER"
    table = write_cohort(
        folder,
        IDS,
        name=["Hans Mueller", "Eva Schmidt", "Anna Rossi", "Jean Dupont", "Jan Kowalski"],
        birth_date=["19501224"] * 5,
        glucose_mmol=[5.5, 6.1, 7.2, 8.0, 5.0],
        age=[60, 93, 50, 70, 17],
    )
    mark_headers(folder)
    study = real_study(table, tmp_path_factory.mktemp("run"))
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        stage.run(study)
        preprocess.run(study)
    return study, folder, said.getvalue()


def test_nobody_is_named(taken_in: tuple[Study, Path, str]) -> None:
    """Oracle: the identifiers themselves: in no file name, no table, no JSON, no NIfTI header or voxel file of the
    run, and in nothing that was printed."""
    study, folder, said = taken_in
    assert not PRIVATE.search(said)
    files = [path for path in study.folder.rglob("*") if path.is_file()]
    assert len(files) > 30
    for path in files:
        assert not PRIVATE.search(str(path.relative_to(study.folder)))
        content = path.read_bytes()
        if path.name.endswith(".gz"):
            content = gzip.decompress(content)
            header = nib.load(path).header
            assert not header.extensions
            assert all(
                not bytes(header[field]).strip(b"\0") for field in ("descrip", "aux_file", "intent_name", "db_name")
            )
        assert not PRIVATE.search(content.decode("latin-1")), path.name
        assert str(folder).encode() not in content


def test_table_keeps_what_the_study_needs(taken_in: tuple[Study, Path, str]) -> None:
    """Oracle: the user's own rows: pseudonyms in their order, numbered centres, ages over 89 capped, harmless numbers
    kept, names and dates left out."""
    table = stage.load_cohort_table(taken_in[0])
    assert list(table["patient_id"]) == [f"P{number:05d}" for number in range(1, 6)]
    assert list(table["split"]) == ["train", "train", "external_1", "external_2", "train"]
    assert list(table["age"]) == [60, 90, 50, 70, 17]
    assert list(table["glucose_mmol"]) == [5.5, 6.1, 7.2, 8.0, 5.0]
    assert table["center"].nunique() == 4
    assert {"name", "birth_date"}.isdisjoint(table.columns)
    for column in ("baseline_ct", "followup_ct", "baseline_mask", "followup_mask"):
        for name, reason in zip(table[column], [True, True, True, True, False], strict=True):
            assert taken_in[0].path("cohort", name).is_file() is reason


def test_excluded_patients_have_a_reason_and_no_scans(taken_in: tuple[Study, Path, str]) -> None:
    """Oracle: the paper: under 18 is out; the counts of the flowchart add up; what is not needed is not read."""
    study = taken_in[0]
    excluded = study.read("cohort", "exclusions.csv")
    assert list(excluded["patient_id"]) == ["P00005"]
    assert list(stage.eligible_patients(study)["patient_id"]) == ["P00001", "P00002", "P00003", "P00004"]
    assert not list(study.path("cohort", "scans").glob("P00005*"))
    results = study.results("cohort")
    assert (results["patients"], results["eligible"], results["excluded"]) == (5, 4, 1)
    assert (results["train"], results["external_1"], results["external_2"]) == (2, 1, 1)


def test_scans_are_the_users(taken_in: tuple[Study, Path, str]) -> None:
    """Oracle: nibabel on the user's own files: same HU, same place in space; masks likewise."""
    study, folder, _ = taken_in
    for suffix, kind in (("", "ct"), ("_mask", "mask")):
        mine = nib.load(study.path("cohort", "scans", f"P00001_baseline{suffix}.nii.gz"))
        theirs = nib.load(folder / f"MUELLER_HANS_baseline_{kind}.nii.gz")
        np.testing.assert_allclose(mine.affine, theirs.affine, atol=1e-4)
        np.testing.assert_array_equal(np.asarray(mine.dataobj), np.asarray(theirs.dataobj))


def test_preprocessed_scans_are_on_the_grid(taken_in: tuple[Study, Path, str]) -> None:
    """Oracle: the params' spacing; scan and mask on one grid; mask volume kept within 5 % of a block 33 mm wide whose
    faces fall on 2 mm voxels as they may; scans.csv tells both grids."""
    study = taken_in[0]
    scans = study.read("preprocessed", "scans.csv")
    assert len(scans) == 8
    assert set(scans["native_x_mm"]) == {1.5}
    assert set(scans["x_mm"]) == {2.0}
    for patient in ("P00001", "P00004"):
        scan = images.load_image(preprocess.scan_path(study, patient, "baseline"))
        mask = images.load_image(preprocess.scan_path(study, patient, "baseline", mask=True))
        assert images.spacing(scan) == pytest.approx((5, 2, 2))
        assert scan.GetSize() == mask.GetSize()
        assert scan.GetOrigin() == pytest.approx(mask.GetOrigin())
        volume = images.array(mask).sum() * 5 * 2 * 2
        assert volume == pytest.approx(5 * 5 * 33 * 33, rel=0.05)
        assert images.array(scan)[images.array(mask) > 0].mean() == pytest.approx(68, abs=3)


def test_second_run_reads_nothing(taken_in: tuple[Study, Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the stages' own records: neither reads a scan again."""
    study = taken_in[0]

    def never(*_: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr("hepaper.cohort.read.read_ct", never)
    stage.run(study)
    preprocess.run(study)
    assert study.is_computed(stage_named("preprocess"))


def test_interrupted_intake_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the scans taken in before the interruption keep their file (its inode); the rest follow."""
    table = write_cohort(tmp_path / "user", IDS[:4])
    study = real_study(table, tmp_path / "run")
    save, saved = images.save_image, []

    def stop(path: Path, image: object) -> None:
        if len(saved) == 6:
            raise KeyboardInterrupt
        saved.append(path)
        save(path, image)  # type: ignore[arg-type]

    monkeypatch.setattr(images, "save_image", stop)
    with pytest.raises(KeyboardInterrupt):
        stage.run(study)
    before = {path: path.stat().st_ino for path in study.path("cohort", "scans").iterdir()}
    assert len(before) == 6
    monkeypatch.setattr(images, "save_image", save)
    stage.run(study)
    assert len(list(study.path("cohort", "scans").iterdir())) == 16
    assert all(path.stat().st_ino == inode for path, inode in before.items())


def test_a_damaged_scan_stops_with_its_row(tmp_path: Path) -> None:
    """Oracle: one line that finds the file by its row and column, before anything is read in full."""
    table = write_cohort(tmp_path / "user", IDS[:4])
    (tmp_path / "user" / "ROSSI_ANNA_followup_ct.nii.gz").write_bytes(b"no scan")
    with pytest.raises(HepaperError, match="row 4.*followup_ct"):
        stage.run(real_study(table, tmp_path / "run"))


def test_everybody_excluded(tmp_path: Path) -> None:
    """Oracle: one line instead of an empty study; the reasons can be read where it says."""
    table = write_cohort(tmp_path / "user", IDS[:4], age=[17, 16, 15, 14])
    study = real_study(table, tmp_path / "run")
    with pytest.raises(HepaperError, match=r"every patient of the cohort is excluded.*exclusions\.csv"):
        stage.run(study)
    assert len(study.read("cohort", "exclusions.csv")) == 4


@pytest.fixture
def run_folders(tmp_path: Path) -> Iterator[tuple[Study, Study]]:
    table = write_cohort(tmp_path / "user", IDS[:4])
    yield real_study(table, tmp_path / "a"), real_study(table, tmp_path / "b", study={"workers": 2})
    shutil.rmtree(tmp_path / "a")


def test_same_bytes_with_one_worker_and_two(run_folders: tuple[Study, Study]) -> None:
    """Oracle: DESIGN §5: the same params give the same bytes of every table, however the work is spread."""
    for study in run_folders:
        stage.run(study)
    one, two = run_folders
    for name in ("cohort.csv", "exclusions.csv", "measured.csv", "flowchart.csv", "results.json"):
        assert one.path("cohort", name).read_bytes() == two.path("cohort", name).read_bytes()
    assert sorted(os.listdir(one.path("cohort", "scans"))) == sorted(os.listdir(two.path("cohort", "scans")))
    assert json.loads(one.path("cohort", "stage.json").read_text())["finished"]
