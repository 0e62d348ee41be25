"""Two runs side by side: what is matched, what differs by how much, and what is never shown."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from bs4 import BeautifulSoup, Tag
from hypothesis import given, settings
from hypothesis import strategies as st
from site_runs import RESULTS, add_figure, add_notebook, add_table, contents, make_run

from hepaper.compare import compare_runs
from hepaper.compare.read import flatten, read_run
from hepaper.compare.tables import Cell, compare_tables, difference, number, pair
from hepaper.errors import HepaperError
from hepaper.site import publish
from hepaper.study import write_json

# ------------------------------------------------------------------------------------------------ tables


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("0.71", "0.82", "+0.11"),
        ("0.1", "0.3", "+0.2"),  # not 0.19999999999999998
        ("0.82", "0.710", "−0.110"),
        ("−1.5", "2", "+3.5"),
        ("12", "9", "−3"),
        ("1e-3", "2e-3", "+0.001"),
        ("0.5", "0.50", None),
        ("n/a", "0.5", None),
        ("57.1%", "60.0%", None),
        ("0.71 (0.60 to 0.82)", "0.72 (0.60 to 0.82)", None),
        ("", "1", None),
        (None, "1", None),
        ("1 103", "1 104", None),
    ],
)
def test_differences(a: str | None, b: str | None, expected: str | None) -> None:
    """Oracle: by hand, with the digits of the finer number; text has none."""
    assert difference(a, b) == expected


def test_what_is_a_number() -> None:
    """Oracle: by hand."""
    assert [number(text) is not None for text in ("3", "−3.0", "+.5", "nan", "inf", "1,103", "3 %", " 4 ")] == [
        True, True, False, False, False, False, False, True,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (["x", "y"], ["y", "x"], [(0, 1), (1, 0)]),
        (["x", "x", "y"], ["x", "z", "x"], [(0, 0), (1, 2), (2, None), (None, 1)]),
        (["Training set (n = 14)", "p"], ["p", "Training set (n = 1103)"], [(0, 1), (1, 0)]),
        (["p, Holm (6 tests)"], ["p, Holm (0 tests)"], [(0, 0)]),
        (["all: 14"], ["all: 61"], [(0, 0)]),
        # other numbers are names, not sizes
        (["External validation set 1"], ["External validation set 2"], [(0, None), (None, 0)]),
        (["ViT-1:1"], ["ViT-1:4"], [(0, None), (None, 0)]),
        (["Correlation 0.5"], ["Correlation 0.8"], [(0, None), (None, 0)]),
        ([], ["x"], [(None, 0)]),
    ],
)
def test_names_are_paired(a: list[str], b: list[str], expected: list[tuple[int | None, int | None]]) -> None:
    """Oracle: by hand."""
    assert pair(a, b) == expected


def test_rows_are_matched_by_their_words() -> None:
    """Oracle: by hand: two columns name a row; order does not matter; numbers have differences, texts are marked."""
    a = [
        ["Set", "Model", "n", "AUC", "Note"],
        ["train", "A", "14", "0.71 (0.60 to 0.82)", ""],
        ["train", "B", "14", "0.650", "small"],
        ["test", "A", "8", "n/a", ""],
    ]
    b = [
        ["Set", "Model", "n", "AUC", "Extra"],
        ["test", "A", "9", "0.5", "x"],
        ["train", "B", "14", "0.700", "y"],
        ["test", "B", "9", "0.6", "z"],
    ]
    made = compare_tables(a, b)
    assert made.columns == [
        ("Set", "Set"),
        ("Model", "Model"),
        ("n", "n"),
        ("AUC", "AUC"),
        ("Note", None),
        (None, "Extra"),
    ]
    assert made.keys == [0, 1]
    rows = {(row[0].a or row[0].b, row[1].a or row[1].b): row for row in made.rows}
    assert list(rows) == [("train", "A"), ("train", "B"), ("test", "A"), ("test", "B")]
    assert rows["train", "A"][3] == Cell("0.71 (0.60 to 0.82)", None)
    assert rows["train", "B"][2:] == [
        Cell("14", "14"),
        Cell("0.650", "0.700", "+0.050"),
        Cell("small", None),
        Cell(None, "y"),
    ]
    assert rows["test", "A"][2:4] == [Cell("8", "9", "+1"), Cell("n/a", "0.5")]
    assert rows["test", "B"][0] == Cell(None, "test")
    assert not rows["train", "B"][2].changed
    assert rows["test", "A"][3].changed


def test_columns_that_name_no_row() -> None:
    """Oracle: by hand: a column of words that is the same in every row names none, and may differ between runs; nor
    does one that comes after the rows have names."""
    made = compare_tables(
        [["Sizes of", "What", "Verdict"], ["demo", "test", "holds"], ["demo", "interval", "holds"]],
        [["Sizes of", "What", "Verdict"], ["own", "test", "fails"], ["own", "interval", "holds"]],
    )
    assert made.keys == [1]
    assert [[cell.changed for cell in row] for row in made.rows] == [[True, False, True], [True, False, False]]


def test_rows_without_words() -> None:
    """Oracle: by hand: unique numbers in the first column name rows; where they repeat, their places do."""
    by_number = compare_tables([["Centre", "n"], ["1", "5"], ["2", "6"]], [["Centre", "n"], ["2", "7"], ["3", "8"]])
    assert [[cell.difference for cell in row] for row in by_number.rows] == [[None, None], [None, "+1"], [None, None]]
    by_place = compare_tables([["x"], ["1"], ["1"]], [["x"], ["1"], ["4"]])
    assert [[cell.difference for cell in row] for row in by_place.rows] == [[None], ["+3"]]
    measured = compare_tables([["x"], ["0.1"], ["0.2"]], [["x"], ["0.3"], ["0.5"]])
    assert [[cell.difference for cell in row] for row in measured.rows] == [["+0.2"], ["+0.3"]]
    assert compare_tables([["x"]], [["x"], ["1"]]).rows == [[Cell(None, "1")]]
    assert compare_tables([], []).rows == []


cell = st.sampled_from(["a", "b", "HE", "1", "2.5", "−3", "n/a", "", "0.7 (0.6 to 0.8)"])


@settings(deadline=None)
@given(st.data())
def test_table_with_itself(data: st.DataObject) -> None:
    """Oracle: properties: a table equals itself, with its rows in any order where these have names; exchanged tables
    have opposite differences and as many changes."""
    width = data.draw(st.integers(1, 4))
    row = st.lists(cell, min_size=width, max_size=width)
    head = data.draw(row)
    first, second = ([head, *data.draw(st.lists(row, max_size=6))] for _ in range(2))
    assert compare_tables(first, first).changed == 0
    named = [[*line, f"row {index}x"] for index, line in enumerate(first)]
    shuffled = [named[0], *data.draw(st.permutations(named[1:]))]
    assert compare_tables(named, shuffled).changed == 0
    there, back = compare_tables(first, second), compare_tables(second, first)
    assert there.changed == back.changed
    assert sorted(map(str, flat(there, 1))) == sorted(map(str, flat(back, -1)))


def flat(made: Any, sign: int) -> list[float]:
    texts = [cell.difference for row in made.rows for cell in row if cell.difference]
    return [sign * float(text.replace("−", "-")) + 0.0 for text in texts]


def test_nested_results_are_flat() -> None:
    """Oracle: by hand."""
    assert flatten({"a": {"b": [1, {"c": None}]}, "d": "x"}) == {"a.b[0]": 1, "a.b[1].c": None, "d": "x"}


# ------------------------------------------------------------------------------------------------ the page


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """A phantom study and one of real scans by a newer version, which lacks a chapter and has another."""
    a = make_run(tmp_path / "runs" / "demo", book={"title": "<script>alert(1)</script>"})
    later = copy.deepcopy(RESULTS)
    later["cohort"]["train"] = 28
    later["segmentation"] = {**RESULTS["segmentation"], "external_1": {"dice_mean": 0.35954}, "network": "umamba_enc"}
    b = make_run(
        tmp_path / "runs" / "own", name="own", version="0.2.0", results=later, volume={"growth_ml": 12.5},
        cohort={"source": "table", "table": "/home/mueller/cohort.csv"}, study={"runs_dir": "/home/mueller/runs"},
        changes={"conclusion": "<img src=x onerror=alert(2)>"},
    )  # fmt: skip
    for run, value in ((a, "0.719"), (b, "0.360")):
        add_table(run, "segmentation", "Split,Dice", f"external 1,{value}", "external 2,0.845")
        add_table(run, "same", "Split,Dice", "train,0.9")
        add_table(run, "cohort_head", "patient_id,age", "P00017,61")
        add_figure(run, "fig4_curves", 10)
        (run / "classification").mkdir()
        (run / "classification" / "predictions.csv").write_text("patient_id,score\nP00017,0.25\n")
    add_table(a, "oracle", "Split,AUC", "train,0.8")
    add_table(b, "<b>", "Split,AUC", "<i>x</i>,0.8")
    add_figure(a, "fig6_roc", 20)
    add_figure(b, "fig6_roc", 30)
    add_figure(a, "phantoms", 40)
    chapter = [("segmentation", "Overlap &lt;b&gt;by split&lt;/b&gt;."), ("fig4_curves", "Loss."), ("same", "")]
    add_notebook(
        a, "05_segmentation", "Segmentation", *chapter, ("fig6_roc", "Curves of 14."), ("cohort_head", "Rows.")
    )
    add_notebook(
        b, "05_segmentation", "Segmentation", *chapter, ("fig6_roc", "Curves of 28."), ("cohort_head", "Rows.")
    )
    add_notebook(a, "02_phantom", "Phantoms", ("phantoms", "Some."))
    return a, b


def read(page: Path) -> BeautifulSoup:
    return BeautifulSoup(page.read_text("utf-8"), "html.parser")


def words(tag: Tag | None) -> str:
    assert tag is not None
    return " ".join(tag.get_text(" ").split())


def test_page_in_the_site(runs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the files written for the test, by hand: differences, what is only in one, links that lead to files."""
    monkeypatch.chdir(tmp_path)
    publish(runs[0])
    publish(runs[1])
    books = contents(tmp_path / "site" / "0.1.0"), contents(tmp_path / "site" / "0.2.0")
    page = compare_runs(*runs)
    assert page == Path("site/compare/demo-0.1.0__own-0.2.0/index.html")
    assert (contents(tmp_path / "site" / "0.1.0"), contents(tmp_path / "site" / "0.2.0")) == books
    soup = read(page)

    assert words(soup.select_one("#table-segmentation summary")).endswith("1 of 4 cells differ")
    (changed,) = soup.select("#table-segmentation td.changed")
    assert words(changed) == "A 0.719 B 0.360 −0.359"
    assert "the same in both" in words(soup.select_one("#table-same summary"))
    assert soup.select_one("#table-segmentation")["open"] == ""  # type: ignore[index]
    assert not soup.select_one("#table-same").has_attr("open")  # type: ignore[union-attr]
    assert "only in A" in words(soup.select_one("#table-oracle"))

    # a picture that is the same is shown once, its caption with it; captions that differ stand under their pictures
    assert len(soup.select("#figure-fig4_curves img")) == 1
    assert words(soup.select_one("#figure-fig4_curves summary")) == "fig4_curves Loss. the same in both"
    assert words(soup.select_one("#figure-fig4_curves figcaption")) == ""
    assert [words(tag) for tag in soup.select("#figure-fig6_roc figcaption")] == ["A Curves of 14.", "B Curves of 28."]
    assert "only in A" in words(soup.select_one("#figure-phantoms summary"))

    assert [[words(cell) for cell in row.select("td")] for row in soup.select("#parameters tbody tr")] == [
        ["study.name", "demo", "own"],
        ["cohort.source", "phantom", "table"],
        ["volume.growth_ml", "6", "12.5"],
        ["book.title", "<script>alert(1)</script>", "Predicting hematoma expansion from one head CT"],
    ]
    assert [[words(cell) for cell in row.select("td")] for row in soup.select("#numbers tbody tr")] == [
        ["cohort.train", "14", "28", "+14", "+100 %"],
        ["segmentation.external_1.dice_mean", "0.7191", "0.3595", "−0.3595", "−50 %"],
    ]
    assert "2 of the 5 numbers that both have differ" in words(soup.select_one("#results"))
    assert "segmentation.network nnunet umamba_enc" in words(soup.select_one("#results"))
    items = [words(tag) for tag in soup.select("main > ul > li")]
    assert items == ["tables only in A : oracle", "tables only in B : <b>", "figures only in A : phantoms"]

    links = [tag.get("href") or tag.get("src") for tag in soup.select("a[href], img")]
    inside = {f"#{tag['id']}" for tag in soup.select("[id]")}
    assert len(links) > 10
    for link in links:
        assert link in inside if link.startswith("#") else (page.parent / unquote(link)).is_file(), link
    (listed,) = read(Path("site/index.html")).select(".comparisons a")
    assert (Path("site") / str(listed["href"])).samefile(page)


