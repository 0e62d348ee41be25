"""The cohort table's check: every fault in its row and column, with a remedy; and a table without identifiers."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from test_read_ct import write_series
from typer.testing import CliRunner

from hepaper.cohort.deidentify import deidentify_table
from hepaper.cohort.eligibility import eligibility
from hepaper.cohort.table import CohortCheck, check_cohort, load_cohort
from hepaper.errors import HepaperError

COLUMNS = [
    "patient_id",
    "center",
    "split",
    "age",
    "sex",
    "onset_to_baseline_h",
    "baseline_to_followup_h",
    "baseline_ct",
    "followup_ct",
    "baseline_mask",
    "followup_mask",
    "surgery_before_followup",
    "primary_ivh",
    "image_quality",
    "mrs_90d",
    "glucose",
]


def row(number: int, **changes: str) -> dict[str, str]:
    values = {
        "patient_id": f"case-{number}",
        "center": "1",
        "split": "train",
        "age": "61.5",
        "sex": "male",
        "onset_to_baseline_h": "2.5",
        "baseline_to_followup_h": "24",
        "baseline_ct": f"{number}_a.nii.gz",
        "followup_ct": f"{number}_b.nii.gz",
        "baseline_mask": f"{number}_a_mask.nii.gz",
        "followup_mask": f"{number}_b_mask.nii.gz",
        "surgery_before_followup": "0",
        "primary_ivh": "no",
        "image_quality": "good",
        "mrs_90d": "3",
        "glucose": "7.1",
    }
    return values | changes


def write(path: Path, rows: list[dict[str, str]], columns: list[str] = COLUMNS, **options: str) -> Path:
    pd.DataFrame(rows, columns=columns).to_csv(path, index=False, **options)
    return path


def write_scan(folder: Path, name: str, seed: int = 0) -> np.ndarray:
    """A scan and its mask; voxels differ by seed."""
    voxels = np.random.default_rng(seed).uniform(-1000, 1500, (16, 16, 6)).astype(np.float32)
    mask = np.zeros(voxels.shape, np.uint8)
    mask[4:9, 4:9, 1:5] = 1
    affine = np.diag([-1.0, -1.0, 5.0, 1.0])
    nib.save(nib.Nifti1Image(voxels, affine), folder / f"{name}.nii.gz")
    nib.save(nib.Nifti1Image(mask, affine), folder / f"{name}_mask.nii.gz")
    return voxels


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """A faultless folder of four patients; ``cohort.csv`` is for the test to write."""
    for number in range(4):
        for seed, timepoint in enumerate("ab"):
            write_scan(tmp_path, f"{number}_{timepoint}", 10 * number + seed)
    return tmp_path


def found(check: CohortCheck, row: int | None, column: str | None) -> list[str]:
    return [p.line() for p in check.problems if p.row == row and p.column == column]


def only(check: CohortCheck, row: int | None, column: str | None, *words: str) -> None:
    """Assert that the check found one problem, there, and that its line holds ``words``."""
    assert [(p.row, p.column) for p in check.problems] == [(row, column)], check.report()
    for word in words:
        assert word in check.problems[0].line()


def test_a_good_table_passes_and_is_typed(cohort: Path) -> None:
    path = write(cohort / "cohort.csv", [row(n) for n in range(4)])
    check = check_cohort(path)
    assert check.ok, check.report()
    assert not check.problems
    assert check.files_checked == 16
    assert check.report() == ["cohort.csv: 4 patients, 16 files read, 0 problems, 0 warnings: ready to use"]
    table = load_cohort(path)
    assert table["patient_id"].tolist() == [f"case-{n}" for n in range(4)]
    for column in ("age", "onset_to_baseline_h", "baseline_to_followup_h", "glucose"):
        assert table[column].dtype == float
    assert table["center"].tolist() == [1] * 4
    assert not table["primary_ivh"].any()
    assert eligibility(table)["eligible"].all()


@pytest.mark.parametrize(
    ("change", "column", "words"),
    [
        ({"split": "trian"}, "split", ["'trian'", "did you mean 'train'?"]),
        ({"split": "External 1"}, "split", ["did you mean 'external_1'?"]),
        ({"split": "xyz"}, "split", ["write one of: train, external_1, external_2"]),
        ({"sex": "M"}, "sex", ["did you mean 'male'?"]),
        ({"sex": "F"}, "sex", ["did you mean 'female'?"]),
        ({"image_quality": "bad"}, "image_quality", ["'bad'", "good, poor"]),
        ({"age": "sixty"}, "age", ["'sixty' is not a number", "years"]),
        ({"age": "61,5"}, "age", ["decimal point"]),
        ({"age": "-3"}, "age", ["-3 is negative"]),
        ({"age": "614"}, "age", ["614 years cannot be"]),
        ({"age": "nan"}, "age", ["leave unknown values empty"]),
        ({"onset_to_baseline_h": "-1"}, "onset_to_baseline_h", ["negative"]),
        ({"baseline_to_followup_h": "-4"}, "baseline_to_followup_h", ["follow-up CT is not after the baseline"]),
        ({"baseline_to_followup_h": "0"}, "baseline_to_followup_h", ["follow-up CT is not after the baseline"]),
        ({"mrs_90d": "7"}, "mrs_90d", ["7 points cannot be"]),
        ({"mrs_90d": "2.5"}, "mrs_90d", ["not a whole number"]),
        ({"surgery_before_followup": "perhaps"}, "surgery_before_followup", ["yes or no"]),
        ({"patient_id": "case-0"}, "patient_id", ["the same id as in row 2", "one row"]),
        ({"patient_id": ""}, "patient_id", ["empty"]),
        ({"center": ""}, "center", ["empty"]),
    ],
)
def test_faults_in_cells(tmp_path: Path, change: dict[str, str], column: str, words: list[str]) -> None:
    path = write(tmp_path / "cohort.csv", [row(0), row(1), row(2, **change)])
    check = check_cohort(path, files=False)
    only(check, 4, column, *words)
    assert not check.ok
    with pytest.raises(HepaperError, match="row 4"):
        load_cohort(path, files=False)


@pytest.mark.parametrize("column", ["age", "sex", "onset_to_baseline_h", "followup_ct"])
def test_incomplete_patients_are_a_warning(tmp_path: Path, column: str) -> None:
    """The paper excludes patients without complete data; they are no fault of the table."""
    path = write(tmp_path / "cohort.csv", [row(0), row(1, **{column: ""})])
    check = check_cohort(path, files=False)
    only(check, 3, column, "warning", "will be excluded")
    assert check.ok
    decided = eligibility(load_cohort(path, files=False))
    assert decided["reason"].tolist() == ["", "incomplete clinical or imaging data"]


def test_a_center_in_two_splits_is_a_warning(tmp_path: Path) -> None:
    rows = [row(0), row(1), row(2, split="external_1"), row(3, center="4", split="external_1")]
    check = check_cohort(write(tmp_path / "cohort.csv", rows), files=False)
    only(check, 4, "center", "warning", "2 splits (train, external_1)")
    assert check.ok


def test_columns_missing_misspelt_and_doubled(tmp_path: Path) -> None:
    path = write(tmp_path / "cohort.csv", [row(0)])
    text = path.read_text()
    header = text.splitlines()[0]
    changed = header.replace("baseline_ct", "Baseline CT").replace("split,", "").replace("age", "aeg")
    path.write_text(text.replace(header, changed.replace("glucose", "sex")))
    check = check_cohort(path, files=False)
    assert "rename that column to 'baseline_ct'" in found(check, 1, "baseline_ct")[0]
    assert "the column is missing" in found(check, 1, "split")[0]
    assert "occurs twice" in found(check, 1, "sex")[0]
    assert check_cohort(path).problems  # checks what it can, and does not raise
    # an optional column is never missing, but a misspelt one is said
    path = write(tmp_path / "b.csv", [row(0)])
    path.write_text(path.read_text().replace("primary_ivh", "Primary_IVH"))
    assert "rename that column to 'primary_ivh'" in found(check_cohort(path, files=False), 1, "primary_ivh")[0]


def test_rows_are_numbered_as_in_the_file(tmp_path: Path) -> None:
    """Blank lines and line breaks inside a cell count, as they do in an editor."""
    path = write(tmp_path / "cohort.csv", [row(0), row(1), row(2, age="x")])
    lines = path.read_text().splitlines()
    lines[2] = lines[2].replace("case-1", '"case\n1"')
    path.write_text("\n".join([lines[0], "", lines[1], "", "", lines[2], lines[3]]))
    only(check_cohort(path, files=False), 8, "age", "'x'")


def test_rows_with_a_cell_too_many(tmp_path: Path) -> None:
    path = write(tmp_path / "cohort.csv", [row(0)])
    path.write_text(path.read_text().rstrip() + ",9\n")
    only(check_cohort(path, files=False), 2, None, "17 cells where the header has 16")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda text: text.replace(",", ";").encode(), ["semicolons", "commas"]),
        (lambda text: text.replace(",", "\t").encode(), ["tabs"]),
        (lambda text: b"PK\x03\x04" + b"\0" * 50, ["Excel workbook", "CSV UTF-8"]),
        (lambda text: b"\xd0\xcf\x11\xe0" + b"\0" * 50, ["Excel workbook"]),
        (lambda text: text.encode("utf-16"), ["UTF-16"]),
        (lambda text: text.replace("case-1", "Müller").encode("latin-1"), ["row 3", "UTF-8"]),
        (lambda text: b"", ["file is empty"]),
        (lambda text: b"\xef\xbb\xbf\n", ["file is empty"]),
        (lambda text: text.splitlines()[0].encode(), ["no patients"]),
        (lambda text: b"a\0b,c", ["not a text file"]),
    ],
)
def test_files_that_are_no_table(tmp_path: Path, spoil: Callable[[str], bytes], words: list[str]) -> None:
    path = write(tmp_path / "cohort.csv", [row(0), row(1)])
    path.write_bytes(spoil(path.read_text()))
    check = check_cohort(path, files=False)
    assert len(check.problems) == 1
    for word in words:
        assert word in check.problems[0].line()
    with pytest.raises(HepaperError, match=r"cohort\.csv"):
        load_cohort(path)


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    assert "no such file" in check_cohort(tmp_path / "none.csv").report()[0]
    assert "a folder" in check_cohort(tmp_path).report()[0]


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    path = write(tmp_path / "cohort.csv", [row(0)], encoding="utf-8-sig")
    assert check_cohort(path, files=False).ok


# ------------------------------------------------------------------------------------------------ files


def spoil(folder: Path, kind: str) -> dict[str, str]:
    """Put one fault into the files of patient 2; returns what changes in its row."""
    scan, mask = folder / "2_a.nii.gz", folder / "2_a_mask.nii.gz"
    image, drawn = nib.load(scan), nib.load(mask)
    voxels, hematoma = np.asarray(image.dataobj), np.asarray(drawn.dataobj)
    if kind == "missing":
        scan.unlink()
    elif kind == "windows path":
        return {"baseline_ct": r"scans\2_a.nii.gz"}
    elif kind == "truncated":
        scan.write_bytes(scan.read_bytes()[:-900])
    elif kind == "text":
        scan.write_text("Jane Doe's scan is on the other disk")
    elif kind == "zipped text":
        scan.write_bytes(gzip.compress(b"Jane Doe's scan is on the other disk" * 30))
    elif kind == "2d":
        nib.save(nib.Nifti1Image(voxels[:, :, 0], image.affine), scan)
    elif kind == "nan":
        voxels[1, 2, 3], voxels[4, 4, 4] = np.nan, -np.inf
        nib.save(nib.Nifti1Image(voxels, image.affine), scan)
    elif kind == "empty folder":
        (folder / "dicom").mkdir()
        return {"baseline_ct": "dicom", "baseline_mask": ""}
    elif kind == "two series":
        write_series(folder / "dicom", np.arange(5) * 5.0)
        write_series(folder / "dicom", np.arange(6) * 5.0, start=100)
        return {"baseline_ct": "dicom", "baseline_mask": ""}
    elif kind == "mask shape":
        nib.save(nib.Nifti1Image(hematoma[:-1], drawn.affine), mask)
    elif kind == "mask elsewhere":
        nib.save(nib.Nifti1Image(hematoma, np.diag([-1.0, -1.0, 4.0, 1.0])), mask)
    elif kind == "zero mask":
        nib.save(nib.Nifti1Image(hematoma * 0, drawn.affine), mask)
    elif kind == "same file":
        return {"baseline_ct": "./1_a.nii.gz"}
    elif kind == "copy":
        scan.write_bytes((folder / "1_b.nii.gz").read_bytes())
    return {}


@pytest.mark.parametrize(
    ("kind", "column", "words"),
    [
        ("missing", "baseline_ct", ["no such file", "relative to the table's folder"]),
        ("windows path", "baseline_ct", ["no such file", "with / between"]),
        ("truncated", "baseline_ct", ["cut short"]),
        ("text", "baseline_ct", ["not gzip-compressed"]),
        ("zipped text", "baseline_ct", ["not a readable NIfTI"]),
        ("2d", "baseline_ct", ["2D image (16 x 16)"]),
        ("nan", "baseline_ct", ["2 of 1536 voxels", "1 NaN, 1 infinite"]),
        ("empty folder", "baseline_ct", ["the folder is empty"]),
        ("two series", "baseline_ct", ["2 series in one folder", "5 slices", "6 slices"]),
        ("mask shape", "baseline_mask", ["15 x 16 x 6 voxels, its CT 16 x 16 x 6"]),
        ("mask elsewhere", "baseline_mask", ["up to 5.0 mm away"]),
        ("zero mask", "baseline_mask", ["zero volume"]),
        ("same file", "baseline_ct", ["the same file as row 3, column baseline_ct"]),
        ("copy", "baseline_ct", ["the same voxels as row 3, column followup_ct"]),
    ],
)
def test_faults_in_files(cohort: Path, kind: str, column: str, words: list[str]) -> None:
    change = spoil(cohort, kind)
    path = write(cohort / "cohort.csv", [row(0), row(1), row(2, **change), row(3)])
    check = check_cohort(path)
    only(check, 4, column, *words)
    assert "Jane" not in "".join(check.report())
    assert not check.ok


def test_paths_may_lead_elsewhere(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Absolute paths, and paths that leave the table's folder, are fine."""
    other = tmp_path_factory.mktemp("other")
    write_scan(other, "x", 99)
    (cohort / "tables").mkdir()
    change = {"baseline_ct": str(other / "x.nii.gz"), "baseline_mask": str(other / "x_mask.nii.gz")}
    change |= {"followup_ct": "../2_b.nii.gz", "followup_mask": "../2_b_mask.nii.gz"}
    assert check_cohort(write(cohort / "tables" / "cohort.csv", [row(2, **change)])).ok


