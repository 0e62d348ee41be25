"""The audit of Table 2: searches against brute force, every check where it must fire and where it must not."""

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
from hepaper.audit import table2, votes
from hepaper.audit.check import INCONSISTENT, NOT_CHECKABLE, REPRODUCED, ROUNDING, Printed
from hepaper.audit.icc_search import least_icc, spread_over_images
from hepaper.audit.image_search import image_tables, p_over_images
from hepaper.audit.ratings_search import mann_whitney_z, p_over_tables, rating_tables, two_sided, u_statistic
from hepaper.audit.table_results import table2_results
from hepaper.errors import HepaperError
from hepaper.stats import fleiss_kappa, icc, mann_whitney


@pytest.fixture(scope="module")
def paper() -> dict[str, Any]:
    return audit.load_published()


@pytest.fixture(scope="module")
def verdicts(paper: dict[str, Any]) -> dict[str, str]:
    """The verdict of every check on the paper itself."""
    return {one.item: one.verdict for one in table2.checks(paper)}


def ratings_of(table: Any) -> np.ndarray:
    """Every single value of a table of counts."""
    return np.repeat(np.arange(1, len(table) + 1), table)


# ------------------------------------------------------------------------------------------------ ratings


@pytest.mark.parametrize(
    ("mean", "sd", "high"), [("3.1", "1.2", 5), ("3.25", "0.89", 7), ("2.0", "0.5", 1), ("3.1", "0.1", 5)]
)
def test_rating_tables_are_all_there_are(mean: str, sd: str, high: int) -> None:
    """Oracle: all 792 tables of 8 ratings, with means and deviations (n - 1 or n) as NumPy has them, rounded by Python."""
    wanted = set()
    for table in itertools.product(range(9), repeat=5):
        if sum(table) != 8 or sum(table[2:]) != high:
            continue
        values = ratings_of(table)
        digits = [len(text.partition(".")[2]) for text in (mean, sd)]
        near = abs(values.mean() - float(mean)) <= 0.5 * 10.0 ** -digits[0] + 1e-12
        if near and any(abs(values.std(ddof=d) - float(sd)) <= 0.5 * 10.0 ** -digits[1] + 1e-12 for d in (0, 1)):
            wanted.add(table)
    made = rating_tables(8, mean, sd, high)
    assert {tuple(map(int, table)) for table in made} == wanted
    assert len(made) == len(wanted)
    assert bool(wanted) == (sd != "0.1")


def test_impossible_ratings() -> None:
    """Oracle: by hand. Ratings of 3 to 5 have no mean of 2.9; 3 and 4 half and half have an SD of 0.5, none of mean 3.5 less;
    10 whole ratings have no mean of 3.14."""
    assert not len(rating_tables(100, "2.90", "0.60", 100))
    assert not len(rating_tables(100, "3.50", "0.45", 100))
    assert rating_tables(100, "3.50", "0.50", 100).tolist() == [[0, 0, 50, 50, 0]]
    assert not len(rating_tables(10, "3.14", "1.00", 6))
    assert not len(rating_tables(10, "3.10", "1.00", 11))


def test_mann_whitney_of_tables_is_that_of_ratings() -> None:
    """Oracle: SciPy on the ratings themselves, with and without continuity correction."""
    rng = np.random.default_rng(0)
    a, b = rng.multinomial(40, [0.1, 0.2, 0.3, 0.3, 0.1], 4), rng.multinomial(30, [0.2, 0.2, 0.2, 0.2, 0.2], 3)
    for continuity in (True, False):
        p = two_sided(mann_whitney_z(a, b, continuity))
        for i, j in itertools.product(range(4), range(3)):
            given = (ratings_of(a[i]), ratings_of(b[j]))
            exact = stats.mannwhitneyu(*given, use_continuity=continuity, method="asymptotic")
            assert p[i, j] == pytest.approx(exact.pvalue, rel=1e-9)
            assert u_statistic(a, b)[i, j] == exact.statistic
    same = np.array([[0, 0, 9, 0, 0]])
    assert two_sided(mann_whitney_z(same, same)).item() == 1  # no spread at all


