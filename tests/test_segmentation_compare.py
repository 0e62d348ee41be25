"""Comparison of networks: tests and intervals against other libraries, simulations and published numbers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as statsmodels
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hepaper.errors import HepaperError
from hepaper.segmentation.compare import (
    bland_altman,
    by_size,
    choose_winner,
    compare_networks,
    dice_iou_bounds,
    summarise,
)


def benchmark(patients: int = 30, seed: int = 0, shifts: dict[str, float] | None = None) -> pd.DataFrame:
    """Two scans a patient; a network's Dice is the scan's own, its shift and some noise."""
    random = np.random.default_rng(seed)
    shifts = shifts or {"umamba_enc": 0.0, "nnunet": -0.002, "nnformer": -0.05}
    rows = []
    for patient in range(patients):
        of_patient = random.normal(0.85, 0.05)
        for timepoint in ("baseline", "followup"):
            scan = of_patient + random.normal(0, 0.01)
            for network, shift in shifts.items():
                dice = min(scan + shift + random.normal(0, 0.01), 1.0)
                rows.append((network, f"P{patient:03d}", timepoint, dice, random.gamma(2, 2), random.lognormal(3)))
    columns = ["network", "patient_id", "timepoint", "dice", "hd95_mm", "reference_ml"]
    return pd.DataFrame(rows, columns=columns)


# --------------------------------------------------------------------------------------------------- comparisons


def exact_signed_rank(differences: np.ndarray) -> float:
    """Two-sided p by counting all signs: how many subsets of the ranks 1..n have a sum as small as the one seen."""
    ranks = stats.rankdata(np.abs(differences)).astype(int)
    smaller = min(ranks[differences > 0].sum(), ranks[differences < 0].sum())
    subsets = [1]
    for rank in range(1, len(ranks) + 1):
        subsets = [
            (subsets[k] if k < len(subsets) else 0) + (subsets[k - rank] if k >= rank else 0)
            for k in range(len(subsets) + rank)
        ]
    return min(1.0, 2 * sum(subsets[: smaller + 1]) / 2 ** len(ranks))


def holm(p_values: list[float]) -> list[float]:
    """Holm's correction as he wrote it: the smallest times m, the next times m - 1 and at least the one before."""
    corrected = dict.fromkeys(range(len(p_values)), 0.0)
    so_far = 0.0
    for place, index in enumerate(np.argsort(p_values)):
        so_far = max(so_far, min(1.0, (len(p_values) - place) * p_values[index]))
        corrected[int(index)] = so_far
    return list(corrected.values())


def test_pairs() -> None:
    """Oracle: the signed-rank test counted out on the patients' means, Holm's steps, the difference of the means."""
    metrics = benchmark()
    table = compare_networks(metrics, seed=3)
    pairs = list(itertools.combinations(("umamba_enc", "nnunet", "nnformer"), 2))
    assert list(zip(table["network_a"], table["network_b"], strict=True)) == pairs
    means = metrics.groupby(["network", "patient_id"])["dice"].mean().unstack(0)
    expected = [exact_signed_rank((means[a] - means[b]).to_numpy()) for a, b in pairs]
    assert table["p_value"].tolist() == pytest.approx(expected)
    assert table["p_holm"].tolist() == pytest.approx(holm(expected))
    whole = metrics.groupby("network")["dice"].mean()
    assert table["difference"].tolist() == pytest.approx([whole[a] - whole[b] for a, b in pairs])
    assert (table["patients"] == 30).all()
    assert (table["scans"] == 60).all()
    assert (table["difference_low"] < table["difference"]).all()
    assert (table["difference"] < table["difference_high"]).all()


