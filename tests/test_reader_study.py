"""Reader study: the kit gives nothing away, files are joined or refused, and the analysis recovers what is true."""

from __future__ import annotations

import base64
import dataclasses
import io
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import stats

from hepaper.errors import HepaperError
from hepaper.published import load_published
from hepaper.reader_study import analyse, analysis, check_ratings, collect, make_kit, read_key, simulate
from hepaper.reader_study.analysis import detection
from hepaper.reader_study.collect import FILE_COLUMNS, read_ratings
from hepaper.reader_study.kit import as_generated, questions
from hepaper.reader_study.readers import (
    SimulatedReader,
    draw_readers,
    image_measures,
    strangeness,
    true_detection,
)
from hepaper.stats import fleiss_kappa, icc, roc_auc


def picture(rng: np.random.Generator, height: int, width: int, smooth: bool = False) -> np.ndarray:
    """Grey values of one distribution, whatever the size; a flat disk where ``smooth``."""
    y, x = np.mgrid[:height, :width]
    disk = np.hypot((y + 0.5) / height - 0.5, (x + 0.5) / width - 0.5) < rng.uniform(0.2, 0.4)
    noise = 0 if smooth else 8 * rng.standard_normal((height, width))
    return np.clip(100 + 90 * disk + noise, 0, 255).astype(np.uint8)


@pytest.fixture
def images(tmp_path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """16 real crops of several sizes with metadata, half of them learnt from; 12 smooth synthetic ones of 32 x 32."""
    from PIL.PngImagePlugin import PngInfo

    rng = np.random.default_rng(0)
    real, synthetic = [], []
    for number in range(16):
        path = tmp_path / f"P{number:02d}_max.png"
        told = PngInfo()
        told.add_text("Source", "hospital")
        Image.fromarray(picture(rng, 24 + number, 40 - number)).save(path, pnginfo=told, dpi=(72, 72))
        real.append({"path": path, "used_in_training": number % 2 == 0})
    for number in range(12):
        path = tmp_path / f"synthetic_{number:02d}.png"
        Image.fromarray(picture(rng, 32, 32, smooth=True)).save(path)
        synthetic.append({"path": path})
    return pd.DataFrame(real), pd.DataFrame(synthetic)


def embedded(kit: Path) -> dict:
    """What the page holds."""
    page = (kit / "index.html").read_text("utf-8")
    content = re.search(r'<script type="application/json" id="study">(.*?)</script>', page, re.DOTALL)
    assert content
    return json.loads(content[1])


def make(images: tuple[pd.DataFrame, pd.DataFrame], folder: Path, **options):
    options = {"image_px": 32, "display_px": 48, "seed": 1, "per_class": 8, **options}
    return make_kit(*images, folder / "kit", folder / "run" / "key.json", **options)


# ---------------------------------------------------------------- the kit


def test_kit_draws_codes_and_seals(images, tmp_path):
    """By construction: as many of each, unseen real images first, codes unlike numbers, a key that verifies itself."""
    key = make(images, tmp_path)
    assert key.table["origin"].value_counts().to_dict() == {"real": 8, "synthetic": 8}
    assert not key.table["used_in_training"].any()  # 8 unseen real images are there
    assert key.table["code"].is_unique
    assert key.table["code"].str.fullmatch("[BCDFGHJKLMNPQRSTVWXZ]{5}").all()
    assert sorted(file.name for file in (tmp_path / "kit").iterdir()) == ["README.txt", "index.html"]
    again = read_key(tmp_path / "run" / "key.json")
    assert again.study == key.study == embedded(tmp_path / "kit")["study"]
    pd.testing.assert_frame_equal(again.table[key.table.columns], key.table)
    learnt = make(images, tmp_path / "b", real_from="training").table
    assert learnt.loc[learnt["origin"] == "real", "used_in_training"].all()
    more = make(images, tmp_path / "c", per_class=10).table
    assert more["used_in_training"].sum() == 2  # filled up


def test_kit_is_the_same_bytes_again_and_needs_the_images_to_be_guessed(images, tmp_path):
    """Property: the same arguments give the same bytes; other pixels under the same names and seed, other codes."""
    make(images, tmp_path / "a")
    shuffled = tuple(table.sample(frac=1, random_state=3) for table in images)
    make(shuffled, tmp_path / "b")
    for name in ("kit/index.html", "kit/README.txt", "run/key.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    path = images[1]["path"].iloc[0]
    for path in images[1]["path"]:
        values = np.asarray(Image.open(path)).copy()
        values[0, 0] ^= 1
        Image.fromarray(values).save(path)
    other = make(images, tmp_path / "c").table
    assert not set(other["code"]) & set(read_key(tmp_path / "a/run/key.json").table["code"])


def chunks(png: bytes) -> list[bytes]:
    """Types of the chunks of a PNG file."""
    found, at = [], 8
    while at < len(png):
        length = int.from_bytes(png[at : at + 4])
        found.append(png[at + 4 : at + 8])
        at += 12 + length
    return found


def test_kit_leaks_nothing(images, tmp_path):
    """Property: header, chunks, mode, size and length of all images are equal; neither code nor place tells origin.

    The synthetic images here are smooth and the real ones noisy, of other sizes and with metadata: what a compressed
    file, or a copied one, would give away.
    """
    key = make(images, tmp_path)
    page = embedded(tmp_path / "kit")
    assert set(page) == {"study", "title", "questions", "images"}
    assert all(set(image) == {"code", "png"} for image in page["images"])
    codes = [image["code"] for image in page["images"]]
    assert codes == sorted(codes)
    files = [base64.b64decode(image["png"]) for image in page["images"]]
    assert len({len(file) for file in files}) == 1
    assert len({file[:33] for file in files}) == 1  # signature and header with size, mode, depth
    assert all(set(chunks(file)) == {b"IHDR", b"IDAT", b"IEND"} for file in files)
    assert {Image.open(io.BytesIO(file)).size for file in files} == {(48, 48)}
    text = (tmp_path / "kit" / "index.html").read_text("utf-8") + (tmp_path / "kit" / "README.txt").read_text("utf-8")
    for name in (*key.table["image"], "hospital", "used_in_training", str(tmp_path)):
        assert name not in text
    # a classifier on the codes' order: over 60 kits its AUC must scatter about one half (8 + 8 images: SD 0.15)
    aucs = []
    for seed in range(60):
        table = make(images, tmp_path / f"s{seed}", seed=seed, display_px=32).table
        aucs.append(roc_auc(table["origin"] == "synthetic", np.arange(len(table))).auc)
    assert abs(np.mean(aucs) - 0.5) < 4 * 0.15 / np.sqrt(60)
    assert np.std(aucs) > 0.08


def test_real_crops_take_the_generators_way(images, tmp_path):
    """Oracle: the function that makes the generator's own training images, then Pillow's bicubic enlargement."""
    from hepaper.crops import to_input

    key = make(images, tmp_path)
    shown = {image["code"]: image["png"] for image in embedded(tmp_path / "kit")["images"]}
    for row in key.table.itertuples():
        source = next(path for table in images for path in table["path"] if path.name == row.image)
        values = np.asarray(Image.open(source))
        small = np.round((to_input([values / 255], 32)[0, 0].numpy() + 1) / 2 * 255).astype(np.uint8)
        if row.origin == "synthetic":
            np.testing.assert_array_equal(small, values)
        np.testing.assert_array_equal(as_generated(source, 32), small)
        wanted = np.asarray(Image.fromarray(small).resize((48, 48), Image.Resampling.BICUBIC))
        found = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown[row.code]))))
        np.testing.assert_array_equal(found, wanted)


