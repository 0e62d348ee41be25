"""The reader's page in headless Chromium, from the file: rate, close, reopen, undo, export, collect."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hepaper.reader_study import collect, make_kit

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install hepaper[test]")
from selenium.common.exceptions import WebDriverException  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CHROMEDRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and CHROMEDRIVER), reason="no chromium with chromedriver on this machine: install both"
)
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip
# a clock that stands until it is told to go on: seconds in the file are then exact, however slow the machine
CLOCK = """
window.now = 1000;
performance.now = () => window.now;
window.setInterval = (every) => { window.every = every; };
"""
PER_CLASS = 3
COLUMNS = ["quality", "authenticity", "called", "seconds", "order"]


@pytest.fixture(scope="module")
def kit(tmp_path_factory) -> Path:
    """A folder with kit/ and key.json of 3 real and 3 synthetic images."""
    folder = tmp_path_factory.mktemp("study")
    rng = np.random.default_rng(0)
    tables = []
    for origin in ("real", "synthetic"):
        paths = [folder / f"{origin}_{number}.png" for number in range(PER_CLASS)]
        for path in paths:
            Image.fromarray(rng.integers(0, 255, (32, 32), dtype=np.uint8)).save(path)
        tables.append(pd.DataFrame({"path": paths}))
    make_kit(*tables, folder / "kit", folder / "key.json", image_px=32, seed=1, per_class=PER_CLASS, display_px=64)
    return folder


class Page:
    """The page in one browser."""

    def __init__(self, driver: Any, downloads: Path):
        self.driver, self.downloads = driver, downloads

    def find(self, css: str) -> Any:
        return self.driver.find_element(By.CSS_SELECTOR, css)

    def text(self, css: str) -> str:
        return self.find(css).text

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def enter(self, reader: str | None = None) -> None:
        if reader is not None:
            self.find("#reader").clear()
            self.find("#reader").send_keys(reader)
        self.find("#enter button").click()

    def press(self, *keys: str) -> None:
        ActionChains(self.driver).send_keys(*keys).perform()

    def click(self, field: str, value: int | str) -> None:
        self.find(f'[data-field="{field}"][data-value="{value}"]').click()

    def chosen(self) -> dict[str, str]:
        """What is pressed on the image shown."""
        pressed = self.driver.find_elements(By.CSS_SELECTOR, '[aria-pressed="true"]')
        return {button.get_attribute("data-field"): button.get_attribute("data-value") for button in pressed}

    def wait(self, seconds: float) -> None:
        """Let the page's clock go on."""
        self.run("window.now += arguments[0]", 1000 * seconds)

    def download(self, css: str) -> Path:
        """Click and wait for the file."""
        before = set(self.downloads.glob("*.csv"))
        self.find(css).click()
        for _ in range(100):
            if new := set(self.downloads.glob("*.csv")) - before:
                return new.pop()
            time.sleep(0.1)
        raise AssertionError("nothing was downloaded")

    def close(self) -> None:
        """Close the browser as a reader does, by its last window, and wait until it has gone.

        ``quit`` alone may end it before it has written its storage: that is a kill, not a close.
        """
        lock = Path(self.driver.capabilities["chrome"]["userDataDir"]) / "SingletonLock"
        self.driver.close()
        for _ in range(300):
            if not lock.is_symlink():
                break
            time.sleep(0.1)
        self.driver.quit()

    def complaints(self) -> list[str]:
        """Errors and warnings in the console, and requests that left the computer."""
        said = [entry["message"] for entry in self.driver.get_log("browser")]
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                url = message["params"]["request"]["url"]
                # chrome: is the browser's own empty tab, from its own files
                if not url.startswith(("file:", "data:", "blob:", "chrome")):
                    said.append(url)
        return said


def wait_for(page: Page, css: str, words: str) -> str:
    """The text of an element once it holds ``words``, or what it holds after three seconds."""
    for _ in range(30):
        if words in page.text(css):
            break
        time.sleep(0.1)
    return page.text(css)