def test_order_and_other_networks_do_not_matter() -> None:
    """Property: shuffled rows give the same numbers, and a pair is the same with a third network or without, but for
    the correction; the other seed differs a little; exchanged networks change the sign."""
    metrics = benchmark()
    table = compare_networks(metrics, seed=1)
    shuffled = metrics.sample(frac=1, random_state=5)
    key = ["network_a", "network_b"]
    names = list(dict.fromkeys(shuffled["network"]))
    again = compare_networks(shuffled, seed=1)
    assert set(again[key].agg(frozenset, axis=1)) == set(table[key].agg(frozenset, axis=1))
    two = metrics[metrics["network"] != "nnformer"]
    pair = compare_networks(two, seed=1).iloc[0]
    for column in ("difference", "difference_low", "difference_high", "p_value"):
        assert pair[column] == table.iloc[0][column]
    assert pair["p_holm"] == pair["p_value"]
    assert compare_networks(two, seed=2).iloc[0]["difference_low"] != pair["difference_low"]
    turned = compare_networks(two[::-1], seed=1).iloc[0]
    assert (turned["network_a"], turned["difference"]) == ("nnunet", pytest.approx(-pair["difference"]))
    assert len(names) == 3


def test_networks_that_are_equal() -> None:
    """Property: the same masks give difference 0, interval 0 to 0 and p = 1, also where means of thirds round off."""
    metrics = benchmark(7)
    copy = metrics[metrics["network"] == "nnunet"]
    third = pd.concat([copy, copy[copy["timepoint"] == "baseline"].assign(timepoint="third")])
    same = pd.concat([third, third.assign(network="copy")[::-1]])
    row = compare_networks(same).iloc[0]
    assert (row["difference"], row["difference_low"], row["difference_high"]) == (0, 0, 0)
    assert row["p_value"] == row["p_holm"] == 1


def test_rounding_breaks_no_ties() -> None:
    """Oracle: by hand: six differences of 0.1, one of them negative, share the ranks 1 to 6: its rank is 3.5. In floating
    point 0.2 - 0.1, 0.3 - 0.2 and 0.9 - 0.8 differ."""
    low = np.array([0.1, 0.2, 0.8, 0.4, 0.6, 0.7])
    high = np.array([0.2, 0.3, 0.9, 0.5, 0.7, 0.8])
    assert len(set(high - low)) > 1
    low[1], high[1] = high[1], low[1]
    parts = [
        pd.DataFrame({"network": name, "patient_id": list("abcdef"), "timepoint": "baseline", "dice": dice})
        for name, dice in (("nnunet", high), ("unetrpp", low))
    ]
    assert compare_networks(pd.concat(parts))["statistic"].item() == 3.5


def test_scans_without_a_value() -> None:
    """Oracle: by hand: a missed hematoma has no HD95; its scan leaves both sides of that pair, and of no other."""
    metrics = benchmark(10)
    metrics.loc[(metrics["network"] == "nnunet") & (metrics["patient_id"] == "P003"), "hd95_mm"] = math.nan
    table = compare_networks(metrics, "hd95_mm").set_index(["network_a", "network_b"])
    assert table.loc[("umamba_enc", "nnunet"), ["patients", "scans"]].tolist() == [9, 18]
    assert table.loc[("umamba_enc", "nnformer"), ["patients", "scans"]].tolist() == [10, 20]
    kept = metrics[metrics["patient_id"] != "P003"].groupby("network")["hd95_mm"].mean()
    assert table.loc[("umamba_enc", "nnunet"), "difference"] == pytest.approx(kept["umamba_enc"] - kept["nnunet"])


def test_bootstrap_is_by_patient() -> None:
    """Oracle: scipy's bootstrap of patients, and theory: with two equal scans a patient the interval is that of half
    as many values, √2 wider than if scans were independent."""
    random = np.random.default_rng(2)
    values = random.normal(0.9, 0.05, 200)
    metrics = pd.DataFrame({"patient_id": np.repeat(np.arange(200), 2), "dice": np.repeat(values, 2)}).assign(g="all")
    row = summarise(metrics, ["g"], ["dice"], seed=4).iloc[0]
    theirs = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=random)
    width = row["mean_high"] - row["mean_low"]
    assert width == pytest.approx(np.diff(theirs.confidence_interval)[0], rel=0.06)
    naive = summarise(metrics.assign(patient_id=np.arange(400)), ["g"], ["dice"], seed=4).iloc[0]
    assert width / (naive["mean_high"] - naive["mean_low"]) == pytest.approx(math.sqrt(2), rel=0.08)


