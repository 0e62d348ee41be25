"""The page that puts two runs side by side: A on the left or above, B on the right or below."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hepaper.compare.read import Run, flatten
from hepaper.compare.tables import Cell, Comparison, compare_tables, read_table
from hepaper.site.page import escape, page
from hepaper.site.start import facts

_A, _B = '<b class="tag">A</b>', '<b class="tag b">B</b>'
_SENTENCE = 60  # letters of a cell beyond which its text may break
_OTHERS = "Others"


def _same(a: Any, b: Any) -> bool:
    """Equal, and both true or false or neither, as 1 and true are not the same setting."""
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def _told(value: Any) -> str:
    """A value of a JSON or YAML file in a cell."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", "−")
    return escape(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """A table of the keys whose values differ; a key that one lacks shows a dash."""
    rows = "".join(
        f"<tr><td><code>{escape(key)}</code></td><td>{_told(a.get(key))}</td><td>{_told(b.get(key))}</td></tr>"
        for key in [*a, *(key for key in b if key not in a)]
        if key not in a or key not in b or not _same(a[key], b[key])
    )
    if not rows:
        return "<p>No difference.</p>"
    return (
        f'<div class="scroll"><table><thead><tr><th>Key</th><th>{_A}</th><th>{_B}</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _settings(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters by dotted name; a list is one setting."""
    flat: dict[str, Any] = {}
    for key, value in params.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{name}": inner for name, inner in _settings(value).items()}
        else:
            flat[key] = ", ".join(map(str, value)) if isinstance(value, list) else value
    return flat


def _origin(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Provenance by dotted name, with the stages' seconds as one sum."""
    flat = flatten({key: value for key, value in provenance.items() if key != "seconds"})
    flat["seconds, all stages"] = round(sum((provenance.get("seconds") or {}).values()))
    return flat


# ------------------------------------------------------------------------------------------------ numbers


def _numbers(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[str, str]:
    """The numbers of both results that differ, as a table that can be filtered; and one sentence on them."""
    shared = [key for key in a if key in b]
    numbers = [key for key in shared if _is_number(a[key]) and _is_number(b[key])]
    moved = [(index, key) for index, key in enumerate(numbers) if a[key] != b[key]]
    size = {key: abs(b[key] - a[key]) / max(abs(a[key]), abs(b[key])) for _, key in moved}
    rows = []
    for index, key in sorted(moved, key=lambda item: -size[item[1]]):
        change = b[key] - a[key]
        relative = f"{100 * change / abs(a[key]):+.3g} %".replace("-", "−") if a[key] else "–"
        shown = f"{change:+.4g}".replace("-", "−")
        rows.append(
            f'<tr data-order="{index}"><td><code>{escape(key)}</code></td><td>{_told(a[key])}</td>'
            f"<td>{_told(b[key])}</td><td>{shown}</td><td>{relative}</td></tr>"
        )
    words = {
        key: (a[key], b[key])
        for key in shared
        if isinstance(a[key], str) and isinstance(b[key], str) and a[key] != b[key] and not key.endswith("_text")
    }
    said = f"{len(moved)} of the {len(numbers)} numbers that both have differ"
    parts = []
    if rows:
        parts.append(
            '<div class="filters" id="filters" hidden><label>Show keys with <input type="search" id="wanted"></label>'
            '<label>Order <select id="order"><option value="size">largest relative difference first</option>'
            '<option value="order">as in the study</option></select></label><span id="count" role="status"></span></div>'
            '<div class="scroll tall" tabindex="0" role="region" aria-label="Numbers that differ"><table id="numbers">'
            f"<thead><tr><th>Key</th><th>{_A}</th><th>{_B}</th><th>{_B}−{_A}</th><th>relative to {_A}</th></tr></thead>"
            f"<tbody>{''.join(rows)}</tbody></table></div>"
        )
    if words:
        inner = _differing(
            {key: value[0] for key, value in words.items()}, {key: value[1] for key, value in words.items()}
        )
        parts.append(
            f'<details class="compared"><summary><b>Words that differ</b> <small>{len(words)}</small></summary>{inner}'
            "</details>"
        )
    return f"<p>{said}.</p>" + "\n".join(parts), said


# ------------------------------------------------------------------------------------------------ tables


def _cell(cell: Cell) -> str:
    long = " long" if any(len(text or "") > _SENTENCE for text in (cell.a, cell.b)) else ""
    if cell.a is None or cell.b is None:
        only = cell.b if cell.a is None else cell.a
        return f'<td class="{long}"><span>{escape(only)}</span></td>'
    if not cell.changed:
        return f'<td class="same{long}"><span>{escape(cell.a)}</span></td>'
    more = f'<span class="difference">{escape(cell.difference)}</span>' if cell.difference else ""
    return f'<td class="changed{long}"><span>{_A}{escape(cell.a)}</span><span>{_B}{escape(cell.b)}</span>{more}</td>'


def _row(cells: list[Cell]) -> str:
    tag = ""
    if all(cell.a is None for cell in cells):
        tag = f"only {_B}"
    elif all(cell.b is None for cell in cells):
        tag = f"only {_A}"
    return f"<tr><td>{tag}</td>{''.join(map(_cell, cells))}</tr>"


def _header(names: tuple[str | None, str | None]) -> str:
    a, b = names
    if a is None or b is None:
        return f"<th>{_B if a is None else _A}{escape(b if a is None else a)}</th>"
    return f"<th>{escape(a)}</th>" if a == b else f"<th>{_A}{escape(a)}<br>{_B}{escape(b)}</th>"


def _table(made: Comparison) -> str:
    head = "".join(map(_header, made.columns))
    body = "".join(map(_row, made.rows))
    return f'<div class="scroll"><table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _table_block(name: str, caption: str, paths: list[Path | None]) -> tuple[str, bool]:
    """One table of both runs, and whether it differs."""
    a, b = paths
    told = f"<b>{escape(name)}</b> <small>{escape(caption)}</small>" if caption else f"<b>{escape(name)}</b>"
    if a is None or b is None:
        return f'<p id="table-{escape(name)}">{told} <small>only in {_B if a is None else _A}</small></p>', True
    first, second = read_table(a), read_table(b)
    if "patient_id" in (first or [[]])[0] + (second or [[]])[0]:
        said = "one row a patient, which is not compared"
        return f'<p id="table-{escape(name)}">{told} <small>{said}</small></p>', False
    made = compare_tables(first, second)
    said = f"{made.changed} of {made.cells} cells differ" if made.changed else "the same in both"
    return (
        f'<details class="compared" id="table-{escape(name)}"{" open" if made.changed else ""}><summary>{told} '
        f"<small>{said}</small></summary>{_table(made)}</details>"
    ), bool(made.changed)


# ------------------------------------------------------------------------------------------------ figures


def _picture(letter: str, name: str, path: Path, caption: str) -> str:
    with path.open("rb") as file:
        head = file.read(24)
    size = ""
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        width, height = struct.unpack(">II", head[16:24])
        size = f' width="{width}" height="{height}"'
    source = f"pictures/{letter}/{escape(name)}.png"
    return f'<a href="{source}"><img src="{source}"{size} loading="lazy" alt="{escape(caption or name)}"></a>'


def _figure_block(name: str, captions: list[str], paths: list[Path | None]) -> tuple[str, bool]:
    """One figure of both runs, and whether it differs."""
    a, b = paths
    there = [
        (letter, tag, caption, path)
        for letter, tag, caption, path in zip("ab", (_A, _B), captions, paths, strict=True)
        if path
    ]
    said = "" if len(there) == 2 else f"only in {there[0][1]}"
    if a and b and a.read_bytes() == b.read_bytes():
        there, said = there[:1], "the same in both"
        tags = [""]
    else:
        tags = [tag for _, tag, _, _ in there]
    # a caption that both share stands above the pictures, once
    shared = len({caption for _, _, caption, _ in there}) == 1
    shown = "".join(
        f"<figure>{_picture(letter, name, path, caption)}"
        f"<figcaption>{tag} {'' if shared else escape(caption)}</figcaption></figure>"
        for (letter, _, caption, path), tag in zip(there, tags, strict=True)
    )
    changed = said != "the same in both"
    caption = escape(there[0][2]) if shared and there[0][2] else ""
    return (
        f'<details class="compared" id="figure-{escape(name)}"{" open" if changed else ""}><summary><b>{escape(name)}</b> '
        f'<small>{caption} {said}</small></summary><div class="pair">{shown}</div></details>'
    ), changed


# ------------------------------------------------------------------------------------------------ the page


def _chapters(a: Run, b: Run) -> list[tuple[str, str, dict[str, list[str]]]]:
    """Chapters of both: name, title, and for each figure or table its caption in A and in B."""
    merged: dict[str, tuple[str, dict[str, list[str]]]] = {}
    for side, run in enumerate((a, b)):
        for chapter in run.chapters:
            _, shown = merged.setdefault(chapter.name, (chapter.title, {}))
            for name, caption in chapter.shown:
                shown.setdefault(name, ["", ""])[side] = caption
    known = {name for _, shown in merged.values() for name in shown}
    files = {name for run in (a, b) for kind in (("tables", ".csv"), ("figures", ".png")) for name in run.files(*kind)}
    rest = {name: ["", ""] for name in sorted(files - known)}
    ordered = [(name, *merged[name]) for name in sorted(merged)]
    return [*ordered, (_OTHERS, _OTHERS, rest)] if rest else ordered


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"<code>{escape(name)}</code>" for name in names)


def _only(a: Run, b: Run) -> str:
    """What one of the two has and the other lacks."""
    results = {side: set(run.results) for side, run in (("a", a), ("b", b))}
    rows = []
    for what, first, second in (
        ("stages", results["a"], results["b"]),
        ("tables", set(a.files("tables", ".csv")), set(b.files("tables", ".csv"))),
        ("figures", set(a.files("figures", ".png")), set(b.files("figures", ".png"))),
    ):
        for tag, names in ((_A, first - second), (_B, second - first)):
            if names:
                rows.append(f"<li>{what} only in {tag}: {_listed(sorted(names))}</li>")
    return f"<ul>{''.join(rows)}</ul>" if rows else ""


def comparison_page(a: Run, b: Run, links: list[str | None], in_site: bool) -> str:
    """The whole page. ``links``: the two books' folders seen from the page, None where they are not in its site."""
    sections, jumps = [], []
    changed = {"tables": 0, "figures": 0}
    both = {"tables": 0, "figures": 0}
    files = {kind: [run.files(kind, end) for run in (a, b)] for kind, end in (("tables", ".csv"), ("figures", ".png"))}
    for chapter, title, shown in _chapters(a, b):
        blocks = []
        for name, captions in shown.items():
            for kind in ("tables", "figures"):
                paths = [files[kind][side].get(name) for side in (0, 1)]
                if paths == [None, None]:
                    continue
                if kind == "tables":
                    block, differs = _table_block(name, captions[0] or captions[1], paths)
                else:
                    block, differs = _figure_block(name, captions, paths)
                blocks.append(block)
                if None not in paths:
                    both[kind] += 1
                    changed[kind] += differs
        if blocks:
            sections.append(
                f'<section id="{escape(chapter)}"><h2>{escape(title)}</h2>\n' + "\n".join(blocks) + "</section>"
            )
            jumps.append(f'<a href="#{escape(chapter)}">{escape(title)}</a>')
    numbers, said = _numbers(flatten(a.results), flatten(b.results))
    cards = []
    for tag, run, link in ((_A, a, links[0]), (_B, b, links[1])):
        name = f"{escape(run.made['study'])} {escape(run.made['version'])}"
        name = f'<a href="{escape(link)}/index.html">{name}</a>' if link else name
        conclusion = run.made.get("conclusion")
        cards.append(
            f'<article class="card"><h3>{tag} {name}</h3><p class="title">{escape(run.made.get("title"))}</p>'
            f"{facts(run.made)}"
            + (f'<p class="conclusion">{escape(conclusion)}</p>' if conclusion else "")
            + "</article>"
        )
    title = " and ".join(f"{run.made['study']} {run.made['version']}" for run in (a, b))
    home = '<a href="../../index.html">All books</a>' if in_site else "hepaper"
    short = " and ".join(f"{changed[kind]} of the {both[kind]} {kind}" for kind in changed)
    body = f"""<header><p class="eyebrow">{home}</p><h1>{escape(title)}, side by side</h1></header>
<main>
<div class="pair">{"".join(cards)}</div>
<p>Of what both have, {said.replace(" that both have differ", "")}, {short} differ. Differences are {_B} minus {_A}.</p>
{_only(a, b)}
<section id="parameters"><h2>Parameters that differ</h2>{_differing(_settings(a.params), _settings(b.params))}</section>
<section id="provenance"><h2>Provenance</h2>{_differing(_origin(a.provenance), _origin(b.provenance))}</section>
<section id="results"><h2>Numbers</h2>{numbers}</section>
<nav aria-label="Chapters"><h2>Tables and figures</h2><p>{" · ".join(jumps)}</p></nav>
{"".join(sections)}
</main>"""
    return page(f"{title}, side by side", body, (Path(__file__).parent / "page.js").read_text("utf-8"))