@pytest.fixture(scope="module")
def browser(kit: Path) -> Iterator[Callable[..., Page]]:
    """``browser(profile, width, height, phone)``: the page, anew, in a browser that remembers by its profile.

    Browsers stay open for the next test, as starting one takes longer than most tests do.
    """
    open_pages: dict[str, Page] = {}

    def start(profile: str = "one", width: int = 1366, height: int = 768, phone: bool = False) -> Page:
        if profile not in open_pages or not open_pages[profile].driver.service.is_connectable():
            options = webdriver.ChromeOptions()
            options.binary_location = CHROMIUM
            downloads = kit / "downloads"
            downloads.mkdir(exist_ok=True)
            for flag in (*FLAGS, f"--user-data-dir={kit / profile}", f"--window-size={width},{height}"):
                options.add_argument(flag)
            options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
            options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
            if phone:
                metrics = {"width": width, "height": height, "pixelRatio": 2, "mobile": True, "touch": True}
                options.add_experimental_option("mobileEmulation", {"deviceMetrics": metrics})
            try:
                driver = webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))
            except WebDriverException as error:
                pytest.skip(f"chromium does not start here: {str(error).splitlines()[0]}")
            driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": CLOCK})
            open_pages[profile] = Page(driver, downloads)
        page = open_pages[profile]
        page.driver.get((kit / "kit" / "index.html").as_uri())
        return page

    yield start
    for page in open_pages.values():
        page.driver.quit()


def test_a_reader_from_start_to_collect(browser, kit):
    """End to end: what was pressed and clicked, over two sittings, is what ``collect`` returns."""
    page = browser()
    for bad, words in (("", "1 to 12"), ("A B", "1 to 12"), ("sim1", "simulated")):
        page.enter(bad)
        assert words in page.text("#reader-error")
    page.enter("ab")
    given: dict[str, dict[str, Any]] = {}

    # first image by mouse: no way on before all is answered, back and forth changes nothing
    first = page.text("#code")
    assert page.text("#position") == "Image 1 of 6"
    assert not page.find("#next").is_enabled()
    assert page.run("return document.getElementById('image').naturalWidth") == 64
    page.wait(5)
    page.click("quality", 4)
    page.click("authenticity", 2)
    page.press(Keys.ARROW_RIGHT)
    assert page.text("#code") == first
    page.click("called", "synthetic")
    page.wait(2.5)
    page.find("#next").click()
    given[first] = {"quality": 4, "authenticity": 2, "called": "synthetic", "seconds": 7.5, "order": 1}

    # second image by keys, with an undo and a correction on the scale above
    second = page.text("#code")
    assert second != first
    page.press("3", "5", "r")
    assert page.chosen() == {"quality": "3", "authenticity": "5", "called": "real"}
    page.press("u", "u")
    assert page.chosen() == {"quality": "3"}
    page.press("1", "s", Keys.ARROW_UP, Keys.ARROW_UP, "2")
    assert page.chosen() == {"quality": "2", "authenticity": "1", "called": "synthetic"}
    page.wait(3)
    page.press("p")  # the clock stands, and nothing shows through
    page.wait(60)
    assert page.find("#paused").is_displayed()
    assert page.run("return document.elementFromPoint(300, 400).closest('figure')") is None
    page.press("4")
    page.find("#resume").click()
    page.press(Keys.ARROW_LEFT)
    assert page.chosen() == {"quality": "4", "authenticity": "2", "called": "synthetic"}
    page.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    given[second] = {"quality": 2, "authenticity": 1, "called": "synthetic", "seconds": 3.0, "order": 2}

    # the third is half done when the browser is closed
    third = page.text("#code")
    page.wait(4)
    page.press("5")
    assert page.complaints() == []
    page.close()

    page = browser()
    assert page.find("#reader").get_attribute("value") == "AB"
    page.enter()
    assert (page.text("#code"), page.text("#position")) == (third, "Image 3 of 6")
    assert page.chosen() == {"quality": "5"}
    page.press("u")  # undo reaches back into the first sitting
    assert page.chosen() == {}
    page.press("u")
    assert page.text("#code") == second
    assert page.chosen() == {"authenticity": "1", "called": "synthetic"} | {"quality": "3"}
    page.press("2", Keys.ARROW_RIGHT)
    page.wait(1)
    for place in range(3, 7):
        code = page.text("#code")
        answers = (place % 5 + 1, (2 * place) % 5 + 1, "real" if place % 2 else "synthetic")
        page.press(str(answers[0]), str(answers[1]), answers[2][0])
        page.wait(place)
        page.press(Keys.ARROW_RIGHT)
        seconds = place + (5 if place == 3 else 0)
        given[code] = dict(zip(COLUMNS, (*answers, seconds, place), strict=True))
    assert page.find("#finish").is_displayed()
    assert "6 images" in page.text("#summary")
    file = page.download("#export")
    assert file.name.startswith("ratings_")
    assert file.name.endswith("_AB.csv")
    assert page.complaints() == []

    ratings = collect(kit / "key.json", [file]).set_index("code")
    assert set(ratings["reader"]) == {"AB"}
    assert ratings[COLUMNS].to_dict("index") == given


