"""Parameters: one section a stage, validated, with every default visible and every typing mistake named.

A params file (``params/*.yml``) is read by :func:`load_params`; a notebook, whose parameters papermill injects as
variables, calls :func:`from_notebook`. Both end in the same frozen :class:`Params`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hepaper.errors import HepaperError

Positive = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Triple = tuple[PositiveFloat, PositiveFloat, PositiveFloat]
Setting = Annotated[str, Field(pattern=r"^(ddpm|ddim|dpmsolver\+\+):[1-9][0-9]*$")]  # sampler:steps
Shape3 = tuple[Positive, Positive, Positive]


class Section(BaseModel):
    """A section of the params file: unknown keys are errors, values do not change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


class StudyParams(Section):
    """Where the run goes and how the machine is used."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] = "demo"
    runs_dir: str = "runs"
    seed: Count = 2025
    device: str = "auto"
    workers: Count = 0  # processes for per-patient work; 0: one a core


class PhantomSizes(Section):
    """Eligible phantom patients a split; ineligible ones come on top and are excluded by the study."""

    train: Positive = 131
    external_1: Positive = 61
    external_2: Positive = 48


class CohortParams(Section):
    """The patients: phantoms made here, or a table of real ones."""

    source: Literal["phantom", "table"] = "phantom"
    table: str | None = None  # source: table -> the path of cohort.csv
    patients: PhantomSizes = PhantomSizes()
    coarsen: Positive = 1  # phantom only: in-plane voxels this many times larger than the scanner's
    oracle_patients: Positive = 200_000  # phantom only: latent patients behind the population oracle AUC


class PreprocessParams(Section):
    """Paper, Methods: 0.5 x 0.5 x 5 mm, linear interpolation."""

    spacing_mm: Triple = (5.0, 0.5, 0.5)  # z, y, x
    grid: Literal["centred", "first_voxel"] = "centred"  # first_voxel: begins at the centre of the scan's first voxel
    outside: Literal["air", "pixel_type"] = "air"  # pixel_type: the number that stands for int16, 2, as HU


NetworkName = Literal["umamba_enc", "umamba_bot", "nnunet", "nnformer", "unetrpp"]


class TrainingParams(Section):
    """What every segmentation network shares; ``None`` leaves a choice to nnU-Net's planner."""

    epochs: Positive = 500
    iterations_per_epoch: Positive = 250
    validation_iterations: Positive = 50
    momentum: Fraction = 0.99
    weight_decay: Annotated[float, Field(ge=0)] = 3e-5
    batch_size: Positive = 2
    spacing_mm: Triple | None = None  # z, y, x; the voxels the network sees
    patch_size: Shape3 | None = None
    features: tuple[Positive, ...] | None = None  # channels a stage; their number is the number of stages
    nnformer_embed_dim: Positive = 192  # the official synapse variant's
    unetrpp_dims: tuple[Positive, Positive, Positive, Positive] = (32, 64, 128, 256)
    validation_fraction: Fraction = 0.2  # of the patients, split by patient
    checkpoint_every: Positive = 10  # epochs
    mirror_axes: tuple[Literal[0, 1, 2], ...] = (0, 1, 2)  # z, y, x: which way patches are mirrored in training
    mirror: bool = True  # mirroring test-time augmentation, along the same axes
    tile_step: Annotated[float, Field(gt=0, le=1)] = 0.5
    whole_slices: bool = False  # tiles as wide as the head, for networks that work on any size
    smallest_component_ml: Annotated[float, Field(ge=0)] = 0.1  # predicted islands below this are noise


class BenchmarkParams(TrainingParams):
    """Networks on equal terms, on patients drawn from the training split (paper, Fig. 3)."""

    networks: Annotated[tuple[NetworkName, ...], Field(min_length=1)] = ("umamba_enc", "nnunet", "nnformer", "unetrpp")
    patients: Positive | None = 500  # None: all of the training split
    learning_rates: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (1e-3,)  # the first decides
    winner: Literal["highest", "cheapest_equal"] = "highest"
    split: Literal["patient", "scan"] = "patient"  # scan: nnU-Net's own, which may part a patient's two scans


class SegmentationParams(TrainingParams):
    """The full-scale model, trained on the training split and used by the rest of the study (paper, Fig. 4)."""

    network: Literal["winner"] | NetworkName = "winner"
    learning_rate: PositiveFloat = 1e-3
    train_patients: Positive | None = None  # train on this many training patients, None: on all of them
    split: Literal["patient", "scan", "all"] = "patient"  # as benchmark.split; all: nothing is held out