def test_tinted_images_stay_tinted_and_change_every_images_mode(images, tmp_path):
    """By construction: one image with a yellow tint, as the paper describes them, and all are stored in colour."""
    for path in images[1]["path"]:
        grey = np.asarray(Image.open(path))
        Image.fromarray(np.stack([grey, grey, grey // 2], axis=-1)).save(path)
    make(images, tmp_path)
    files = [Image.open(io.BytesIO(base64.b64decode(i["png"]))) for i in embedded(tmp_path / "kit")["images"]]
    assert {file.mode for file in files} == {"RGB"}
    tints = sorted(float(np.ptp(np.asarray(file).astype(int), axis=-1).mean()) for file in files)
    assert tints[7] == 0
    assert tints[8] > 30


def test_page_asks_in_the_ratings_columns_and_allows_no_request(images, tmp_path):
    """By construction; and the page's own policy forbids the network."""
    make(images, tmp_path, title='Study </script> & "quotes"')
    asked = {question["field"]: [option["value"] for option in question["options"]] for question in questions()}
    scale = [1, 2, 3, 4, 5]
    assert asked == {"quality": scale, "authenticity": scale, "called": ["real", "synthetic"]}
    assert embedded(tmp_path / "kit")["title"] == 'Study </script> & "quotes"'
    text = (tmp_path / "kit" / "index.html").read_text("utf-8")
    assert "default-src 'none'" in text
    assert not re.search(r"https?://|{{", text)


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2)."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def test_page_has_contrast(repository):
    """Oracle: WCAG 2's formula; 4.5 for text, 3 for the edges of controls (level AA)."""
    style = (repository / "hepaper/reader_study/page/page.css").read_text("utf-8")
    colour = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", style))

    def contrast(a: str, b: str) -> float:
        light, dark = sorted((luminance(colour[a]), luminance(colour[b])), reverse=True)
        return (light + 0.05) / (dark + 0.05)

    for ground in ("ground", "panel", "raised", "chosen"):
        for text in ("text", "soft", "accent"):
            assert contrast(text, ground) >= 4.5, (text, ground)
    assert contrast("error", "panel") >= 4.5
    assert contrast("on-accent", "accent") >= 4.5
    assert contrast("edge", "raised") >= 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"per_class": 13}, "13 synthetic images wanted, 12 there"),
        ({"per_class": 9, "real_from": "unseen"}, "9 real images wanted, 8 there"),
        ({"image_px": 64}, "32 × 32 pixels, not the generator's 64"),
        ({"per_class": 0}, "at least 1 image"),
    ],
)
def test_kit_refuses(images, tmp_path, change, message):
    with pytest.raises(HepaperError, match=message):
        make(images, tmp_path, **change)
    assert not (tmp_path / "kit").exists()


