"""The scan viewer: what travels to the page is the scan and nothing else, and the page really scrolls it."""

from __future__ import annotations

import base64
import gzip
import importlib.machinery
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest
from conftest import make_head, make_image
from figure_checks import lies_on_the_page, words_of
from PIL import Image

from hepaper import images, montage, viewer
from hepaper.errors import HepaperError
from hepaper.figures import style
from hepaper.figures.viewer import scan_slices
from hepaper.params import make_params
from hepaper.study import Study
from hepaper.viewer import HEAT, PREDICTED, REFERENCE, SEGMENTED, Case

SPACING = (5.0, 1.5, 1.25)


def decoded(text: str) -> nibabel.Nifti1Image:
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(text)))


def read_script(path: Path) -> tuple[str, Any]:
    """The key and content of a payload, read as JSON."""
    found = re.fullmatch(r"hepaperViewer\.put\((\"[^\"]*\"),(.*)\);\n", path.read_text("utf-8"))
    assert found
    return json.loads(found[1]), json.loads(found[2])


def a_case(label: str = "P1", heat: bool = False, shape: tuple[int, int, int] = (12, 64, 56)) -> Case:
    """A head with blood on the patient's left, its mask, and a second mask or heat on three slices."""
    blood = (slice(4, 9), slice(20, 40), slice(34, 46))
    hu, mask = make_head(shape, blood)
    other = np.roll(mask > 0, 3, axis=1)
    if not heat:
        return Case(label, hu, SPACING, {REFERENCE: mask > 0, PREDICTED: other})
    warm = np.full(shape, np.nan)
    warm[5:8, 18:42, 32:48] = np.linspace(0, 1, 24)[:, None]
    return Case(label, hu, SPACING, {HEAT: warm, SEGMENTED: mask > 0})


# -------------------------------------------------------------------------------- what travels


def test_a_scan_comes_back_as_it_was() -> None:
    """Oracle: nibabel, another reader: the voxels, spacing, and directions (rows from front to back, columns from the
    patient's right to left, so that both axes run against nibabel's right, anterior, superior)."""
    values = np.random.default_rng(0).integers(0, 256, (4, 7, 5), dtype=np.uint8)
    image = decoded(viewer.nifti(values, SPACING, -100))
    assert np.array_equal(np.asarray(image.dataobj).T, values.astype(float) - 100)
    assert image.header.get_zooms() == pytest.approx(SPACING[::-1])
    assert nibabel.aff2axcodes(image.affine) == ("L", "P", "S")
    assert viewer.nifti(values, SPACING) == viewer.nifti(values, SPACING)


def test_the_header_says_nothing_of_anybody() -> None:
    """Oracle: the NIfTI-1 and gzip formats: every field of text is empty, there is no extension, no file name and no
    time; and the label, planted as a name, is not in the bytes."""
    _, payload = viewer.packed(a_case("Erika Mustermann"))
    for text in (payload["scan"], *payload["overlays"]):
        raw = base64.b64decode(text)
        assert raw[3] == 0  # gzip's flags: no name, no comment
        assert raw[4:8] == bytes(4)  # nor time
        content = gzip.decompress(raw)
        assert b"Mustermann" not in content
        header = decoded(text).header
        assert not header.extensions
        for field in ("descrip", "aux_file", "intent_name", "data_type", "db_name"):
            assert bytes(header[field]).strip(b"\0") == b"", field


def test_packed_scan_and_masks() -> None:
    """Oracle: the arrays that were given, cut to the range of HU; a mask's rim and inside by hand."""
    case = a_case()
    about, payload = viewer.packed(case)
    scan = np.asarray(decoded(payload["scan"]).dataobj).T
    assert np.array_equal(scan, np.clip(case.hu, viewer.LEAST_HU, viewer.MOST_HU))
    for text, mask in zip(payload["overlays"], case.overlays.values(), strict=True):
        assert np.array_equal(np.asarray(decoded(text).dataobj).T > 0, mask)
    assert about == {"label": "P1", "slices": 12, "first": 4, "mm": list(SPACING)}


def test_rims_and_heat() -> None:
    """Oracle: by hand."""
    mask = np.zeros((1, 5, 5), bool)
    mask[0, 1:4, 1:4] = True
    rim = np.array([[0, 0, 0, 0, 0], [0, 3, 3, 3, 0], [0, 3, 1, 3, 0], [0, 3, 3, 3, 0], [0, 0, 0, 0, 0]])
    assert np.array_equal(viewer.stored(mask)[0], rim)
    assert np.array_equal(viewer.stored(mask, filled=False)[0], np.where(rim == 1, 0, rim))
    assert viewer.stored(np.array([[[np.nan, 0, 0.5, 1]]])).tolist() == [[[0, 1, 128, 255]]]


