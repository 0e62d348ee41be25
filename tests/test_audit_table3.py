"""The audit of Table 3: searches and bounds against brute force, every check where it must fire and where it must not."""

from __future__ import annotations

import itertools
import math
import re
from typing import Any

import numpy as np
import pytest
from audit_cases import changed, found
from scipy import stats

from hepaper import audit
from hepaper.audit import auc_bounds, correlation, table3
from hepaper.audit.check import INCONSISTENT, NOT_CHECKABLE, REPRODUCED, ROUNDING, Printed
from hepaper.audit.confusion_search import PROPORTIONS, Confusion, confusions, interval_limits, method_scores
from hepaper.audit.table_results import table3_results
from hepaper.errors import HepaperError
from hepaper.published import SPLIT_NAMES
from hepaper.stats import delong_covariance, delong_test, roc_auc

TRAIN, EXTERNAL_1, EXTERNAL_2 = SPLIT_NAMES.values()


@pytest.fixture(scope="module")
def paper() -> dict[str, Any]:
    return audit.load_published()


@pytest.fixture(scope="module")
def verdicts(paper: dict[str, Any]) -> dict[str, str]:
    """The verdict of every check on the paper itself."""
    return {one.item: one.verdict for one in table3.checks(paper)}


def one_row(published: dict[str, Any], split: str, model: str) -> dict[str, Any]:
    """The transcription with a single row of Table 3: fast to check."""
    return {**published, "table3": {split: {model: published["table3"][split][model]}}, "delong": {}}


def triple(*numbers: str) -> list[Printed]:
    return [Printed(number) for number in numbers]


# ------------------------------------------------------------------------------------------------ counts


@pytest.mark.parametrize("values", [
    {"sensitivity": "0.67", "specificity": "0.80", "ppv": "0.57"}, {"accuracy": "0.8", "npv": "0.9"}, {"ppv": "0.5", "npv": "0.8"},
    {"sensitivity": "0.9", "specificity": "0.1", "accuracy": "0.9"},
])  # fmt: skip
def test_search_finds_all_matrices(values: dict[str, str]) -> None:
    """Oracle: a plain loop over 6 patients with and 15 without, rounding half up in decimals."""
    wanted = []
    for tp, tn in itertools.product(range(7), range(16)):
        matrix = Confusion(tp, 6 - tp, tn, 15 - tn)
        fits = True
        for metric, shown in values.items():
            part, whole = matrix.counts(metric)
            half = 0.5 * 10.0 ** -len(shown.partition(".")[2])
            fits &= whole > 0 and abs(part / whole - float(shown)) <= half + 1e-12
        if fits:
            wanted.append(matrix)
    made = confusions(values, 6, 15)
    assert list(made.solutions) == wanted
    assert made.tried == 7 * 16
    assert bool(wanted) == (values.get("sensitivity") != "0.9")
    if wanted:
        assert made.nearest == wanted[0]


def test_nearest_matrix_has_the_most_digits() -> None:
    """Oracle: by hand. TP 4 of 6 and TN 12 of 15; with a PPV that is wrong, four of five proportions still say so."""
    right = Confusion(4, 2, 12, 3)
    values = {metric: f"{right.value(metric):.3f}" for metric in PROPORTIONS} | {"ppv": "0.900"}
    made = confusions(values, 6, 15)
    assert made.solutions == ()
    assert made.nearest == right
    assert str(right) == "TP 4, FN 2, TN 12, FP 3"
    assert math.isnan(Confusion(0, 6, 15, 0).value("ppv"))


def test_the_papers_matrices_are_unique(paper: dict[str, Any]) -> None:
    """Oracle: sensitivities and specificities times the class sizes, rounded, each the only whole numbers that print so."""
    for split, model in table3.cells(paper):
        row = paper["table3"][split][model]
        he, nhe = paper["patients"]["he"][split], paper["patients"]["nhe"][split]
        tp, tn = round(row["sensitivity"][0] * he), round(row["specificity"][0] * nhe)
        assert table3.search(paper, split, model).solutions == (Confusion(tp, he - tp, tn, nhe - tn),)