def test_patients_weigh_as_their_scans() -> None:
    """Oracle: by hand: 20 patients with one scan at 0 and 20 with three at 1 have a mean of 0.75, not 0.5, and the
    interval is about that mean."""
    table = pd.DataFrame(
        {"patient_id": [*range(20), *np.repeat(np.arange(20, 40), 3)], "dice": [0.0] * 20 + [1.0] * 60}
    )
    row = summarise(table.assign(g="all"), ["g"], ["dice"]).iloc[0]
    assert row["mean"] == 0.75
    assert (row["mean_low"] + row["mean_high"]) / 2 == pytest.approx(0.75, abs=0.02)


def test_interval_covers() -> None:
    """Oracle: simulation: patients with one to three related scans; nearly 95 % of intervals hold the true mean."""
    random = np.random.default_rng(0)
    hits = []
    for repeat in range(300):
        scans = random.integers(1, 4, 40)
        values = np.repeat(random.normal(0, 1, 40), scans) + random.normal(0, 0.3, scans.sum())
        table = pd.DataFrame({"g": 0, "patient_id": np.repeat(np.arange(40), scans), "dice": values})
        row = summarise(table, ["g"], ["dice"], seed=repeat).iloc[0]
        hits.append(row["mean_low"] <= 0 <= row["mean_high"])
    assert 0.90 <= np.mean(hits) <= 0.98


# ------------------------------------------------------------------------------------------------------ summary


def test_summary() -> None:
    """Oracle: pandas' own description; a scan without a value is counted as missing; a group keeps its order."""
    metrics = benchmark(12)
    metrics.loc[3, "hd95_mm"] = math.nan
    network = metrics.loc[3, "network"]
    table = summarise(metrics, ["network"], ["dice", "hd95_mm"])
    assert table["network"].tolist() == ["umamba_enc"] * 2 + ["nnunet"] * 2 + ["nnformer"] * 2
    row = table.set_index(["network", "measure"]).loc[(network, "hd95_mm")]
    expected = metrics[metrics["network"] == network]["hd95_mm"].describe()
    names = {"n": "count", "mean": "mean", "min": "min", "q25": "25%", "median": "50%", "q75": "75%", "max": "max"}
    for ours, theirs in names.items():
        assert row[ours] == pytest.approx(expected[theirs])
    assert (row["n"], row["missing"], row["patients"]) == (23, 1, 12)
    # a row does not depend on what else is asked for
    alone = summarise(metrics[metrics["network"] == "nnunet"], "network", ["dice"], seed=0)
    pd.testing.assert_frame_equal(
        alone, table.query("network == 'nnunet' and measure == 'dice'").reset_index(drop=True)
    )


def test_summary_of_little() -> None:
    """Property: one patient has no interval; a group without any value is all NaN, not an error."""
    metrics = benchmark(1)
    metrics.loc[metrics["network"] == "nnunet", "dice"] = math.nan
    table = summarise(metrics, ["network"], ["dice"]).set_index("network")
    assert table.loc["nnunet", ["n", "missing", "patients"]].tolist() == [0, 2, 0]
    assert table.loc["nnunet", ["mean", "mean_low", "median", "min"]].isna().all()
    assert table.loc["umamba_enc", ["mean_low", "mean_high"]].isna().all()
    assert table.loc["umamba_enc", "mean"] > 0


