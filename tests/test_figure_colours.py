"""Colours of the figures: scales that rise evenly, palettes that any colour vision tells apart, series without colour."""

from __future__ import annotations

import ast
import itertools
from pathlib import Path

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.colors import Colormap, to_rgb
from skimage.color import deltaE_ciede2000, rgb2lab

from hepaper.figures import audit, audit_tables, augmentation, beyond_scores, calibration_sim, classification, style

# Matplotlib's scales that were made to be perceptually uniform, and grey for HU
EVEN = {"gray", "viridis", "cividis", "inferno", "magma", "plasma"}
# the released code's rainbow, where the book shows what that code draws: as a scale of its own and, in as-released
# runs, on its heat maps
RAINBOW = {("audit", "switches.py"): 1, ("figures", "gradcam.py"): 1}
# Machado, Oliveira and Fernandes (2009), IEEE TVCG 15(6), severity 1: what linear RGB becomes
VISION = {
    "all cones": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900],
    ],
}  # fmt: skip
APART = 10.0  # CIEDE2000: two colours that lie apart in a figure and are still not taken for one another
GREYS = 8.0  # of L*, 0 to 100: two greys that are told apart side by side
PALETTES = {
    "splits": style.SPLIT_COLOURS.values(),
    "classes": style.CLASS_COLOURS.values(),
    "models": style.MODEL_COLOURS,
    "networks": style.NETWORK_COLOURS.values(),
    "outlines": (style.TRUTH, style.PREDICTION),
    "pairs": audit._PAIR_COLOURS,
    "compared": audit_tables._COMPARED,
    "origins": augmentation.ORIGIN_COLOURS.values(),
    "training sets": augmentation.SET_COLOURS.values(),
    "recalibrations": [colour for colour, _ in beyond_scores._METHOD_LOOKS.values()],
    "kinds of sets": beyond_scores._SETS.values(),
    "verdicts of simulations": [colour for colour, _ in calibration_sim._VERDICT_LOOKS.values()],
}


def linear(rgb: np.ndarray) -> np.ndarray:
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def seen(colours: list, vision: str) -> np.ndarray:
    """CIELab of the colours as such eyes see them."""
    light = np.clip(linear(np.array([to_rgb(colour) for colour in colours])) @ np.array(VISION[vision]).T, 0, 1)
    return rgb2lab(np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055))


def lightness(colours: list) -> np.ndarray:
    return seen(colours, "all cones")[:, 0]


def contrast(colour: str, paper: str = "white") -> float:
    """WCAG 2.2."""
    low, high = sorted(0.05 + linear(np.array(to_rgb(c))) @ [0.2126, 0.7152, 0.0722] for c in (colour, paper))
    return float(high / low)


# ------------------------------------------------------------------------------------------------ scales


def test_every_named_scale_is_even(repository: Path) -> None:
    """Oracle: a list of Matplotlib's perceptually uniform scales. Every name of a colour scale that stands in the
    package is on it; the rainbow is there only to show what the released code draws."""
    names = set(colormaps)
    rainbows: dict[tuple[str, str], int] = {}
    for file in sorted((repository / "hepaper").rglob("*.py")):
        tree = ast.parse(file.read_text("utf-8"))
        for node in ast.walk(tree):
            value = None
            if isinstance(node, ast.keyword) and node.arg == "cmap" and isinstance(node.value, ast.Constant):
                value = node.value.value
            elif isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("colormaps"):
                value = ast.literal_eval(node.slice) if isinstance(node.slice, ast.Constant) else None
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and node.value.value in names:
                value = node.value.value
            if value is None or value in EVEN:
                continue
            assert value == "jet", f"{file.name}: colour scale {value!r}"
            key = (file.parent.name, file.name)
            rainbows[key] = rainbows.get(key, 0) + 1
    assert rainbows.items() <= RAINBOW.items()


OWN_SCALES = {
    "confusion": classification.SHADES,
    "kappa": audit_tables.SHADES,
    **{name: colormaps[name] for name in sorted(EVEN)},
}


@pytest.mark.parametrize("scale", OWN_SCALES.values(), ids=OWN_SCALES)
def test_lightness_of_a_scale_changes_evenly(scale: Colormap) -> None:
    """Property: L* of CIELab goes one way, and no fifth of the scale takes more than twice its share: nothing looks
    like an edge that is none. Rainbows fail, see below."""
    assert evenness(scale) < 2


def test_a_rainbow_is_not_even() -> None:
    """The property can fail: jet rises and falls."""
    assert evenness(colormaps["jet"]) == np.inf
    assert evenness(colormaps["hsv"]) == np.inf