# ------------------------------------------------------------------------------------------------ intervals


def test_limits_of_each_method() -> None:
    """Oracle: Newcombe RG. Stat Med 1998;17:857-872, Table I, for 81/263 (his methods 1 to 5); formulas by hand else."""
    limits = {
        name: (float(low[0]), float(high[0])) for name, (low, high) in interval_limits([81], [263], [0.308]).items()
    }
    for name, low, high in (
        ("Wald", 0.2522, 0.3638), ("Wald with continuity correction", 0.2503, 0.3657), ("Wilson", 0.2553, 0.3662),
        ("Clopper–Pearson", 0.2527, 0.3676),
    ):  # fmt: skip
        assert limits[name] == pytest.approx((low, high), abs=5e-5)
    z, p, n = stats.norm.ppf(0.975), 81 / 263, 263
    odds, error = p / (1 - p), math.sqrt(1 / 81 + 1 / 182)
    low, high = odds * math.exp(-z * error), odds * math.exp(z * error)
    assert limits["Logit"] == pytest.approx((low / (1 + low), high / (1 + high)))
    assert limits["Wald from the rounded proportion"][0] == pytest.approx(0.308 - z * math.sqrt(0.308 * 0.692 / n))
    assert limits["Wald with t"][1] == pytest.approx(p + stats.t.ppf(0.975, 262) * math.sqrt(p * (1 - p) / n))
    assert limits["Arcsine"][0] == pytest.approx(math.sin(math.asin(math.sqrt(p)) - z / 2 / math.sqrt(n)) ** 2)
    assert set(limits) > {"Jeffreys", "Agresti–Coull"}


@pytest.mark.parametrize("method", list(interval_limits([1], [2], [0.5])))
def test_the_method_that_was_used_wins(paper: dict[str, Any], method: str) -> None:
    """Oracle: a round trip. Intervals printed by a method are told to be that method's."""
    cells = []
    for split, model in table3.cells(paper):
        matrix = table3.search(paper, split, model).nearest
        for metric in PROPORTIONS:
            part, whole = matrix.counts(metric)
            value = Printed(f"{part / whole:.3f}")
            low, high = interval_limits([part], [whole], [value])[method]
            cells.append((matrix, metric, value, Printed(f"{float(low[0]):.3f}"), Printed(f"{float(high[0]):.3f}")))
    best, second = method_scores(cells)[:2]
    assert best.method == method
    assert (best.intervals, best.limits, best.of) == (45, 90, 45)
    assert best.largest <= 0.0005 + 1e-12
    assert second.intervals < 45
    assert method_scores([]) == []


# ------------------------------------------------------------------------------------------------ areas