def test_kit_refuses_files_and_places(images, tmp_path):
    real, synthetic = images
    with pytest.raises(HepaperError, match="would travel with the kit"):
        make_kit(real, synthetic, tmp_path / "kit", tmp_path / "kit/key.json", image_px=32, seed=1, per_class=8)
    with pytest.raises(HepaperError, match="there twice"):
        make((pd.concat([real, real]), synthetic), tmp_path)
    with pytest.raises(HepaperError, match="column path missing"):
        make((real.drop(columns="path"), synthetic), tmp_path)
    missing = synthetic.assign(path=[Path(f"{path}x") for path in synthetic["path"]])
    with pytest.raises(HepaperError, match="image missing"):
        make((real, missing), tmp_path)
    Image.fromarray(np.zeros((32, 32), np.uint16)).save(synthetic["path"][0])
    with pytest.raises(HepaperError, match="8-bit grey or RGB"):
        make(images, tmp_path, per_class=12)
    synthetic["path"][0].write_bytes(b"no image")
    with pytest.raises(HepaperError, match="cannot be read as an image"):
        make(images, tmp_path, per_class=12)


def test_a_key_that_readers_need_is_not_overwritten(images, tmp_path):
    make(images, tmp_path)
    make(images, tmp_path)  # the same kit again is no loss
    with pytest.raises(HepaperError, match="belongs to another kit"):
        make(images, tmp_path, seed=2)
    (tmp_path / "run/key.json").unlink()
    with pytest.raises(HepaperError, match="holds another page"):
        make(images, tmp_path, seed=2)
    key = tmp_path / "run/key.json"
    with pytest.raises(HepaperError, match="no key there"):
        read_key(key)
    key.write_text("{}")
    with pytest.raises(HepaperError, match="no key of a reader study"):
        read_key(key)
    make(images, tmp_path / "b")
    content = json.loads((tmp_path / "b/run/key.json").read_text())
    content["images"][0]["origin"] = "synthetic" if content["images"][0]["origin"] == "real" else "real"
    key.write_text(json.dumps(content))
    with pytest.raises(HepaperError, match="was changed after"):
        read_key(key)


# ---------------------------------------------------------------- collect


def reader_file(path: Path, key, reader: str = "AB", seed: int = 0) -> pd.DataFrame:
    """A file as the page writes it; the table that was written."""
    rng = np.random.default_rng(seed)
    codes = rng.permutation(key.table["code"])
    table = pd.DataFrame(
        {
            "study": key.study,
            "reader": reader,
            "code": codes,
            "order": np.arange(len(codes)) + 1,
            "quality": rng.integers(1, 6, len(codes)),
            "authenticity": rng.integers(1, 6, len(codes)),
            "called": rng.choice(["real", "synthetic"], len(codes)),
            "seconds": rng.uniform(1, 20, len(codes)).round(1),
        }
    )
    table.to_csv(path, index=False, lineterminator="\r\n")
    return table


def test_collect_joins_with_the_key(images, tmp_path):
    """Oracle: the tables that were written. Spreadsheets' semicolons, decimal commas and byte order marks are read."""
    key = make(images, tmp_path)
    sealed = tmp_path / "run/key.json"
    first = reader_file(tmp_path / "a.csv", key, "AB")
    second = reader_file(tmp_path / "b.csv", key, "007", seed=1)
    second.to_csv(tmp_path / "b.csv", index=False, sep=";", decimal=",", encoding="utf-8-sig")
    ratings = collect(sealed, [tmp_path / "a.csv", tmp_path / "b.csv"])
    assert list(ratings) == [
        "reader", "code", "origin", "image", "quality", "authenticity", "called", "seconds", "order",
    ]  # fmt: skip
    origin = key.table.set_index("code")["origin"]
    for reader, written in (("AB", first), ("007", second)):
        found = ratings[ratings["reader"] == reader].set_index("code")
        written = written.set_index("code").loc[found.index]
        columns = ["quality", "authenticity", "called", "seconds", "order"]
        pd.testing.assert_frame_equal(found[columns], written[columns], check_dtype=False)
        assert (found["origin"] == origin.loc[found.index]).all()
    ratings.to_csv(tmp_path / "ratings.csv", index=False)
    pd.testing.assert_frame_equal(read_ratings(tmp_path / "ratings.csv"), ratings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.assign(study="0123"), r"a.csv, row 2: study 0123, but the key is of"),
        (lambda t: t.iloc[:-2], r"a.csv: 2 of 16 images not rated \(.*\); ask reader AB to finish"),
        (lambda t: pd.concat([t, t.iloc[[3]]]), r"a.csv, row 18: image .* was rated in row 5 already; keep one"),
        (lambda t: t.assign(code=["XXXXX", *t["code"][1:]]), r"row 2: code 'XXXXX' is not in the key"),
        (lambda t: t.assign(quality=[1, 0, *t["quality"][2:]]), r"row 3: quality of image \w+ is '0', not 1 to 5"),
        (lambda t: t.assign(authenticity=[2.5, *t["authenticity"][1:]]), r"row 2: authenticity .* is '2.5', not 1 to"),
        (lambda t: t.assign(quality=["", *t["quality"][1:]]), r"row 2: quality of image \w+ is missing"),
        (lambda t: t.assign(called=["fake", *t["called"][1:]]), r"row 2: called .* is 'fake', not real or synthetic"),
        (lambda t: t.assign(seconds=[-1, *t["seconds"][1:]]), r"row 2: seconds of image \w+ is '-1.0'"),
        (lambda t: t.assign(order=["x", *t["order"][1:]]), r"row 2: order of image \w+ is 'x'"),
        (lambda t: t.assign(reader=["CD", *t["reader"][1:]]), r"row 3: reader 'AB'; one file holds one reader"),
        (lambda t: t.assign(reader="SIM1"), r"row 2: reader 'SIM1'; codes that begin with SIM"),
        (lambda t: t.iloc[:0], r"a.csv: holds no ratings"),
        (lambda t: t.drop(columns="called"), r"a.csv: its columns are not study, reader, code"),
    ],
)
def test_collect_refuses(images, tmp_path, change, message):
    key = make(images, tmp_path)
    change(reader_file(tmp_path / "a.csv", key)).to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(HepaperError, match=message) as error:
        collect(tmp_path / "run/key.json", [tmp_path / "a.csv"])
    assert "\n" not in str(error.value)