def test_p_over_tables(paper: dict[str, Any]) -> None:
    """Oracle: the range by brute force over the listed tables; the fitting pair's p by our own test of the ratings."""
    scale = table2.scale_of(paper, "quality")
    both = table2.feasible(scale)
    p = two_sided(mann_whitney_z(both.real, both.synthetic))
    span = both.as_ratings
    assert span is not None
    assert span.low <= p.min() < span.low + 1e-3
    assert span.high >= p.max() > span.high - 1e-3
    assert span.pairs == p.size
    assert span.fitting is not None
    assert round(mann_whitney(*map(ratings_of, span.fitting)).p_value, 3) == 0.156
    for table, mean, sd, high in zip(span.fitting, scale.mean, scale.sd, scale.high, strict=True):
        values = ratings_of(table)
        assert (len(values), f"{values.mean():.2f}", int((values >= 3).sum())) == (300, str(mean), high)
        assert str(sd) in (f"{values.std(ddof=1):.2f}", f"{values.std():.2f}")
    with pytest.raises(HepaperError, match="no table"):
        p_over_tables(both.real[:0], both.synthetic, scale.p)


# ------------------------------------------------------------------------------------------------ images


def small_images() -> tuple[Any, Any, list[tuple], list[tuple]]:
    """Image tables of 5 images and 2 readers, and all that fit by brute force: sums 2 to 10, high ratings counted."""
    pairs = list(itertools.combinations_with_replacement(range(1, 6), 2))
    given = [("3.3", "0.9", 8), ("2.7", "0.7", 5)]
    brute = []
    for mean, sd, high in given:
        fits = set()
        for images in itertools.combinations_with_replacement(pairs, 5):
            ratings = np.array(images)
            means = ratings.mean(axis=1)
            if int((ratings >= 3).sum()) != high or abs(ratings.mean() - float(mean)) > 0.05 + 1e-12:
                continue
            if any(abs(means.std(ddof=d) - float(sd)) <= 0.05 + 1e-12 for d in (0, 1)):
                fits.add(tuple(np.bincount(ratings.sum(axis=1) - 2, minlength=9)))
        brute.append(sorted(fits))
    tables = [image_tables(5, 2, mean, sd, high) for mean, sd, high in given]
    return tables[0], tables[1], brute[0], brute[1]


def test_image_tables_hold_what_exists_and_bound_its_p() -> None:
    """Oracle: brute force over all sets of 5 images with 2 readers. Whole tables lie inside, the bound holds, steps stay in."""
    real, synthetic, fits_real, fits_synthetic = small_images()
    assert fits_real
    assert fits_synthetic
    for tables, fits in ((real, fits_real), (synthetic, fits_synthetic)):
        assert tuple(tables.whole()) in fits
        for start in fits:
            assert {tuple(table) for table in tables.near(np.array(start))} <= set(fits)
            assert tuple(tables.near(np.array(start))[0]) == start
        corners = tables.corners()
        assert (corners >= 0).all()
        np.testing.assert_allclose(corners.sum(axis=1), 5)
    p = two_sided(mann_whitney_z(np.array(fits_real), np.array(fits_synthetic)))
    for wanted in (Printed("0.500"), Printed(f"{np.median(p):.3f}")):
        span = p_over_images(real, synthetic, wanted)
        assert span is not None
        assert span.bound_low <= p.min() + 1e-12 <= span.low + 1e-9
        assert span.high - 1e-9 <= p.max() <= span.bound_high + 1e-12
        if span.fitting is not None:
            assert tuple(span.fitting[0]) in fits_real
            assert round(two_sided(mann_whitney_z(span.fitting[0][None], span.fitting[1][None])).item(), 3) == wanted


def test_no_image_table() -> None:
    """Oracle: by hand. Images whose sums are 10 and 11 of 15 differ by 1/3: no mean of 3.54 goes with an SD below 0.16."""
    nobody = image_tables(100, 3, "3.54", "0.10", 300)
    assert nobody.whole() is None
    assert image_tables(100, 3, "3.54", "0.16", 300).whole() is not None
    assert p_over_images(nobody, nobody, Printed("0.5")) is None
    # sums of two ratings of 8 and more take two high ratings each, of 6 and 7 one: a mean of 4.0 takes more than 12 of 10
    assert image_tables(10, 2, "4.0", "0.5", 12).whole() is None
    assert image_tables(10, 2, "4.0", "0.5", 18).whole() is not None