def test_air_is_cut_away_and_nothing_else() -> None:
    """Oracle: a head with a wide frame of air and empty slices: everything denser than air is still there."""
    case = a_case()
    frame = ((2, 3), (30, 40), (20, 25))
    hu = np.pad(case.hu, frame, constant_values=-1024)
    wide = Case("P1", hu, SPACING, {name: np.pad(values, frame) for name, values in case.overlays.items()})
    small = viewer.cropped(wide)
    assert small.hu.shape[0] == 12
    assert small.hu.size < 0.5 * hu.size
    assert (small.hu > -300).sum() == (hu > -300).sum()
    assert small.overlays[REFERENCE].sum() == case.overlays[REFERENCE].sum()


def test_a_fine_scan_becomes_small() -> None:
    """Oracle: the bound; pixels are whole multiples of the scan's, and a constant image keeps its value and place."""
    fine = Case("P1", *(lambda c: (c.hu, c.spacing, c.overlays))(a_case(shape=(12, 256, 224))))
    whole = len(viewer.packed(fine)[1]["scan"])
    about, payload = viewer.packed(fine, whole // 3)
    assert sum(map(len, [payload["scan"], *payload["overlays"]])) <= whole // 3
    factor = about["mm"][1] / SPACING[1]
    assert factor in (2, 3, 4)
    assert about["mm"] == [SPACING[0], SPACING[1] * factor, SPACING[2] * factor]
    y, x = (256 // int(factor), 224 // int(factor))
    assert decoded(payload["scan"]).shape == (x, y, 12)
    with pytest.raises(HepaperError, match="too large a scan"):
        viewer.packed(fine, 100)


def test_files_of_a_viewer(tmp_path: Path) -> None:
    """Oracle: the cases given; a file that an earlier run has left is gone; no address of another host in any."""
    folder = tmp_path / "some-scans"
    viewer.write(folder, [a_case("P1"), a_case("P2"), a_case("P3")])
    viewer.write(folder, [a_case("P1"), a_case("P2 <i>&</i>")], 35, 70)
    assert sorted(path.name for path in folder.iterdir()) == ["1.js", "2.js", "index.js"]
    key, index = read_script(folder / "index.js")
    assert key == "some-scans/index"
    assert [case["label"] for case in index["cases"]] == ["P1", "P2 <i>&</i>"]
    assert index["window"] == [35, 70]
    assert [overlay["name"] for overlay in index["overlays"]] == [REFERENCE, PREDICTED]
    colour = tuple(index["overlays"][0]["scale"][channel][-1] for channel in "RGB")
    assert "#{:02X}{:02X}{:02X}".format(*colour) == style.TRUTH
    key, payload = read_script(folder / "2.js")
    assert key == "some-scans/2"
    assert decoded(payload["scan"]).shape == (56, 64, 12)
    for path in folder.iterdir():
        assert "//" not in re.sub(r'"H4s[A-Za-z0-9+/=]*"', "", path.read_text("utf-8"))
        assert path.stat().st_size < viewer.MOST_BYTES


def test_heat_has_its_colours(tmp_path: Path) -> None:
    """Oracle: matplotlib's inferno at the ends; nothing is drawn where no map is."""
    viewer.write(tmp_path / "maps", [a_case(heat=True)])
    scale = read_script(tmp_path / "maps" / "index.js")[1]["overlays"][0]["scale"]
    assert (scale["I"][0], scale["A"][0]) == (0, 0)
    assert [scale[channel][1] for channel in "RGBA"] == [0, 0, 4, 255]  # (0.0015, 0.0005, 0.0139)
    assert [scale[channel][-1] for channel in "RGBA"] == [252, 255, 164, 255]  # (0.988, 0.998, 0.645)
    assert scale["I"] == sorted(set(scale["I"]))


def test_nothing_to_show_and_unlike_cases(tmp_path: Path) -> None:
    with pytest.raises(HepaperError, match="no scan"):
        viewer.write(tmp_path / "none", [])
    with pytest.raises(HepaperError, match="same overlays"):
        viewer.write(tmp_path / "mixed", [a_case(), a_case(heat=True)])


# -------------------------------------------------------------------------------- cases of a study


def a_study(folder: Path, **params: Any) -> tuple[Study, dict[str, Case]]:
    """Three external patients, preprocessed and segmented, with ROIs, maps and examples."""
    study = Study(make_params({"study": {"runs_dir": str(folder)}, **params}), "segmentation")
    given = {}
    for number, patient in enumerate(("P1", "P2", "P3")):
        case = a_case(patient)
        given[patient] = case
        image = make_image(case.hu, SPACING)
        path = study.path("preprocessed", f"{patient}_baseline.nii.gz")
        images.save_image(path, image)
        reference, predicted = case.overlays.values()
        images.save_image(
            path.with_name(f"{patient}_baseline_mask.nii.gz"), images.like(reference.astype(np.uint8), image)
        )
        predictions = study.path("segmentation", "full_scale", "predictions")
        shifted = np.roll(predicted, number, axis=1).astype(np.uint8)
        images.save_image(predictions / f"{patient}_baseline.nii.gz", images.like(shifted, image))
    metrics = pd.DataFrame(
        {"patient_id": list(given), "timepoint": "baseline", "split": "external_1", "dice": [0.5, 0.9, 0.7], "iou": 0.5}
    )
    metrics.to_csv(study.path("segmentation", "full_scale", "metrics.csv"), index=False)
    places = {"max-1": 5, "max": 6, "max+1": 7}
    rows = [
        {"patient_id": patient, "position": name, "slice": z, "y0": 18, "y1": 34, "x0": 32, "x1": 48}
        for patient in given
        for name, z in places.items()
    ]
    for name in ("rois", "gradcam"):
        study.path(name).mkdir()
    pd.DataFrame(rows).to_csv(study.path("rois", "rois.csv"), index=False)
    maps = np.zeros((9, 2, 2))
    maps[:, 0, 0], maps[:, 1, 1] = 4, -2
    maps[5] = -1  # an empty map: P2, max+1
    stored = {"trained": maps, **{name: [row[name] for row in rows] for name in ("patient_id", "position")}}
    np.savez(study.path("gradcam", "maps.npz"), **stored)
    examples = pd.DataFrame({"patient_id": ["P2"], "group": ["true positive"], "score": [0.8]})
    examples.to_csv(study.path("gradcam", "examples.csv"), index=False)
    return study, given


def test_the_scans_behind_the_overlays(tmp_path: Path) -> None:
    """Oracle: the images written, for the patients that the rule of the figure picks: P2, P3, P1 by Dice."""
    study, given = a_study(tmp_path)
    cases = viewer.overlay_scans(study, montage.overlay_cases(study))
    assert [case.label for case in cases] == [
        "Best: P2, baseline, external 1, Dice 0.900",
        "Median: P3, baseline, external 1, Dice 0.700",
        "Worst: P1, baseline, external 1, Dice 0.500",
    ]
    best = cases[0]
    assert best.spacing == pytest.approx(SPACING)
    assert np.array_equal(best.hu, given["P2"].hu)
    assert np.array_equal(best.overlays[REFERENCE], given["P2"].overlays[REFERENCE])
    assert np.array_equal(best.overlays[PREDICTED], np.roll(given["P2"].overlays[PREDICTED], 1, axis=1))


@pytest.mark.parametrize("fit", ["resize", "crop"])
def test_heat_lies_where_the_network_looked(tmp_path: Path, fit: str) -> None:
    """Oracle: the ROI's rectangle; with fit: crop its middle, 7/8 of the shorter side; hottest in the map's own
    hottest corner, 1 there, 0 in an empty map, and nothing on any other slice."""
    study, _ = a_study(tmp_path, classification={"fit": fit})
    (case,) = viewer.heat_scans(study)
    assert case.label == "True positive: P2, score 0.80"
    heat = case.overlays[HEAT]
    there = np.argwhere(~np.isnan(heat))
    edge = 0 if fit == "resize" else 1
    assert there.min(axis=0).tolist() == [5, 18 + edge, 32 + edge]
    assert there.max(axis=0).tolist() == [7, 33 - edge, 47 - edge]
    for z in (5, 6):
        assert np.nanmax(heat[z]) == 1
        assert np.unravel_index(np.nanargmax(heat[z]), heat[z].shape) == (18 + edge, 32 + edge)
    assert np.nanmax(heat[7]) == 0
    assert case.fullest() in (5, 6, 7)
    assert case.extent() == (5, 7)


def test_show_gives_picture_and_files(tmp_path: Path) -> None:
    """Oracle: the picture is in the page's HTML itself, before any script; files lie where the page will look."""
    study, _ = a_study(tmp_path)
    shown = study.viewer("gradcam_scans", 'Heat & "mask".', viewer.heat_scans(study)).data
    assert shown.startswith('<div class="viewer-gradcam-scans"><figure class="made" id="gradcam_scans"><img ')
    assert "data:image/png;base64," in shown
    assert "Heat &amp; &quot;mask&quot;." in shown
    assert "<script" not in shown
    assert "//" not in re.sub(r'base64,[^"]*"', "", shown)
    assert study.path("figures", "gradcam_scans.png").is_file()
    assert study.path("viewer", "gradcam-scans", "index.js").is_file()


@pytest.mark.parametrize("heat", [False, True])
@pytest.mark.parametrize("count", [1, 8])
def test_the_picture(heat: bool, count: int) -> None:
    """Oracle: every label is written, nothing is cut off, as many slices as there are, five at most."""
    case = a_case(heat=heat)
    figure = scan_slices([Case(f"case {n}", case.hu, SPACING, case.overlays) for n in range(count)])
    lies_on_the_page(figure, "scan_slices")
    text = words_of(figure)
    assert all(f"case {n}" in text for n in range(count))
    assert (HEAT in text) == heat
    slices = [axes for axes in figure.axes if axes.images]
    assert len(slices) == count * (3 if heat else 5)


def test_a_scan_without_anything_over_it() -> None:
    """Oracle: by hand: an empty reference gives way to the prediction, two empty masks to the middle of the scan."""
    case = a_case()
    empty = np.zeros(case.hu.shape, bool)
    only = Case("P1", case.hu, SPACING, {REFERENCE: empty, PREDICTED: case.overlays[PREDICTED]})
    assert (only.fullest(), only.extent()) == (4, (4, 8))
    none = Case("P1", case.hu, SPACING, {REFERENCE: empty, PREDICTED: empty})
    assert (none.fullest(), none.extent()) == (6, (0, 11))
    lies_on_the_page(scan_slices([none]), "scan_slices")
    viewer.packed(none)
    with pytest.raises(HepaperError, match="no scan"):
        scan_slices([])


# -------------------------------------------------------------------------------- NiiVue


def test_a_book_without_scans_needs_no_niivue(tmp_path: Path) -> None:
    study = Study(make_params({"study": {"runs_dir": str(tmp_path)}}))
    viewer.pack(study, tmp_path / "static")
    assert not (tmp_path / "static").exists()


BUNDLE = (
    'var a=1;var B=class{constructor(){}},m;var w={async initialize({model:A}){if(!m){console.log("Creating new Niivue '
    'instance");let C=A.get("opts")??{};m=new B(C)}}};export{w as default};\n'
)


@pytest.mark.parametrize(
    ("bundle", "fine"),
    [
        (BUNDLE, True),
        (BUNDLE.replace("Creating", "Making"), False),
        (BUNDLE.replace("export{w as default}", "window.w=w"), False),
        (BUNDLE.replace("B=class", "B=function"), False),
        ('import a from "other";' + BUNDLE, False),
        (None, False),
    ],
)
def test_another_form_of_the_bundle_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundle: str | None, fine: bool
) -> None:
    """Oracle: by hand: a bundle in the known form gives its class; any other is an error that says what to do, and
    not a book whose viewer is dead."""
    (tmp_path / "static").mkdir()
    if bundle is not None:
        (tmp_path / "static" / "widget.js").write_text(bundle, "utf-8")
    spec = importlib.machinery.ModuleSpec("ipyniivue", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(viewer.importlib.util, "find_spec", lambda _: spec)
    about = SimpleNamespace(version="9.9", files=[])
    monkeypatch.setattr(viewer.importlib.metadata, "distribution", lambda _: about)
    if fine:
        script = viewer.niivue_script()
        assert "globalThis.hepaperNiivue = B;" in script
        assert "export" not in script
    else:
        with pytest.raises(HepaperError, match=r"ipyniivue 9\.9.*pip install"):
            viewer.niivue_script()


def test_niivue_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewer.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(HepaperError, match="ipyniivue is missing"):
        viewer.niivue_script()


# -------------------------------------------------------------------------------- in the browser

PAGE = """<!doctype html><html data-theme="light"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="stylesheet" href="../_static/hepaper.css">
<link rel="stylesheet" href="../_static/viewer.css">{first}<script defer src="../_static/viewer.js"></script></head>
<body style="margin:0">{body}<p style="height:3000px">after</p></body></html>"""
NO_WEBGL = "<script>HTMLCanvasElement.prototype.getContext = () => null;</script>"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """Pages as in a book, opened from the file system: a notebook's, one without WebGL, and one whose files are gone."""
    folder = tmp_path_factory.mktemp("site")
    study = Study(make_params({"study": {"runs_dir": str(folder / "runs")}}), "segmentation")
    cases = [a_case("First"), a_case("Second", shape=(10, 60, 56))]
    shown = study.viewer("some_scans", "Scans.", cases).data
    viewer.pack(study, folder / "_static")
    for name in ("viewer.js", "viewer.css", "hepaper.css"):
        shutil.copy(repository / "book" / "_static" / name, folder / "_static" / name)
    (folder / "notebooks").mkdir()
    for name, first, body in (
        ("fine", "", shown),
        ("without_webgl", NO_WEBGL, shown),
        ("without_files", "", shown.replace("viewer-some-scans", "viewer-other-scans")),
    ):
        (folder / "notebooks" / f"{name}.html").write_text(PAGE.format(first=first, body=body), "utf-8")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.service import Service

    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("Chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "--headless=new", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--use-gl=angle",
        "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--window-size=800,1000",
    ):  # fmt: skip
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with webdriver.Chrome(options=options, service=Service(driver)) as opened:
        yield opened


def press(browser: Any, page: Path) -> None:
    """Open a page and its viewer, and wait until it is there or has said why not."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get(page.as_uri())
    browser.find_element(By.CSS_SELECTOR, ".he-open").click()
    WebDriverWait(browser, 60, poll_frequency=0.1).until(
        lambda _: browser.execute_script(
            "return !document.querySelector('.he-open').disabled"
            " && document.querySelector('.he-said').textContent !== 'Loading …'"
        )
    )


def screen(browser: Any) -> np.ndarray:
    """What the scan's canvas shows, (y, x, 3)."""
    from selenium.webdriver.common.by import By

    png = browser.find_element(By.CSS_SELECTOR, ".he-screen > div").screenshot_as_png
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def settled(browser: Any) -> np.ndarray:
    """The canvas after the browser has drawn two more frames."""
    browser.execute_async_script(
        "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()));"
    )
    return screen(browser)


def asked(browser: Any) -> list[str]:
    """What the browser has asked for since the last call."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


def like(picture: np.ndarray, colour: str) -> int:
    """Pixels of about that colour."""
    wanted = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
    return int((np.abs(picture - wanted).max(axis=2) < 25).sum())


def test_the_reader_scrolls_a_scan(browser: Any, site: Path) -> None:
    """Oracle: the phantom that was packed. From the file system the scan opens at the slice with the most blood;
    its masks have their colours and go when switched off; blood on the patient's left is on the right of the picture;
    a wider window makes it darker; keys, wheel and slider reach the slice they say; nothing is asked of any host, and
    nothing before the button is pressed."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select, WebDriverWait

    page = site / "notebooks" / "fine.html"
    browser.get(page.as_uri())
    before = [address for address in asked(browser) if address.startswith("file:")]
    assert not [address for address in before if "niivue" in address or "/viewer/" in address]
    assert browser.find_element(By.CSS_SELECTOR, "figure img").is_displayed()
    press(browser, page)
    picture = browser.find_element(By.CSS_SELECTOR, "figure img")
    assert browser.execute_script("return typeof window.hepaperNiivue") == "function"
    assert not picture.is_displayed()
    place = browser.find_element(By.CSS_SELECTOR, ".he-place")
    assert place.text.startswith("Slice 5 of 12")

    def control(selector: str) -> Any:
        return browser.find_element(By.CSS_SELECTOR, selector)

    def mean_of_blood(shown: np.ndarray) -> float:
        """Of a small square in the block of blood: rows 20 to 40 of 64, columns 34 to 46 of 56, in mm on a square."""
        size = shown.shape[0]
        high, wide = 64 * SPACING[1], 56 * SPACING[2]
        y, x = 30 * SPACING[1] / high, 0.5 + (40 * SPACING[2] - wide / 2) / high
        return float(shown[int(y * size) - 4 : int(y * size) + 4, int(x * size) - 4 : int(x * size) + 4].mean())

    both = settled(browser)
    assert like(both, style.TRUTH) > 100
    assert like(both, style.PREDICTION) > 100
    first, second = browser.find_elements(By.CSS_SELECTOR, ".he-overlay input[type=checkbox]")
    first.click()
    one = settled(browser)
    assert like(one, style.TRUTH) == 0
    assert like(one, style.PREDICTION) > 100
    second.click()
    none = settled(browser)
    assert like(none, style.PREDICTION) == 0
    blood = mean_of_blood(none)
    mirrored = mean_of_blood(none[:, ::-1])
    assert blood == pytest.approx(217, abs=15)  # 68 HU in the window 0 to 80, of 255
    assert mirrored == pytest.approx(102, abs=15)  # brain, 32 HU
    width = control(".he-pair > .he-row:last-child input")
    width.send_keys(Keys.CONTROL, "a")
    width.send_keys("160", Keys.TAB)
    assert mean_of_blood(settled(browser)) == pytest.approx(172, abs=12)  # 68 HU in the window -40 to 120
    screen_of = control(".he-screen")
    screen_of.send_keys(Keys.END)
    assert place.text.startswith("Slice 12 of 12")
    assert mean_of_blood(settled(browser)) == pytest.approx(115, abs=12)  # no blood up there: brain
    screen_of.send_keys(Keys.ARROW_DOWN)
    assert place.text.startswith("Slice 11 of 12")
    top = browser.execute_script("return window.scrollY")
    ActionChains(browser).scroll_from_origin(ScrollOrigin.from_element(screen_of), 0, 50).perform()
    assert place.text.startswith("Slice 10 of 12")
    assert browser.execute_script("return window.scrollY") == top
    # with the focus elsewhere the wheel scrolls the page
    control(".he-row input[type=range]").send_keys(Keys.HOME)
    assert place.text.startswith("Slice 1 of 12")
    ActionChains(browser).scroll_from_origin(ScrollOrigin.from_element(screen_of), 0, -50).perform()
    assert place.text.startswith("Slice 1 of 12")
    Select(control(".he-viewer select")).select_by_index(1)
    WebDriverWait(browser, 30).until(lambda _: "of 10" in place.text)
    assert width.get_attribute("value") == "160"  # the window stays
    control(".he-open").click()
    assert picture.is_displayed()
    addresses = asked(browser)
    assert any(address.endswith("/viewer/some-scans/2.js") for address in addresses)
    assert not [address for address in addresses if not address.startswith(("file:", "data:", "blob:"))]
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.mark.parametrize(
    ("page", "words"), [("without_webgl", "no WebGL 2"), ("without_files", "other-scans/index.js is not in this book")]
)
def test_the_picture_stays_where_it_cannot_be_opened(browser: Any, site: Path, page: str, words: str) -> None:
    """Oracle: what a reader sees: one line that says why, and the picture."""
    from selenium.webdriver.common.by import By

    press(browser, site / "notebooks" / f"{page}.html")
    assert words in browser.find_element(By.CSS_SELECTOR, ".he-said").text
    assert browser.find_element(By.CSS_SELECTOR, "figure img").is_displayed()
    assert not browser.find_elements(By.CSS_SELECTOR, ".he-viewer canvas")


def test_a_finger_scrolls_the_page_and_nothing_is_too_wide(browser: Any, site: Path) -> None:
    """Oracle: at the width of a telephone a stroke over the scan moves the page by its length, and leaves the slice;
    every control has a name."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    metrics = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    try:
        press(browser, site / "notebooks" / "fine.html")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
        place = browser.find_element(By.CSS_SELECTOR, ".he-place")
        slice_before = place.text
        at = browser.execute_script(
            "const e = document.querySelector('.he-screen'); e.scrollIntoView(); const r = e.getBoundingClientRect();"
            "return [r.left + r.width / 2, r.top + r.height / 2, window.scrollY];"
        )
        for kind, moved in (("touchStart", 0), *(("touchMove", 10 * n) for n in range(1, 16)), ("touchEnd", None)):
            points = [] if moved is None else [{"x": at[0], "y": at[1] - moved}]
            browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        WebDriverWait(browser, 10).until(lambda _: browser.execute_script("return window.scrollY") - at[2] > 100)
        assert place.text == slice_before
        nameless = browser.execute_script(
            "return [...document.querySelectorAll('.he-viewer :is(input, select, button)')].filter((e) =>"
            " !e.labels?.length && !e.getAttribute('aria-label') && !e.textContent.trim()).map((e) => e.outerHTML)"
        )
        assert nameless == []
    finally:
        browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
