"""The site of all books: one folder a version and study, a switcher that old pages share with new ones, a start page."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from bs4 import BeautifulSoup
from hypothesis import given, settings
from hypothesis import strategies as st
from site_runs import PAGES, contents, make_run

from hepaper.errors import HepaperError
from hepaper.params import Params
from hepaper.site import publish, publishing, stamp
from hepaper.site.publishing import MARK, _age, whole_folder
from hepaper.site.stamp import PATHS, params_hash, stamp_line, without_paths
from hepaper.study import Study


def known(site: Path) -> list[dict[str, Any]]:
    """What pages are told by ``versions.js``."""
    text = (site / "versions.js").read_text()
    assert text.startswith("window.hepaperVersions = ")
    return json.loads(text.removeprefix("window.hepaperVersions = ").removesuffix(";\n"))


# ------------------------------------------------------------------------------------------------ the stamp


def test_hash_sees_values_and_no_paths() -> None:
    """Oracle: property: it changes with each parameter that is no path, and with no path; all on that list exist."""
    base = Params().model_dump(mode="json")
    seen = {params_hash(base)}
    count = 1
    for section, values in base.items():
        for key in values:
            changed = {**base, section: {**values, key: "/home/mueller"}}
            if (section, key) in PATHS:
                assert params_hash(changed) in seen
                assert "mueller" not in json.dumps(without_paths(changed))
            else:
                seen.add(params_hash(changed))
                count += 1
    assert len(seen) == count
    assert all(re.fullmatch("[0-9a-f]{8}", value) for value in seen)
    for section, key in PATHS:
        assert key in base[section], "a path that no longer exists"


def test_stamp_of_a_run(tmp_path: Path) -> None:
    """Oracle: the run's own files, and the clock of `date -u`; no path of the run is in it."""
    run = make_run(
        tmp_path / "mueller" / "run",
        study={"runs_dir": "/home/mueller/runs"},
        cohort={"source": "table", "table": "/home/mueller/c.csv"},
        book={"site": "/home/mueller/site", "title": "A <b>title</b>"},
    )
    made = stamp(Study.at(run))
    assert made["git"] == "8079b63a7a83"
    assert made["study"] == "demo"
    assert made["date"] == subprocess.run(["date", "-u", "+%F"], capture_output=True, text=True).stdout.strip()
    assert made["cohort"] == {"source": "table", "patients": {"train": 14, "external_1": 8, "external_2": 7}}
    assert made["auc"] == {"external_1": "0.711 (0.602 to 0.820)", "external_2": "not defined"}
    assert made["dice"] == {"external_1": 0.71908, "external_2": 0.84459}
    assert made["conclusion"] == "More synthetic images did not help."
    assert "mueller" not in json.dumps(made)
    line = stamp_line({**made, "version": "0.2.0<", "git_dirty": True})
    for said in ("hepaper 0.2.0&lt; (computed with 0.1.0)", "revision 8079b63a7a83 with local changes", "study demo",
                 made["params_hash"], made["date"]):  # fmt: skip
        assert said in line
    (run / "results.json").unlink()
    with pytest.raises(HepaperError, match=r"results\.json: missing, the run is not finished; run the study first"):
        stamp(Study.at(run))


def test_stamp_survives_missing_results(tmp_path: Path) -> None:
    """Oracle: a run whose results lack everything still has a stamp, and a start page without one broken word."""
    run = make_run(tmp_path / "run", results={})
    assert stamp(Study.at(run))["auc"] == {"external_1": None, "external_2": None}
    publish(run, tmp_path / "site")
    assert "None" not in (tmp_path / "site" / "index.html").read_text()


# ------------------------------------------------------------------------------------------------ publishing


def test_books_are_added_and_others_stay(tmp_path: Path) -> None:
    """Oracle: issue: old versions untouched, byte for byte and without being written to (times of change); the new
    one is known to all through the shared file."""
    site = tmp_path / "site"
    old = make_run(tmp_path / "runs" / "demo")
    assert publish(old, site) == site / "0.1.0" / "demo" / "index.html"
    before = contents(site / "0.1.0")
    times = {path: path.stat().st_mtime_ns for path in (site / "0.1.0").rglob("*")}
    publish(make_run(tmp_path / "new", version="0.10.0"), site)
    publish(make_run(tmp_path / "other", name="smoke", version="0.9.1"), site)
    assert contents(site / "0.1.0") == before
    assert {path: path.stat().st_mtime_ns for path in (site / "0.1.0").rglob("*")} == times
    assert [(book["version"], book["study"]) for book in known(site)] == [
        ("0.10.0", "demo"), ("0.9.1", "smoke"), ("0.1.0", "demo"),
    ]  # fmt: skip
    assert known(site)[0]["pages"] == sorted(PAGES)
    assert (site / ".nojekyll").is_file()