def test_bound_of_p_from_above() -> None:
    """Oracle: groups without overlap. All of 20 rated 5, or all 1: U is 400, whatever the tables; p by SciPy."""
    top, bottom = image_tables(20, 1, "5.0", "0.0", 20), image_tables(20, 1, "1.0", "0.0", 0)
    span = p_over_images(top, bottom, Printed("0.001"))
    assert span is not None
    p = stats.mannwhitneyu([5] * 20, [1] * 20, method="asymptotic").pvalue
    assert span.low == pytest.approx(p)
    assert span.high == pytest.approx(p)
    assert span.bound_low == pytest.approx(p)
    assert p < span.bound_high < 1e-6  # without ties it would be larger


def test_examples_have_every_printed_number(paper: dict[str, Any]) -> None:
    """Oracle: the example's ratings, counted again; ICC by pingouin."""
    for name in table2.SCALES:
        scale = table2.scale_of(paper, name)
        made = table2.example(scale, paper["table2"][name]["icc"])
        assert made is not None
        assert made.shape == (200, 3)
        assert f"{icc(made).icc:.3f}" in (
            str(paper["table2"][name]["icc"]),
            f"{paper['table2'][name]['icc'] - 0.001:.3f}",
        )
        assert abs(icc(made).icc - paper["table2"][name]["icc"]) <= 0.0005 + 1e-9
        halves = made[:100].ravel(), made[100:].ravel()
        assert abs(mann_whitney(*halves).p_value - scale.p) <= 0.0006
        for values, mean, high in zip(halves, scale.mean, scale.high, strict=True):
            assert f"{values.mean():.2f}" == str(mean)
            assert int((values >= 3).sum()) == high


def test_icc_bounds() -> None:
    """Oracle: ratings with equal image means and equal reader means have the least ICC; sorted ones cannot reach 1."""
    square = np.array([[1, 2, 3], [2, 3, 1], [3, 1, 2]] * 10)
    assert icc(square).icc == pytest.approx(least_icc(30, 3))
    table = np.array([0, 0, 155, 128, 17])
    assert spread_over_images([table, table], 3, Printed("1.000")) is None
    assert spread_over_images([np.array([30, 30, 30, 30, 30])], 3, Printed("1.000")) is not None


# ------------------------------------------------------------------------------------------------ votes


def test_kappas_are_those_of_votes() -> None:
    """Oracle: Fleiss' kappa by statsmodels of the votes written out."""
    grid = votes.kappas(12, 5)
    assert grid.shape == (13, 6)
    for i, j in ((0, 0), (3, 0), (4, 2), (12, 5)):
        calls = [[0, 0, 1]] * i + [[0, 0, 0]] * (12 - i) + [[1, 1, 0]] * j + [[1, 1, 1]] * (5 - j)
        assert grid[i, j] == pytest.approx(fleiss_kappa(calls))
    assert math.isnan(votes.kappas(4, 0)[0, 0])  # all votes alike


def test_splits(paper: dict[str, Any]) -> None:
    """Oracle: statsmodels on the votes of each split found, and a count of all by a plain loop."""
    identification = paper["table2"]["identification"]
    called = table2.majorities(paper)
    assert called == {"all": (169, 31), "real": (93, 7), "synthetic": (76, 24)}
    by_hand = [(i, j) for i in range(170) for j in range(32) if f"{kappa_by_hand(i, j, 169, 31):.3f}" == "0.719"]
    assert [tuple(map(int, s)) for s in votes.splits(identification["fleiss_kappa"], 169, 31)] == by_hand
    both = votes.splits_with_part(
        identification["fleiss_kappa"], identification["fleiss_kappa_in_text"], called["all"], called["synthetic"]
    )
    assert both
    for (i, j), (k, m) in both:
        assert f"{kappa_by_hand(i, j, 76, 24):.3f}" == "0.735"
        assert f"{kappa_by_hand(i + k, j + m, 169, 31):.3f}" == "0.719"
        assert 0 <= k <= 93
        assert 0 <= m <= 7


def test_splits_of_a_part_by_brute_force() -> None:
    """Oracle: every vote on 9 images called real and 5 called synthetic, 6 and 4 of them in the part."""
    for whole, part in itertools.product(("0.60", "0.47", "0.33"), repeat=2):
        wanted = [
            ((i, j), (k, m))
            for i, j, k, m in itertools.product(range(7), range(5), range(4), range(2))
            if f"{kappa_by_hand(i, j, 6, 4):.2f}" == part and f"{kappa_by_hand(i + k, j + m, 9, 5):.2f}" == whole
        ]
        assert sorted(votes.splits_with_part(whole, part, (9, 5), (6, 4))) == wanted