def test_saved_file_goes_on_elsewhere_and_each_reader_has_an_order(browser, tmp_path):
    """A partial file restores the answers in a browser that knows nothing; another study's file does not."""
    page = browser()
    orders = {}
    for reader in ("CD", "7", "XY"):
        page.enter(reader)
        orders[reader] = [image["code"] for image in page.run("return orderFor(arguments[0])", reader)]
        assert page.text("#code") == orders[reader][0]
        page.press("p")
        page.find("#leave").click()
    assert len({tuple(order) for order in orders.values()}) == 3
    assert len({tuple(sorted(order)) for order in orders.values()}) == 1
    page.enter("7")
    page.press("3", "4", "s", Keys.ARROW_RIGHT, "1")
    file = page.download("#save")
    assert file.name.endswith("_7_1-of-6.csv")

    other = browser("two")
    strange = tmp_path / "strange.csv"
    strange.write_text(file.read_text().replace(file.read_text().splitlines()[1].split(",")[0], "0" * 16))
    empty = tmp_path / "empty.csv"
    empty.write_text("a,b\n1,2\n")
    other.run("document.querySelector('details').open = true")
    for wrong, words in ((strange, "another study"), (empty, "not a ratings file")):
        other.find("#restore").send_keys(str(wrong))
        assert words in wait_for(other, "#restore-note", words)
    other.find("#restore").send_keys(str(file))
    wait_for(other, "#restore-note", "1 ratings of reader 7 are back")
    other.enter()
    assert other.text("#position") == "Image 2 of 6"
    assert other.chosen() == {"quality": "1"}
    other.press(Keys.ARROW_LEFT)
    assert other.chosen() == {"quality": "3", "authenticity": "4", "called": "synthetic"}
    assert other.complaints() == []


def test_idle_time_and_second_windows(browser):
    """Minutes without a key are not counted; two windows of one reader do not overwrite each other."""
    page = browser()
    page.enter("EF")
    page.wait(3)
    page.press("2")  # somebody is there at 3 s
    page.wait(400)
    page.run("window.every()")
    assert "3 minutes" in page.text("#paused-text")
    seconds = page.run("return Object.values(state.answers).map((answer) => answer.seconds)")
    assert seconds == [3]
    page.find("#resume").click()
    here = page.driver.current_window_handle
    url = page.driver.current_url
    page.driver.switch_to.new_window("tab")
    page.driver.get(url)
    page.enter("EF")
    assert page.chosen() == {"quality": "2"}
    page.press("4")
    there = page.driver.current_window_handle
    page.driver.switch_to.window(here)
    assert "another window" in wait_for(page, "#paused-text", "another window")
    page.find("#resume").click()
    assert page.chosen() == {"quality": "2", "authenticity": "4"}
    page.press("r")
    page.driver.switch_to.window(there)
    assert "another window" in wait_for(page, "#paused-text", "another window")
    assert page.complaints() == []
    page.driver.close()
    page.driver.switch_to.window(here)


def test_phone_width_has_no_sideways_scrolling_and_large_targets(browser):
    """Oracle: the browser's own layout at 360 x 640; targets of at least 44 px where fingers answer."""
    page = browser("phone", 360, 640, phone=True)

    def overflow() -> int:
        return page.run("return document.documentElement.scrollWidth - window.innerWidth")

    assert overflow() <= 0
    page.enter("AB")
    assert overflow() <= 0
    heights = page.run("return [...document.querySelectorAll('[data-field]')].map((b) => b.offsetHeight)")
    assert min(heights) >= 44
    page.click("quality", 3)
    page.click("authenticity", 3)
    page.click("called", "real")
    # the image stays in sight while answering
    assert page.run("return document.querySelector('figure').getBoundingClientRect().top") >= 0
    page.find("#next").click()
    page.press(*(2 * PER_CLASS - 1) * ("3", "4", "s", Keys.ARROW_RIGHT))
    assert page.find("#finish").is_displayed()
    assert overflow() <= 0
    assert page.complaints() == []


def test_every_control_has_a_name_and_shows_its_focus(browser):
    """Oracle: the accessibility tree that Chromium computes, and its computed styles."""
    page = browser()
    page.enter("GH")
    tree = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    controls = [node for node in tree if node.get("role", {}).get("value") == "button" and not node["ignored"]]
    assert len(controls) >= 5 + 12
    assert all(node["name"]["value"].strip() for node in controls)
    groups = [node["name"]["value"] for node in tree if node.get("role", {}).get("value") == "group"]
    assert {"Overall image quality", "Real or synthetic?"} <= set(groups)
    page.press(Keys.TAB)
    style = page.run("const s = getComputedStyle(document.activeElement); return [s.outlineStyle, s.outlineWidth]")
    assert style == ["solid", "3px"]