def test_collect_refuses_a_reader_twice_and_no_files(images, tmp_path):
    key = make(images, tmp_path)
    reader_file(tmp_path / "a.csv", key)
    reader_file(tmp_path / "b.csv", key, "ab")
    sealed = tmp_path / "run/key.json"
    with pytest.raises(HepaperError, match=r"b.csv: reader AB is in .*a.csv already"):
        collect(sealed, [tmp_path / "a.csv", tmp_path / "b.csv"])
    with pytest.raises(HepaperError, match="no files given"):
        collect(sealed, [])
    with pytest.raises(HepaperError, match="no such file"):
        collect(sealed, [tmp_path / "c.csv"])
    (tmp_path / "c.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(HepaperError, match="cannot be read as text"):
        collect(sealed, [tmp_path / "c.csv"])
    with pytest.raises(HepaperError, match="no ratings there"):
        read_ratings(tmp_path / "ratings.csv")


# ---------------------------------------------------------------- hand-made ratings


def hand_made() -> pd.DataFrame:
    """Two real and two synthetic images, three readers; every number below can be counted on it."""
    quality = {"r1": [3, 3, 4], "r2": [2, 2, 3], "s1": [5, 3, 3], "s2": [1, 2, 2]}
    authenticity = {"r1": [5, 5, 5], "r2": [4, 4, 4], "s1": [3, 2, 2], "s2": [1, 1, 1]}
    called = {"r1": "rrr", "r2": "rss", "s1": "ssr", "s2": "rrs"}
    return pd.DataFrame(
        [
            {
                "reader": f"R{reader}",
                "code": code,
                "origin": "real" if code[0] == "r" else "synthetic",
                "quality": quality[code][reader],
                "authenticity": authenticity[code][reader],
                "called": "real" if called[code][reader] == "r" else "synthetic",
            }
            for code in quality
            for reader in range(3)
        ]
    )


def test_table2_counts_by_hand():
    """Oracle: counted by hand on twelve ratings."""
    found = analysis.scale_summary(hand_made()).set_index(["scale", "origin"])
    real, synthetic = found.loc[("quality", "real")], found.loc[("quality", "synthetic")]
    assert (real["images"], real["readers"], real["ratings"]) == (2, 3, 6)
    assert real["mean"] == pytest.approx(17 / 6)
    assert real["sd_ratings"] == pytest.approx(np.std([3, 3, 4, 2, 2, 3], ddof=1))
    assert real["sd_images"] == pytest.approx(np.std([10 / 3, 7 / 3], ddof=1))
    assert (real["ratings_3_or_more"], real["ratings_2_or_less"]) == (4, 2)
    assert (real["images_3_or_more"], real["images_2_or_less"]) == (1, 1)
    assert (synthetic["ratings_3_or_more"], synthetic["images_3_or_more"]) == (3, 1)
    correct = analysis.identification(hand_made()).set_index("origin")
    assert correct["correct"].to_dict() == {"real": 1, "synthetic": 1}
    assert correct["undecided"].sum() == 0
    two = hand_made().query("reader != 'R2'")
    even = analysis.identification(two).set_index("origin")
    assert even["correct"].to_dict() == {"real": 1, "synthetic": 1}
    assert even["undecided"].to_dict() == {"real": 1, "synthetic": 0}


def test_reader_detection_by_hand():
    """Oracle: counted by hand; Fisher's and the binomial test from scipy on those counts."""
    found = analysis.reader_detection(hand_made()).set_index("reader")
    counts = found[["hits", "misses", "false_alarms", "correct_rejections"]]
    assert counts.loc["R0"].tolist() == [1, 1, 0, 2]
    assert counts.loc["R1"].tolist() == [1, 1, 1, 1]
    assert counts.loc["R2"].tolist() == [1, 1, 1, 1]
    assert counts.loc["majority"].tolist() == [1, 1, 1, 1]
    assert found.loc["R0", "accuracy"] == pytest.approx(0.75)
    assert found.loc["mean", "hit_rate"] == pytest.approx(0.5)
    assert found.loc["mean", "d_prime"] == pytest.approx(found.loc[["R0", "R1", "R2"], "d_prime"].mean())
    assert found.loc["R0", "auc_authenticity"] == 1  # 5, 4 against 3, 1
    assert found.loc["R0", "auc_quality"] == pytest.approx(0.5)  # 3, 2 against 5, 1
    assert found.loc["R0", "p_binomial"] == pytest.approx(stats.binomtest(3, 4).pvalue)
    assert found.loc["R0", "p_fisher"] == pytest.approx(stats.fisher_exact([[1, 1], [0, 2]]).pvalue)
    fewer = hand_made().query("code != 's2'")
    assert analysis.reader_detection(fewer)["p_binomial"].isna().all()


def test_table2_text_states_its_denominators_and_its_simulated_readers():
    table = hand_made()
    found = analysis.table2(analyse(pd.concat([table, table.assign(code=table["code"] + "b")]), resamples=50))
    cells = found.set_index("Items")
    assert "8 (66.7%) of 12" in cells["Real images"].to_list()
    assert "2 (50.0%) of 4" in cells["Real images"].to_list()
    assert any("(3 readers)" in item for item in cells.index)
    simulated = table.assign(reader=table["reader"].str.replace("R", "SIM"))
    result = analyse(pd.concat([simulated, simulated.assign(code=table["code"] + "b")]), resamples=50)
    assert result.results["simulated"] is True
    assert any("(3 simulated readers)" in item for item in analysis.table2(result)["Items"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="called"), "column.* called missing"),
        (lambda t: t.assign(quality=[6, *t["quality"][1:]]), "quality must be 1, 2, 3, 4 or 5"),
        (lambda t: t.assign(called="no"), "called 'no' found"),
        (lambda t: t[t["origin"] == "real"], "both real and synthetic"),
        (lambda t: t.iloc[1:], "reader R0 has rated 3 of 4 images"),
        (lambda t: pd.concat([t, t.iloc[:1]]), "reader R0 has rated image r1 twice"),
        (lambda t: t.assign(origin=["synthetic", *t["origin"][1:]]), "real for one reader and synthetic for another"),
    ],
)
def test_ratings_of_ones_own_are_checked(change, message):
    with pytest.raises(HepaperError, match=message):
        check_ratings(change(hand_made()))