def kappa_by_hand(i: int, j: int, real: int, synthetic: int) -> float:
    """Observed and chance agreement of pairs of readers: of a divided image one pair in three agrees."""
    images = real + synthetic
    agreement = 1 - (i + j) * 2 / 3 / images
    share = (i + 2 * j + 3 * (synthetic - j)) / (3 * images)
    chance = share**2 + (1 - share) ** 2
    return (agreement - chance) / (1 - chance)


def test_divided_in_words() -> None:
    """Oracle: by hand."""
    assert table2.divided(np.array([[1, 2], [2, 1]])) == "3"
    assert table2.divided(np.array([[1, 2], [5, 0], [0, 1]])) == "1, 3 or 5"
    assert table2.divided(np.array([[n, 0] for n in range(6)])) == "0 to 5"


# ------------------------------------------------------------------------------------------------ small sums


def test_share_of_images_by_brute_force() -> None:
    """Oracle: every way in which 4 images can have 0 to 3 high ratings each."""
    reached: dict[int, set[int]] = {}
    for counts in itertools.product(range(4), repeat=4):
        reached.setdefault(sum(counts), set()).add(sum(count >= 2 for count in counts))
    for total, majorities in reached.items():
        assert table2.image_share(total, 4, 3) == (min(majorities), max(majorities))


def test_fisher_is_scipys() -> None:
    """Oracle: SciPy."""
    rng = np.random.default_rng(1)
    for n, m in rng.integers(1, 40, (60, 2)):
        a, b = int(rng.integers(n + 1)), int(rng.integers(m + 1))
        assert table2.fisher_p(a, b, (int(n), int(m))) == pytest.approx(
            stats.fisher_exact([[a, n - a], [b, m - b]]).pvalue, abs=1e-9
        )
    assert table2.low_score_p((0, 39), (100, 100), 3)[1] == pytest.approx(
        stats.fisher_exact([[0, 100], [13, 87]]).pvalue
    )
    assert list(table2.low_scores(7, 5, 3)) == [3, 4, 5]


def test_interval_of_sensitivity() -> None:
    """Oracle: the spread of d' over simulated majorities with the same rates."""
    d, low, high, criterion = table2.sensitivity({"real": (93, 7), "synthetic": (76, 24)})
    assert (f"{d:.2f}", f"{criterion:.2f}") == ("0.75", "1.07")
    rng = np.random.default_rng(2)
    hits, alarms = ((rng.binomial(100, rate, 20_000) + 0.5) / 101 for rate in (24.5 / 101, 7.5 / 101))
    drawn = stats.norm.ppf(hits) - stats.norm.ppf(alarms)
    assert (high - low) / (2 * 1.96) == pytest.approx(drawn.std(), rel=0.06)
    rates = [24.5 / 101, 7.5 / 101]
    error = sum(r * (1 - r) / 101 / stats.norm.pdf(stats.norm.ppf(r)) ** 2 for r in rates) ** 0.5
    assert (high - low) / (2 * 1.959964) == pytest.approx(error, rel=1e-6)


def test_levels_an_interval_reaches() -> None:
    """Oracle: by hand."""
    levels = {"poor": 0.0, "moderate": 0.5, "good": 0.75, "excellent": 0.9}
    assert table2.levels_within(0.72, 0.82, levels) == ["moderate", "good"]
    assert table2.levels_within(0.91, 0.95, levels) == ["excellent"]
    assert table2.levels_within(-0.2, 0.5, levels) == ["poor", "moderate"]


# ------------------------------------------------------------------------------------------------ every check