def test_page_shows_no_patient_path_or_markup(runs: tuple[Path, Path], tmp_path: Path) -> None:
    """Oracle: what was planted: a patient's row, scores, paths and markup in captions, titles, tables and names; and of
    the runs' files only pictures are beside the page."""
    page = compare_runs(*runs, tmp_path / "out")
    html = page.read_text()
    for planted in ("P00017", "mueller", "<script>alert", "<img src=x", "<b>by split", "<i>x</i>"):
        assert planted not in html, planted
    assert "Overlap &lt;b&gt;by split&lt;/b&gt;." in html
    assert "one row a patient, which is not compared" in html
    assert "https://" not in html
    assert sorted(contents(page.parent)) == [
        "compare.json", "index.html", "pictures/a/fig4_curves.png", "pictures/a/fig6_roc.png", "pictures/a/phantoms.png",
        "pictures/b/fig6_roc.png",
    ]  # fmt: skip
    assert "mueller" not in (page.parent / "compare.json").read_text()


def test_run_with_itself(runs: tuple[Path, Path], tmp_path: Path) -> None:
    """Oracle: nothing differs."""
    soup = read(compare_runs(runs[0], runs[0], tmp_path / "out"))
    assert "0 of the 5 numbers, 0 of the 4 tables and 0 of the 3 figures differ" in words(soup.main)
    assert not soup.select("td.changed, details[open], #numbers")
    assert [words(tag) for tag in soup.select("#parameters p, #provenance p")] == ["No difference.", "No difference."]


