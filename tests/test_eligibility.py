"""Eligibility, against the paper's criteria written out by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hepaper.cohort.eligibility import CRITERIA, contiguous_slices, eligibility, flowchart_counts, parse_flag

GOOD = {
    "center": 1,
    "split": "train",
    "age": 60.0,
    "sex": "male",
    "onset_to_baseline_h": 3.0,
    "baseline_to_followup_h": 24.0,
    "baseline_ct": "a.nii.gz",
    "followup_ct": "b.nii.gz",
    "surgery_before_followup": False,
    "primary_ivh": False,
    "image_quality": "good",
    "slice_thickness_mm": 5.0,
    "followup_slice_thickness_mm": 5.0,
    "hematoma_slices": 6.0,
}


def table(*changes: dict) -> pd.DataFrame:
    rows = [{"patient_id": f"X{number}", **GOOD, **change} for number, change in enumerate(changes)]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("inside", "outside", "reason"),
    [
        ({"age": 18}, {"age": 17.99}, "age < 18 years"),
        ({"onset_to_baseline_h": 24}, {"onset_to_baseline_h": 24.01}, "baseline CT > 24 h after onset"),
        ({"baseline_to_followup_h": 72}, {"baseline_to_followup_h": 72.1}, "follow-up CT > 72 h"),
        ({"image_quality": "good"}, {"image_quality": "poor"}, "poor image quality"),
        ({"surgery_before_followup": "no"}, {"surgery_before_followup": "yes"}, "surgery before follow-up CT"),
        ({"primary_ivh": 0}, {"primary_ivh": 1}, "primary intraventricular hemorrhage"),
        ({"slice_thickness_mm": 5.00002}, {"slice_thickness_mm": 5.5}, "slice thickness > 5 mm"),
        ({"followup_slice_thickness_mm": 4}, {"followup_slice_thickness_mm": 7}, "slice thickness > 5 mm"),
        ({"hematoma_slices": 3}, {"hematoma_slices": 2}, "hematoma on fewer than 3 contiguous slices"),
        ({"age": 90}, {"age": np.nan}, "incomplete clinical or imaging data"),
        ({"sex": "female"}, {"sex": ""}, "incomplete clinical or imaging data"),
        ({"followup_ct": "c"}, {"followup_ct": ""}, "incomplete clinical or imaging data"),
    ],
)
def test_each_criterion_on_both_sides_of_its_limit(inside: dict, outside: dict, reason: str) -> None:
    """Oracle: the paper's Methods, "Patient cohort"."""
    decided = eligibility(table(inside, outside))
    assert list(decided.columns) == ["patient_id", "eligible", "reason"]
    assert list(decided["eligible"]) == [True, False]
    assert list(decided["reason"]) == ["", reason]


def test_every_criterion_is_tried() -> None:
    """The test above covers the list: a criterion added without a test fails here."""
    parameters = test_each_criterion_on_both_sides_of_its_limit.pytestmark[0].args[1]  # type: ignore[attr-defined]
    assert {case[2] for case in parameters} == {criterion.reason for criterion in CRITERIA}


def test_a_patient_is_counted_once_under_the_first_reason() -> None:
    failing = {"age": 10, "image_quality": "poor", "slice_thickness_mm": 10, "hematoma_slices": 1}
    decided = eligibility(table(failing, {**failing, "age": 50}))
    assert list(decided["reason"]) == ["age < 18 years", "poor image quality"]


def test_what_was_not_measured_excludes_nobody() -> None:
    optional = [
        "surgery_before_followup",
        "primary_ivh",
        "image_quality",
        "slice_thickness_mm",
        "followup_slice_thickness_mm",
        "hematoma_slices",
    ]
    assert eligibility(table({}).drop(columns=optional))["eligible"].all()
    assert eligibility(table({"hematoma_slices": np.nan, "slice_thickness_mm": np.nan}))["eligible"].all()


def test_flowchart_adds_up() -> None:
    """Oracle: counted by hand; and total less excluded is the sum of the splits."""
    rows = [{"split": split} for split in ["train"] * 5 + ["external_1"] * 3 + ["external_2"] * 2]
    rows += [{"age": 12, "split": "train"}, {"age": 12, "split": "external_1"}, {"image_quality": "poor"}]
    cohort = table(*rows)
    counts = flowchart_counts(cohort, eligibility(cohort))
    n = counts.set_index(["kind", "name"])["n"]
    assert n["total", "patients"] == 13
    assert n["excluded", "age < 18 years"] == 2
    assert n["excluded", "poor image quality"] == 1
    assert list(n["split"]) == [5, 3, 2]
    assert n["total"].sum() - n["excluded"].sum() == n["split"].sum()
    assert len(n["excluded"]) == len(CRITERIA)
    with pytest.raises(ValueError, match="ids differ"):
        flowchart_counts(cohort, eligibility(cohort.iloc[1:]))


def test_flowchart_counts_can_be_drawn() -> None:
    """Oracle: the counts of the table itself: four assessed, one excluded by age, three included."""
    from matplotlib.text import Text

    from hepaper.figures.cohort import flowchart

    cohort = table({}, {"split": "external_1"}, {"split": "external_2"}, {"age": 3})
    drawn = flowchart(flowchart_counts(cohort, eligibility(cohort)))
    words = " ".join(text.get_text() for text in drawn.findobj(Text)).replace("\u00a0", " ")
    for count in ("assessed (n = 4)", "Excluded (n = 1)", "included (n = 3)"):
        assert count in " ".join(words.split())


def test_row_labels_do_not_matter() -> None:
    """A filtered table keeps its old index; eligibility is by position."""
    cohort = table({"age": 3}, {}, {"age": 4}, {})
    decided = eligibility(cohort.iloc[[2, 1]])
    assert list(decided["patient_id"]) == ["X2", "X1"]
    assert list(decided["eligible"]) == [False, True]


@pytest.mark.parametrize(
    ("occupied", "longest"),
    [([], 0), ([3], 1), ([0, 1, 2], 3), ([0, 2, 4, 6], 1), ([0, 1, 4, 5, 6, 7, 9], 4), ([7, 8, 9], 3), (range(10), 10)],
)
def test_contiguous_slices(occupied: list[int], longest: int) -> None:
    mask = np.zeros((10, 6, 7), np.uint8)
    for place in occupied:
        mask[place, place % 6, 3] = 1
    assert contiguous_slices(mask) == longest


def test_contiguous_slices_wants_a_volume() -> None:
    with pytest.raises(ValueError, match="three axes"):
        contiguous_slices(np.ones((4, 4)))


@pytest.mark.parametrize(
    ("value", "flag"),
    [
        *[(yes, True) for yes in (1, 1.0, True, np.True_, "Yes", "true")],
        *[(no, False) for no in (0, False, "no", "", np.nan, None, pd.NA)],
        *[(unknown, None) for unknown in ("maybe", 2)],
    ],
)
def test_flags(value: object, flag: bool | None) -> None:
    assert parse_flag(value) is flag
