"""The kit of a reader study: one offline web page with coded images, and the sealed key that stays behind.

A reader must find nothing but the picture that tells a real image from a synthetic one. A real crop is therefore first
brought to the generator's own resolution, as the images that the generator learnt from were; from there on both kinds
take one way: the same interpolation to the size on the screen, the same 8 bits, the same PNG writer without compression
(so that the length of the data is the same whatever the picture shows) and without metadata. The images lie in the page
itself, sorted by random codes: there are no file names, dates or folder orders to read.

The codes are drawn from the content of the images as well as the seed: who has this program and the study's parameters,
but not the images' files, cannot draw them again. The page carries the digest of the key, by which the ratings and the
key recognise each other.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from PIL import Image

from hepaper.errors import HepaperError
from hepaper.study import whole_file, write_json

PAGE = Path(__file__).parent / "page"
#: The two 5-point scales (paper, Methods), as the columns of every table call them.
SCALES = ("quality", "authenticity")
ORIGINS = ("real", "synthetic")
RealFrom = Literal["unseen_first", "unseen", "training"]
# no vowels: codes spell no word, and no spreadsheet takes them for a number or a date
_LETTERS = np.array(list("BCDFGHJKLMNPQRSTVWXZ"))
_README = """{title}

1. Open index.html with a current Chrome, Edge or Firefox. No network and no installation is needed.
   Leave the file where it is until you are done: the browser keeps your answers by the file's place.
2. Enter the reader code that you were given, and rate the {count} images, in one or several sittings.
3. Press "Download ratings" at the end and hand the CSV file to the study team.

Study {study}
"""


@dataclass(frozen=True)
class Key:
    """What a kit's codes stand for; ``table`` has a row an image: code, origin, image, used_in_training."""

    study: str  # digest of the key, which the kit carries
    title: str
    table: pd.DataFrame


def questions() -> list[dict[str, Any]]:
    """What the page asks: field, title and options of the two scales and of the call (real or synthetic)."""
    return json.loads((PAGE / "questions.json").read_text("utf-8"))


def _digest(salt: str, table: pd.DataFrame) -> str:
    rows = table[["code", "origin", "image", "used_in_training"]].sort_values("code").values.tolist()
    return hashlib.sha256(json.dumps([salt, rows]).encode()).hexdigest()[:16]


def _draw(real: pd.DataFrame, synthetic: pd.DataFrame, count: int, how: RealFrom, seed: int) -> pd.DataFrame:
    """``count`` images of each origin: path, image, origin, used_in_training."""
    drawn = []
    for origin, table in zip(ORIGINS, (real, synthetic), strict=True):
        if missing := {"path"} - set(table):
            raise HepaperError(f"{origin} images: column {', '.join(missing)} missing; it holds the image files")
        table = table.assign(origin=origin, path=[Path(path) for path in table["path"]])
        table["image"] = table["image"] if "image" in table else [path.name for path in table["path"]]
        seen = origin == "real"  # where nothing is known, suppose that the generator has learnt from it
        table["used_in_training"] = table["used_in_training"].astype(bool) if "used_in_training" in table else seen
        if table["image"].duplicated().any():
            raise HepaperError(f"{origin} images: {table['image'][table['image'].duplicated()].iloc[0]} is there twice")
        if origin == "real" and how != "unseen_first":
            table = table[table["used_in_training"] == (how == "training")]
        if len(table) < count:
            raise HepaperError(
                f"reader study: {count} {origin} images wanted, {len(table)} there; "
                f"set its number of images a class to {len(table)} or fewer"
            )
        # a stable order first: the draw must not depend on how the caller sorted
        table = table.sort_values("image").sample(frac=1.0, random_state=np.random.default_rng(seed))
        if origin == "real" and how == "unseen_first":
            table = table.sort_values("used_in_training", kind="stable")
        drawn.append(table.head(count)[["path", "image", "origin", "used_in_training"]])
    return pd.concat(drawn, ignore_index=True)