def test_a_book_is_replaced_whole(tmp_path: Path) -> None:
    """Oracle: pages that the new rendering does not have are gone; nothing half-written stays beside."""
    site = tmp_path / "site"
    publish(make_run(tmp_path / "run"), site)
    shutil.rmtree(tmp_path / "run")
    publish(make_run(tmp_path / "run", pages=("index.html", "book/new.html")), site)
    html = sorted(name for name in contents(site / "0.1.0") if name.endswith(".html"))
    assert html == ["demo/book/new.html", "demo/index.html"]
    assert os.listdir(site / "0.1.0") == ["demo"]
    assert len(known(site)) == 1


@pytest.mark.parametrize("broken", ["copytree", "replace"])
def test_failure_leaves_the_book_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    """Oracle: whole or not at all: with a full disk while copying, or where the last rename fails."""
    site, run = tmp_path / "site", make_run(tmp_path / "run")
    publish(run, site)
    before = contents(site)
    (run / "book" / "index.html").write_text("new")
    rename = os.replace

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    def last(source: Path, target: Path) -> None:
        if Path(target).name == "demo" and ".part" in str(source):
            raise OSError(28, "No space left on device")
        rename(source, target)

    with monkeypatch.context() as patch:
        if broken == "copytree":
            patch.setattr("hepaper.site.publishing.shutil.copytree", full)
        else:
            patch.setattr("hepaper.site.publishing.os.replace", last)
        with pytest.raises(HepaperError, match=r"could not be added to the site \(No space left on device\)"):
            publish(run, site)
    assert contents(site) == before


def test_two_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: a book that comes in while the list is being written is in the list in the end."""
    site = tmp_path / "site"
    first, second = make_run(tmp_path / "a", name="a"), make_run(tmp_path / "b", name="b")
    write = publishing.start_page

    def meanwhile(*args: Any) -> str:
        monkeypatch.setattr(publishing, "start_page", write)
        publish(second, site)
        return write(*args)

    monkeypatch.setattr(publishing, "start_page", meanwhile)
    publish(first, site)
    assert [book["study"] for book in known(site)] == ["a", "b"]
    assert ">b</a>" in (site / "index.html").read_text()


def test_site_of_the_parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: book.site, relative to the working folder; null: no site."""
    monkeypatch.chdir(tmp_path)
    assert publish(make_run(tmp_path / "run")) == Path("site/0.1.0/demo/index.html")
    assert (tmp_path / "site" / "index.html").is_file()
    assert publish(make_run(tmp_path / "none", book={"site": None})) is None
    publish(make_run(tmp_path / "else", book={"site": "shared/books"}))
    assert (tmp_path / "shared" / "books" / "0.1.0" / "demo" / "book" / "intro.html").is_file()


def test_places_that_are_not_ours(tmp_path: Path) -> None:
    """Oracle: one line each, and not a byte of somebody else's folder is changed."""
    run = make_run(tmp_path / "run")
    site = tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_text("my home page")
    with pytest.raises(HepaperError, match=r"index\.html: not made by hepaper; give the site a folder of its own"):
        publish(run, site)
    assert contents(site) == {"index.html": b"my home page"}
    other = tmp_path / "other" / "0.1.0" / "demo"
    other.mkdir(parents=True)
    (other / "thesis.txt").write_text("x")
    with pytest.raises(HepaperError, match="demo: there already, and not made by hepaper; choose another folder"):
        publish(run, tmp_path / "other")
    assert contents(tmp_path / "other") == {"0.1.0/demo/thesis.txt": b"x"}
    with pytest.raises(HepaperError, match="lies in the run's own book"):
        publish(run, run / "book" / "site")
    (tmp_path / "file").write_text("x")
    with pytest.raises(HepaperError, match="could not be added to the site"):
        publish(run, tmp_path / "file")


def test_runs_that_cannot_be_published(tmp_path: Path) -> None:
    """Oracle: one line with the remedy."""
    with pytest.raises(HepaperError, match=r"no params\.yml, so this is no run folder"):
        publish(tmp_path)
    run = make_run(tmp_path / "run")
    (run / "book" / "version.json").unlink()
    with pytest.raises(HepaperError, match=r"no rendered book; render it first \(hepaper book "):
        publish(run, tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_folder_that_is_empty_may_be_taken(tmp_path: Path) -> None:
    """Oracle: an empty folder holds nothing of anybody; an error inside leaves nothing."""
    (tmp_path / "out").mkdir()
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "out", "proof"):
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == ["out"]
    with whole_folder(tmp_path / "out", "proof") as part:
        (part / "proof").write_text("x")
    assert contents(tmp_path) == {"out/proof": b"x"}


@settings(deadline=None)
@given(st.permutations(["0.1.0", "0.2.0rc1", "0.2.0rc2", "0.2.0", "0.2.1", "0.9.0", "0.10.0", "1.0.0.dev3", "1.0.0"]))
def test_versions_in_order(versions: list[str]) -> None:
    """Oracle: packaging's order of versions (PEP 440)."""
    from packaging.version import Version

    assert sorted(versions, key=_age) == sorted(versions, key=Version)