class VolumeParams(Section):
    """The HE definition (paper, Methods), both strict."""

    growth_ml: PositiveFloat = 6.0
    growth_fraction: PositiveFloat = 0.33


class RoiParams(Section):
    """Three slices, windowed and cropped to the mask (paper, Methods)."""

    window_level: float = 40.0
    window_width: PositiveFloat = 80.0
    margin_mm: Annotated[float, Field(ge=0)] = 0.0
    min_size_px: Positive = 8  # a smaller box is grown about its centre
    components: Literal["near", "largest"] = "near"  # whose rectangle; largest: and the whole mask chooses the slice
    rectangle: Literal["shared", "slice"] = "shared"  # slice: each of the three has its own
    upsample: Annotated[float, Field(ge=1)] = 1.0  # finer voxels on all three axes, before slices are chosen
    mask_interpolation: Literal["nearest", "bspline"] = "nearest"  # of upsampled masks; bspline: cut to whole numbers


class AugmentationParams(Section):
    """Diffusion-UKAN: its network, noise, training and sampling (paper, Methods)."""

    image_size: Annotated[int, Field(gt=0, multiple_of=32)] = 256
    channels: Literal[1, 3] = 1  # CT is grey; 3 is the paper's
    base_channels: Positive = 64
    channel_multipliers: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1, 2, 3, 4)
    res_blocks: Positive = 2  # residual blocks a level
    token_channels: tuple[Positive, Positive] = (320, 512)  # of the two tokenized KAN levels
    norm_groups: Positive = 32  # groups of channels, each normalised together
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.15
    kan_block: Literal["released", "ukan"] = "released"  # released: one KAN layer, no residual, no depthwise conv
    timesteps: Positive = 1000
    beta_start: PositiveFloat = 1e-4
    beta_end: PositiveFloat = 0.02
    epochs: Positive = 1000
    batch_size: Positive = 32
    optimizer: Literal["adam", "adamw"] = "adam"
    learning_rate: PositiveFloat = 1e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    schedule: Literal["cosine", "warmup_cosine"] = "cosine"  # warmup_cosine: the released code's, truncated
    gradient_clip: PositiveFloat = 1.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999  # 0: no moving average of the weights
    flip: bool = True  # random left-right flips
    flip_vertical: bool = False  # and up-down ones, as in the released code
    rotate_deg: Annotated[float, Field(ge=0, le=180)] = 0.0
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    checkpoint_every: Positive = 10  # epochs
    sampler: Literal["ddpm", "ddim", "dpmsolver++"] = "dpmsolver++"
    sampling_steps: Positive = 50
    sampling_batch: Positive = 32


class QualityParams(Section):
    """How synthetic images are compared with real ones (paper, eqs. 2 and 3)."""

    features: Literal["auto", "inception", "encoder"] = "auto"  # auto: Inception's where its weights are at hand
    inception_weights: str | None = None  # a file of torch-fidelity's Inception weights
    neighbours: Positive = 3  # of precision and recall
    bootstrap: Positive = 500
    memorised_quantile: Fraction = 0.01  # of the distances from held-out real images to the training images
    settings: Annotated[tuple[Setting, ...], Field(min_length=1)] = (
        "ddpm:1000", "ddim:50", "ddim:20", "dpmsolver++:50", "dpmsolver++:20", "dpmsolver++:10",
    )  # fmt: skip
    setting_images: Positive = 256  # drawn with each of these settings


class ReaderStudyParams(Section):
    """The blinded reading of real and synthetic images (paper, Table 2)."""

    per_class: Positive = 100  # real images, and as many synthetic ones
    image_px: Positive = 256  # on the reader's page
    simulated_readers: Annotated[int, Field(ge=2)] = 3  # stand in until ratings of people are collected
    margin: PositiveFloat = 0.5  # difference in mean rating that would still count as no difference