# ---------------------------------------------------------------- signal detection


def test_d_prime_closed_form():
    """Oracle: z(0.8413) = 1, so hits 84 % and false alarms 16 % are d' 2 without bias (Macmillan & Creelman, ch. 1)."""
    large = 10**7  # the correction vanishes
    found = detection(round(0.8413447 * large), large, round(0.1586553 * large), large)
    assert found.d_prime == pytest.approx(2, abs=1e-5)
    assert found.criterion == pytest.approx(0, abs=1e-5)
    biased = detection(round(0.5 * large), large, round(0.0227501 * large), large)
    assert (biased.d_prime, biased.criterion) == pytest.approx((2, 1), abs=1e-5)
    # all and none: the log-linear correction keeps them finite, with the rates 20.5 / 21 and 0.5 / 21
    assert detection(20, 20, 0, 20).d_prime == pytest.approx(2 * stats.norm.ppf(20.5 / 21))
    with pytest.raises(HepaperError, match="counts from 0"):
        detection(3, 2, 0, 2)


def test_the_papers_own_readers_could_tell():
    """Oracle: Table 2's counts. Chance does not explain the d' of its majority votes; their bias to 'real' is strong."""
    correct = load_published()["table2"]["identification"]["correct"]
    hits, alarms = correct["synthetic"], 100 - correct["real"]
    found = detection(hits, 100, alarms, 100)
    assert found.d_prime == pytest.approx(0.75, abs=0.005)  # as analysis' docstring says
    assert found.criterion > 1
    assert stats.fisher_exact([[hits, 100 - hits], [alarms, 100 - alarms]]).pvalue < 0.005


def test_the_chapters_t_tests_of_the_papers_means():
    """Oracle: SciPy's t-test from Table 2's means and deviations: near its p-values for 100 images a group, far for 300
    ratings. No proof of the unit: the audit finds tables of 300 ratings whose rank tests print the same."""
    for scale in ("quality", "authenticity"):
        row = load_published()["table2"][scale]
        mean, sd = row["mean"], row["sd"]
        p = {
            n: stats.ttest_ind_from_stats(mean["real"], sd["real"], n, mean["synthetic"], sd["synthetic"], n).pvalue
            for n in (100, 300)
        }
        assert abs(p[100] - row["p_value"]) < 0.06
        assert p[300] < 0.03


