"""Tables of the segmentation benchmark: cells against the numbers they print."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from hepaper.errors import HepaperError
from hepaper.segmentation.compare import compare_networks, summarise
from hepaper.tables import benchmark_table, comparison_table, cost_table, full_scale_table


def metrics(patients: int = 8, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    rows = []
    for patient in range(patients):
        split = "train" if patient % 2 else "external_2"
        role = "external" if patient % 2 == 0 else ("validation" if patient % 3 else "trained")
        for timepoint in ("baseline", "followup"):
            for network in ("unetrpp", "umamba_bot", "nnunet"):  # not the order of the tables
                dice = random.beta(20, 2)
                rows.append(
                    (network, f"P{patient}", timepoint, split, role, dice, dice / (2 - dice), random.gamma(2, 2))
                )
    columns = ["network", "patient_id", "timepoint", "split", "role", "dice", "iou", "hd95_mm"]
    return pd.DataFrame(rows, columns=columns).assign(
        surface_dice=lambda t: t["dice"] ** 0.5, volume_error_percent=lambda t: 100 * (1 - t["dice"])
    )


def test_benchmark_table() -> None:
    """Oracle: the summary's numbers, formatted by hand; networks by their papers' names and in one order."""
    table = metrics()
    table.loc[table.index[table["network"] == "nnunet"][:2], "hd95_mm"] = math.nan
    summary = summarise(table)
    printed = benchmark_table(summary).set_index("Network")
    assert printed.index.tolist() == ["U-Mamba (Bot)", "nnU-Net", "UNETR++"]
    rows = summary[summary["network"] == "nnunet"].set_index("measure")
    dice, hd95 = rows.loc["dice"], rows.loc["hd95_mm"]
    cells = printed.loc["nnU-Net"]
    assert cells["Dice, mean (95% CI)"] == f"{dice['mean']:.3f} ({dice.mean_low:.3f}–{dice.mean_high:.3f})"
    assert cells["Dice, median (quartiles)"] == f"{dice['median']:.3f} ({dice.q25:.3f}–{dice.q75:.3f})"
    assert cells["Dice, lowest"] == f"{dice['min']:.3f}"
    assert cells["HD95 (mm), median (quartiles)"] == f"{hd95['median']:.1f} ({hd95.q25:.1f}–{hd95.q75:.1f})"
    assert cells[["Patients", "Scans", "Scans without HD95"]].tolist() == [8, 16, 2]
    volume = rows.loc["volume_error_percent"]
    expected = f"{volume['median']:.1f} ({volume.q25:.1f}–{volume.q75:.1f})"
    assert cells["Volume error (%), median (quartiles)"] == expected
    assert {"IoU, mean (95% CI)", "Surface Dice, mean (95% CI)"} <= set(printed)
    only = benchmark_table(summarise(table, measures=["dice"]))
    assert not any("IoU" in name or "HD95" in name for name in only)


def test_comparison_table() -> None:
    """Oracle: the comparisons' numbers, formatted by hand."""
    comparisons = compare_networks(metrics())
    row, cells = comparisons.iloc[0], comparison_table(comparisons).iloc[0]
    assert cells["Networks"] == "UNETR++ − U-Mamba (Bot)"
    expected = f"{row.difference:.3f} ({row.difference_low:.3f} to {row.difference_high:.3f})".replace("-", "−")
    assert cells["Mean difference (95% CI)"] == expected
    assert cells["p, Holm"] == f"{row.p_holm:.3f}"
    assert cells[["Measure", "Patients", "Scans"]].tolist() == ["Dice", 8, 16]


def test_cost_table() -> None:
    """Oracle: by hand: three significant figures, no exponent; only measured columns; n/a where unknown."""
    costs = pd.DataFrame(
        {
            "network": ["nnunet", "umamba_enc"],
            "parameters": [138_884, 63_608_156],
            "multiply_adds": [2_631_925_760, 1_167_595_596_800],
            "seconds_scan": [0.01234, 9.5],
            "memory_mb": [math.nan, 12_345.6],
        }
    )
    table = cost_table(costs)
    assert table.to_dict("list") == {
        "Network": ["U-Mamba (Enc)", "nnU-Net"],
        "Parameters (million)": ["63.6", "0.139"],
        "Multiply-adds a patch (billion)": ["1168", "2.63"],
        "Time a scan (s)": ["9.50", "0.0123"],
        "Memory a scan (MB)": ["12346", "n/a"],
    }


def test_full_scale_table() -> None:
    """Oracle: the paper's Dice as printed; a row a split and role, in the study's order."""
    table = metrics()
    table = table[table["network"] == "nnunet"]
    printed = full_scale_table(summarise(table, ["split", "role"])).set_index("Split")
    names = ["Training set, trained on", "Training set, held out", "External validation set 2"]
    assert printed.index.tolist() == names
    assert printed["Paper: Dice"].tolist() == ["0.983", "0.983", "0.982"]
    assert printed["Paper: IoU"].tolist()[-1] == "0.965"
    assert printed["Scans"].sum() == 16
    mean = table.loc[table["role"] == "trained", "dice"].mean()
    assert printed.loc[names[0], "Dice, mean (95% CI)"].startswith(f"{mean:.3f} ")
    whole = full_scale_table(summarise(table, ["split"]))
    assert whole["Split"].tolist() == ["Training set", "External validation set 2"]


def test_one_patient() -> None:
    """Property: an interval that does not exist is n/a, not an error."""
    cells = benchmark_table(summarise(metrics(1))).iloc[0]
    assert cells["Dice, mean (95% CI)"].endswith("(n/a)")
    nothing = metrics(2).assign(hd95_mm=math.nan)
    assert (benchmark_table(summarise(nothing))["HD95 (mm), median (quartiles)"] == "n/a").all()


def test_refusals() -> None:
    summary = summarise(metrics())
    with pytest.raises(HepaperError, match="mean_low"):
        benchmark_table(summary.drop(columns="mean_low"))
    with pytest.raises(HepaperError, match="one row of dice"):
        benchmark_table(pd.concat([summary, summary]))
    with pytest.raises(HepaperError, match="one row of dice"):
        benchmark_table(summary[summary["measure"] == "iou"])
    with pytest.raises(HepaperError, match="split"):
        full_scale_table(summary)
    with pytest.raises(HepaperError, match="p_holm"):
        comparison_table(compare_networks(metrics()).drop(columns="p_holm"))