_TEXT = "table2_in_text"
CASES: list[tuple[str, str, dict[str, Any], str]] = [
    *(
        (f"{name}, {origin}: scores ≥ 3 and ≤ 2", REPRODUCED, {f"table2__{key}__score_2_or_less__{origin}": 40}, INCONSISTENT)
        for key, name in table2.SCALES.items() for origin in table2.ORIGINS
    ),
    *(
        (
            f"{name}, {origin}: mean, SD and counts as whole ratings", ROUNDING,
            {f"table2__{key}__sd__{origin}": Printed("0.01")}, INCONSISTENT,
        )
        for key, name in table2.SCALES.items() for origin in table2.ORIGINS
    ),
    # ratings cannot, but images' means can: one reading is enough
    (
        "Quality, real: mean, SD and counts as whole ratings", ROUNDING, {"table2__quality__sd__real": Printed("0.45")}, ROUNDING,
    ),
    ("Quality, real: mean, SD and counts as whole ratings", ROUNDING, {"table2__quality__mean__real": Printed("2.99")}, INCONSISTENT),
    ("Quality: Mann–Whitney p", ROUNDING, {"table2__quality__p_value": Printed("0.050")}, ROUNDING),  # as images
    ("Quality: Mann–Whitney p", ROUNDING, {"table2__quality__p_value": Printed("0.12345678901")}, NOT_CHECKABLE),
    ("Authenticity: Mann–Whitney p", ROUNDING, {"table2__authenticity__p_value": Printed("0.0000000000000000000001")}, INCONSISTENT),
    *((f"{name}: ICC together with all else", ROUNDING, {f"table2__{key}__icc": Printed("1.2")}, INCONSISTENT) for key, name in table2.SCALES.items()),
    ("Quality: ICC together with all else", ROUNDING, {"table2__quality__icc": Printed("-0.600")}, INCONSISTENT),
    ("Quality: ICC together with all else", ROUNDING, {"table2__quality__icc": Printed("1.000")}, NOT_CHECKABLE),
    (
        "Quality: no difference, in the low scores too", INCONSISTENT,
        {"table2__quality__score_2_or_less__synthetic": 2}, REPRODUCED,
    ),
    (
        "Authenticity: no difference, in the low scores too", NOT_CHECKABLE,
        {"table2__authenticity__score_2_or_less__real": 0}, INCONSISTENT,
    ),
    *(
        (
            f"{name}, {words}: text and table", REPRODUCED,
            {"__".join(filter(None, (_TEXT, key, number, origin))): Printed("0.111")}, INCONSISTENT,
        )
        for key, name in table2.SCALES.items() for number, origin, words in table2._TWICE
    ),
    (
        "ICC: “good to excellent”, by intervals", ROUNDING,
        {"table2__quality__icc": Printed("0.60"), "table2__authenticity__icc": Printed("0.62")}, INCONSISTENT,
    ),
    ("Calls, synthetic: identified correctly, in the text", REPRODUCED, {f"{_TEXT}__identification__synthetic_correct_percent": 25}, INCONSISTENT),
    ("Fleiss’ κ in Table 2, with the majorities", ROUNDING, {"table2__identification__fleiss_kappa": Printed("-0.900")}, INCONSISTENT),
    ("Fleiss’ κ in the text, with the majorities", ROUNDING, {"table2__identification__fleiss_kappa_in_text": Printed("-0.900")}, INCONSISTENT),
    ("Fleiss’ κ: Table 2 and text", INCONSISTENT, {"table2__identification__fleiss_kappa_in_text": Printed("0.719")}, REPRODUCED),
    (
        "Fleiss’ κ: if the text’s is of synthetic images alone", ROUNDING,
        {"table2__identification__fleiss_kappa_in_text": Printed("-0.900")}, INCONSISTENT,
    ),
    ("Identification: sensitivity apart from bias", INCONSISTENT, {"table2__identification__correct__synthetic": 8}, NOT_CHECKABLE),
    (
        "Identification: sensitivity apart from bias", INCONSISTENT,
        {"table2__identification__correct__synthetic": 8, "table2__identification__margin": 1.0}, REPRODUCED,
    ),
]  # fmt: skip
PERCENTAGES = re.compile(r"(: scores [≥≤] \d|: identified correctly), share$")
SHARES = re.compile(r"% of synthetic images scoring ≥ 3”$")


@pytest.mark.parametrize(("item", "verdict", "change", "then"), CASES)
def test_fires_where_it_must_and_only_there(
    paper: dict[str, Any], verdicts: dict[str, str], item: str, verdict: str, change: dict[str, Any], then: str
) -> None:
    """Oracle: hand-made cases on both sides of every rule; the verdicts on the paper as worked out by hand."""
    assert verdicts[item] == verdict
    assert found(changed(paper, **change), table2, item).verdict == then