def test_headers_alone_find_less_and_say_so_in_the_docstring(cohort: Path) -> None:
    """NaN needs the voxels; a text file does not."""
    spoil(cohort, "nan")
    (cohort / "1_b.nii.gz").write_text("x")
    path = write(cohort / "cohort.csv", [row(n) for n in range(4)])
    assert [(p.row, p.column) for p in check_cohort(path, files="headers").problems] == [(3, "followup_ct")]


def test_ten_faults_at_once_through_the_command_line(cohort: Path) -> None:
    """The issue's own scenario: every problem in one pass, on one line each, exit status 1, no traceback."""
    from hepaper.cli import app

    write_series(cohort / "two", np.arange(5) * 5.0)
    write_series(cohort / "two", np.arange(6) * 5.0, start=100)
    (cohort / "none").mkdir()
    (cohort / "0_a.nii.gz").write_bytes((cohort / "0_a.nii.gz").read_bytes()[:-500])
    (cohort / "0_b.nii.gz").write_text("a letter to the doctor")
    spoil(cohort, "nan")
    spoil(cohort, "zero mask")
    rows = [
        row(0),
        row(1, patient_id="case-0", split="trainn"),
        row(2, baseline_to_followup_h="-2"),
        row(3, baseline_ct="two", followup_ct="none", baseline_mask="", followup_mask="gone.nii.gz"),
    ]
    path = write(cohort / "cohort.csv", rows)
    path.write_text(path.read_text().replace("mrs_90d", "mRS 90d").replace("sex", "gender"))
    result = CliRunner().invoke(app, ["check-cohort", str(path)])
    assert result.exit_code == 1
    lines = result.stdout.strip().splitlines()
    expected = [
        ("row 1", "sex", "missing"),
        ("row 1", "mrs_90d", "rename"),
        ("row 2", "baseline_ct", "cut short"),
        ("row 2", "followup_ct", "gzip"),
        ("row 3", "patient_id", "same id as in row 2"),
        ("row 3", "split", "did you mean 'train'"),
        ("row 4", "baseline_to_followup_h", "not after"),
        ("row 4", "baseline_ct", "NaN"),
        ("row 4", "baseline_mask", "zero volume"),
        ("row 5", "baseline_ct", "2 series"),
        ("row 5", "followup_ct", "empty"),
        ("row 5", "followup_mask", "no such file"),
    ]
    for place, column, word in expected:
        matching = [line for line in lines if line.startswith(f"{place}, column {column}:") and word in line]
        assert len(matching) == 1, (place, column, word, lines)
    assert len(lines) == len(expected) + 1
    assert "12 problems" in lines[-1]