class ClassificationParams(Section):
    """One timm Vision Transformer in three arms; the score of a patient is the mean of three slices."""

    model: str = "vit_base_patch16_224"
    pretrained: bool = True
    image_size: Positive = 224
    patch_size: Positive | None = None  # None: the model's own
    stem: Literal["patch", "conv"] = "patch"  # pixels become a token by one linear map, or by strided convolutions
    embed_dim: Positive | None = None
    depth: Positive | None = None
    num_heads: Positive | None = None
    global_pool: Literal["token", "avg"] | None = None  # what the head reads: class token, or mean of the patches'
    epochs: Positive = 100
    batch_size: Positive = 256
    learning_rate: PositiveFloat = 2e-4
    final_learning_rate: Annotated[float, Field(ge=0)] = 1e-4
    final_rate_is: Literal["rate", "factor"] = "rate"  # factor: final_learning_rate is a share of learning_rate
    warmup_epochs: Count = 0  # of linearly rising rate, for networks that start from random weights
    first_epoch_warmup: bool = False  # the rate rises from a thousandth, step by step, through the first epoch
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    fit: Literal["resize", "crop"] = "resize"  # crop: random resized crops in training, the centre of the ROI later
    flip: bool = True  # random left-right flips
    crop_scale: Annotated[float, Field(gt=0, le=1)] = 0.8  # smallest share of the area a random crop keeps
    rotate_deg: Annotated[float, Field(ge=0, le=180)] = 0.0  # random rotations up to this angle either way
    training_length: Literal["steps", "epochs"] = "steps"  # steps: alike in all arms; epochs: the paper's
    keep: Literal["last", "best_internal", "best_external"] = "last"  # best_*: the epoch of most slices right, on whom
    seeds: Positive = 3  # trainings of each arm, from study.seed on; the first stands for the arm
    folds: Annotated[int, Field(ge=0)] = 5  # of the cross-validation by patient; 0 or 1: none
    main: Literal["ViT-1:1", "ViT-1:2", "ViT-1:4"] = "ViT-1:2"  # the arm that is explained and used; the paper's best
    checkpoint_every: Positive = 10  # epochs

    @model_validator(mode="after")
    def _convolutions_halve(self) -> ClassificationParams:
        size = self.patch_size or 0
        if self.stem == "conv" and (self.pretrained or size < 2 or size & (size - 1)):
            raise ValueError("stem: conv needs pretrained: false and a patch_size of 2, 4, 8, 16 ...")
        return self


class StatisticsParams(Section):
    """How intervals are made and where the decision threshold comes from."""

    confidence: Fraction = 0.95
    interval: Literal["wilson", "wald"] = "wilson"
    threshold: Literal["youden_cv", "youden", "half"] = "youden_cv"  # on cross-validated or apparent training scores


class GradcamParams(Section):
    """Where the classifier looks (paper, Fig. 6H)."""

    per_group: Annotated[int, Field(gt=0, le=4)] = 2  # examples of true and false positives and negatives
    random_draws: Annotated[int, Field(ge=2)] = 20  # randomised networks that the trained one is compared with
    head: Literal["trained", "random"] = "trained"  # random: maps of a new head, for the class it prefers
    colours: Literal["inferno", "swapped"] = "inferno"  # swapped: the rainbow with red and blue exchanged
    bootstrap: Positive = 2_000


class CalibrationParams(Section):
    """Simulated studies that say whether intervals and tests keep their promise."""

    replicates: Positive = 10_000  # simulated studies behind each coverage and size
    resamples: Positive = 1_000  # of each bootstrap interval
    power_replicates: Positive = 2_000
    tolerance: Fraction = 0.01  # an error rate this close to the nominal one is as good as it


Switched = Literal[
    "window", "upsampling", "mask", "box", "final_rate", "warmup", "input", "checkpoint_internal",
    "checkpoint_external", "together", "generator", "segmentation_scan", "segmentation_all",
]  # fmt: skip


class AuditCodeParams(Section):
    """What of the released code's differences is measured by training (hepaper/audit/differences.yml)."""

    trainings: tuple[Switched, ...] = ("window", "mask", "input", "together")
    heads: Positive = 50  # heads of random weights whose choice of a class is compared with the trained one's


class BeyondParams(Section):
    """What the paper does not look at: calibration, decisions, doubt, subgroups, clinical variables, rivals."""

    bins: Positive = 8  # of the calibration plot
    bootstrap: Positive = 1_000
    threshold_range: tuple[Fraction, Fraction] = (0.05, 0.5)  # of risks at which one might act, for decision curves
    coverages: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)] = (
        1.0, 0.9, 0.8, 0.7, 0.6, 0.5,
    )  # fmt: skip
    conformal_level: Fraction = 0.9
    random_splits: Positive = 1_000  # of the check of the conformal guarantee
    onset_cut_h: PositiveFloat = 6.0  # hours from onset to CT that divide early from late scans
    smallest_group: Annotated[int, Field(ge=2)] = 5  # patients of a class below which no AUC, test or fit is given


class BookParams(Section):
    """The rendered book."""

    title: str = "Predicting hematoma expansion from one head CT"
    site: str | None = "site"  # the folder that gathers the books of all versions and studies; None: no site
    # public address of the checkout; with it, pages link there and notebooks that run alone open on hosted machines
    repository: Annotated[str, Field(pattern=r"^https://git(hub|lab)\.com/[\w.-]+/[\w.-]+$")] | None = None