def _pixels(path: Path) -> np.ndarray:
    """An 8-bit image as (y, x) grey, or (y, x, 3) where its channels differ."""
    try:
        with Image.open(path) as image:
            if image.mode not in ("L", "RGB"):
                raise HepaperError(f"{path}: {image.mode} image; 8-bit grey or RGB images are shown to readers")
            values = np.asarray(image)
    except FileNotFoundError:
        raise HepaperError(f"{path}: image missing; run the stage that writes it first") from None
    except OSError:
        raise HepaperError(f"{path}: cannot be read as an image; run the stage that writes it again") from None
    if values.ndim == 3 and (values == values[..., :1]).all():
        return values[..., 0]
    return values


def as_generated(path: Path, size: int) -> np.ndarray:
    """An image file at the generator's resolution: 8-bit (size, size), or (size, size, 3) where its channels differ.

    Raises
    ------
    HepaperError
        If the file is missing, or no 8-bit grey or RGB image.
    """
    return _generated_size(_pixels(path), size)


def _generated_size(pixels: np.ndarray, size: int) -> np.ndarray:
    """To the generator's resolution in the very way its training images took; no change where it has it."""
    from hepaper.crops import to_input

    channels = [pixels] if pixels.ndim == 2 else list(np.moveaxis(pixels, -1, 0))
    batch = (to_input([channel.astype(np.float32) / 255 for channel in channels], size)[:, 0] + 1) / 2
    values = np.round(batch.numpy() * 255).astype(np.uint8)
    return values[0] if pixels.ndim == 2 else np.moveaxis(values, 0, -1)