def test_loading_says_how_many_more(tmp_path: Path) -> None:
    path = write(tmp_path / "cohort.csv", [row(n, age="x") for n in range(9)])
    with pytest.raises(HepaperError) as caught:
        load_cohort(path, files=False)
    assert "and 6 more" in str(caught.value)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------ de-identification


@pytest.fixture
def named() -> pd.DataFrame:
    rows = [
        row(n, patient_id=f"Doe{n}", center=center, age=age)
        for n, (center, age) in enumerate([("Tongji", "61"), ("Adelaide", "95"), ("Tongji", "17")])
    ]
    frame = pd.DataFrame(rows)
    frame["baseline_ct"] = [f"Doe_{n}.nii.gz" for n in range(3)]
    frame["age"] = frame["age"].astype(float)
    frame["glucose"] = [7.1, np.nan, 5.0]
    frame["gcs"] = [15, 9, 3]
    frame["MRN"] = [12, 13, 14]
    frame["wardCode"] = [1, 2, 3]
    frame["birth_date"] = [19501224, 19401224, 19601224]
    frame["hash"] = [830112, 830999, 840001]
    frame["notes"] = ["Jane", "", "Joe"]
    frame["baseline_mask"] = ["m.nii.gz", "", "m3.nii.gz"]
    return frame


