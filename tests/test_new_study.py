"""From a hospital's table and folders to a study: columns, codes, scans, ids, parameters, and the guide, literally."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest
import yaml
from conftest import write_cohort

from hepaper.cohort import read_ct, stage
from hepaper.cohort.nifti import ScanError
from hepaper.cohort.phantom import PhantomCohort
from hepaper.cohort.table import COLUMNS, REQUIRED, load_cohort
from hepaper.errors import HepaperError
from hepaper.new_study import columns, costs, intake, new_study, rehearsal, scans, sizes, values, write_template
from hepaper.new_study.sheet import read_sheet
from hepaper.params import load_params
from hepaper.study import Study

# ---------------------------------------------------------------- the table


@pytest.mark.parametrize(
    ("raw", "note"),
    [
        ("MRN,Größe\n1,a\n\n2,b\n".encode(), ""),
        ("\ufeffMRN,Größe\n1,a\n\n2,b\n".encode(), ""),
        ("MRN;Größe\n1;a\n;\n2;b\n".encode("cp1252"), "Windows-1252"),
        ("MRN\tGröße\r\n1\ta\r\n\r\n2\tb\r\n".encode("utf-16"), "UTF-16"),
    ],
)
def test_tables_as_people_save_them(tmp_path: Path, raw: bytes, note: str) -> None:
    """Oracle: by hand: the same two patients in rows 2 and 4 whatever the separator and the encoding."""
    path = tmp_path / "t.csv"
    path.write_bytes(raw)
    found = read_sheet(path)
    assert found.cells.to_dict("list") == {"MRN": ["1", "2"], "Größe": ["a", "b"]}
    assert found.rows == [2, 4]
    assert note in " ".join(found.notes)


def test_what_is_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: one line each that says what to do; Excel without a reader is told as such, and with one it is read."""
    path = tmp_path / "t.csv"
    for text, said in (("a,a\n1,2\n", "'a' occurs twice"), ("a,b\n", "no patients"), ("", "no patients")):
        path.write_text(text)
        with pytest.raises(HepaperError, match=said):
            read_sheet(path)
    book = tmp_path / "t.xlsx"
    book.write_bytes(b"PK\x03\x04")

    class Book:
        sheet_names = ("first", "second")

        def __init__(self, path: Path) -> None: ...
        def __enter__(self) -> Book:
            return self

        def __exit__(self, *_: object) -> None: ...
        def parse(self, sheet: str, **_: Any) -> pd.DataFrame:
            return pd.DataFrame([["MRN", "Age"], ["1", sheet]])

    def absent(path: Path) -> None:
        raise ImportError

    monkeypatch.setattr(pd, "ExcelFile", absent)
    with pytest.raises(HepaperError, match=r"Save As.*pip install openpyxl"):
        read_sheet(book)
    monkeypatch.setattr(pd, "ExcelFile", Book)
    with pytest.raises(HepaperError, match=r"2 sheets \(first, second\).*--sheet"):
        read_sheet(book)
    assert list(read_sheet(book, "second").cells["Age"]) == ["second"]


# ---------------------------------------------------------------- columns

CLINIC = {
    "MRN": "patient_id", "Hospital": "center", "Set": "split", "Age (y)": "age", "gender": "sex",
    "Time from onset": "onset_to_baseline_h", "Time to follow-up (days)": "baseline_to_followup_h", "CT 1": "baseline_ct",
    "CT 2": "followup_ct",
}  # fmt: skip


def test_usual_names_are_known() -> None:
    """Oracle: by hand: a clinic's names for all that is needed, in any order; days are hours times 24."""
    matches, problems = columns.propose([*reversed(CLINIC), "Surname"], {})
    assert problems == []
    assert {match.theirs: match.ours for match in matches.values()} == CLINIC
    assert matches["baseline_to_followup_h"].factor == 24
    assert "times 24" in matches["baseline_to_followup_h"].line()
    assert "taken as hours" in matches["onset_to_baseline_h"].line()
    for header, ours in (("M/F", "sex"), ("SITE", "center"), ("Onset to CT (min)", "onset_to_baseline_h")):
        assert header in {match.theirs for match in columns.propose([header], {})[0].values() if match.ours == ours}
    assert columns.propose(["Onset to CT (min)"], {})[0]["onset_to_baseline_h"].factor == 1 / 60