def test_the_sites_folder_is_not_versioned_and_the_package_is(repository: Path) -> None:
    """Oracle: git itself: a rendered site is ignored, the sources of the same name are not."""
    if not (repository / ".git").exists():
        pytest.skip("not a git checkout")

    def ignored(path: str) -> bool:
        return subprocess.run(["git", "-C", str(repository), "check-ignore", "-q", path]).returncode == 0

    assert ignored("site/0.1.0/demo/index.html")
    assert not ignored("hepaper.site.publishing.py")


# ------------------------------------------------------------------------------------------------ pages


def test_switcher_on_every_page(tmp_path: Path) -> None:
    """Oracle: every address it holds leads to a file, from each page's own depth; the run's book stays without."""
    run = make_run(tmp_path / "run")
    site = tmp_path / "site"
    publish(run, site)
    for name in PAGES:
        page = site / "0.1.0" / "demo" / name
        soup = BeautifulSoup(page.read_text(), "html.parser")
        (nav,) = soup.select("nav.versions")
        assert nav["data-page"] == name
        assert (nav["data-version"], nav["data-study"]) == ("0.1.0", "demo")
        addresses = [tag.get("href") or tag.get("src") for tag in soup.select("nav a, script, link")]
        assert len(addresses) == 4
        for address in addresses:
            assert (page.parent / address).is_file(), address
        assert (page.parent / nav["data-root"]).samefile(site)
        assert MARK in (run / "book" / name).read_bytes()


def test_start_page(tmp_path: Path) -> None:
    """Oracle: issue: date, cohort, sizes, revision, main result of each; every link leads to a file; nothing comes from
    another host; words are text."""
    site = tmp_path / "site"
    publish(make_run(tmp_path / "a", book={"title": "<script>alert(1)</script>"}), site)
    publish(make_run(tmp_path / "b", name="smoke", version="0.2.0", changes={"date": "2031-05-06"}), site)
    html = (site / "index.html").read_text()
    assert "<script>alert" not in html
    soup = BeautifulSoup(html, "html.parser")
    assert [tag.text for tag in soup.select("h2")] == ["Version 0.2.0", "Version 0.1.0"]
    (card, _) = soup.select("article")
    said = " ".join(card.get_text(" ").split())
    for words in ("smoke", "digital phantoms", "14 training, 8 and 7 external", "AUC of ViT-1:2", "0.711 (0.602 to 0.820)",
                  "0.719 external set 1", "0.845 external set 2", "2031-05-06", "8079b63a7a83",
                  "More synthetic images did not help."):  # fmt: skip
        assert words in said, words
    links = [unquote(tag["href"]) for tag in soup.select("a")]
    assert links == ["0.2.0/smoke/index.html", "0.1.0/demo/index.html"]
    assert all((site / link).is_file() for link in links)
    assert not re.search(r"(?:src|href)=\"https?:|url\(", html)


@pytest.fixture
def browser(tmp_path: Path) -> Any:
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.service import Service

    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("needs Chromium with chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage",
                 "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run",
                 f"--user-data-dir={tmp_path / 'profile'}"):  # fmt: skip
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    session = webdriver.Chrome(options=options, service=Service(driver))
    yield session
    session.quit()


def test_old_page_knows_new_versions(tmp_path: Path, browser: Any) -> None:
    """Oracle: Chromium, from the file system: the old page lists a version that came later and leads to the same page
    there, or to its front page where that is missing; keys alone are enough; nothing on the console."""
    from selenium.webdriver.common.keys import Keys

    site = tmp_path / "site"
    publish(make_run(tmp_path / "old"), site)
    page = site / "0.1.0" / "demo" / "book" / "06_volume.html"
    before = page.read_bytes()
    publish(make_run(tmp_path / "new", version="0.2.0"), site)
    publish(make_run(tmp_path / "few", name="few", version="0.3.0", pages=("index.html",)), site)
    assert page.read_bytes() == before

    browser.get(page.as_uri())
    summary = browser.find_element("css selector", "nav.versions summary")
    assert summary.text.splitlines() == ["Version 0.1.0, demo", "there is a newer one: 0.2.0"]
    for _ in range(3):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        if browser.switch_to.active_element == summary:
            break
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    shown = browser.find_elements("css selector", "nav.versions a")
    assert all(link.is_displayed() for link in shown)
    assert [link.get_attribute("href") for link in shown] == [
        (site / path).as_uri()
        for path in (
            "0.3.0/few/index.html",
            "0.2.0/demo/book/06_volume.html",
            "0.1.0/demo/book/06_volume.html",
            "index.html",
        )
    ]
    assert [link.get_attribute("aria-current") for link in shown] == [None, None, "page", None]
    shown[1].send_keys(Keys.ENTER)
    assert browser.find_element("tag name", "h1").text == "demo 0.2.0 book/06_volume.html"
    browser.get((site / "index.html").as_uri())
    assert browser.get_log("browser") == []