@pytest.mark.parametrize(
    ("said", "high", "verdict"),
    [
        (87, 261, NOT_CHECKABLE),
        (80, 261, INCONSISTENT),
        (81, 261, NOT_CHECKABLE),
        (100, 300, REPRODUCED),
        (87, 300, INCONSISTENT),
    ],
)
def test_share_of_images_in_the_text(paper: dict[str, Any], said: int, high: int, verdict: str) -> None:
    """Oracle: by hand. 261 high ratings lie on 81 images or more by majority of three; 300 on all 100."""
    published = changed(
        paper, table2_in_text__quality__synthetic_3_or_more_percent=said,
        table2__quality__score_3_or_more__synthetic=high, table2__quality__score_2_or_less__synthetic=300 - high,
    )  # fmt: skip
    assert found(published, table2, f"Quality: “{said}% of synthetic images scoring ≥ 3”").verdict == verdict


def test_every_percentage(paper: dict[str, Any]) -> None:
    """Oracle: a last digit more is wrong, for each of the 10 that are printed."""
    scales = {"quality": ("score_3_or_more", "score_2_or_less"), "authenticity": ("score_3_or_more", "score_2_or_less")}
    fired = 0
    for block, keys in {**scales, "identification": ("correct",)}.items():
        for key in keys:
            for origin in table2.ORIGINS:
                wrong = Printed(f"{paper['table2_percent'][block][key][origin] + 0.1:.1f}")
                made = changed(paper, **{f"table2_percent__{block}__{key}__{origin}": wrong})
                parts = {item.item: item for item in table2.checks(made) if PERCENTAGES.search(item.item)}
                assert len(parts) == 10
                assert [item.published for item in parts.values() if item.verdict == INCONSISTENT] == [f"{wrong} %"]
                fired += 1
    assert fired == 10


def test_no_check_without_a_case(paper: dict[str, Any]) -> None:
    """Oracle: the list above holds every check there is; "not checkable" names what is needed, and nothing else does."""
    listed = {item for item, *_ in CASES}
    made = table2.checks(paper)
    assert len(made) == 45
    for one in made:
        assert one.item in listed or PERCENTAGES.search(one.item) or SHARES.search(one.item), one.item
        assert (one.verdict == NOT_CHECKABLE) == bool(one.needs), one.item
        assert one.section == table2.SECTION
        assert one.where


def test_digits_are_not_forgotten(paper: dict[str, Any]) -> None:
    """Oracle: 0.6 stands for more values than 0.60, so more tables print so, whichever is asked first."""
    item = "Quality, real: mean, SD and counts as whole ratings"
    fewer = found(paper, table2, item).recomputed
    more = found(changed(paper, table2__quality__sd__real=Printed("0.6")), table2, item).recomputed
    assert int(more.split()[0]) > int(fewer.split()[0])
    assert found(paper, table2, item).recomputed == fewer


def test_other_transcriptions(paper: dict[str, Any]) -> None:
    """Oracle: by hand. What is missing leaves out the checks that need it; what is no count is named."""
    assert table2.checks({}) == []
    alone = {
        "table2": {
            "images": {"real": 30, "synthetic": 30},
            "identification": {"correct": {"real": 20, "synthetic": 15}},
        }
    }
    assert [one.item for one in table2.checks(alone)] == ["Identification: sensitivity apart from bias"]
    assert table2_results({}) == dict.fromkeys(("quality", "authenticity", "votes", "identification"))
    five = changed(paper, table2__readers=5)
    assert not [one for one in table2.checks(five) if "with the majorities" in one.item]
    with pytest.raises(HepaperError, match="is it a count"):
        table2.checks(changed(paper, table2__identification__correct__real=930))
    with pytest.raises(HepaperError, match="more than 3 ratings an image"):
        table2.checks(changed(paper, table2__quality__score_3_or_more__real=301))
    with pytest.raises(HepaperError, match="needs readers"):
        table2.checks(changed(paper, table2__readers=0))


def test_results_are_the_checks_numbers(paper: dict[str, Any]) -> None:
    """Oracle: the checks themselves."""
    made = table2_results(paper)
    item = "Quality: Mann–Whitney p"
    quality, voted = made["quality"], made["votes"]
    assert f"{quality['p_low']:.3f} to {quality['p_high']:.3f} as ratings" in found(paper, table2, item).recomputed
    assert f"all {quality['pairs']} pairs" in found(paper, table2, item).how
    assert (
        found(paper, table2, "Fleiss’ κ in Table 2, with the majorities").recomputed
        == f"{voted['splits']} of {voted['of']} splits of votes"
    )
    assert (
        f"d′ {made['identification']['d_prime']:.2f}"
        in found(paper, table2, "Identification: sensitivity apart from bias").recomputed
    )