def key_table(count: int) -> pd.DataFrame:
    """A key with ``count`` images of each origin."""
    codes = [f"C{number:05d}" for number in range(2 * count)]
    return pd.DataFrame({"code": codes, "origin": ["real"] * count + ["synthetic"] * count, "image": codes})


@pytest.mark.parametrize("shared", [0.0, 0.8])
def test_known_readers_are_recovered(shared):
    """Oracle: the simulated readers' own d' and criterion.

    With 4000 images of each origin the standard error of d' is sqrt(H(1-H)/phi(z(H))^2 + F(1-F)/phi(z(F))^2) / sqrt(n)
    (Gourevitch V, Galanter E. Psychometrika 1967;32:25-33); four of them are allowed.
    """
    readers = [SimulatedReader("SIM1", 1.5, 0.3), SimulatedReader("SIM2", 0.5, 1.0), SimulatedReader("SIM3", 0.0, 0.5)]
    count = 4000
    ratings = simulate(key_table(count), readers=readers, seed=5, shared=shared)
    found = analysis.reader_detection(ratings).set_index("reader")
    for reader in readers:
        z = np.array([reader.sensitivity - reader.criterion, -reader.criterion])
        rate = stats.norm.cdf(z)
        error = np.sqrt((rate * (1 - rate) / stats.norm.pdf(z) ** 2).sum() / count)
        assert abs(found.loc[reader.name, "d_prime"] - reader.sensitivity) < 4 * error
        true_criterion = reader.criterion - reader.sensitivity / 2
        assert abs(found.loc[reader.name, "criterion"] - true_criterion) < 4 * error / 2
    # readers who share what they see agree more: ICC of authenticity is near `shared`, a little lowered by the cuts
    value = icc(ratings.query("origin == 'real'").pivot(index="code", columns="reader", values="authenticity")).icc
    assert shared - 0.1 < value < shared + 0.03


def test_measured_strangeness_finds_a_bad_generator_out():
    """Oracle: the model's exact mean rates over these images; and images that are alike cannot be told apart."""
    rng = np.random.default_rng(0)
    key = key_table(1500)
    alike = rng.standard_normal(3000)
    strange = alike + 1.5 * (key["origin"] == "synthetic")
    readers = draw_readers(2, seed=1, spread=0.3)
    for given, low, high in ((alike, -0.15, 0.15), (strange, 0.8, 2.0)):
        true = true_detection(key, readers, given).set_index("reader")
        assert true["d_prime"].between(low, high).all()
        found = analysis.reader_detection(simulate(key, given, readers, seed=2)).set_index("reader")
        for reader in readers:
            rates = true.loc[reader.name, ["hit_rate", "false_alarm_rate"]].astype(float)
            error = np.sqrt((rates * (1 - rates)).max() / 1500)
            assert (found.loc[reader.name, ["hit_rate", "false_alarm_rate"]] - rates).abs().max() < 4 * error
    assert true_detection(key, [SimulatedReader("SIM1", 0.7, 0.2)])["d_prime"][0] == pytest.approx(0.7)
    # the readers are blind: relabelled images, the same strangeness, the same calls image by image
    swapped = key.assign(origin=["synthetic", "real"] * 1500)
    a, b = (simulate(k, np.zeros(3000), readers, seed=2)["called"] for k in (key, swapped))
    assert a.equals(b)


def test_strangeness_sees_blur_noise_brightness_and_tint():
    """By construction: each change of real images moves them away from what real ones are like; new real ones stay."""
    from scipy import ndimage

    rng = np.random.default_rng(0)
    real = [picture(rng, 32, 32) for _ in range(60)]
    fresh = [picture(rng, 32, 32) for _ in range(20)]
    reference = image_measures(real)
    usual = np.median(strangeness(image_measures(fresh), reference))
    assert usual == pytest.approx(np.median(strangeness(reference, reference)), rel=0.25)
    changed = {
        "blur": [ndimage.gaussian_filter(image, 1) for image in fresh],
        "noise": [np.clip(image + 15 * rng.standard_normal(image.shape), 0, 255) for image in fresh],
        "bright": [np.clip(image + 40.0, 0, 255) for image in fresh],
        "tint": [np.stack([image, image, image * 0.8], axis=-1) for image in fresh],
    }
    for name, images in changed.items():
        assert np.median(strangeness(image_measures(images), reference)) > 2 * usual, name
    with pytest.raises(HepaperError, match="at least 3 reference"):
        strangeness(reference, reference[:2])


def test_simulated_readers_are_marked_and_repeatable():
    key = key_table(20)
    ratings = simulate(key, readers=3, seed=4)
    assert sorted(ratings["reader"].unique()) == ["SIM1", "SIM2", "SIM3"]
    pd.testing.assert_frame_equal(ratings, simulate(key, readers=3, seed=4))
    assert not ratings.equals(simulate(key, readers=3, seed=5))
    assert sorted(ratings.query("reader == 'SIM1'")["order"]) == list(range(1, 41))
    pd.testing.assert_frame_equal(check_ratings(ratings), ratings, check_dtype=False)
    assert set(FILE_COLUMNS) - set(ratings) == {"study"}
    with pytest.raises(HepaperError, match="one finite strangeness for each of 40"):
        simulate(key, np.zeros(3))
    with pytest.raises(HepaperError, match="0 to 1"):
        simulate(key, shared=1.5)


