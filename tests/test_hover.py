"""Curves to be hovered: the numbers drawn, plotly's own schema, no patient in them, and the button in a browser."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import confusion_matrix, roc_curve

from hepaper import figures, pictures
from hepaper.beyond import reliability
from hepaper.figures import hover, style
from hepaper.study import write_json

SPLITS = ("train", "external_1", "external_2")


def cohort(sizes: tuple[int, int, int], seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    split = np.repeat(SPLITS, sizes)
    label = rng.random(len(split)) < 0.3
    score = 1 / (1 + np.exp(-(rng.normal(size=len(split)) + label - 0.8)))
    ids = [f"PAT-{number:05d}" for number in range(len(split))]
    return pd.DataFrame({"patient_id": ids, "split": split, "label": label.astype(int), "score": score})


def arms(sizes: tuple[int, int, int]) -> dict[str, pd.DataFrame]:
    first = cohort(sizes)
    rng = np.random.default_rng(1)
    return {
        name: first.assign(score=np.clip(first["score"] + rng.normal(0, 0.1 * number, len(first)), 0.001, 0.999))
        for number, name in enumerate(("ViT-1:1", "ViT-1:2", "ViT-1:4"))
    }


def oracle_of(table: pd.DataFrame) -> pd.DataFrame:
    return table[["patient_id"]].assign(oracle_score=np.clip(table["score"] + 0.1 * table["label"], 0, 1))


def log(epochs: int, columns: tuple[str, ...], seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    values = {name: 0.5 + rng.random(epochs) * np.exp(-np.arange(epochs) / 5) for name in columns}
    return pd.DataFrame({"epoch": np.arange(epochs), **values})


SEGMENTATION = ("train_loss", "val_loss", "pseudo_dice", "ema_pseudo_dice")


def reliability_of(models: dict[str, pd.DataFrame]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    risky = {name: table.assign(true_risk=table["score"] * 0.8) for name, table in models.items()}
    return (
        reliability.calibration_bins(risky),
        reliability.calibration_curves(models, resamples=20),
        reliability.calibration_summary(models, resamples=20),
    )


@pytest.fixture(scope="module")
def made() -> dict[str, hover.Hover]:
    """Every kind of figure."""
    models = arms((60, 30, 25))
    steps = {name: log(40, ("train_loss", "train_accuracy", "lr")).assign(steps=range(3, 123, 3)) for name in models}
    found = {
        "roc": hover.roc_curves(models, 0.4, oracle_of(models["ViT-1:1"])),
        "roc of one": hover.roc_curves(models["ViT-1:1"], 0.4, beside=True),
        "calibration": hover.calibration_panels(*reliability_of(models), "ViT-1:2"),
        "benchmark": hover.training_curves({"nnunet": log(9, SEGMENTATION), "umamba_enc": log(9, SEGMENTATION, 1)}),
        "training": hover.training_curves(log(20, SEGMENTATION)),
        "classifier": hover.classifier_training_curve(steps),
        "epochs": hover.classifier_training_curve({"ViT-1:1": log(1, ("train_loss", "train_accuracy", "lr"))}),
        "diffusion": hover.diffusion_loss(log(25, ("train_loss", "lr"))),
        "steep": hover.diffusion_loss(
            pd.DataFrame({"epoch": range(4), "train_loss": [1, 0.1, 0.01, 0.02], "lr": 1e-3})
        ),
    }
    assert None not in found.values()
    return found  # type: ignore[return-value]


def close(shown: list[Any], true: Any) -> None:
    """Equal to the four digits that are kept, gaps where there is no number."""
    np.testing.assert_allclose(np.array(shown, float), np.asarray(true, float), rtol=5.1e-4, atol=1e-12)


def named(figure: hover.Hover, name: str, axis: str) -> list[dict[str, Any]]:
    return [trace for trace in figure["data"] if trace.get("name") == name and trace["xaxis"] == axis]


# ------------------------------------------------------------------------------------------------ numbers


def test_roc_is_scikit_learns() -> None:
    """Oracle: scikit-learn's ROC curve and confusion matrix, by model and split; the curve that the picture draws."""
    models = arms((40, 20, 18))
    limits = dict(zip(models, (0.3, 0.4, 0.5), strict=True))
    figure = hover.roc_curves(models, limits)
    drawn = figures.roc_curves(models)
    for place, split in enumerate(SPLITS):
        for number, (name, table) in enumerate(models.items()):
            rows = table[table["split"] == split]
            curve, point = named(figure, name, f"x{place + 1 if place else ''}")
            false_rate, true_rate, _ = roc_curve(rows["label"], rows["score"], drop_intermediate=False)
            close(curve["x"], false_rate)
            close(curve["y"], true_rate)
            close(curve["x"], drawn.axes[place].lines[number + 1].get_xdata())
            tn, fp, fn, tp = confusion_matrix(rows["label"], rows["score"] >= limits[name]).ravel()
            close([*point["x"], *point["y"]], [fp / (fp + tn), tp / (tp + fn)])
            assert f"({tp} of {tp + fn})" in point["hovertemplate"]
            assert f"({tn} of {tn + fp})" in point["hovertemplate"]
            assert f"threshold {limits[name]:.3f}" in point["hovertemplate"]