def test_no_identifier_is_left(named: pd.DataFrame) -> None:
    """Oracle: what was put in."""
    clean = deidentify_table(named)
    text = clean.to_csv()
    for secret in ("Doe", "Tongji", "Adelaide", "Jane", "Joe", "1224", "8301", "m3"):
        assert secret not in text
    assert clean["patient_id"].tolist() == ["P00001", "P00002", "P00003"]
    assert clean["center"].tolist() == [2, 1, 2]
    assert clean["age"].tolist() == [61, 90, 17]
    assert clean["baseline_ct"].tolist() == [f"scans/P0000{n}_baseline.nii.gz" for n in (1, 2, 3)]
    assert clean["baseline_mask"].tolist() == [
        "scans/P00001_baseline_mask.nii.gz",
        "",
        "scans/P00003_baseline_mask.nii.gz",
    ]
    assert clean.attrs["dropped"] == ["MRN", "wardCode", "birth_date", "hash", "notes"]
    assert clean.attrs["ages_capped"] == 1
    np.testing.assert_array_equal(clean["glucose"], [7.1, np.nan, 5.0])
    assert clean["gcs"].tolist() == [15, 9, 3]


def test_phantoms_keep_their_names_and_centres_their_numbers(named: pd.DataFrame) -> None:
    named["patient_id"] = ["P00007", "P00003", "P00012"]
    named["center"] = [5, 1, 5]
    clean = deidentify_table(named)
    assert clean["patient_id"].tolist() == ["P00007", "P00003", "P00012"]
    assert clean["center"].tolist() == [5, 1, 5]
    assert deidentify_table(named, keep_ids=False)["patient_id"].tolist() == ["P00001", "P00002", "P00003"]