def test_every_column_is_itself_and_no_name_is_two_columns() -> None:
    """Oracle: the columns' own names; a name that stood for two of them would be a silent guess."""
    assert {ours: match.theirs for ours, match in columns.propose(COLUMNS, {})[0].items()} == {c: c for c in COLUMNS}
    names = [columns._bare(name) for ours in COLUMNS for name in (ours, *columns.SYNONYMS.get(ours, ()))]
    assert len(names) == len(set(names))
    for risky in ("surgery", "ivh", "group", "time", "ct"):
        assert risky not in names


def test_what_is_unclear_is_one_line_with_its_remedy() -> None:
    """Oracle: the brief's: ambiguous and missing columns, each once, each with the option to give; nothing is guessed."""
    header = [name for name in CLINIC if name not in ("MRN", "CT 2")] + ["site", "Ages"]
    matches, problems = columns.propose(header, {})
    assert "center" not in matches
    by_column = {line.split(":")[0]: line for line in problems}
    assert set(by_column) == {"center", "patient_id", "followup_ct"}
    assert "--map center=Hospital or --map center=site" in by_column["center"]
    assert "--map patient_id=THEIRS" in by_column["patient_id"]
    assert "/second" in by_column["followup_ct"]
    for given, said in (
        ("sex", "write OURS=THEIRS"), ("gender=sex", "no column 'gender'"), ("sexx=a", "did you mean 'sex'"),
    ):  # fmt: skip
        with pytest.raises(HepaperError, match=said):
            columns.parse_maps([given])
    _, problems = columns.propose(header, {"center": "sitee"})
    assert any("no column 'sitee'; did you mean 'site'?" in line for line in problems)


def test_one_column_may_tell_center_and_split() -> None:
    """Oracle: by hand; and a pattern fills braces with cells, empty where one of them is."""
    header = [name for name in CLINIC if name != "Set"]
    matches, problems = columns.propose(header, {"split": "Hospital", "baseline_ct": "dicom/{MRN}/{CT 1}"})
    assert problems == []
    assert matches["split"].theirs == matches["center"].theirs == "Hospital"
    cells = pd.DataFrame({"MRN": ["7", "8"], "CT 1": ["a", ""]})
    assert list(columns.apply(matches["baseline_ct"], cells)) == ["dicom/7/a", ""]


# ---------------------------------------------------------------- values


def test_codes_need_a_word() -> None:
    """Oracle: the brief's: M, F, 0 and 1 only when declared; the line holds the options to give, and they work."""
    cells = pd.Series(["M", "f", "", "Female"])
    same, problems, _ = values.normalise("sex", cells, {})
    assert list(same) == list(cells)
    (line,) = problems
    options = re.findall(r"--value (\S+)", line)
    assert sorted(options) == ["sex:M=male", "sex:f=female"]
    done, problems, notes = values.normalise("sex", cells, values.parse_values(options)["sex"])
    assert (list(done), problems) == (["male", "female", "", "female"], [])
    assert notes == ["sex: M=male, f=female"]
    _, (line,), _ = values.normalise("sex", pd.Series(["0", "1"]), {})
    assert "--value" in line


def test_a_column_of_names_is_not_quoted() -> None:
    """Oracle: the names themselves: a wrong column must not print them."""
    names = [f"Mueller, Hans {number}" for number in range(20)]
    _, (line,), _ = values.normalise("sex", pd.Series(names), {})
    assert "Mueller" not in line
    assert "20 different values" in line


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ("sex:M", "write COLUMN"),
        ("age:1=2", "has no codes"),
        ("foo:1=2", "no column of ours"),
        ("sex:M=man", "not 'man'"),
    ],
)
def test_codes_that_are_none(item: str, said: str) -> None:
    """Oracle: one line each."""
    with pytest.raises(HepaperError, match=said):
        values.parse_values([item])


