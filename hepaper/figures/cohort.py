"""Figures of the cohort: the recruitment flowchart (Fig. 1) and the distributions beside Table 1."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from hepaper.errors import HepaperError
from hepaper.figures import style
from hepaper.published import table1 as published_table1

_SET_NAMES = {
    "train": "Training set", "external_1": "External validation set 1", "external_2": "External validation set 2",
}  # fmt: skip


def _counts(counts: pd.DataFrame | Mapping[str, Any]) -> tuple[int, dict[str, int], dict[str, int]]:
    if isinstance(counts, pd.DataFrame):
        if missing := [c for c in ("kind", "name", "n") if c not in counts]:
            raise HepaperError(f"flowchart counts: column(s) {', '.join(missing)} missing")
        by_kind = {kind: dict(zip(rows["name"], rows["n"], strict=True)) for kind, rows in counts.groupby("kind")}
        total = int(counts.loc[counts["kind"] == "total", "n"].iloc[0])
        excluded = {str(reason): int(n) for reason, n in by_kind.get("excluded", {}).items()}
        splits = {str(split): int(n) for split, n in by_kind.get("split", {}).items()}
    else:
        total, splits = int(counts["total"]), dict(counts["splits"])
        excluded = dict(counts["excluded"])
    left = total - sum(excluded.values())
    if left != sum(splits.values()):
        raise HepaperError(
            f"flowchart counts: {left} of {total} patients are left, but the splits hold {sum(splits.values())}"
        )
    return total, excluded, {split: splits[split] for split in style.splits_in(splits)}


@style.in_style
def flowchart(counts: pd.DataFrame | Mapping[str, Any], he: Mapping[str, int] | None = None) -> Figure:
    """Patients from assessment to the three splits, with every exclusion counted (form of Fig. 1).

    Parameters
    ----------
    counts : DataFrame or dict
        What :func:`hepaper.cohort.eligibility.flowchart_counts` returns (``cohort/flowchart.csv``), or
        ``{"total": n, "excluded": {reason: n}, "splits": {split: n}}``.
    he : dict, optional
        Patients with HE by split; the others of the split are NHE.

    Raises
    ------
    HepaperError
        If total less excluded is not the sum of the splits, or a split has more HE than patients.
    """
    total, excluded, splits = _counts(counts)
    for split, expanded in (he or {}).items():
        if not 0 <= expanded <= splits.get(split, 0):
            raise HepaperError(f"flowchart: {expanded} HE among {splits.get(split, 0)} patients of {split}")
    lines: list[str] = []
    for reason, n in excluded.items():
        words = f"• {reason[:1].upper()}{reason[1:]} (n\u00a0=\u00a0{n:,})"  # the count stays in one piece
        lines += textwrap.wrap(words, 48, subsequent_indent="   ")
    lines = lines or ["None"]
    # all lengths in inches
    line_height, head = 0.225, 0.42
    height_excluded = head + 0.12 + line_height * len(lines)
    row, gap, split_height = 0.62, 0.5, 1.4 if he else 0.8
    middle = height_excluded + 0.4
    height = row + middle + row + gap + split_height + 0.2
    figure = style.BookFigure(figsize=(style.WIDTH, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, style.WIDTH), ylim=(0, height))
    axes.axis("off")

    def box(x: float, y: float, w: float, h: float, colour: str = style.INK, fill: str = "white") -> None:
        axes.add_patch(
            FancyBboxPatch((x, y), w, h, boxstyle="round,pad=0,rounding_size=0.07", fc=fill, ec=colour, lw=1.3)
        )

    def arrow(start: tuple[float, float], end: tuple[float, float]) -> None:
        axes.annotate(
            "", end, start,
            arrowprops={
                "arrowstyle": "-|>", "color": style.INK, "lw": 1.3, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 13,
            },
        )  # fmt: skip

    def line(xs: list[float], ys: list[float]) -> None:
        axes.plot(xs, ys, color=style.INK, lw=1.3, solid_capstyle="butt")

    # the trunk runs left of the middle, the exclusions branch off to its right
    wide, trunk = 3.5, 1.9
    top = height - 0.1
    box(trunk - wide / 2, top - row, wide, row)
    words = f"Patients with spontaneous intracerebral\nhemorrhage assessed (n = {total:,})"
    axes.text(trunk, top - row / 2, words, ha="center", va="center", linespacing=1.35)
    included_top = top - row - middle
    arrow((trunk, top - row), (trunk, included_top))
    branch = top - row - middle / 2
    left = 3.95
    box(left, branch - height_excluded / 2, style.WIDTH - left - 0.15, height_excluded, style.GREY, "#F7F8F9")
    arrow((trunk, branch), (left, branch))
    y = branch + height_excluded / 2 - head / 2 - 0.02
    axes.text(left + 0.15, y, f"Excluded (n = {total - sum(splits.values()):,})", fontweight="bold", va="center")
    y -= head / 2 - 0.02 - line_height / 2
    for text in lines:
        y -= line_height
        axes.text(left + 0.15, y, text, va="center", fontsize=8.5)
    box(trunk - wide / 2, included_top - row, wide, row)
    words = f"Patients included (n = {sum(splits.values()):,})"
    axes.text(trunk, included_top - row / 2, words, ha="center", va="center", fontweight="bold")

    each = (style.WIDTH - 0.3) / max(len(splits), 3)
    split_top = included_top - row - gap
    half_way = split_top + gap / 2
    centres = [0.15 + each * (i + 0.5) for i in range(len(splits))]
    line([trunk, trunk], [included_top - row, half_way])
    line([min([*centres, trunk]), max([*centres, trunk])], [half_way] * 2)
    for centre, (split, n) in zip(centres, splits.items(), strict=True):
        arrow((centre, half_way), (centre, split_top))
        colour = style.SPLIT_COLOURS.get(split, style.GREY)
        w = each - 0.2
        box(centre - w / 2, split_top - split_height, w, split_height, colour)
        middle_of = {"x": centre, "ha": "center", "va": "center"}
        axes.text(y=split_top - 0.27, s=_SET_NAMES.get(split, split), fontweight="bold", **middle_of)
        axes.text(y=split_top - 0.53, s=f"n = {n:,}", **middle_of)
        if he:
            axes.plot([centre - w / 2 + 0.2, centre + w / 2 - 0.2], [split_top - 0.73] * 2, color=style.PALE, lw=1)
            expanded = he.get(split, 0)
            for place, name, count in ((0.93, "HE", expanded), (1.17, "NHE", n - expanded)):
                share = f" ({count / n:.1%})" if n else ""
                axes.text(y=split_top - place, s=f"{name}: {count:,}{share}", fontsize=9, **middle_of)
    return figure


@style.in_style
def distributions_vs_table1(
    cohort: pd.DataFrame, labels: pd.DataFrame | None = None, truth: pd.DataFrame | None = None
) -> Figure:
    """Age, baseline volume and growth of a cohort, with what the paper's Table 1 prints drawn beside.

    Parameters
    ----------
    cohort : DataFrame
        patient_id, split, age.
    labels, truth : DataFrame
        patient_id, baseline_ml, followup_ml, he: measured, or known to the phantom. ``labels`` go first where both
        are given.

    Raises
    ------
    HepaperError
        If neither is given.
    """
    volumes = labels if labels is not None else truth
    if volumes is None:
        raise HepaperError("distributions: give labels or truth (patient_id, baseline_ml, followup_ml, he)")
    columns = ["patient_id", "baseline_ml", "followup_ml", "he"]
    table = cohort[["patient_id", "split", "age"]].merge(volumes[columns], on="patient_id", how="left")
    splits = style.splits_in(table["split"])
    paper = published_table1().set_index("split")
    random = np.random.default_rng(0)  # sideways jitter of the points only
    figure = style.new_figure(style.WIDTH, 3.7)
    age, volume, growth = figure.subplots(1, 3, width_ratios=(1, 1, 1.15))
    for panel, column, centre, low_high, label in (
        (age, "age", "age_mean", lambda r: (r.age_mean - r.age_sd, r.age_mean + r.age_sd), "Age (years)"),
        (volume, "baseline_ml", "baseline_median_ml", None, "Baseline volume (mL)"),
    ):
        for place, split in enumerate(splits):
            values = table.loc[table["split"] == split, column].dropna().to_numpy(float)
            style.box_and_points(panel, place, values, style.SPLIT_COLOURS.get(split, style.GREY), random)
            if split not in paper.index:
                continue
            row = paper.loc[split]
            at = place + 0.42
            if low_high:
                panel.plot([at, at], low_high(row), color=style.INK, lw=1.6)
            panel.plot(at, row[centre], marker="D", ms=5, color=style.INK, ls="none")
            if column == "baseline_ml":  # the paper prints the width of the quartile range, not where it lies
                width = f"{np.subtract(*np.percentile(values, [75, 25])):.0f}" if values.size > 1 else "n/a"
                words = f"IQR {width}\npaper {row['baseline_iqr_ml']:.0f}"
                corner = ("data", "axes fraction")
                panel.annotate(words, (place, 1.0), xycoords=corner, ha="center", va="top", fontsize=8)
        panel.set_xticks(range(len(splits)), [style.SPLIT_NAMES.get(s, s) for s in splits], rotation=20)
        panel.set_xlim(-0.6, len(splits) - 0.4 + 0.15)
        panel.set_ylabel(label)
    age.set_title("Age")
    volume.set_title("Baseline volume")
    top = table["baseline_ml"].max()
    volume.set_ylim(0, 1.28 * top if np.isfinite(top) and top > 0 else 1)
    growth.set_title("Growth to follow-up")
    change = table["followup_ml"] - table["baseline_ml"]
    known = table["he"].notna() & change.notna()
    for place, (name, wanted) in enumerate((("NHE", False), ("HE", True))):
        values = change[known & (table["he"].astype("boolean") == wanted)].to_numpy(float)
        style.box_and_points(growth, place, values, style.CLASS_COLOURS[name], random)
        if not values.size:
            growth.text(place, 0, "none", ha="center", va="center", color=style.GREY)
    growth.set_xticks([0, 1], [f"{name} (n = {int((table.loc[known, 'he'].astype(bool) == w).sum())})"
                              for name, w in (("NHE", False), ("HE", True))])  # fmt: skip
    growth.set_xlim(-0.6, 1.6)
    growth.set_ylabel("Follow-up − baseline (mL)")
    growth.set_yscale("symlog", linthresh=6)
    ticks = [-40, -20, -6, 0, 6, 20, 40, 80]
    low, high = (change[known].min(), change[known].max()) if known.any() else (-6, 6)
    growth.set_yticks([t for t in ticks if min(low, -6) * 1.3 <= t <= max(high, 6) * 1.3])
    growth.yaxis.set_major_formatter(lambda v, _: f"{v:.0f}".replace("-", "−"))
    growth.minorticks_off()
    growth.axhline(6, color=style.GREY, lw=1, ls=(0, (4, 3)), zorder=0)
    growth.annotate("6 mL", (1.6, 6), xytext=(0, 2), textcoords="offset points", ha="right", va="bottom",
                    fontsize=8, color=style.GREY)  # fmt: skip
    figure.legend(
        handles=[age.plot([], [], marker="D", ms=5, color=style.INK, lw=1.6,
                          label="Paper, Table 1 (age: mean ± SD; volume: median)")[0]],
        loc="outside lower center",
    )  # fmt: skip
    return figure
