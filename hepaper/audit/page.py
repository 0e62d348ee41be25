"""The audit as a table for the book: filtered by words and verdict, each row with its computation one click away.

Plain HTML with a few lines of script, nothing fetched. Without scripts it is the whole table, with the computations
still one click away.
"""

from __future__ import annotations

import html
import re
from collections.abc import Hashable

import pandas as pd

from hepaper.audit import same_fact
from hepaper.audit.check import VERDICTS

_STYLE = """
.audit-table { margin: 1.5rem 0; }
.audit-table .audit-controls { display: flex; flex-wrap: wrap; gap: 0.5rem; align-items: center; margin-bottom: 0.6rem; }
.audit-table .audit-controls[hidden] { display: none; }
.audit-table input { flex: 1 1 14rem; padding: 0.35rem 0.6rem; font: inherit; color: inherit; background: transparent;
  border: 1px solid currentColor; border-radius: 4px; }
.audit-table button { padding: 0.3rem 0.7rem; font: inherit; font-size: 0.86rem; cursor: pointer; border-radius: 4px;
  border: 1px solid #7a828e; background: transparent; color: inherit; }
.audit-table button[aria-pressed="true"] { background: #1f5f7a; border-color: #1f5f7a; color: #fff; }
.audit-table .audit-count { font-size: 0.86rem; }
.audit-table .audit-scroll { overflow-x: auto; }
.audit-table table { width: 100%; min-width: 40rem; table-layout: fixed; border-collapse: collapse; font-size: 0.86rem; font-variant-numeric: tabular-nums; }
.audit-table th, .audit-table td { padding: 0.4rem 0.6rem; text-align: left; vertical-align: top; white-space: normal;
  border-top: 1px solid rgba(122, 130, 142, 0.4); }
.audit-table thead th:nth-child(1) { width: 36%; }
.audit-table thead th:nth-child(2) { width: 25%; }
.audit-table thead th:nth-child(3) { width: 21%; }
.audit-table caption { text-align: left; caption-side: top; }
.audit-table tbody th { font-size: 0.95rem; padding-top: 1rem; border-top: 2px solid rgba(122, 130, 142, 0.7); }
.audit-table [hidden] { display: none; }
.audit-table details { font-size: 0.95em; margin-top: 0.2rem; }
.audit-table summary { cursor: pointer; opacity: 0.8; }
.audit-table details p { margin: 0.3rem 0; line-height: 1.45; }
.audit-table .verdict { display: inline-block; padding: 0.05rem 0.5rem; border-radius: 4px; color: #1d2126; }
.audit-table .reproduced { background: #7fc8a9; }
.audit-table .consistent-with-rounding { background: #a9d3ef; }
.audit-table .inconsistent { background: #b84d00; color: #fff; }
.audit-table .not-checkable-without-the-data { background: #c9cdd3; }
@media print { .audit-table .audit-controls { display: none; } }
"""

_SCRIPT = """
document.querySelectorAll('.audit-table:not([data-ready])').forEach(function (box) {
  box.dataset.ready = 'yes';
  var field = box.querySelector('input');
  var buttons = Array.from(box.querySelectorAll('button'));
  var count = box.querySelector('.audit-count');
  var rows = Array.from(box.querySelectorAll('tr[data-verdict]'));
  var texts = rows.map(function (row) { return row.textContent.toLowerCase(); });
  function filter() {
    var words = field.value.toLowerCase().split(/\\s+/).filter(Boolean);
    var wanted = buttons.filter(function (b) { return b.getAttribute('aria-pressed') === 'true'; })
      .map(function (b) { return b.dataset.verdict; });
    var shown = 0;
    rows.forEach(function (row, i) {
      var fits = (!wanted.length || wanted.includes(row.dataset.verdict)) &&
        words.every(function (word) { return texts[i].includes(word); });
      row.hidden = !fits;
      shown += fits ? 1 : 0;
    });
    box.querySelectorAll('tbody').forEach(function (part) {
      part.hidden = !part.querySelector('tr[data-verdict]:not([hidden])');
    });
    count.textContent = shown + ' of ' + rows.length + ' checks';
  }
  buttons.forEach(function (button) {
    button.addEventListener('click', function () {
      button.setAttribute('aria-pressed', button.getAttribute('aria-pressed') === 'true' ? 'false' : 'true');
      filter();
    });
  });
  field.addEventListener('input', filter);
  box.querySelector('.audit-controls').hidden = false;
  filter();
});
"""


def _class(verdict: str) -> str:
    return re.sub(r"\W+", "-", verdict)


def _others(audit: pd.DataFrame) -> dict[Hashable, str]:
    """What a check shares with others, by its label."""
    found = {}
    for group in same_fact(audit):
        for label in group:
            names = " and ".join(
                f"“{audit.loc[other, 'item']}” ({audit.loc[other, 'section']})" for other in group if other != label
            )
            found[label] = f"One finding with {names}: both rest on {audit.loc[label, 'rests_on']}."
    return found


def _row(check: pd.Series, shared: str) -> str:
    cell = {name: html.escape(str(check[name])) for name in check.index}
    lines = [f"<p>{line}</p>" for line in cell["how"].split("\n")]
    note = f"<div>{html.escape(shared)}</div>" if shared else ""
    if cell["where"]:
        lines.append(f"<p>In the paper: {cell['where']}.</p>")
    if cell["needs"]:
        lines.append(f"<p>Needed: {cell['needs']}.</p>")
    return (
        f'<tr data-verdict="{cell["verdict"]}"><td>{cell["item"]}{note}<details><summary>computation</summary>'
        f"{''.join(lines)}</details></td><td>{cell['published']}</td><td>{cell['recomputed']}</td>"
        f'<td><span class="verdict {_class(check["verdict"])}">{cell["verdict"]}</span></td></tr>'
    )


def audit_table(audit: pd.DataFrame, caption: str = "Every check.") -> str:
    """The audit as HTML: sections, verdicts, a field to filter words, a button a verdict.

    Parameters
    ----------
    audit : DataFrame of :func:`hepaper.audit.run_audit`
    caption : plain text
    """
    bodies, shared = [], _others(audit)
    for section, rows in audit.groupby("section", sort=False):
        body = "".join(_row(check, shared.get(label, "")) for label, check in rows.iterrows())
        bodies.append(
            f'<tbody><tr><th colspan="4" scope="rowgroup">{html.escape(str(section))}</th></tr>{body}</tbody>'
        )
    buttons = "".join(
        f'<button type="button" aria-pressed="false" data-verdict="{verdict}">{verdict} '
        f"({int((audit['verdict'] == verdict).sum())})</button>"
        for verdict in VERDICTS
    )
    return (
        f'<div class="audit-table"><style>{_STYLE}</style>'
        '<div class="audit-controls" hidden><input type="search" placeholder="words to look for" '
        f'aria-label="Show checks that contain these words"/>{buttons}'
        '<span class="audit-count" role="status"></span></div>'
        f'<div class="audit-scroll"><table><caption>{html.escape(caption)}</caption><thead><tr><th scope="col">Item</th>'
        '<th scope="col">Published</th><th scope="col">Recomputed</th><th scope="col">Verdict</th></tr></thead>'
        f"{''.join(bodies)}</table></div><script>{_SCRIPT}</script></div>"
    )