def test_long_roc_is_a_part_of_the_curve() -> None:
    """Oracle: scikit-learn's full curve: every point kept is one of its points, both ends are there; the area under
    what is kept is the curve's to 0.002. What a point says about its score holds for the patients."""
    table = cohort((3000, 0, 0))
    curve = next(trace for trace in hover.roc_curves(table, 0.5)["data"] if trace.get("name") == "ViT")
    false_rate, true_rate, _ = roc_curve(table["label"], table["score"], drop_intermediate=False)
    assert len(curve["x"]) <= hover.MOST_POINTS
    full = np.column_stack([false_rate, true_rate])
    kept = np.column_stack([curve["x"], curve["y"]])
    assert np.abs(full[None] - kept[:, None]).max(axis=2).min(axis=1).max() < 1e-3
    assert kept[0].tolist() == [0, 0]
    assert kept[-1].tolist() == [1, 1]
    assert abs(np.trapezoid(kept[:, 1], kept[:, 0]) - np.trapezoid(true_rate, false_rate)) < 2e-3
    assert curve["customdata"][0][0] == "above every score"
    words, specificity = curve["customdata"][70]
    called = table["score"] >= float(words.removeprefix("score ≥ "))
    assert abs((~called[table["label"] == 0]).mean() - specificity) < 3e-3
    assert abs(called[table["label"] == 1].mean() - curve["y"][70]) < 3e-3


def test_calibration_is_the_tables(made: dict[str, hover.Hover]) -> None:
    """Oracle: the tables that the picture is drawn from; one model is seen, the others wait; each once in the legend."""
    models = arms((60, 30, 25))
    bins, curves, _ = reliability_of(models)
    figure = made["calibration"]
    order = [note["text"].split("</b>")[-1].strip() for note in figure["wide"]["annotations"]]
    assert order == ["External set 1", "External set 2"]  # as in the picture, not the apparent scores
    for place, split in enumerate(("external_1", "external_2")):
        for name in models:
            band, risks, line, dots = named(figure, name, f"x{place + 1 if place else ''}")
            here, curve = (t[(t["model"] == name) & (t["split"] == split)] for t in (bins, curves))
            close(dots["x"], here["mean_score"])
            close(dots["y"], here["observed"])
            close(np.array(dots["y"]) + dots["error_y"]["array"], here["high"])
            close([row[2] for row in dots["customdata"]], here["low"])
            assert [row[:2] for row in dots["customdata"]] == here[["n", "he"]].to_numpy().tolist()
            close(risks["y"], here["true_risk"])
            close(line["y"], curve["observed"])
            close(band["y"], [*curve["high"], *curve["low"][::-1]])
    seen = {trace["name"] for trace in figure["data"] if trace.get("visible") is True}
    assert seen == {"ViT-1:2"}
    assert sorted(trace["name"] for trace in figure["data"] if trace["showlegend"]) == sorted(models)