def test_deidentified_tables_are_still_valid(cohort: Path) -> None:
    """Oracle: the check itself, on the de-identified table written out."""
    table = load_cohort(write(cohort / "cohort.csv", [row(n) for n in range(3)]))
    clean = deidentify_table(table)
    clean.to_csv(cohort / "clean.csv", index=False)
    assert check_cohort(cohort / "clean.csv", files=False).ok
    np.testing.assert_array_equal(eligibility(clean)["eligible"], eligibility(table)["eligible"])


def test_a_real_series_in_a_table(shared: Path, tmp_path: Path) -> None:
    """The 18.5 degree GE head passes the check, and its 7 mm slices exclude it."""
    write_scan(tmp_path, "0_b", 5)
    folder = shared / "data" / "head_ct_dicom_ge"
    rows = [row(0, baseline_ct=str(folder), baseline_mask="", followup_mask="")]
    check = check_cohort(write(tmp_path / "cohort.csv", rows), files="headers")
    assert check.ok, check.report()
    from hepaper.cohort.read import scan_header

    assert check.table is not None
    measured = check.table.assign(slice_thickness_mm=scan_header(folder).slice_thickness_mm)
    assert eligibility(measured)["reason"].tolist() == ["slice thickness > 5 mm"]


def test_the_run_keeps_no_path_of_the_user(cohort: Path) -> None:
    """Oracle: the voxels of a written image are all that is left of a scan (see test_read_ct for its metadata)."""
    from hepaper.cohort.read import read_ct
    from hepaper.images import save_image

    save_image(cohort / "out.nii.gz", read_ct(cohort / "0_a.nii.gz"))
    raw = gzip.decompress((cohort / "out.nii.gz").read_bytes())
    assert b"0_a" not in raw[:352]
    assert b"hepaper" not in raw
    assert sitk.ReadImage(str(cohort / "out.nii.gz")).GetSize() == (16, 16, 6)
