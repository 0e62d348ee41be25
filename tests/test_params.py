"""Parameters: what is wrong is named, what is right is the paper's."""

from __future__ import annotations

import math
import re
import types
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from hepaper.errors import HepaperError
from hepaper.params import Params, from_notebook, load_params, make_params

PROFILES = ("smoke", "demo", "paper")


def leaves(model: type[BaseModel], path: str = "") -> list[str]:
    """Every dotted key."""
    found = []
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found += leaves(inner, f"{path}{name}.")
        else:
            found.append(path + name)
    return found


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "study.yml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("values", "wrong", "nearest"),
    [
        ({"segmentation": {"epoch": 3}}, "segmentation.epoch", "epochs"),
        ({"segmentation": {"lerning_rate": 3}}, "segmentation.lerning_rate", "learning_rate"),
        ({"segmentaton": {"epochs": 3}}, "segmentaton", "segmentation"),
        ({"roi": {"windowwidth": 3}}, "roi.windowwidth", "window_width"),
        ({"cohort": {"patients": {"trian": 3}}}, "cohort.patients.trian", "train"),
    ],
)
def test_unknown_key_names_the_nearest(tmp_path: Path, values: dict, wrong: str, nearest: str) -> None:
    """Oracle: the key that a reader would say was meant; the same words from a file and from a notebook."""
    path = written(tmp_path, yaml.safe_dump(values))
    for read in (lambda: load_params(path), lambda: from_notebook(values)):
        with pytest.raises(HepaperError, match=re.escape(f"unknown key '{wrong}'; did you mean '{nearest}'?")) as info:
            read()
        assert "\n" not in str(info.value)
    with pytest.raises(HepaperError, match=re.escape(str(path))):
        load_params(path)


def test_key_like_no_other_lists_what_is_known() -> None:
    """Oracle: all keys of the section."""
    with pytest.raises(HepaperError) as info:
        make_params({"volume": {"zzz": 1}})
    assert "known here: growth_ml, growth_fraction" in str(info.value)


def test_every_problem_is_named_at_once() -> None:
    """Oracle: three mistakes, three mentions, one line."""
    with pytest.raises(HepaperError) as info:
        make_params({"study": {"seed": -1}, "segmentation": {"epochs": "many"}, "rio": {}})
    message = str(info.value)
    assert all(word in message for word in ("'study.seed'", "'segmentation.epochs'", "'rio'", "'many'"))
    assert "\n" not in message


@pytest.mark.parametrize(
    "values",
    [
        {"segmentation": {"epochs": 0}},
        {"segmentation": {"momentum": 1.0}},
        {"segmentation": {"patch_size": [16, 64]}},
        {"segmentation": {"network": "unet"}},
        {"preprocess": {"spacing_mm": [5, 0.5, 0]}},
        {"preprocess": {"spacing_mm": [math.inf, 1, 1]}},
        {"roi": {"window_level": math.nan}},
        {"volume": {"growth_ml": math.inf}},
        {"classification": {"crop_scale": 0}},
        {"study": {"name": "../elsewhere"}},
        {"study": {"name": ""}},
        {"statistics": {"confidence": 95}},
        {"study": 3},
        {"cohort": {"source": "table"}},
        {1: {}},
    ],
)
def test_bad_values_are_refused_in_one_line(values: dict) -> None:
    """Oracle: the meaning of each parameter (params/README.md)."""
    with pytest.raises(HepaperError) as info:
        make_params(values)
    assert "\n" not in str(info.value)
    assert str(info.value).startswith("params: ")


@pytest.mark.parametrize("text", ["- a\n- b\n", "just words", "a: [1, 2", "\tstudy: x", b"\xff\xfe\x00"])
def test_file_that_is_no_mapping(tmp_path: Path, text: str | bytes) -> None:
    """Oracle: one line that names the file."""
    path = written(tmp_path, text)
    with pytest.raises(HepaperError, match=re.escape(str(path))) as info:
        load_params(path)
    assert "\n" not in str(info.value)