def test_values_in_our_words() -> None:
    """Oracle: by hand: splits however written, flags as yes and no, decimal commas, units; what is no number stays."""
    assert list(values.normalise("split", pd.Series(["Train", "External 1", "external-2"]), {})[0]) == [
        "train", "external_1", "external_2",
    ]  # fmt: skip
    assert list(values.normalise("primary_ivh", pd.Series(["TRUE", "0", ""]), {})[0]) == ["yes", "no", ""]
    assert list(values.normalise("age", pd.Series(["61,5", "", "x"]), {})[0]) == ["61.5", "", "x"]
    assert list(values.normalise("age", pd.Series(["6,1", "6.1"]), {})[0]) == ["6,1", "6.1"]  # which is it?
    assert list(values.normalise("onset_to_baseline_h", pd.Series(["90", "soon", ""]), {}, 1 / 60)[0]) == [
        "1.5",
        "soon",
        "",
    ]
    times = pd.DataFrame({"onset_to_baseline_h": ["150", "90"], "baseline_to_followup_h": ["24", "20"]})
    (doubt,) = values.doubts(times)
    assert "120 h; if these are minutes" in doubt


# ---------------------------------------------------------------- scans


@pytest.fixture(scope="module")
def cohort() -> PhantomCohort:
    return PhantomCohort({"train": 1, "external_1": 1}, coarsen=8)