class Params(Section):
    """All sections of a params file, in pipeline order."""

    study: StudyParams = StudyParams()
    cohort: CohortParams = CohortParams()
    preprocess: PreprocessParams = PreprocessParams()
    benchmark: BenchmarkParams = BenchmarkParams()
    segmentation: SegmentationParams = SegmentationParams()
    volume: VolumeParams = VolumeParams()
    roi: RoiParams = RoiParams()
    augmentation: AugmentationParams = AugmentationParams()
    quality: QualityParams = QualityParams()
    reader_study: ReaderStudyParams = ReaderStudyParams()
    classification: ClassificationParams = ClassificationParams()
    statistics: StatisticsParams = StatisticsParams()
    gradcam: GradcamParams = GradcamParams()
    calibration: CalibrationParams = CalibrationParams()
    audit_code: AuditCodeParams = AuditCodeParams()
    beyond: BeyondParams = BeyondParams()
    book: BookParams = BookParams()

    def to_yaml(self) -> str:
        """The resolved parameters, every default written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=100)


def _keys_at(path: tuple[Any, ...]) -> list[str]:
    """The keys that may stand in the section at ``path`` (all of them leaves or sections)."""
    model: type[BaseModel] = Params
    for name in path:
        annotation = model.model_fields[name].annotation
        assert isinstance(annotation, type)
        model = annotation
    return list(model.model_fields)


def _explain(error: ValidationError, source: str) -> HepaperError:
    """One line for every problem pydantic found, with the nearest valid name for an unknown key."""
    lines = []
    for problem in error.errors():
        *where, name = problem["loc"]
        dotted = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            allowed = _keys_at(tuple(where))
            near = difflib.get_close_matches(str(name), allowed, n=1, cutoff=0.4)
            hint = f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(allowed)}"
            lines.append(f"unknown key '{dotted}'; {hint}")
        else:
            message = problem["msg"][0].lower() + problem["msg"][1:]
            lines.append(f"'{dotted}': {message} (got {problem['input']!r})")
    return HepaperError(f"{source}: " + " | ".join(lines))


def make_params(values: Mapping[str, Any], source: str = "params") -> Params:
    """Validate nested values; ``source`` names them in an error.

    Raises
    ------
    HepaperError
        For unknown keys (with the nearest known one) and values of the wrong type or range.
    """
    try:
        params = Params.model_validate(dict(values))
    except ValidationError as error:
        raise _explain(error, source) from None
    if params.cohort.source == "table" and not params.cohort.table:
        raise HepaperError(f"{source}: cohort.source is 'table' but cohort.table names no file; give its path")
    return params


def _set(values: dict[str, Any], dotted: str, value: Any) -> None:
    *path, last = dotted.split(".")
    for name in path:
        child = values.get(name)
        if not isinstance(child, dict):
            child = values[name] = {}
        values = child
    values[last] = value


def load_params(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Params:
    """Read a params file; ``overrides`` maps dotted keys (``segmentation.epochs``) to values.

    Raises
    ------
    HepaperError
        If the file is missing, no YAML mapping, or holds an unknown key or a bad value.
    """
    path = Path(path)
    if not path.is_file():
        raise HepaperError(f"{path}: no such params file; params/ holds smoke.yml, demo.yml and paper.yml")
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise HepaperError(f"{path}: not readable as YAML ({' '.join(str(error).split())}); mend the file") from None
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise HepaperError(f"{path}: a params file is a mapping of sections, this is a {type(values).__name__}")
    for dotted, value in (overrides or {}).items():
        _set(values, dotted, value)
    return make_params(values, str(path))


_IPYTHON = {"In", "Out", "exit", "quit", "get_ipython", "open", "display"}


def from_notebook(variables: Mapping[str, Any]) -> Params:
    """Parameters from a notebook's variables, as papermill injects them.

    ``papermill … -f params/demo.yml`` gives one variable a section; ``-p segmentation__epochs 3`` overrides one knob.
    Every plain variable that exists when this is called is taken for a parameter, so that a mistyped one is refused
    instead of ignored: call it first.
    """
    values: dict[str, Any] = {}
    knobs: dict[str, Any] = {}
    for name, value in variables.items():
        if name in Params.model_fields and not isinstance(value, Mapping):
            raise HepaperError(
                f"notebook parameters: '{name}' is a section of parameters and now holds a {type(value).__name__}; "
                "give what is imported under that name another one"
            )
        if name.startswith("_") or name in _IPYTHON or isinstance(value, ModuleType) or callable(value):
            continue
        (knobs if "__" in name else values)[name] = value
    for name, value in knobs.items():
        _set(values, name.replace("__", "."), value)
    return make_params(values, "notebook parameters")