def test_trainings_are_the_logs(made: dict[str, hover.Hover]) -> None:
    """Oracle: the logs; the network's colour and name are those of the picture; steps where the log counts them."""
    (dice,) = named(made["benchmark"], "U-Mamba (Enc)", "x")
    close(dice["y"], log(9, SEGMENTATION, 1)["ema_pseudo_dice"])
    assert dice["line"]["color"] == style.NETWORK_COLOURS["umamba_enc"]
    (validation,) = named(made["benchmark"], "nnU-Net, validation", "x2")
    close(validation["y"], log(9, SEGMENTATION)["val_loss"])
    assert validation["legendgroup"] == "nnunet"
    for name, column, axis in (("each epoch", "pseudo_dice", "x"), ("validation", "val_loss", "x2")):
        (trace,) = named(made["training"], name, axis)
        close(trace["y"], log(20, SEGMENTATION)[column])
    (rate,) = named(made["classifier"], "ViT-1:4", "x3")
    close(rate["x"], np.arange(3, 123, 3))
    close(rate["y"], log(40, ("train_loss", "train_accuracy", "lr"))["lr"])
    assert made["epochs"]["wide"]["xaxis"]["title"]["text"] == "Epoch"
    assert made["epochs"]["data"][0]["mode"] == "lines+markers"  # one epoch is still seen


def test_moving_average_of_the_diffusion() -> None:
    """Oracle: NumPy's convolution; in a long log the average is of all epochs, also those that are not shown."""
    for epochs in (25, 900):
        table = log(epochs, ("train_loss", "lr"))
        raw, mean, _ = hover.diffusion_loss(table)["data"]
        average = np.convolve(table["train_loss"], np.full(10, 0.1), "valid")
        for epoch, value in zip(mean["x"], mean["y"], strict=True):
            if epoch < 9:
                assert value is None
            else:
                assert value == pytest.approx(average[int(epoch) - 9], rel=6e-4)
        close(raw["y"], table["train_loss"].iloc[[int(epoch) for epoch in raw["x"]]])


def test_long_logs_are_thinned_and_say_so() -> None:
    """Oracle: the bound, both ends, and the sentence under the figure; a short one is whole and says nothing."""
    figure = hover.training_curves(log(1000, SEGMENTATION))
    (trace,) = named(figure, "training", "x2")
    assert len(trace["x"]) == hover.MOST_EPOCHS
    assert (trace["x"][0], trace["x"][-1]) == (0, 999)
    assert figure["note"] == "300 of 1000 epochs are shown."
    assert hover.training_curves(log(30, SEGMENTATION))["note"] == ""


# ------------------------------------------------------------------------------------------------ form


def test_plotly_takes_it(made: dict[str, hover.Hover]) -> None:
    """Oracle: plotly's own schema, which refuses names and values that it does not know; every trace has its axes."""
    from plotly.graph_objects import Figure

    for name, figure in made.items():
        for form in ("wide", "narrow"):
            Figure({"data": figure["data"], "layout": figure[form]})
            for trace in figure["data"]:
                for axis in ("xaxis", "yaxis"):
                    assert axis + trace[axis][1:] in figure[form], (name, form)


def test_panels_lie_apart_on_the_page(made: dict[str, hover.Hover]) -> None:
    """Property: in both layouts no two panels overlap, and all lie on the page; side by side, or below one another."""
    for name, figure in made.items():
        for form, axis in (("wide", "xaxis"), ("narrow", "yaxis")):
            layout = figure[form]
            spans = sorted(layout[key]["domain"] for key in layout if key.startswith(axis))
            ends = [0.0, *(end for span in spans for end in span), 1.0]
            assert ends == sorted(ends), (name, form)
            assert all(a[1] < b[0] for a, b in pairwise(spans)), (name, form)
            assert all(high - low > 0.15 for low, high in spans)
        assert figure["narrow"]["dragmode"] is False  # a finger scrolls the page