def test_missing_file(tmp_path: Path) -> None:
    """Oracle: one line that names the file and where the shipped ones are."""
    with pytest.raises(HepaperError, match=r"nothing\.yml: no such params file; .*paper\.yml"):
        load_params(tmp_path / "nothing.yml")


def test_empty_file_is_all_defaults(tmp_path: Path) -> None:
    """Oracle: a params file names only what differs from the defaults."""
    assert load_params(written(tmp_path, "")) == Params()


@pytest.mark.parametrize("profile", PROFILES)
def test_profiles_load_and_resolve(repository: Path, tmp_path: Path, profile: str) -> None:
    """Oracle: the resolved YAML, read back, is the same parameters, and it writes out every key there is."""
    params = load_params(repository / "params" / f"{profile}.yml")
    assert params.study.name == profile
    text = params.to_yaml()
    assert load_params(written(tmp_path, text)) == params
    resolved = yaml.safe_load(text)
    for dotted in leaves(Params):
        value: Any = resolved
        for name in dotted.split("."):
            assert name in value, dotted
            value = value[name]


def test_paper_profile_is_the_paper(repository: Path) -> None:
    """Oracle: the paper's Methods and Table 1, number by number; the file states them itself, by no default."""
    path = repository / "params" / "paper.yml"
    stated = yaml.safe_load(path.read_text("utf-8"))
    params = load_params(path)
    assert stated["cohort"]["patients"] == {"train": 1103, "external_1": 513, "external_2": 404}
    assert stated["preprocess"]["spacing_mm"] == [5.0, 0.5, 0.5]
    segmentation = {"learning_rate": 1e-3, "momentum": 0.99, "weight_decay": 3e-5, "batch_size": 2, "epochs": 500}
    assert stated["segmentation"].items() >= segmentation.items()
    assert params.segmentation.model_dump().items() >= segmentation.items()
    classification = {
        "epochs": 100, "batch_size": 256, "image_size": 224, "learning_rate": 2e-4, "final_learning_rate": 1e-4,
        "pretrained": True,
    }  # fmt: skip
    assert stated["classification"].items() >= classification.items()
    assert params.classification.model_dump().items() >= classification.items()
    augmentation = {
        "timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "image_size": 256, "epochs": 1000, "batch_size": 32,
        "optimizer": "adam", "learning_rate": 1e-4, "schedule": "cosine",
    }  # fmt: skip
    assert stated["augmentation"].items() >= augmentation.items()
    assert params.augmentation.model_dump().items() >= augmentation.items()
    assert stated["reader_study"].items() >= {"per_class": 100}.items()
    assert stated["roi"].items() >= {"window_level": 40, "window_width": 80}.items()
    assert (params.volume.growth_ml, params.volume.growth_fraction) == (6.0, 0.33)
    assert params.statistics.confidence == 0.95


def test_defaults_are_the_papers(repository: Path) -> None:
    """Oracle: params/README.md's promise that defaults are the paper's values: sizes and name apart, paper.yml adds
    nothing to them."""
    paper, default = load_params(repository / "params" / "paper.yml").model_dump(), Params().model_dump()
    for section in ("preprocess", "segmentation", "volume", "roi", "augmentation", "classification", "statistics"):
        assert paper[section] == default[section]


def test_phantom_sizes_of_small_profiles_keep_every_split(repository: Path) -> None:
    """Oracle: DESIGN's splits: no profile leaves one out."""
    for profile in PROFILES:
        sizes = load_params(repository / "params" / f"{profile}.yml").cohort.patients
        assert sizes.train > sizes.external_1 >= sizes.external_2 > 0


def test_override_with_a_dot(repository: Path) -> None:
    """Oracle: the one knob moves, the others do not."""
    path = repository / "params" / "smoke.yml"
    changed = load_params(path, {"segmentation.epochs": 3}).model_dump()
    plain = load_params(path).model_dump()
    assert changed["segmentation"].pop("epochs") == 3
    plain["segmentation"].pop("epochs")
    assert changed == plain