def test_sizes() -> None:
    """Oracle: by hand; a volume on an edge is in the class above; classes stay in order when summarised."""
    metrics = pd.DataFrame({"reference_ml": [30.0, 0.0, 4.99, 5.0, 29.9, 80.0], "patient_id": range(6), "dice": 0.5})
    classed = by_size(metrics)
    expected = ["≥ 30 mL", "< 5 mL", "< 5 mL", "5–15 mL", "15–30 mL", "≥ 30 mL"]
    assert classed["size_class"].tolist() == expected
    assert "size_class" not in metrics
    table = summarise(classed, ["size_class"], ["dice"])
    assert table["size_class"].tolist() == ["< 5 mL", "5–15 mL", "15–30 mL", "≥ 30 mL"]
    assert table["n"].tolist() == [2, 1, 1, 2]
    assert by_size(metrics, (10,))["size_class"].tolist() == [
        "≥ 10 mL", "< 10 mL", "< 10 mL", "< 10 mL", "≥ 10 mL", "≥ 10 mL",
    ]  # fmt: skip


# --------------------------------------------------------------------------------------------------- the winner


def test_winner() -> None:
    """Oracle: by construction: two networks alike, a third 0.05 lower. The cheapest of the two alike wins, not the
    cheapest of all; and nobody wins by cost under the paper's rule."""
    metrics = benchmark(25)
    means = metrics.groupby("network")["dice"].mean()
    metrics.loc[metrics["network"] == "nnunet", "dice"] += means["umamba_enc"] - 0.001 - means["nnunet"]
    comparisons = compare_networks(metrics)
    costs = {"umamba_enc": 9e9, "nnunet": 4e9, "nnformer": 1e9}
    mean = metrics.groupby("network")["dice"].mean().map("{:.3f}".format)
    highest = choose_winner(metrics, comparisons, rule="highest")
    assert highest["network"] == highest["best"] == "umamba_enc"
    assert highest["equal"] == ["umamba_enc", "nnunet"]
    cheapest = choose_winner(metrics, comparisons, costs, "cheapest_equal")
    assert (cheapest["network"], cheapest["best"], cheapest["rule"]) == ("nnunet", "umamba_enc", "cheapest_equal")
    assert cheapest["reason"] == (
        f"U-Mamba (Enc) ({mean['umamba_enc']}) has the highest mean Dice. nnU-Net ({mean['nnunet']}) cannot be told "
        "from it in 25 patients (Holm-corrected p ≥ 0.05). Of these, nnU-Net needs the fewest multiply-adds a patch."
    )
    seconds = choose_winner(metrics, comparisons, costs | {"nnunet": 1e10}, "cheapest_equal", "seconds a scan")
    assert seconds["network"] == "umamba_enc"
    assert seconds["reason"].endswith("U-Mamba (Enc) needs the fewest seconds a scan.")


def test_clear_winner() -> None:
    """Property: where all differ from the best, cost is not asked for; one network alone wins."""
    metrics = benchmark(25, shifts={"nnunet": -0.05, "unetrpp": 0.0})
    won = choose_winner(metrics, compare_networks(metrics), None, "cheapest_equal")
    assert (won["network"], won["equal"]) == ("unetrpp", ["unetrpp"])
    assert won["reason"].endswith("It differs from every other network (Holm-corrected p < 0.05).")
    alone = metrics[metrics["network"] == "nnunet"]
    nobody = compare_networks(alone)
    assert nobody.empty
    assert list(nobody) == list(compare_networks(metrics))
    assert choose_winner(alone, nobody)["network"] == "nnunet"


# ------------------------------------------------------------------------------------------------- Dice and IoU


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_possible_means(cases: list[float]) -> None:
    """Oracle: whatever Dice values the scans have, their mean IoU lies within the bounds of their mean Dice."""
    dice = np.array(cases)
    low, high = dice_iou_bounds(dice.mean())
    assert low - 1e-12 <= (dice / (2 - dice)).mean() <= high + 1e-12


def test_bounds_are_reached() -> None:
    """Oracle: equal scans reach the lower bound, perfect and missed ones the upper; and the paper's full-scale pairs
    are within, its benchmark's pair 0.05 above what scans of one Dice have."""
    low, high = dice_iou_bounds(0.8)
    assert low == pytest.approx((np.full(5, 0.8) / 1.2).mean())
    half = np.array([1, 1, 1, 1, 0])
    assert high == pytest.approx((half / (2 - half)).mean())
    for dice, iou in ((0.983, 0.968), (0.980, 0.963), (0.982, 0.965), (0.937, 0.934)):
        low, high = dice_iou_bounds(dice)
        assert low <= iou <= high
    assert 0.934 - dice_iou_bounds(0.937)[0] == pytest.approx(0.053, abs=5e-4)
    with pytest.raises(HepaperError, match="0 to 1"):
        dice_iou_bounds(1.2)