# ---------------------------------------------------------------- tests and intervals


def test_permutation_test_holds_its_level_where_pooled_ratings_do_not():
    """Oracle: under the null p < 0.05 in 5 % of studies, whatever the readers agree on.

    200 studies: the share must lie within three binomial standard errors. Fisher's test of all ratings of the same
    studies, which takes three readers of an image for three images, rejects far too often.
    """
    key = key_table(30)
    readers = [SimulatedReader(f"SIM{n}", 0.0, 0.3) for n in range(3)]
    permuted, pooled = [], []
    for seed in range(200):
        ratings = simulate(key, readers=readers, seed=seed, shared=0.9)
        permuted.append(analysis.permutation_test(ratings, seed=seed, permutations=199)[1])
        calls = pd.crosstab(ratings["origin"], ratings["called"]).reindex(columns=["real", "synthetic"], fill_value=0)
        pooled.append(stats.fisher_exact(calls).pvalue)
    error = np.sqrt(0.05 * 0.95 / 200)
    assert np.mean(np.array(permuted) <= 0.05) < 0.05 + 3 * error
    assert np.mean(np.array(permuted) <= 0.05) > 0.05 - 3 * error
    assert np.mean(np.array(pooled) <= 0.05) > 0.10


@pytest.mark.parametrize("measure", ["authenticity", "called"])
def test_permutation_test_is_exact_on_a_small_study(measure):
    """Oracle: all 70 ways to call four of eight images synthetic, enumerated on the means of all readers."""
    ratings = simulate(key_table(4), readers=[SimulatedReader(f"SIM{n}", 1.0, 0.5) for n in range(3)], seed=1)
    numbers = ratings.assign(called=(ratings["called"] == "synthetic").astype(int))
    means = numbers.groupby("code")[measure].mean()
    synthetic = list(numbers.loc[numbers["origin"] == "synthetic", "code"].unique())

    def difference(codes: list[str]) -> float:
        return float(means[codes].mean() - means.drop(codes).mean())

    ways = [difference(list(codes)) for codes in itertools.combinations(means.index, 4)]
    exact = np.mean(np.abs(ways) >= abs(difference(synthetic)) - 1e-9)
    found, p = analysis.permutation_test(ratings, measure, permutations=20000)
    assert found == pytest.approx(difference(synthetic))
    assert p == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 20000) + 1e-4)


def test_agreement_equals_hepaper_stats_and_its_interval_covers():
    """Oracle: :func:`hepaper.stats.fleiss_kappa` (statsmodels) for the kappa that is resampled."""
    ratings = simulate(key_table(40), seed=3)
    called = (ratings.pivot(index="code", columns="reader", values="called") == "synthetic").to_numpy()
    mine = float(analysis._kappa(called.sum(axis=1)[None], 3)[0])
    assert mine == pytest.approx(fleiss_kappa(called))
    table = analysis.agreement(ratings, resamples=300).set_index("item")
    assert table.loc["called", "value"] == pytest.approx(mine)
    assert table.loc["called", "ci_low"] < mine < table.loc["called", "ci_high"]
    scores = ratings.pivot(index="code", columns="reader", values="quality")
    assert table.loc["quality", "value"] == pytest.approx(icc(scores).icc)
    alone = analysis.agreement(ratings.query("reader == 'SIM1'"))
    assert alone["value"].isna().all()


def test_effects_estimate_what_the_tables_say():
    """Oracle: the plain means, and hepaper.stats' AUC (DeLong's placements), averaged over readers."""
    ratings = simulate(key_table(50), seed=3)
    found = analysis.effects(ratings, resamples=200).set_index("measure")["estimate"]
    readers = analysis.reader_detection(ratings).set_index("reader").loc["mean"]
    for measure in ("d_prime", "criterion", "accuracy", "auc_quality", "auc_authenticity"):
        assert found[measure] == pytest.approx(readers[measure]), measure
    means = ratings.groupby("origin")[["quality", "authenticity"]].mean()
    for scale in ("quality", "authenticity"):
        assert found[scale] == pytest.approx(means.loc["synthetic", scale] - means.loc["real", scale])


def test_bootstrap_of_images_matches_the_standard_error_of_image_means():
    """Oracle: the normal interval of the difference of two means of images (readers kept)."""
    ratings = simulate(key_table(150), seed=6)
    row = analysis.effects(ratings, resamples=4000).set_index("measure").loc["authenticity"]
    means = ratings.groupby(["origin", "code"])["authenticity"].mean()
    error = np.sqrt(sum(means[origin].var() / 150 for origin in ("real", "synthetic")))
    width = row["ci_high_readers"] - row["ci_low_readers"]
    assert width == pytest.approx(2 * stats.norm.ppf(0.975) * error, rel=0.06)
    assert row["ci_high"] - row["ci_low"] > width  # other readers would add to it