def curve_of(positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    """The empirical ROC curve without ties at 2000 midpoints; 2000 is a multiple of the negatives."""
    ordered = np.sort(negatives)[::-1]
    sensitivity = (positives[None] > ordered[:, None]).mean(axis=1)
    return np.repeat(sensitivity, 2000 // negatives.size)


def test_variance_is_a_function_of_the_curve() -> None:
    """Oracle: DeLong's variance and area of scores without ties."""
    rng = np.random.default_rng(0)
    for m, n in ((12, 40), (30, 50), (60, 20)):
        positives, negatives = rng.normal(0.8, 1.3, m), rng.normal(size=n)
        made = roc_auc(np.repeat([1, 0], [m, n]), np.concatenate([positives, negatives]))
        curve = curve_of(positives, negatives)
        assert curve.mean() == pytest.approx(made.auc)
        assert auc_bounds.curve_variance(curve, m, n) == pytest.approx(made.variance, rel=1e-6)


def test_bounds_hold_for_data_and_are_reached() -> None:
    """Oracle: DeLong's variance of random scores of many kinds; samples built at both ends."""
    rng = np.random.default_rng(1)
    m, n = 20, 40
    for _ in range(400):
        kind = rng.choice(3)
        positives = (
            rng.normal(rng.uniform(0, 2), rng.uniform(0.2, 3), m)
            if kind
            else rng.choice([-9.0, 9.0], m) + rng.normal(size=m)
        )
        negatives = rng.normal(size=n) if kind < 2 else rng.choice([-9.0, 9.0], n) + rng.normal(size=n)
        made = roc_auc(np.repeat([1, 0], [m, n]), np.concatenate([positives, negatives]))
        if not 0 < made.auc < 1:
            continue
        threshold = rng.choice(negatives)
        point = (float((negatives >= threshold).mean()), float((positives >= threshold).mean()))
        least = auc_bounds.least_variance(made.auc, m, n)
        through = auc_bounds.least_variance(made.auc, m, n, point)
        assert least <= through + 1e-9
        assert through <= made.variance * (1 + 1e-6) + 1e-9
        assert made.variance <= auc_bounds.greatest_variance(made.auc, m, n) * (1 + 1e-9)
        low, high = auc_bounds.area_bounds(point[1], 1 - point[0])
        assert low - 1e-12 <= made.auc <= high + 1e-12
    # reached: 14 of 20 positives above all negatives, 6 below; and positives spread evenly over some of the negatives
    extreme = roc_auc(
        np.repeat([1, 0], [20, 40]), [*np.linspace(5, 6, 14), *np.linspace(-6, -5, 6), *np.linspace(0, 1, 40)]
    )
    assert extreme.variance == pytest.approx(auc_bounds.greatest_variance(0.7, 20, 40))
    line = roc_auc(np.repeat([1, 0], [200, 400]), [*(np.arange(200) + 0.5) / 200 + 0.3, *(np.arange(400) + 0.25) / 200])
    assert math.sqrt(line.variance) == pytest.approx(math.sqrt(auc_bounds.least_variance(line.auc, 200, 400)), rel=0.02)


def test_no_curve_through_the_point() -> None:
    """Oracle: by hand. Through (0.2, 0.7) areas run from 0.56 to 0.94."""
    assert auc_bounds.area_bounds(0.7, 0.8) == pytest.approx((0.56, 0.94))
    assert math.isnan(auc_bounds.least_variance(0.95, 50, 100, (0.2, 0.7)))
    assert not math.isnan(auc_bounds.least_variance(0.93, 50, 100, (0.2, 0.7)))
    assert math.isnan(auc_bounds.least_concave_variance(0.93, 50, 100, (0.2, 0.7)))  # possible, but not concave


def test_concave_curves() -> None:
    """Oracle: mixtures of three shapes min(t / tau, 1) of the same area through the same point, solved exactly."""
    rng = np.random.default_rng(2)
    t = auc_bounds.grid(2000)
    point, area, m, n = (0.25, 0.7), 0.78, 60, 200
    bound = auc_bounds.least_concave_variance(area, m, n, point)
    seen = []
    areas = []
    for _ in range(3000):
        tau = np.sort(rng.uniform(0.01, 1, 3))
        if rng.random() < 0.3:
            tau[0] = 1e-9
        conditions = np.array([np.ones(3), 1 - tau / 2, np.minimum(point[0] / tau, 1)])
        if abs(np.linalg.det(conditions)) < 1e-6:
            continue
        parts = np.linalg.solve(conditions, [1, area, point[1]])
        if (parts >= 0).all():
            curve = np.minimum(t[:, None] / tau, 1) @ parts
            seen.append(auc_bounds.curve_variance(curve, m, n))
        # any area: two shapes and the point
        pair = np.linalg.lstsq(conditions[[0, 2]], np.array([1, point[1]]), rcond=None)[0]
        if (pair >= -1e-12).all() and abs(conditions[[0, 2]] @ pair - [1, point[1]]).max() < 1e-9:
            areas.append(float(conditions[1] @ pair))
    assert len(seen) > 100
    assert bound <= min(seen) * (1 + 2e-3)
    assert bound >= 0.97 * min(seen)
    low, high = auc_bounds.concave_area_bounds(0.7, 0.75)
    assert (low, high) == pytest.approx((0.725, 1 - 2 * 0.25 * 0.3))
    assert low - 1e-9 <= min(areas)
    assert max(areas) <= high + 1e-9
    assert max(areas) > high - 0.03
    # where the best line would leave the square it starts at the corner: a / (2 sensitivity) is lost
    assert auc_bounds.concave_area_bounds(0.3, 0.9)[1] == pytest.approx(1 - 0.1 / 0.6)
    assert auc_bounds.concave_area_bounds(1.0, 0.8) == (0.9, 1.0)


# ------------------------------------------------------------------------------------------------ comparisons


def test_correlation_and_p_are_delongs() -> None:
    """Oracle: DeLong's covariance and test on simulated scores: its errors and correlation give its p, and back."""
    rng = np.random.default_rng(3)
    y = np.repeat([1, 0], [60, 140])
    first = y + rng.normal(size=200)
    second = 0.4 * y + 0.6 * first + rng.normal(size=200)
    made = delong_covariance(y, np.column_stack([first, second]))
    a, b = np.sqrt(np.diag(made.covariance))
    r = made.covariance[0, 1] / (a * b)
    test = delong_test(y, first, second)
    assert correlation.p_of(test.delta, a, b, r) == pytest.approx(test.p_value)
    assert correlation.required(test.delta, a, b, test.p_value) == pytest.approx(r)
    low, high = test.auc_a - 1.959964 * a, test.auc_a + 1.959964 * a
    assert correlation.error_of(low, high) == pytest.approx(a, rel=1e-6)
    assert correlation.p_of(0.1, 0.02, 0.02, 1.0) == 0
    assert correlation.p_of(0.0, 0.02, 0.02, 1.0) == 1


def test_rounding_of_the_required_correlation() -> None:
    """Oracle: unrounded values drawn from the box never leave the range, and come near its ends."""
    boxes = {
        "delta": (0.041, 0.0405, 0.0415),
        "a": (0.022, 0.019, 0.025),
        "b": (0.027, 0.0265, 0.0275),
        "p": (0.004, 0.0035, 0.0045),
    }
    made = correlation.required_range(**boxes, below=False)
    rng = np.random.default_rng(4)
    drawn = [
        correlation.required(*(rng.choice([low, high, rng.uniform(low, high)]) for _, low, high in boxes.values()))
        for _ in range(4000)
    ]
    assert made.attainable_low - 1e-12 <= min(drawn) < made.attainable_low + 0.002
    assert made.attainable_high - 0.002 < max(drawn) <= made.attainable_high + 1e-12
    assert made.attainable_low < made.low == made.high < made.attainable_high
    upward = correlation.required_range(boxes["delta"], boxes["a"], boxes["b"], (0.001, 0.001, 0.001), below=True)
    assert upward.high == 1
    assert upward.possible


def test_rounding_of_printed_comparisons(paper: dict[str, Any]) -> None:
    """Oracle: unrounded areas and limits drawn until they print as the paper's, difference included."""
    made = table3.required_correlation(paper, "external_2", "ViT-1:1")
    rng = np.random.default_rng(6)
    half = 0.0005
    drawn = []
    (a, *ends_a), (b, *ends_b) = (paper["table3"]["external_2"][model]["auc"] for model in ("ViT-1:2", "ViT-1:1"))
    for _ in range(4000):
        gap = a + half * rng.uniform(-1, 1) - b - half * rng.uniform(-1, 1)
        if abs(gap - 0.043) > half:
            continue
        gap = 0.043 + half * rng.choice([-1, 1]) if rng.random() < 0.5 else gap
        errors = [(high - low + 2 * half * rng.choice([-1, 0, 1])) / 3.919928 for low, high in (ends_a, ends_b)]
        drawn.append(correlation.required(gap, *errors, rng.choice([0.0035, 0.004, 0.0045])))
    assert made.attainable_low - 1e-6 <= min(drawn) <= made.attainable_low + 0.001
    assert made.attainable_high - 0.001 <= max(drawn) <= made.attainable_high + 1e-6


def test_power() -> None:
    """Oracle: simulated differences; and the detectable difference has the power it is named for."""
    rng = np.random.default_rng(5)
    a, b, r = 0.024, 0.028, 0.5
    error = math.sqrt(a * a + b * b - 2 * r * a * b)
    drawn = rng.normal(0.05, error, 200_000)
    assert correlation.power(0.05, a, b, r) == pytest.approx((abs(drawn) / error > 1.959964).mean(), abs=0.005)
    assert correlation.power(correlation.detectable(a, b, r), a, b, r) == pytest.approx(0.8, abs=1e-3)
    assert correlation.power(0.0, a, b, r) == pytest.approx(0.05)
    assert correlation.power(0.01, 0.02, 0.02, 1.0) == 1


def test_room_for_more_tests() -> None:
    """Oracle: by hand. 11 times 0.0045 is below 0.05, 12 times is not; 10 times 0.005 is not below."""
    assert [correlation.bonferroni_room(p) for p in (0.0045, 0.005, 0.05, 0.0249)] == [11, 9, 0, 2]


def test_symmetry() -> None:
    """Oracle: by hand. Rounding alone moves the middle of three printed numbers by 0.002 in all; a logit interval about 0.9
    reaches farther down than up."""
    assert table3.symmetric(*triple("0.800", "0.750", "0.852"))
    assert not table3.symmetric(*triple("0.800", "0.750", "0.853"))
    low, high = (f"{1 / (1 + math.exp(-(math.log(9) + step))):.3f}" for step in (-0.8, 0.8))
    assert (low, high) == ("0.802", "0.952")
    assert table3.symmetric_on_logit(*triple("0.900", low, high))
    assert not table3.symmetric_on_logit(*triple("0.900", "0.850", "0.950"))
    assert not table3.symmetric_on_logit(*triple("0.990", "0.970", "1.000"))


# ------------------------------------------------------------------------------------------------ every check

_PAIRS = [(split, other) for split in ("external_1", "external_2") for other in ("ViT-1:1", "ViT-1:4")]
_ROWS = [(split, model) for split in SPLIT_NAMES for model in ("ViT-1:1", "ViT-1:2", "ViT-1:4")]
CASES: list[tuple[str, str, dict[str, Any], str]] = [
    ("Intervals of proportions: method", ROUNDING, {"table3__train__ViT-1:1__ppv": triple("0.427", "0.370", "0.480")}, INCONSISTENT),
    (
        "Accuracy, against always calling the larger class", INCONSISTENT,
        {f"table3__{split}__{model}__accuracy": triple("0.850", "0.820", "0.880") for split, model in _ROWS}, REPRODUCED,
    ),
    ("Intervals of AUC: method", NOT_CHECKABLE, {"table3__train__ViT-1:2__auc": triple("0.850", "0.790", "0.841")}, INCONSISTENT),
    (
        "Intervals of AUC: method", NOT_CHECKABLE,
        {f"table3__{split}__{model}__auc": triple("0.800", "0.760", "0.840") for split, model in _ROWS}, ROUNDING,
    ),
    *(
        (f"{SPLIT_NAMES[split]}: ΔAUC, ViT-1:2 − {other}", REPRODUCED, {f"delong__{split}__{other}__delta": Printed("0.100")}, INCONSISTENT)
        for split, other in _PAIRS
    ),
    # the areas' own rounding leaves one unit of the last digit to the difference
    (f"{EXTERNAL_1}: ΔAUC, ViT-1:2 − ViT-1:1", REPRODUCED, {"delong__external_1__ViT-1:1__delta": Printed("0.042")}, ROUNDING),
    (f"{EXTERNAL_1}: ΔAUC, ViT-1:2 − ViT-1:1", REPRODUCED, {"delong__external_1__ViT-1:1__delta": Printed("0.043")}, INCONSISTENT),
    *(
        (
            f"{SPLIT_NAMES[split]}: DeLong p, ViT-1:2 and {other}", NOT_CHECKABLE,
            {f"delong__{split}__{other}": {"delta": Printed(delta), "p_value": Printed("0.900")}}, INCONSISTENT,
        )
        for (split, other), delta in zip(_PAIRS, ("0.041", "0.079", "0.043", "0.053"), strict=True)
    ),
    # unequal errors: even with a correlation of 1 the difference has an error
    (
        f"{EXTERNAL_1}: DeLong p, ViT-1:2 and ViT-1:1", NOT_CHECKABLE,
        {"table3__external_1__ViT-1:1__auc": triple("0.752", "0.690", "0.814"), "table3__external_1__ViT-1:2__auc": triple("0.793", "0.768", "0.818")},
        INCONSISTENT,
    ),
    *(
        (f"{SPLIT_NAMES[split]}: power, ViT-1:2 and {other}", NOT_CHECKABLE, {f"delong__{split}__{other}__delta": Printed(delta)}, then)
        for split, other in _PAIRS for delta, then in (("0.150", REPRODUCED), ("0.010", INCONSISTENT))
    ),
    (
        "Several tests: Holm’s correction", REPRODUCED,
        {f"delong__{split}__ViT-1:1": {"delta": Printed("0.04"), "p_value": Printed("0.030")} for split in ("external_1", "external_2")},
        INCONSISTENT,
    ),
    ("Several tests: Holm’s correction", REPRODUCED, {"delong__external_2__ViT-1:1__p_value": Printed("0.040")}, REPRODUCED),
    *(
        (
            f"{SPLIT_NAMES[split]}, {model}: AUC, text and table", REPRODUCED,
            {f"auc_in_text__{split}__{model}": triple("0.700", "0.600", "0.800")}, INCONSISTENT,
        )
        for split, model in [("train", "ViT-1:2"), *_ROWS[3:]]
    ),
    *(
        (f"{SPLIT_NAMES[split]}, ViT-1:2: AUC, {place} and table", REPRODUCED, {f"auc_in_{place}__auc__{split}": Printed("0.800")}, INCONSISTENT)
        for place in ("abstract", "discussion") for split in SPLIT_NAMES if (place, split) != ("discussion", "train")
    ),
]  # fmt: skip
OF_ROWS = re.compile(
    r": (confusion matrix|(accuracy|sensitivity|specificity|NPV|PPV)(, 95 % CI)?|AUC and operating point|width of the AUC’s 95 % CI)$"
)


@pytest.mark.parametrize(("item", "verdict", "change", "then"), CASES)
def test_fires_where_it_must_and_only_there(
    paper: dict[str, Any], verdicts: dict[str, str], item: str, verdict: str, change: dict[str, Any], then: str
) -> None:
    """Oracle: hand-made cases on both sides of every rule; the verdicts on the paper as worked out by hand."""
    assert verdicts[item] == verdict
    assert found(changed(paper, **change), table3, item).verdict == then


@pytest.mark.parametrize(("split", "model"), _ROWS)
def test_every_row(paper: dict[str, Any], split: str, model: str) -> None:
    """Oracle: each of the 45 proportions, 45 intervals, 9 matrices and 9 AUCs is right as printed and wrong once changed."""
    row = one_row(paper, split, model)
    name = f"{SPLIT_NAMES[split]}, {model}"
    right = {
        one.item: one.verdict for one in table3.checks(row) if one.item.startswith(name) and OF_ROWS.search(one.item)
    }
    assert len(right) == 13
    assert INCONSISTENT not in right.values()
    for metric, words in table3._NAMES.items():
        value, low, high = row["table3"][split][model][metric]
        for index, item in (
            (0, f"{name}: {words}"),
            (1, f"{name}: {words}, 95 % CI"),
            (2, f"{name}: {words}, 95 % CI"),
        ):
            wrong = [value, low, high]
            wrong[index] = Printed(f"{wrong[index] + 0.02:.3f}")
            made = {
                one.item: one.verdict
                for one in table3.checks(changed(row, **{f"table3__{split}__{model}__{metric}": wrong}))
            }
            fired = {what for what, verdict in made.items() if verdict == INCONSISTENT and what in right}
            assert fired == ({item, f"{name}: confusion matrix"} if index == 0 else {item})
    area, low, high = (float(part) for part in row["table3"][split][model]["auc"])
    for auc, item in (
        (triple("0.950", "0.930", "0.970"), f"{name}: AUC and operating point"),
        (triple(f"{area:.3f}", f"{area - 0.005:.3f}", f"{area + 0.005:.3f}"), f"{name}: width of the AUC’s 95 % CI"),
        (triple(f"{area:.3f}", f"{area - 0.120:.3f}", f"{area + 0.120:.3f}"), f"{name}: width of the AUC’s 95 % CI"),
    ):
        assert found(changed(row, **{f"table3__{split}__{model}__auc": auc}), table3, item).verdict == INCONSISTENT


def test_no_check_without_a_case(paper: dict[str, Any]) -> None:
    """Oracle: the lists above hold every check there is; "not checkable" names what is needed, and nothing else does."""
    listed = {item for item, *_ in CASES}
    made = table3.checks(paper)
    assert len(made) == len({one.item for one in made}) == 145
    for one in made:
        assert one.item in listed or OF_ROWS.search(one.item), one.item
        assert (one.verdict == NOT_CHECKABLE) == bool(one.needs), one.item
        assert one.section == table3.SECTION
        assert one.where


def test_verdicts_on_the_paper(paper: dict[str, Any]) -> None:
    """Oracle: the requirements known by hand: r of 0.89 (chapter on calibration), Wald 45 of 45, nine matrices."""
    scores = table3.scores(paper)
    assert str(scores[0]) == "Wald 45 of 45"
    assert scores[1].intervals < 30
    needed = table3.comparisons_table(paper)
    assert [f"{r:.2f}" for r in needed["r_low"]] == ["0.89", "0.56", "0.85", "0.84"]
    assert found(paper, table3, f"{EXTERNAL_1}: DeLong p, ViT-1:2 and ViT-1:1").recomputed == "takes r ≥ 0.89"
    assert found(paper, table3, f"{EXTERNAL_2}: DeLong p, ViT-1:2 and ViT-1:1").recomputed == "takes r = 0.85"
    np.testing.assert_allclose(table3.holm_of(paper), [0.004, 0.004, 0.0045, 0.004])
    made = table3_results(paper)
    assert (made["counts"]["unique"], made["counts"]["cells_right"], made["counts"]["intervals_right"]) == (9, 45, 45)
    assert made["accuracy"]["above"] == 0
    assert f"symmetric {made['areas']['symmetric']} of 9" in found(paper, table3, "Intervals of AUC: method").recomputed
    assert made["comparisons"]["r_high"] == pytest.approx(needed["r_low"].max())


def test_other_transcriptions(paper: dict[str, Any]) -> None:
    """Oracle: by hand. What is missing leaves out the checks that need it; an interval without its limits is named."""
    assert table3.checks({}) == []
    assert table3_results({}) == dict.fromkeys(("counts", "accuracy", "areas", "comparisons"))
    assert table3.errors_table({}).empty
    assert table3.comparisons_table({}).empty
    without = changed(paper, patients=None)
    assert not [one for one in table3.checks(without) if "confusion" in one.item]
    assert found(without, table3, f"{EXTERNAL_1}: ΔAUC, ViT-1:2 − ViT-1:1").verdict == REPRODUCED
    plain = {
        "patients": {"he": {"test": 20}, "nhe": {"test": 30}},
        "table3": {
            "test": {
                "ours": {
                    "sensitivity": triple("0.750", "0.560", "0.940"),
                    "specificity": triple("0.700", "0.536", "0.864"),
                }
            }
        },
    }
    made = {one.item: one.verdict for one in table3.checks(plain)}
    assert made["test, ours: confusion matrix"] == ROUNDING
    assert made["test, ours: sensitivity, 95 % CI"] == REPRODUCED
    with pytest.raises(HepaperError, match="value and its limits"):
        table3.checks(changed(paper, **{"table3__train__ViT-1:1__ppv": Printed("0.427")}))