# ------------------------------------------------------------------------------------------------------ volumes

# peak expiratory flow, first readings of 17 people with two meters (Bland & Altman 1986, Table 1), in L/min
LARGE = [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427]
MINI = [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451]


def test_bland_altman_published() -> None:
    """Oracle: Bland & Altman (1986): bias -2.1 with interval -22.0 to 17.8, SD 38.8, limits 2 SD either side (ours
    1.96), each with an interval 34.6 either side, in L/min; of rounded numbers, so that the last digit may be one off.
    """
    found = bland_altman(MINI, LARGE)
    assert found["n"] == 17
    published = {"bias": -2.1, "sd": 38.8, "bias_low": -22.0, "bias_high": 17.8}
    for name, value in published.items():
        assert found[name] == pytest.approx(value, abs=0.11), name
    for name, sign in (("lower", -1), ("upper", 1)):
        assert found[name] == pytest.approx(-2.1 + sign * 1.96 * 38.8, abs=0.11)
        assert found[f"{name}_high"] - found[name] == pytest.approx(34.6, abs=0.11)
        assert found[name] - found[f"{name}_low"] == pytest.approx(34.6, abs=0.11)


def test_bland_altman_slope() -> None:
    """Oracle: statsmodels' regression; and a bias of 10 % of the volume is a slope of 0.1 / 1.05 on the mean."""
    random = np.random.default_rng(0)
    truth = random.lognormal(3, 0.8, 60)
    found = bland_altman(truth, 1.1 * truth)
    assert found["slope"] == pytest.approx(0.1 / 1.05)
    measured = truth + random.normal(0, 2, 60)
    found = bland_altman(truth, measured)
    line = statsmodels.OLS(measured - truth, statsmodels.add_constant((truth + measured) / 2)).fit()
    expected = [line.params[1], *line.conf_int()[1], line.pvalues[1]]
    assert [found[name] for name in ("slope", "slope_low", "slope_high", "slope_p")] == pytest.approx(expected)


def test_bland_altman_of_little() -> None:
    """Property: a scan without both volumes is left out; one scan has a bias and nothing else."""
    found = bland_altman([10, math.nan, 30], [11, 5, math.nan])
    assert (found["n"], found["bias"]) == (1, 1)
    assert all(math.isnan(value) for name, value in found.items() if name not in ("n", "bias"))
    assert math.isnan(bland_altman([10, 10, 10], [11, 11, 11])["slope"])


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda m: compare_networks(m.drop(columns="dice")), "dice"),
        (lambda m: compare_networks(m.iloc[:0]), "no network"),
        (lambda m: compare_networks(pd.concat([m, m])), "twice"),
        (lambda m: compare_networks(m.assign(dice=math.nan)), "no scan in common"),
        (lambda m: summarise(m, ["center"]), "center"),
        (lambda m: by_size(m, (5, 5)), "rising"),
        (lambda m: by_size(m, (0, 5)), "positive"),
        (lambda m: choose_winner(m, compare_networks(m), {}, "fastest"), "fastest"),
        (lambda m: choose_winner(m, compare_networks(m), {}, "cheapest_equal"), "costs: none of"),
        (lambda m: choose_winner(m, compare_networks(m).iloc[2:]), "compare all networks"),
        (lambda m: choose_winner(m.assign(dice=math.nan), compare_networks(m)), "one scan"),
        (lambda m: bland_altman([1, 2], [1]), "shapes"),
        (lambda m: bland_altman([math.nan], [1]), "no scan"),
    ],
)
def test_refusals(call, match: str) -> None:
    with pytest.raises(HepaperError, match=match):
        call(benchmark(5))