def _png(pixels: np.ndarray, colour: bool, image_px: int, display_px: int) -> bytes:
    """One image on its common way to the screen: to the generator's size, to the page's, to PNG."""
    image = Image.fromarray(_generated_size(pixels, image_px)).convert("RGB" if colour else "L")
    image = image.resize((display_px, display_px), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    # stored, not compressed: compressed length would tell a smooth image from a noisy one
    image.save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


def _codes(count: int, rng: np.random.Generator) -> list[str]:
    codes: dict[str, None] = {}
    while len(codes) < count:
        codes["".join(rng.choice(_LETTERS, 5))] = None
    return list(codes)


def _page(study: str, title: str, images: dict[str, bytes]) -> str:
    content = {
        "study": study,
        "title": title,
        "questions": questions(),
        "images": [{"code": code, "png": base64.b64encode(images[code]).decode()} for code in sorted(images)],
    }
    parts = {
        "{{TITLE}}": html.escape(title),
        "{{STYLE}}": (PAGE / "page.css").read_text("utf-8"),
        "{{SCRIPT}}": (PAGE / "page.js").read_text("utf-8"),
        # "</script>" in a title would end the element
        "{{STUDY}}": json.dumps(content).replace("<", "\\u003c"),
    }
    page = (PAGE / "page.html").read_text("utf-8")
    for mark, text in parts.items():
        page = page.replace(mark, text)
    return page


def make_kit(
    real: pd.DataFrame,
    synthetic: pd.DataFrame,
    out: Path,
    key: Path,
    *,
    image_px: int,
    seed: int,
    title: str = "Real or synthetic? Hematoma expansion on CT",
    per_class: int = 100,
    display_px: int = 256,
    real_from: RealFrom = "unseen_first",
) -> Key:
    """Draw, code and shuffle real and synthetic maximum slices; write the readers' folder and the sealed key.

    Parameters
    ----------
    real, synthetic : DataFrame
        One row an image: path (a PNG file, 8-bit), and if known image (its name in the key; the file's name otherwise)
        and, of real images, used_in_training (whether the generator learnt from it; supposed true where not given).
    out : Path
        The readers' folder: ``index.html`` and ``README.txt``.
    key : Path
        The key, a JSON file; outside ``out``.
    image_px : int
        Width and height of the generator's images.
    seed : int
        Of the draw and, together with the images, of the codes. The same arguments give the same bytes.
    per_class : int
        Real images, and synthetic images; the paper's 100.
    display_px : int
        Width and height of the images in the page, which shows them as large as the screen allows; at least
        ``image_px``. The page takes 1.33 bytes a pixel: 17 MB for 200 images of 256 x 256.
    real_from : str
        "unseen_first": real images that the generator has not learnt from, filled up with those it has; "unseen": only
        the former; "training": only the latter, as in the paper, where memorised images can look like real ones seen.

    Returns
    -------
    Key

    Raises
    ------
    HepaperError
        If there are too few images, one cannot be read or is not 8-bit, a synthetic one has another size than
        ``image_px``, ``key`` lies within ``out``, or either belongs to another study.
    """
    out, key = Path(out), Path(key)
    if key.resolve().is_relative_to(out.resolve()):
        raise HepaperError(f"{key}: the key would travel with the kit; keep it outside {out}")
    if per_class < 1 or image_px < 1:
        raise HepaperError("reader study: at least 1 image a class, of at least 1 pixel, is shown")
    display_px = max(display_px, image_px)
    drawn = _draw(real, synthetic, per_class, real_from, seed)
    pictures = [_pixels(path) for path in drawn["path"]]
    for row, picture in zip(drawn.itertuples(), pictures, strict=True):
        if row.origin == "synthetic" and picture.shape[:2] != (image_px, image_px):
            raise HepaperError(
                f"{row.path}: {picture.shape[1]} × {picture.shape[0]} pixels, not the generator's {image_px}"
            )
    # one image with a tint, and all are stored in colour: a tint may be seen, a mode may not
    colour = any(picture.ndim == 3 for picture in pictures)
    secret = hashlib.sha256(f"{seed}|{title}|{image_px}|{display_px}".encode())
    for row, picture in zip(drawn.itertuples(), pictures, strict=True):
        secret.update(f"{row.origin}|{row.image}|{picture.shape}".encode() + picture.tobytes())
    rng = np.random.default_rng(int.from_bytes(secret.digest()))
    table = drawn.assign(code=_codes(len(drawn), rng))[["code", "origin", "image", "used_in_training"]]
    salt = rng.bytes(16).hex()  # without it, whoever guesses the names of few images could guess the key
    made = Key(_digest(salt, table), title, table.sort_values("code", ignore_index=True))
    _refuse_another(out, key, made.study)
    pngs = [_png(picture, colour, image_px, display_px) for picture in pictures]
    if len({len(png) for png in pngs}) != 1:
        raise RuntimeError("images differ in stored size, which would tell them apart")
    with whole_file(out / "index.html") as temporary:
        temporary.write_text(_page(made.study, title, dict(zip(table["code"], pngs, strict=True))), "utf-8")
    with whole_file(out / "README.txt") as temporary:
        temporary.write_text(_README.format(title=title, count=len(table), study=made.study), "utf-8")
    rows = made.table.to_dict("records")
    write_json(key, {"study": made.study, "title": title, "salt": salt, "images": rows})
    return made


def _refuse_another(out: Path, key: Path, study: str) -> None:
    """Readers may be at work with an earlier kit: its key is not overwritten, nor its page."""
    if key.is_file() and read_key(key).study != study:
        raise HepaperError(f"{key}: belongs to another kit, whose ratings need it; move it away or choose another run")
    page = out / "index.html"
    if page.is_file() and f'"study": "{study}"' not in page.read_text("utf-8", errors="replace"):
        raise HepaperError(f"{out}: holds another page; choose another folder, or delete it if no reader works with it")


def read_key(path: Path) -> Key:
    """The key of a kit.

    Raises
    ------
    HepaperError
        If it is missing, no key, or changed since the kit was made.
    """
    path = Path(path)
    if not path.is_file():
        raise HepaperError(
            f"{path}: no key there; it is written when the kit is made, so give the run that made the kit"
        )
    try:
        content = json.loads(path.read_text("utf-8"))
        table = pd.DataFrame(content["images"])
        digest = _digest(content["salt"], table)
    except (ValueError, KeyError, TypeError):
        raise HepaperError(
            f"{path}: no key of a reader study; give the key.json that was written with the kit"
        ) from None
    if digest != content.get("study"):
        raise HepaperError(
            f"{path}: was changed after the kit was made; restore the file that was written with the kit"
        )
    return Key(digest, str(content.get("title", "")), table.sort_values("code", ignore_index=True))