def test_mixed_model_equals_the_t_test_of_image_means():
    """Oracle: in a complete design the model's difference and standard error are those of the two groups of image
    means with pooled variance (Searle SR, et al. Variance components, 1992)."""
    ratings = simulate(key_table(40), seed=8)
    found = analysis.mixed_model(ratings, {"quality": 0.5}).set_index("scale")
    for scale in ("quality", "authenticity"):
        means = ratings.groupby(["origin", "code"])[scale].mean()
        pooled = np.sqrt((means["real"].var() + means["synthetic"].var()) / 40)
        assert found.loc[scale, "difference"] == pytest.approx(means["synthetic"].mean() - means["real"].mean())
        assert found.loc[scale, "se"] == pytest.approx(pooled, rel=1e-3)
    row = found.loc["quality"]
    lower, upper = (row["difference"] + 0.5) / row["se"], (row["difference"] - 0.5) / row["se"]
    assert row["p_equivalence"] == pytest.approx(max(stats.norm.sf(lower), stats.norm.cdf(upper)))
    assert np.isnan(found.loc["authenticity", "p_equivalence"])
    same = ratings.assign(quality=3, authenticity=ratings["order"] * 0 + 4)
    assert analysis.mixed_model(same)["difference"].isna().all()


def test_a_study_that_is_too_small_is_undecided_not_equivalent():
    """By construction: no difference with few and with many images, a small and a large one with many."""
    readers = [SimulatedReader(f"SIM{n}", 1.0, 0.5) for n in range(3)]

    def verdict(count: int, shift: float, margin: float = 0.3) -> str:
        # antithetic strangeness: the sample's own difference is exactly `shift`
        half = np.random.default_rng(1).standard_normal(count)
        z = np.concatenate([half - half.mean(), half - half.mean() + shift])
        ratings = simulate(key_table(count), z, readers, seed=4)
        table = analysis.effects(ratings, {"authenticity": margin}, resamples=500).set_index("measure")
        return table.loc["authenticity", "verdict"]

    assert verdict(10, 0.0) == "undecided"
    assert verdict(600, 0.0) == "equivalent"
    assert verdict(600, 1.0) == "different"
    assert verdict(600, 0.3, margin=0.9) == "different, within the margin"
    with pytest.raises(HepaperError, match="'auc' is no measure"):
        analysis.effects(hand_made(), {"auc": 0.1})
    with pytest.raises(HepaperError, match="accuracy must be above 0"):
        analysis.effects(hand_made(), {"accuracy": 0.0})


def test_analyse_gives_flat_numbers_that_agree_with_its_tables():
    ratings = simulate(key_table(25), seed=2)
    found = analyse(ratings, {"quality": 0.5, "accuracy": 0.1}, resamples=100, permutations=99)
    results = found.results
    json.dumps(results, allow_nan=False)
    assert (results["readers"], results["images_real"], results["ratings_synthetic"]) == (3, 25, 75)
    assert results["quality_real_3_or_more_share"] == results["quality_real_3_or_more"] / 75
    assert results["accuracy_verdict"] in ("equivalent", "different", "different, within the margin", "undecided")
    assert "authenticity_difference_verdict" not in results
    # the tables read the same from files
    fields = [field.name for field in dataclasses.fields(found) if field.name != "results"]
    read = {name: pd.read_csv(io.StringIO(getattr(found, name).to_csv(index=False))) for name in fields}
    again = analysis.Analysis(**read, results=results)
    for text, rows in ((analysis.table2, 17), (analysis.detection_table, 5), (analysis.effects_table, 7)):
        assert len(text(found)) == rows
        pd.testing.assert_frame_equal(text(found), text(again))
    again = analyse(ratings, {"quality": 0.5, "accuracy": 0.1}, resamples=100, permutations=99)
    assert again.results == results


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize(("count", "readers"), [(1, 1), (1, 2), (2, 3), (8, 2)])
def test_small_and_uniform_studies_give_numbers_or_nan(count, readers):
    """Property: no study that ``check_ratings`` accepts stops the analysis; perfect readers have the largest d'."""
    ratings = simulate(key_table(count), readers=readers, seed=count)
    of_first = ratings[ratings["reader"] == "SIM1"]
    uniform = ratings.assign(quality=3, authenticity=3, called="real")
    echo = pd.concat([of_first.assign(reader=reader) for reader in ratings["reader"].unique()])
    score = np.where(ratings["origin"] == "real", 5, 1)
    perfect = ratings.assign(called=ratings["origin"], quality=score, authenticity=score)
    for table in (ratings, uniform, echo, perfect):
        found = analyse(table, {"quality": 0.5, "accuracy": 0.1}, resamples=30, permutations=19)
        for text in (analysis.table2, analysis.detection_table, analysis.effects_table):
            assert not text(found).isna().any(axis=None)
    assert found.results["accuracy"] == 1
    assert found.results["d_prime"] == pytest.approx(2 * stats.norm.ppf((count + 0.5) / (count + 1)))
    assert np.isnan(analyse(uniform, resamples=30, permutations=19).results["fleiss_kappa"])
    assert analyse(uniform, resamples=30, permutations=19).results["permutation_called_p"] == 1
