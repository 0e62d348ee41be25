"""Training sets, image quality and the reader study, each beside what the paper prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from hepaper.published import augmentation as published_augmentation
from hepaper.published import load_published
from hepaper.tables import _text

if TYPE_CHECKING:
    from hepaper.reader_study.analysis import Analysis

SET_NAMES = {
    "real_imbalanced": "Real-Imbalanced", "ukan_semibalanced": "UKAN-Semibalanced", "ukan_balanced": "UKAN-Balanced",
    "synthetic": "Synthetic images alone",
}  # fmt: skip


def training_sets(sets: Mapping[str, Mapping[str, int]]) -> pd.DataFrame:
    """``{set: {he_real, he_synthetic, nhe}}`` as a table, one row a set in the paper's order."""
    known = [name for name in SET_NAMES if name in sets]
    return pd.DataFrame([{"set": name, **sets[name]} for name in known])


def training_sets_table(sets: pd.DataFrame) -> pd.DataFrame:
    """Images in each training set and the ratio of HE to NHE, beside the paper's counts."""
    _text.require("training sets", sets, ("set", "he_real", "he_synthetic", "nhe"))
    paper = published_augmentation().set_index("set")
    rows = []
    for row in sets.itertuples():
        name = SET_NAMES[str(row.set)]
        theirs = paper.loc[name]
        he, he_theirs = row.he_real + row.he_synthetic, theirs["real_he"] + theirs["synthetic_he"]
        rows.append(
            {
                "Set": name,
                "Real HE": row.he_real,
                "Synthetic HE": row.he_synthetic,
                "Real NHE": row.nhe,
                "HE : NHE": f"1 : {_text.number(row.nhe / he, 2)}" if he else _text.MISSING,
                "Paper: real HE": int(theirs["real_he"]),
                "Paper: synthetic HE": int(theirs["synthetic_he"]),
                "Paper: real NHE": int(theirs["real_nhe"]),
                "Paper: HE : NHE": f"1 : {_text.number(theirs['real_nhe'] / he_theirs, 2)}",
            }
        )
    return pd.DataFrame(rows)


def quality_table(sets: pd.DataFrame) -> pd.DataFrame:
    """One row a measure, one column a set, with what real training images reach; the paper's FID and IS below.

    The paper's rows are Inception's: ours compare with them only where they are Inception's too, on the same images'
    size. That is why they stand apart.
    """
    _text.require("quality", sets, ("set", "measure", "label", "value", "ci_low", "ci_high", "better"))
    names = [name for name in SET_NAMES if name in set(sets["set"])]
    rows: list[dict[str, str]] = []
    for _, part in sets.groupby("measure", sort=False):
        by_set = part.set_index("set")
        row = {"Measure": str(part["label"].iloc[0]), "Better": str(part["better"].iloc[0])}
        for name in names:
            if name in by_set.index:
                one = by_set.loc[name]
                row[SET_NAMES[name]] = _text.interval(one["value"], one["ci_low"], one["ci_high"])
            else:
                row[SET_NAMES[name]] = _text.MISSING
        rows.append(row)
    paper = published_augmentation().set_index("set")
    for column, label, better in (("fid", "Paper: FID", "lower"), ("inception_score", "Paper: IS", "higher")):
        given = {SET_NAMES[name]: paper[column].get(SET_NAMES[name], float("nan")) for name in names}
        rows.append({"Measure": label, "Better": better, **{k: _text.number(float(v)) for k, v in given.items()}})
    return pd.DataFrame(rows)


def table2_beside_published(analysis: Analysis) -> pd.DataFrame:
    """Table 2 of this study with the paper's values in columns of their own, row by row."""
    from hepaper.reader_study.analysis import table2  # which formats through this package

    ours = table2(analysis)
    printed = load_published()["table2"]
    theirs: list[tuple[str, str, str]] = []
    for scale in ("quality", "authenticity"):
        paper: dict[str, Any] = printed[scale]
        total = {origin: printed["images"][origin] * printed["readers"] for origin in ("real", "synthetic")}
        means = [_text.spread(paper["mean"][o], paper["sd"][o], "{} ± {}") for o in total]
        theirs += [("", "", ""), (means[0], means[1], _text.p_value(paper["p_value"]))]
        for level in ("score_3_or_more", "score_2_or_less"):
            counts = [f"{_text.count_percent(paper[level][o], total[o])} of {total[o]}" for o in total]
            theirs += [(counts[0], counts[1], ""), (_text.MISSING, _text.MISSING, "")]
        theirs.append((_text.number(paper["icc"]), "", ""))
    found = printed["identification"]
    shares = [f"{_text.count_percent(found['correct'][o], n)} of {n}" for o, n in printed["images"].items()]
    kappa = f"{_text.number(found['fleiss_kappa'])}; in the text {_text.number(found['fleiss_kappa_in_text'])}"
    theirs += [("", "", ""), (shares[0], shares[1], ""), (kappa, "", "")]
    columns = ["Paper: real", "Paper: synthetic", "Paper: p-value"]
    return pd.concat([ours, pd.DataFrame(theirs, columns=columns)], axis=1)