def test_names_that_are_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: two runs of one study and version, with other and with the same parameters, have folders apart."""
    monkeypatch.chdir(tmp_path)
    a, b, c = (make_run(tmp_path / name, volume={"growth_ml": ml}) for name, ml in (("a", 6), ("b", 12.5), ("c", 6)))
    hashes = [json.loads((run / "book" / "version.json").read_text())["params_hash"] for run in (a, b)]
    assert compare_runs(a, b).parent.name == f"demo-0.1.0-{hashes[0]}__demo-0.1.0-{hashes[1]}"
    assert compare_runs(a, c).parent.name == f"demo-0.1.0-{hashes[0]}-a__demo-0.1.0-{hashes[0]}-b"
    assert len(read(Path("site/index.html")).select(".comparisons a")) == 2


def test_run_of_another_version(runs: tuple[Path, Path], tmp_path: Path) -> None:
    """Oracle: parameters that this version does not know, stages it does not have and a result of another kind are no
    reason to refuse; the key is shown with what it was."""
    old = runs[0]
    text = (old / "params.yml").read_text()
    (old / "params.yml").write_text(text.replace("volume: {", "volume: {ellipsoid: true, "))
    write_json(old / "results.json", {**RESULTS, "abandoned": {"x": 1}, "roi": [1, 2], "cohort": None})
    soup = read(compare_runs(*runs, tmp_path / "out"))
    shown = [[words(cell) for cell in row.select("td")] for row in soup.select("#parameters tbody tr")]
    assert ["volume.ellipsoid", "true", "–"] in shown
    assert "stages only in A : abandoned , roi" in words(soup.main)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda run: (run / "params.yml").unlink(), r"no params\.yml, so this is no run folder"),
        (lambda run: (run / "results.json").unlink(), r"not finished \(no results\.json\); run the study first"),
        (lambda run: shutil.rmtree(run / "book"), r"has no book with a version; render it first \(hepaper book "),
        (lambda run: (run / "book" / "version.json").unlink(), "has no book with a version; render it first"),
        (lambda run: (run / "results.json").write_text("{"), "not readable .*; run the study again"),
        (lambda run: write_json(run / "rois" / "stage.json", {"finished": False}), r"not finished \(roi\); run the study"),
    ],
)  # fmt: skip
def test_runs_that_cannot_be_compared(runs: tuple[Path, Path], tmp_path: Path, spoil: Any, said: str) -> None:
    """Oracle: one line with the remedy, for either of the two; nothing is written."""
    spoil(runs[1])
    for pair_of in (runs, runs[::-1]):
        with pytest.raises(HepaperError, match=said) as info:
            compare_runs(*pair_of, tmp_path / "out")
        assert "\n" not in str(info.value)
        assert str(runs[1]) in str(info.value)
    assert not (tmp_path / "out").exists()


def test_places_that_are_not_ours(runs: tuple[Path, Path], tmp_path: Path) -> None:
    """Oracle: somebody's folder stays as it is; a comparison of before is replaced; without a site --out is asked for."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("x")
    with pytest.raises(HepaperError, match="out: there already, and not made by hepaper; choose another folder"):
        compare_runs(*runs, tmp_path / "out")
    assert contents(tmp_path / "out") == {"thesis.txt": b"x"}
    compare_runs(*runs, tmp_path / "other")
    (tmp_path / "other" / "pictures" / "a" / "old.png").write_text("x")
    compare_runs(*runs, tmp_path / "other")
    assert "pictures/a/old.png" not in contents(tmp_path / "other")
    lonely = make_run(tmp_path / "lonely", book={"site": None})
    with pytest.raises(HepaperError, match=r"has no site \(book\.site is null\); say where the page goes with --out"):
        compare_runs(lonely, runs[1])


def test_command_line(runs: tuple[Path, Path], tmp_path: Path) -> None:
    """Oracle: the page's place in one line; a mistake in one line on stderr, status 1."""

    def hepaper(*said: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "hepaper", "compare", *said], capture_output=True, text=True, cwd=tmp_path
        )

    done = hepaper("runs/demo", "runs/own", "--out", "both")
    assert (done.returncode, done.stdout, done.stderr) == (0, "The comparison: both/index.html\n", "")
    done = hepaper("runs/demo", "runs")
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("hepaper: runs: no params.yml")


def test_captions_without_their_maker(runs: tuple[Path, Path]) -> None:
    """Oracle: by hand: chapters in order, captions as text, without the line on what made them."""
    chapters = read_run(runs[0]).chapters
    assert [chapter.title for chapter in chapters] == ["Phantoms", "Segmentation"]
    assert chapters[1].shown[0] == ("segmentation", "Overlap <b>by split</b>.")