@pytest.fixture(scope="module")
def exported(cohort: PhantomCohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two series of one patient in folders of their own."""
    folder = tmp_path_factory.mktemp("dicom")
    person = rehearsal._Person(cohort.patient(0), 1)
    for number, timepoint in enumerate(("baseline", "followup")):
        rehearsal.write_series(folder / f"s{number}", cohort.scan(0, timepoint), person, number)
    for file in (folder / "s1").iterdir():  # both came as series 2
        d = pydicom.dcmread(file)
        d.SeriesNumber = 5
        d.save_as(file)
    return folder


def test_phantoms_as_dicom_are_the_phantoms(cohort: PhantomCohort, tmp_path: Path) -> None:
    """Oracle: the phantom's own NIfTI file through the other reader: the same HU at the same places, tilt included."""
    (tilted,) = [
        name for name in cohort.ids if cohort.patient(name).split == "external_1" and cohort.patient(name).eligible
    ]
    rehearsal.write_series(
        tmp_path / "ct", cohort.scan(tilted, "baseline"), rehearsal._Person(cohort.patient(tilted), 1), 0
    )
    mine = read_ct(tmp_path / "ct")
    theirs = read_ct(cohort.write(tilted, tmp_path, "baseline")[0])
    assert float(mine.GetMetaData("hepaper:gantry_tilt_deg")) > 5
    assert mine.GetSize() == theirs.GetSize()
    assert mine.GetOrigin() == pytest.approx(theirs.GetOrigin(), abs=1e-2)
    import SimpleITK as sitk

    apart = sitk.GetArrayFromImage(mine) - sitk.GetArrayFromImage(theirs)
    assert np.abs(apart).mean() < 0.2  # of a thousand HU: headers round positions


def test_series_in_folders(exported: Path, tmp_path: Path) -> None:
    """Oracle: by hand: one series is taken wherever it lies below; of several none, but they are listed without a name,
    and a number names one; the links are the files of that series and no others."""
    one = scans.resolve("s0", exported)
    assert (one.path, one.problem, one.note) == (exported / "s0", "", "")
    several = scans.resolve(".", exported)
    assert several.problem.startswith("2 CT series (#2:")
    assert "#5:" in several.problem
    assert "FOLDER#2" in several.remedy
    assert not re.search("Quenz|Ottokar", several.problem + several.remedy)
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for name in ("s0", "s1"):
        for file in (exported / name).iterdir():
            shutil.copy(file, mixed / f"{name}_{file.name}")
    chosen = scans.resolve(f"{mixed}#5", tmp_path)
    assert scans.link(chosen, tmp_path / "scans", "S0001_baseline") == "S0001_baseline"
    linked = [pydicom.dcmread(file) for file in sorted((tmp_path / "scans" / "S0001_baseline").iterdir())]
    assert {int(d.SeriesNumber) for d in linked} == {5}
    assert len(linked) == len(list((exported / "s1").iterdir()))
    nested = tmp_path / "nested"
    shutil.copytree(exported / "s0", nested / "study" / "series")
    below = scans.resolve("nested", tmp_path)
    assert below.path == nested / "study" / "series"
    assert "below" in below.note
    for cell, said in (("nested#9", "no CT series 9"), ("nowhere", "no such file"), ("nowhere#2", "no such file")):
        assert said in scans.resolve(cell, tmp_path).problem


# ---------------------------------------------------------------- the whole intake

IDS = ["MUELLER_HANS", "SCHMIDT_EVA", "ROSSI_ANNA", "DUPONT_JEAN", "KOWALSKI_JAN", "NOVAK_EMIL"]
PRIVATE = re.compile("|".join(name.split("_")[0] for name in IDS), re.IGNORECASE)


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder MUELLER with scans named after patients and a table with a clinic's columns; the last has no scans."""
    folder = tmp_path_factory.mktemp("data") / "MUELLER"
    table = pd.read_csv(write_cohort(folder, IDS[:5]), dtype=str)
    table = pd.concat(
        [
            table,
            table.iloc[:1].assign(
                patient_id=IDS[5], baseline_ct="", followup_ct="", baseline_mask="", followup_mask=""
            ),
        ]
    )
    table = table.rename(columns={"patient_id": "MRN", "sex": "Gender", "age": "Age (y)"})
    table["Gender"] = table["Gender"].str[0].str.upper()
    table["Surname"] = [name.title() for name in IDS]
    table.to_csv(folder / "patients.csv", index=False)
    return folder


CODES = ["sex:M=male", "sex:F=female"]


@pytest.fixture(scope="module")
def taken(clinic: Path, tmp_path_factory: pytest.TempPathFactory) -> intake.Intake:
    return new_study("my_study", clinic / "patients.csv", codes=CODES, out=tmp_path_factory.mktemp("studies"))


def test_a_study_is_made(taken: intake.Intake, clinic: Path) -> None:
    """Oracle: by hand: five patients with scans, one without, ids in the order of the rows, the clinic's values; and the
    package's own reader of tables, which finds nothing wrong."""
    assert taken.ok
    table = load_cohort(taken.folder / "cohort.csv")
    assert list(table["patient_id"]) == [f"S{number:04d}" for number in range(1, 7)]
    assert list(table["sex"]) == ["female", "male", "female", "male", "female", "female"]
    assert list(table["center"])[:2] == ["Hospital 0", "Hospital 1"]
    assert "Surname" not in table
    assert table["baseline_ct"].iloc[0] == "scans/S0001_baseline.nii.gz"
    linked = taken.folder / "scans" / "S0002_followup_mask.nii.gz"
    assert linked.resolve() == (clinic / "SCHMIDT_EVA_followup_mask.nii.gz").resolve()
    assert list(table["baseline_ct"])[-1] == ""


def test_only_the_key_names_patients(taken: intake.Intake) -> None:
    """Oracle: the names: in the key, which only its owner can read, and nowhere else in the study's files nor in what was
    printed."""
    key = taken.folder / "key.csv"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    rows = list(csv.DictReader(io.StringIO(key.read_text())))
    assert [row["patient_id"] for row in rows] == IDS
    assert [row["row"] for row in rows] == [str(number) for number in range(2, 8)]
    assert not PRIVATE.search("\n".join(taken.lines))
    files = [path for path in taken.folder.iterdir() if path.is_file()]
    assert {path.name for path in files} == {"cohort.csv", "key.csv", "my_study.yml", "report.md"}
    for path in files:
        assert path == key or not PRIVATE.search(path.read_text()), path.name


def test_the_key_has_the_ids_of_the_run(taken: intake.Intake, tmp_path: Path) -> None:
    """Oracle: the run's own numbering of the same table, so that a patient in the book can be found again."""
    params = load_params(taken.folder / "my_study.yml", {"cohort.table": str(taken.folder / "cohort.csv")})
    table, _ = stage._real_table(Study(params, folder=tmp_path))
    key = pd.read_csv(taken.folder / "key.csv", dtype=str)
    assert list(key["run_id"]) == list(table["patient_id"])


def test_report(taken: intake.Intake) -> None:
    """Oracle: by hand: the warning of the patient without scans in row 7 of the clinic's table, counts by split."""
    report = (taken.folder / "report.md").read_text()
    assert "**Ready to run**: 6 patients" in report
    assert "row 7, column baseline_ct: empty: the patient will be excluded" in report
    assert "| eligible | 3 | 1 | 1 |" in report
    assert "| with a mask | 3 | 1 | 1 |" in report
    assert "excluded: incomplete clinical or imaging data: 1" in report
    assert "1 other column of yours" in report


def test_a_study_is_not_overwritten(taken: intake.Intake, clinic: Path) -> None:
    """Oracle: one line; and a study that is not there cannot be updated."""
    with pytest.raises(HepaperError, match="there already; --update"):
        new_study("my_study", clinic / "patients.csv", codes=CODES, out=taken.folder.parent)
    with pytest.raises(HepaperError, match="no study to update"):
        new_study("other", clinic / "patients.csv", codes=CODES, out=taken.folder.parent, update=True)
    key = taken.folder / "key.csv"
    key.rename(clinic / "key.csv")  # kept apart, as the guide says
    try:
        with pytest.raises(HepaperError, match=r"key.csv: not there.*put it back"):
            new_study("my_study", clinic / "patients.csv", codes=CODES, out=taken.folder.parent, update=True)
    finally:
        (clinic / "key.csv").rename(key)
    for name in ("", "a b", "../x"):
        with pytest.raises(HepaperError, match="no name of a study"):
            new_study(name, clinic / "patients.csv")


def test_more_patients(taken: intake.Intake, clinic: Path) -> None:
    """Oracle: by hand: patients keep their ids though the rows are turned round and one is new; one who left stays in the
    key; parameters that a person changed stay."""
    table = pd.read_csv(clinic / "patients.csv", dtype=str, keep_default_na=False)
    new = table.iloc[-1:].assign(MRN="NEW_ONE")
    twice = pd.concat([table, table.iloc[1:2]])
    twice.to_csv(clinic / "newer.csv", index=False)
    wrong = new_study("my_study", clinic / "newer.csv", codes=CODES, out=taken.folder.parent, update=True)
    assert not wrong.ok
    assert "row 8, column patient_id: the same id as in row 3" in "\n".join(wrong.lines)
    assert len(load_cohort(taken.folder / "cohort.csv", files=False)) == 6  # as before
    turned = pd.concat([table.iloc[:5].iloc[::-1].iloc[:4], new])  # without the first and the last
    turned.to_csv(clinic / "newer.csv", index=False)
    params = taken.folder / "my_study.yml"
    before = params.read_text()
    params.write_text(before + "# mine\n")
    try:
        newer = new_study("my_study", clinic / "newer.csv", codes=CODES, out=taken.folder.parent, update=True)
        assert newer.ok
        assert params.read_text().endswith("# mine\n")
        table = load_cohort(taken.folder / "cohort.csv", files=False)
        assert list(table["patient_id"]) == ["S0002", "S0003", "S0004", "S0005", "S0007"]
        key = pd.read_csv(taken.folder / "key.csv", dtype=str).set_index("study_id")
        assert key.loc["S0007", "patient_id"] == "NEW_ONE"
        assert key.loc["S0005", ["row", "run_id"]].tolist() == ["2", "P00004"]
        assert key.loc["S0001", "patient_id"] == IDS[0]
        assert key.loc[["S0001", "S0006"], "run_id"].isna().all()
        (linked,) = (taken.folder / "scans").glob("S0005_baseline.nii.gz")
        assert linked.resolve().name == "KOWALSKI_JAN_baseline_ct.nii.gz"
        assert not list((taken.folder / "scans").glob("S0001*"))
    finally:
        params.write_text(before)


def test_what_is_wrong_is_told_by_row_and_nothing_is_made(clinic: Path, tmp_path: Path) -> None:
    """Oracle: by hand: rows of the clinic's own table, with a blank line before them; a report; no table, no key."""
    table = pd.read_csv(clinic / "patients.csv", dtype=str, keep_default_na=False)
    table.loc[1, "MRN"] = IDS[0]
    table.loc[2, "baseline_ct"] = "nowhere.nii.gz"
    table.loc[3, "followup_ct"] = table.loc[4, "followup_ct"]
    table.loc[4, "Age (y)"] = "old"
    text = table.to_csv(index=False).replace("\n", "\n\n", 1)  # patients begin in row 3
    bad = clinic / "bad.csv"
    bad.write_text(text)
    made = new_study("bad", bad, codes=CODES, out=tmp_path)
    assert not made.ok
    said = "\n".join(made.lines)
    assert "row 4, column patient_id: the same id as in row 3" in said
    assert "row 5, column baseline_ct: no such file" in said
    assert re.search(r"row 7, column followup_ct: the same (file|voxels) as row 6", said)
    assert "row 7, column age: 'old' is not a number" in said
    assert not PRIVATE.search(said)
    assert [path.name for path in (tmp_path / "bad").iterdir()] == ["report.md"]
    assert "**Not ready**" in (tmp_path / "bad" / "report.md").read_text()


def test_patterns_find_what_is_there(clinic: Path, tmp_path: Path) -> None:
    """Oracle: by hand: five patients have files of that pattern, the sixth has none and counts as missing, not as wrong."""
    maps = [
        f"{time}_{kind}={{MRN}}_{time}_{kind}.nii.gz" for time in ("baseline", "followup") for kind in ("ct", "mask")
    ]
    made = new_study("p", clinic / "patients.csv", maps, CODES, tmp_path)
    assert made.ok
    assert "followup_ct: nothing is there for 1 patient of 6" in (made.folder / "report.md").read_text()
    assert (load_cohort(made.folder / "cohort.csv", files=False)["baseline_ct"] != "").sum() == 5


@pytest.mark.parametrize(
    ("empty", "said"),
    [
        (("baseline_mask", "followup_mask"), "no training patient has a mask.*hepaper predict SCAN"),
        (("followup_ct", "followup_mask"), "no patient is eligible.*no outcome to study.*hepaper predict SCAN"),
    ],
)
def test_without_masks_or_follow_ups(clinic: Path, tmp_path: Path, empty: tuple[str, ...], said: str) -> None:
    """Oracle: the guide's: neither makes a study, and the line says what is left to do."""
    table = pd.read_csv(clinic / "patients.csv", dtype=str, keep_default_na=False)
    table[list(empty)] = ""
    table.to_csv(clinic / "without.csv", index=False)
    made = new_study("w", clinic / "without.csv", codes=CODES, out=tmp_path)
    assert not made.ok
    assert re.search(said, "\n".join(made.lines))


def test_a_damaged_scan_is_named_by_its_number(clinic: Path, tmp_path: Path) -> None:
    """Oracle: the file's name, which holds the patient's: it must not be in the message, which stays in the run."""
    broken = clinic / "MUELLER_broken.nii.gz"
    with gzip.open(clinic / "MUELLER_HANS_baseline_ct.nii.gz") as file:
        broken.write_bytes(gzip.compress(file.read()[:4000]))
    with pytest.raises(ScanError) as info:
        stage._take_in(broken, None, tmp_path / "P00001_baseline.nii.gz")
    assert str(info.value).startswith("P00001_baseline: ")
    assert not PRIVATE.search(str(info.value))
    with pytest.raises(ScanError, match="P00001_baseline: no such file") as info:
        stage._take_in(clinic / "MUELLER_gone.nii.gz", None, tmp_path / "P00001_baseline.nii.gz")
    assert not PRIVATE.search(str(info.value))


def test_template(tmp_path: Path) -> None:
    """Oracle: the study's own columns: all in the header, all explained; what is there is not overwritten."""
    empty, explained = write_template(tmp_path / "template.csv")
    assert empty.read_text().strip().split(",") == list(COLUMNS)
    table = pd.read_csv(explained)
    assert sorted(table["column"]) == sorted(COLUMNS)
    assert set(table.loc[table["needed"] == "yes", "column"]) == set(REQUIRED)
    with pytest.raises(HepaperError, match="there already"):
        write_template(tmp_path / "template.csv")


# ---------------------------------------------------------------- sizes and costs

COHORT = sizes.Cohort(train=40, external_1=20, external_2=0, with_masks=11)


@pytest.mark.parametrize("size", list(sizes.PROFILES))
def test_every_value_has_its_reason(size: str, tmp_path: Path) -> None:
    """Oracle: the params' own reader; every line that sets a value has a comment; the rules' values by hand."""
    path = tmp_path / "x.yml"
    path.write_text(sizes.render("x", "studies/x/cohort.csv", size, "asked for", COHORT, sizes.Computer(8, 7.9)))
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#") and not line.endswith(":")]
    assert len(lines) > 20
    assert all(re.search(r"\S # \S", line) for line in lines)
    params = load_params(path)
    assert (params.cohort.source, params.cohort.table, params.study.name) == ("table", "studies/x/cohort.csv", "x")
    assert params.study.workers == 3  # 7.9 GiB at 2 each
    assert params.benchmark.patients is None  # a draw from all 40 could miss the 11 with masks
    assert params.benchmark.validation_fraction * 11 >= 1.9
    assert params.classification.folds == 2
    assert params.classification.batch_size <= 8  # 120 slices make 15 a step at eight steps, so 8
    if size == "laptop":
        demo = load_params(Path(__file__).parents[1] / "params" / "demo.yml")
        steps = [epochs * n for epochs, n in ((params.classification.epochs, 40), (demo.classification.epochs, 140))]
        assert steps[0] == pytest.approx(steps[1], rel=0.05)


def test_rules_by_hand() -> None:
    """Oracle: by hand."""
    assert [sizes.folds(n, 5) for n in (7, 8, 60, 100, 1000)] == [0, 2, 3, 5, 5]
    assert [sizes.batch_size(n, 256) for n in (10, 140, 683, 5000)] == [8, 32, 256, 256]
    assert sizes.batch_size(140, 16) == 16
    assert [sizes.validation_fraction(n, 0.2) for n in (2, 5, 8, 10, 500)] == [0.5, 0.4, 0.25, 0.2, 0.2]
    assert sizes.workers(sizes.Computer(64, 256)) == 16
    assert sizes.workers(sizes.Computer(2, 1.0)) == 1
    for gib, size in ((0, "laptop"), (8, "laptop"), (24, "gpu")):
        assert sizes.fitting_size(sizes.Computer(8, 32, gib))[0] == size


def test_estimates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: by hand, from a made-up measurement: what goes with the patients is halved, training is not; nothing is
    said of a size that nobody measured. The file of the package has runs with their cores and versions."""
    run = {
        "study": "demo", "version": "0 (x)", "cores": 2, "patients": 100, "growing_mib": 50.0, "fixed_mib": 10.0,
        "seconds": {"cohort": 1000, "preprocess": 80, "benchmark": 300, "volume": 20},
    }  # fmt: skip
    monkeypatch.setattr(costs, "known", lambda: {"laptop": run})
    half, double = costs.estimate("laptop", 50), costs.estimate("laptop", 200)
    assert half is not None
    assert double is not None
    assert (half.seconds, half.disk_mib) == (350, 35)
    assert (double.seconds, double.disk_mib) == (800, 110)
    assert "classification" in half.missing
    assert costs.estimate("gpu", 50) is None
    assert [costs.lasting(s) for s in (0.2, 40, 600, 7200, 50000)] == ["1 s", "40 s", "10 min", "2.0 h", "14 h"]
    monkeypatch.undo()
    for size, measured in costs.known().items():
        assert size in ("tiny", "laptop")
        assert measured["cores"] >= 1
        assert sum(measured["seconds"].values()) > 60


# ---------------------------------------------------------------- the guide, literally

GUIDE = Path(__file__).parents[1] / "book" / "own_cohort.md"


def guide_blocks(kind: str = "bash") -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", GUIDE.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def test_the_guide_can_be_read() -> None:
    """Oracle: the page's width; and commands and options that exist (the command line's own help)."""
    from typer.testing import CliRunner

    from hepaper import cli

    lines = [line for kind in ("bash", "sh") for block in guide_blocks(kind) for line in block.splitlines()]
    assert len(lines) > 20
    assert max(map(len, lines)) <= 80
    joined = "\n".join(lines).replace("\\\n", " ")
    used = {match[1] for match in re.finditer(r"\bhepaper ([a-z-]+)", joined)}
    assert {"hospital", "new-study", "check-cohort", "run", "book", "predict", "masks", "doctor"} <= used
    for command in used:
        assert CliRunner().invoke(cli.app, [command, "--help"]).exit_code == 0
    shown = CliRunner().invoke(cli.app, ["new-study", "--help"], terminal_width=200).stdout
    for option in set(re.findall(r"--[a-z]+", " ".join(re.findall(r"hepaper new-study .*", joined)))):
        assert option in shown, option


def contents(path: Path) -> Iterable[bytes]:
    """All that a file holds, as far as a search can see it: compressed parts opened."""
    raw = path.read_bytes()
    yield raw
    if raw[:2] == b"\x1f\x8b":
        yield gzip.decompress(raw)
    if zipfile.is_zipfile(path):  # npz, PyTorch's checkpoints
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                yield name.encode()
                yield archive.read(name)
    if raw[:8] == b"\x89PNG\r\n\x1a\n":
        from PIL import Image

        with Image.open(path) as image:
            image.load()
            yield repr(image.info).encode()
    if path.suffix == ".b2nd":  # nnU-Net's arrays
        import blosc2

        array = blosc2.open(str(path), mode="r")
        yield repr(array.schunk.vlmeta.getall()).encode()
        yield np.ascontiguousarray(array[()]).tobytes()
    if path.suffix == ".ipynb":
        yield json.dumps(json.loads(raw), ensure_ascii=False).encode()


def named(content: bytes, stems: dict[bytes, list[bytes]]) -> bool:
    """Whether one of the words occurs, whatever the case. Digits alone count only where no other digit or point stands
    beside them: in long decimals they occur by chance."""
    content = content.lower()
    for stem, words in stems.items():
        if stem not in content:  # a regular expression of all words would take minutes
            continue
        for word in words:
            if word in content and (not word.isdigit() or re.search(rb"(?<![\d.])" + word + rb"(?!\d)", content)):
                return True
    return False


def found_in(folder: Path, planted: list[str]) -> list[str]:
    stems: dict[bytes, list[bytes]] = {}
    for word in planted:
        lower = word.lower().encode()
        stems.setdefault(lower[:6], []).append(lower)
    hits = []
    for path in sorted(folder.rglob("*")):
        if named(str(path.relative_to(folder)).encode(), stems):
            hits.append(f"name: {path}")
        if path.is_file() and any(named(part, stems) for part in contents(path)):
            hits.append(str(path))
    return hits


def test_the_search_finds(tmp_path: Path) -> None:
    """Oracle: one planted string in each kind of file the search opens, and in a file's name; none in a clean folder."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    planted = ["Quenzelmann7", "19431107"]
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(b"xx QUENZELMANN7 xx"))
    np.savez_compressed(tmp_path / "b.npz", names=np.array([b"quenzelmann7"]))
    (tmp_path / "c.ipynb").write_text(json.dumps({"x": "Quenzelmann7"}))
    info = PngInfo()
    info.add_text("who", "Quenzelmann7", zip=True)
    Image.new("L", (4, 4)).save(tmp_path / "d.png", pnginfo=info)
    (tmp_path / "e_quenzelmann7.txt").write_text("")
    (tmp_path / "f.csv").write_text("born,19431107\n")
    (tmp_path / "clean.csv").write_text("0.19431107,719431107\n")
    assert len(found_in(tmp_path, planted)) == 6