def test_one_class_and_nobody() -> None:
    """Oracle: words in place of a curve that is not defined, as in the picture; no figure where there is no curve."""
    models = arms((40, 20, 18))
    for table in models.values():
        table.loc[table["split"] == "external_2", "label"] = 0
    figure = hover.roc_curves(models, 0.5)
    assert [note["text"] for note in figure["wide"]["annotations"]][-1] == "one class only (n = 18)"
    assert not [trace for trace in figure["data"] if trace["xaxis"] == "x3" and "name" in trace]
    nobody = {name: table.assign(label=0) for name, table in models.items()}
    assert hover.roc_curves(nobody, 0.5, oracle_of(nobody["ViT-1:1"])) is None
    empty = pd.DataFrame(columns=["model", "split", "true_risk"])
    assert hover.calibration_panels(empty, empty, empty) is None
    assert hover.training_curves({"nnunet": log(0, SEGMENTATION)}) is None
    assert hover.classifier_training_curve({}) is None
    assert hover.diffusion_loss(log(0, ("train_loss", "lr"))) is None


def test_small_and_without_patients(tmp_path: Path) -> None:
    """Oracle: the bound of 100 KB on what a page loads, for a study of 3000 patients and trainings of 1000 epochs; no
    id of a patient; strict JSON."""
    models = arms((2000, 500, 500))
    found = {
        "roc": hover.roc_curves(models, 0.4, oracle_of(models["ViT-1:1"])),
        "calibration": hover.calibration_panels(*reliability_of(arms((300, 150, 100)))),
        "benchmark": hover.training_curves({name: log(1000, SEGMENTATION) for name in style.NETWORK_NAMES}),
        "classifier": hover.classifier_training_curve(
            {n: log(500, ("train_loss", "train_accuracy", "lr")) for n in "abc"}
        ),
        "diffusion": hover.diffusion_loss(log(1000, ("train_loss", "lr"))),
    }
    for name, figure in found.items():
        write_json(tmp_path / "figure.json", figure)
        text = json.dumps(json.loads((tmp_path / "figure.json").read_text()), separators=(",", ":"), allow_nan=False)
        assert len(text) < 100_000, name
        assert "PAT-" not in text
        assert "http" not in text


# ------------------------------------------------------------------------------------------------ in a browser

PAGE = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>A page</title>
<link rel="icon" href="data:,"><link rel="stylesheet" href="../_static/hepaper.css">
<link rel="stylesheet" href="../_static/hover.css">
<script src="../_static/hover.js" defer></script></head><body><p>Text.</p>
<figure class="made" id="{0}"><img alt="Curves" src="../figures/{0}.png"/><figcaption>A caption.</figcaption></figure>
<figure class="made" id="{1}"><img alt="Many" src="../figures/{1}.png"/><figcaption>A caption.</figcaption></figure>
</body></html>"""


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory, repository: Path, made: dict[str, hover.Hover]) -> Path:
    """A page of a book with two interactive figures."""
    book, run = tmp_path_factory.mktemp("book"), tmp_path_factory.mktemp("figures")
    for name, figure in (("roc", made["roc"]), ("many", made["roc of one"])):
        style.save_figure(figures.roc_curves(cohort((20, 10, 10))), run, name)
        write_json(run / f"{name}.json", figure)
    (book / "_static").mkdir()
    for name in ("hover.js", "hover.css", "hepaper.css"):
        shutil.copyfile(repository / "book" / "_static" / name, book / "_static" / name)
    (book / "notebooks").mkdir()
    (book / "notebooks" / "page.html").write_text(PAGE.format("roc", "many"))
    pictures.share(book, run)
    return book


def test_page_without_scripts_and_hosts(book: Path) -> None:
    """Oracle: the files: the picture is in the page itself, nothing else is needed; neither our script nor our data
    names another host."""
    page = (book / "notebooks" / "page.html").read_text()
    assert '<img loading="lazy"' in page
    assert 'src="../figures/roc.png"' in page
    assert (book / "figures" / "roc.png").is_file()
    for path in [
        *book.rglob("*.html"),
        *book.rglob("*.css"),
        *(book / "figures").glob("*.js"),
        book / "_static/hover.js",
    ]:
        assert "//" not in path.read_text().replace("// ", ""), path


@pytest.fixture
def browser() -> Iterator[Any]:
    """Headless Chromium that notes its console and every address it asks for."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not chromium or not shutil.which("chromedriver"):
        pytest.skip("needs chromium and chromedriver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                 "--disable-background-networking", "--disable-component-update", "--disable-sync",
                 "--disable-dev-shm-usage", "--window-size=900,1400"):  # fmt: skip
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    driver.set_page_load_timeout(60)
    yield driver
    driver.quit()