def test_notebook_variables_are_the_file(repository: Path) -> None:
    """Oracle: ``papermill -f FILE`` gives one variable a section; the result is that of reading FILE."""
    path = repository / "params" / "demo.yml"
    sections = yaml.safe_load(path.read_text("utf-8"))
    everything = {"In": [], "Out": {}, "exit": 0, "_i": "x", "__name__": "n", "math": math, "function": leaves}
    assert from_notebook({**everything, **sections}) == load_params(path)


def test_notebook_knob_overrides_its_section() -> None:
    """Oracle: papermill -p section__key VALUE wins over the section's variable, whatever their order."""
    for order in (1, -1):
        variables = [("segmentation", {"epochs": 5, "momentum": 0.9}), ("segmentation__epochs", 7)][::order]
        params = from_notebook(dict(variables))
        assert (params.segmentation.epochs, params.segmentation.momentum) == (7, 0.9)
    assert from_notebook({"cohort__patients__train": 9}).cohort.patients.train == 9
    with pytest.raises(HepaperError, match="did you mean 'epochs'"):
        from_notebook({"segmentation__epoch": 7})


def test_notebook_stray_variable_is_refused() -> None:
    """Oracle: a mistyped ``-p`` must not be ignored."""
    with pytest.raises(HepaperError, match="unknown key 'seed'"):
        from_notebook({"seed": 1})


def test_parameters_do_not_change() -> None:
    """Oracle: frozen: a stage cannot move the knobs of the next."""
    params = Params()
    with pytest.raises(ValueError, match="frozen"):
        params.segmentation.epochs = 1  # type: ignore[misc]


@settings(deadline=None)
@given(st.integers(1, 10**6), st.floats(1e-8, 10), st.tuples(*[st.integers(1, 999)] * 3) | st.none())
def test_resolved_yaml_keeps_every_value(epochs: int, rate: float, patch: tuple | None) -> None:
    """Oracle: writing and reading is the identity (property)."""
    params = make_params({"segmentation": {"epochs": epochs, "learning_rate": rate, "patch_size": patch}})
    assert make_params(yaml.safe_load(params.to_yaml())) == params


def test_readme_explains_every_key(repository: Path) -> None:
    """Oracle: the model itself: each key has a row in its section, with its default, and no row is left over."""
    text = (repository / "params" / "README.md").read_text("utf-8")
    rows: dict[str, str] = {}
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        for section in part.split("\n", 1)[0].strip().split(" and "):  # keys that sections share are listed once
            for key, default in re.findall(r"^\| `([\w.]+)` \| ([^|]*) \|", part, flags=re.MULTILINE):
                rows[f"{section}.{key}"] = default.strip(" `")
    assert sorted(rows) == sorted(leaves(Params))
    for dotted, told in rows.items():
        value: Any = Params().model_dump(mode="json")
        for name in dotted.split("."):
            value = value[name]
        assert ("–" if value is None else yaml.safe_load(told)) == ("–" if value is None else value), dotted
        assert value is not None or told == "–", dotted


def test_no_code_asks_for_a_profile(repository: Path) -> None:
    """Oracle: a profile is data: neither the package nor the workflow nor a notebook compares with a profile's name."""
    files = [
        *(repository / "hepaper").rglob("*.py"),
        *(repository / "notebooks").glob("*.ipynb"),
        repository / "workflow" / "Snakefile",
    ]
    assert len(files) > 20
    comparison = re.compile(
        r"""(==|!=|\bin\b)\s*[\[({]?\s*\\?["'](smoke|demo|paper)\b|study\.name\s*(==|!=|in\b)|profile\s*=="""
    )
    for file in files:
        assert not comparison.search(file.read_text("utf-8")), file


def test_modules_in_a_notebook_are_not_parameters() -> None:
    """Oracle: only plain variables are parameters."""
    assert from_notebook({"np": types.ModuleType("np"), "f": print}) == Params()


def test_module_in_a_sections_place_is_refused() -> None:
    """Oracle: an import that hides a section would run the study with the section's defaults, unseen."""
    with pytest.raises(HepaperError, match="'cohort' is a section of parameters and now holds a module"):
        from_notebook({"cohort": types.ModuleType("cohort")})