@pytest.mark.slow
def test_the_guide_works_and_names_nobody(tmp_path: Path, repository: Path) -> None:
    """Oracle: the guide's own commands, run in their order in an empty folder, and the list of what was planted, looked
    for in every file of run and book, opened where it is compressed. The search itself finds the export's."""
    for name in ("notebooks", "workflow"):  # "from a checkout"
        (tmp_path / name).symlink_to(repository / name)
    paths = [str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = {**os.environ, "PATH": os.pathsep.join(paths), "PYTHONPATH": str(repository)}
    stopped = next(block.strip() for block in guide_blocks("text") if "not understood" in block)
    said = []
    for block in guide_blocks():
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        said.append(done.stdout)
        asks = "hepaper new-study rehearsal" in block and "--value" not in block
        assert done.returncode == (1 if asks else 0), f"{block}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        assert not asks or stopped in done.stdout
    assert "nobody is named" in "".join(said)
    planted = (tmp_path / "hospital" / "identifiers.txt").read_text().split("\n")[:-1]
    assert len(planted) > 200
    run = tmp_path / "runs" / "rehearsal"
    assert (run / "book" / "index.html").is_file()
    assert found_in(run, planted) == []
    assert found_in(tmp_path / "prediction", planted) == []
    for published in (
        path for path in tmp_path.iterdir() if path.name not in ("hospital", "studies", "notebooks", "workflow")
    ):
        assert found_in(published, planted) == [] if published.is_dir() else True
    assert len(found_in(tmp_path / "hospital", planted)) > 1000
    # some training patients and one external set had no masks, one patient no follow-up
    results = yaml.safe_load((run / "results.json").read_text())
    assert results["segmentation"]["external_1"]["scans"] > 0
    assert results["segmentation"]["external_2"]["scans"] == 0
    assert results["cohort"]["excluded"] >= 1