def test_button_in_a_browser(book: Path, browser: Any) -> None:
    """Oracle: Chromium, page opened as a file, keyboard only: first the picture and no library; then plotly's figure in
    its place, with all its curves, no console error and no address but files; on paper the picture; the next press
    brings it back. A figure that shows only a part of its picture comes below it."""
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    def asked() -> list[str]:
        messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
        sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return [address for address in sent if not address.startswith("data:")]

    def drawn(count: int) -> None:
        WebDriverWait(browser, 60).until(
            lambda b: len(b.find_elements("css selector", ".js-plotly-plot .legend")) == count
        )

    browser.get((book / "notebooks" / "page.html").as_uri())
    first, second = browser.find_elements("css selector", ".hover-button")
    picture, other = browser.find_elements("css selector", "figure img")
    addresses = asked()
    assert addresses
    assert not [address for address in addresses if "plotly" in address or address.endswith("roc.js")]
    assert picture.is_displayed()

    first.send_keys(Keys.ENTER)
    drawn(1)
    plot = browser.find_element("css selector", ".js-plotly-plot")
    assert plot.is_displayed()
    assert not picture.is_displayed()
    assert first.get_attribute("aria-pressed") == "true"
    assert browser.switch_to.active_element == first
    # a panel a split; in each a diagonal, and a curve with its point for every arm, and the oracle's
    assert len(browser.find_elements("css selector", ".js-plotly-plot .scatterlayer .trace")) == 3 * (1 + 2 * 3 + 1)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert picture.is_displayed()
    assert not plot.is_displayed()
    assert not first.is_displayed()
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "screen"})
    assert plot.find_elements("css selector", ".modebar-btn")
    browser.set_window_size(480, 1400)  # panels below one another, and still on the page
    WebDriverWait(browser, 60).until(lambda b: plot.size["height"] > 900)
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    first.send_keys(Keys.ENTER)
    assert picture.is_displayed()
    assert not plot.is_displayed()

    second.send_keys(Keys.SPACE)
    drawn(2)
    assert other.is_displayed()
    addresses = asked()
    assert len([address for address in addresses if address.endswith("plotly.min.js")]) == 1
    assert not [address for address in addresses if not address.startswith("file:")]
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []


def test_missing_library_leaves_the_picture(book: Path, browser: Any, tmp_path: Path) -> None:
    """Oracle: a book that lost its library: the picture stays, a sentence says so, and the button can be pressed again."""
    from selenium.webdriver.support.ui import WebDriverWait

    broken = tmp_path / "book"
    shutil.copytree(book, broken)
    (broken / "_static" / "plotly.min.js").unlink()
    browser.get((broken / "notebooks" / "page.html").as_uri())
    button = browser.find_element("css selector", ".hover-button")
    button.click()
    said = browser.find_element("css selector", ".hover-said")
    WebDriverWait(browser, 30).until(lambda b: "could not be loaded" in said.text)
    assert browser.find_element("css selector", "figure img").is_displayed()
    assert button.is_enabled()
    assert not browser.find_elements("css selector", ".js-plotly-plot")