def evenness(scale: Colormap) -> float:
    """The largest step of lightness of a fifth of the scale, in mean steps; infinite where lightness turns back."""
    steps = np.diff(lightness([tuple(row) for row in scale(np.linspace(0, 1, 6))[:, :3]]))
    return float(np.abs(steps).max() / np.abs(steps).mean()) if (np.sign(steps) == np.sign(steps[0])).all() else np.inf


def test_scans_are_grey() -> None:
    """Property: pictures of HU use the house style's scale, which is grey, in whatever figure they are shown."""
    assert style.RC["image.cmap"] == "gray"


# ------------------------------------------------------------------------------------------------ palettes


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("palette", PALETTES.values(), ids=PALETTES)
def test_any_colour_vision_tells_a_palette_apart(palette: list, vision: str) -> None:
    """Oracle: CIEDE2000 (scikit-image) between every two colours, as the published matrices of Machado, Oliveira and
    Fernandes (2009) let eyes without one kind of cones see them."""
    lab = seen(list(palette), vision)
    for a, b in itertools.combinations(range(len(lab)), 2):
        assert deltaE_ciede2000(lab[a], lab[b]) > APART, (list(palette)[a], list(palette)[b])


def test_matrices_keep_grey_and_confuse_what_they_should() -> None:
    """Property of the matrices: greys stay as they are; red and green of equal lightness come together without one kind
    of cones and stay apart with all, so that the test above can fail."""
    greys = ["#000000", "#808080", "#ffffff"]
    for vision in VISION:
        np.testing.assert_allclose(seen(greys, vision), seen(greys, "all cones"), atol=0.1)
    confused = ["#A0522D", "#556B2F"]  # sienna and olive
    apart = {vision: float(deltaE_ciede2000(*seen(confused, vision))) for vision in VISION}
    assert apart["deuteranopia"] < APART < apart["all cones"]


def test_words_in_figures_can_be_read() -> None:
    """Oracle: WCAG 2.2, 1.4.3: contrast of text at least 4.5 on the figures' white."""
    for colour in (style.INK, style.GREY):
        assert contrast(colour) >= 4.5


# ------------------------------------------------------------------------------------------------ grey print

# a second cue for what grey print does not tell apart: looks of the same number of members
CUES = {
    "splits": list(style.SPLIT_MARKERS.values()),
    "models": style.MARKERS[: len(style.MODEL_COLOURS)],
    "pairs": audit._PAIR_LINES,
    "verdicts": list(zip(audit.VERDICT_HATCHES.values(), audit.VERDICT_COLOURS.values(), strict=True)),
    "recalibrations": [marker for _, marker in beyond_scores._METHOD_LOOKS.values()],
    "verdicts of simulations": [marker for _, marker in calibration_sim._VERDICT_LOOKS.values()],
}


@pytest.mark.parametrize("cue", CUES.values(), ids=CUES)
def test_cues_without_colour_differ(cue: list) -> None:
    """Property: each series has a marker, a dash or a hatch of its own."""
    assert len(set(cue)) == len(cue)


def test_colours_alone_where_there_is_no_other_cue() -> None:
    """Oracle: L* of CIELab: expansion and none, and real and synthetic, stand beside each other as plain bars."""
    for palette in (style.CLASS_COLOURS, augmentation.ORIGIN_COLOURS):
        assert abs(np.subtract(*lightness(list(palette.values())))) > GREYS


def test_hatches_where_greys_are_near() -> None:
    """Property: verdicts whose greys are near differ in their hatch; so do kinds of sets."""
    for colours, hatches in (
        (audit.VERDICT_COLOURS, audit.VERDICT_HATCHES),
        (beyond_scores._SETS, {name: beyond_scores._SET_HATCHES.get(name, "") for name in beyond_scores._SETS}),
    ):
        names, tones = list(colours), lightness(list(colours.values()))
        for a, b in itertools.combinations(range(len(names)), 2):
            assert abs(tones[a] - tones[b]) > GREYS or hatches[names[a]] != hatches[names[b]], (names[a], names[b])


def test_methods_of_one_panel_differ_without_colour() -> None:
    """Property: methods of proportions, and of areas, each have a marker of their own."""
    looks = calibration_sim._METHOD_LOOKS
    for names in (
        ("Wilson", "Wald", "Clopper-Pearson", "Agresti-Coull", "Jeffreys"),
        ("DeLong", "DeLong, logit", "Hanley-McNeil", "Bootstrap, percentile"),
    ):
        assert len({looks[name][1] for name in names}) == len(names)
        assert len({looks[name][0] for name in names}) == len(names)
