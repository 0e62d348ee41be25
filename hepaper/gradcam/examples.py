"""Which patients the figure shows: picked by their scores alone, before anybody has seen a map."""

from __future__ import annotations

import numpy as np
import pandas as pd

GROUPS = ("true positive", "false negative", "true negative", "false positive")
COLUMNS = ["patient_id", "split", "label", "score", "called", "group", "rank", "of"]


def select(predictions: pd.DataFrame, threshold: float, per_group: int) -> pd.DataFrame:
    """Examples of right and wrong calls.

    The patients of a group are put in order from the surest call to the least sure (calls for HE from the highest
    score down, calls for NHE from the lowest up; equal scores by patient_id). Taken are the patients at the quantiles
    0, 1/k, 2/k ... of that order, for k = ``per_group``: with 2 the surest and the median.

    Parameters
    ----------
    predictions
        patient_id, split, label (0 or 1), score.
    threshold
        Scores from here on are calls for HE.

    Returns
    -------
    DataFrame
        patient_id, split, label, score, called (0 or 1), group, rank (1 is the surest of the group), of (how many are in
        the group); a row an example, a small group giving fewer and an empty one none.
    """
    table = predictions[["patient_id", "split", "label", "score"]].copy()
    table["called"] = (table["score"] >= threshold).astype(int)
    right = table["called"] == table["label"]
    names = np.where(right, "true ", "false ") + np.where(table["called"] == 1, "positive", "negative").astype(object)
    table["group"] = names
    table["sureness"] = np.where(table["called"] == 1, table["score"], -table["score"])
    chosen = []
    for group in GROUPS:
        here = table[table["group"] == group]
        here = here.sort_values(["sureness", "patient_id"], ascending=[False, True], ignore_index=True)
        places = {round(k / per_group * (len(here) - 1)) for k in range(per_group)} if len(here) else set()
        picked = here.loc[sorted(places)]
        chosen.append(picked.assign(rank=picked.index + 1, of=len(here)))
    return pd.concat(chosen, ignore_index=True)[COLUMNS]


def rule(who: str, threshold: float, per_group: int) -> str:
    """:func:`select` in words, for a caption."""
    if per_group == 1:
        taken = "the surest call"
    elif per_group == 2:
        taken = "the surest call and the median one"
    else:
        taken = f"the calls at {per_group} even steps from the surest on"
    return f"Of the {who}, by score at the threshold {threshold:.3f}, in each group: {taken}; slice Max."
