"""A params file with sizes suited to the cohort and the machine, each value with the reason for it.

Three sizes start from three of the study's own params files: ``tiny`` (a rehearsal), ``laptop`` (a CPU) and ``gpu``
(the paper's). What depends on the cohort is then decided by :func:`decide`; the rest is taken over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from hepaper._version import __version__
from hepaper.params import make_params

PROFILES = {"tiny": "smoke", "laptop": "demo", "gpu": "paper"}
#: GiB of a GPU below which the paper's networks are not tried. Not measured: nnU-Net plans its own for 8 GiB, and the
#: other three of the benchmark need more than it.
GPU_GIB = 16.0
#: GiB that one worker process may need, with its share of torch. An allowance, not a measurement.
WORKER_GIB = 2.0
_STEPS_AN_EPOCH = 8  # of the classifier, at the least

_WHY = {
    "preprocess.spacing_mm": "mm (z, y, x) of the grid all scans are put on; the paper's is 5, 0.5, 0.5",
    "benchmark.networks": "the four that are compared",
    "benchmark.learning_rates": "the first decides the comparison, the others show how it hangs on the rate",
    "benchmark.epochs": "of each network at each rate",
    "benchmark.iterations_per_epoch": "training steps of an epoch; epochs times these is what training takes",
    "benchmark.spacing_mm": "mm; coarser than the study's grid, to save time",
    "benchmark.patch_size": "voxels (z, y, x) a network sees at once; null: as nnU-Net plans",
    "benchmark.winner": "which network goes on",
    "segmentation.network": "winner: the benchmark's; or a name",
    "segmentation.epochs": "of the network that segments the whole study",
    "segmentation.iterations_per_epoch": "training steps of an epoch",
    "segmentation.learning_rate": "tried at this length of training",
    "segmentation.patch_size": "voxels (z, y, x) a network sees at once; null: as nnU-Net plans",
    "segmentation.mirror_axes": "which way heads are mirrored in training",
    "roi.margin_mm": "rim of brain around the hematoma",
    "augmentation.image_size": "pixels; about those of a region of interest on this grid",
    "augmentation.epochs": "how many of your patients expand is not known before the volumes are measured",
    "quality.features": "encoder: needs no download; inception: the paper's, needs its weights",
    "classification.pretrained": "true needs a download from timm's server, once",
    "classification.image_size": "pixels a region of interest is resized to",
    "classification.crop_scale": "smallest share of the region that a random crop keeps in training",
    "classification.rotate_deg": "random turns in training",
}


@dataclass(frozen=True)
class Cohort:
    """What is known before the run: eligible patients by the table, and training patients with a mask."""

    train: int
    external_1: int
    external_2: int
    with_masks: int

    @property
    def patients(self) -> int:
        """Of all splits."""
        return self.train + self.external_1 + self.external_2


@dataclass(frozen=True)
class Computer:
    """Cores, GiB of memory and GiB of the GPU (0: none)."""

    cores: int
    memory_gib: float
    gpu_gib: float = 0.0

    @classmethod
    def here(cls) -> Computer:
        """This machine."""
        import psutil
        import torch

        from hepaper import machine

        gpu = torch.cuda.get_device_properties(0).total_memory / 2**30 if torch.cuda.is_available() else 0.0
        return cls(machine.cores(), psutil.virtual_memory().total / 2**30, gpu)


def fitting_size(computer: Computer) -> tuple[str, str]:
    """The size for a machine, and why."""
    if computer.gpu_gib >= GPU_GIB:
        return "gpu", f"a GPU with {computer.gpu_gib:.0f} GiB"
    if computer.gpu_gib > 0:
        return "laptop", f"a GPU with {computer.gpu_gib:.0f} GiB; the paper's networks are not tried below {GPU_GIB:g}"
    return "laptop", "no GPU"


def profile(size: str) -> dict[str, dict[str, Any]]:
    """The sections of the params file that a size starts from."""
    from hepaper.study import study_files

    values = yaml.safe_load((study_files("params") / f"{PROFILES[size]}.yml").read_text("utf-8"))
    return {name: section for name, section in values.items() if name not in ("study", "cohort", "book")}


def workers(computer: Computer) -> int:
    """Processes for per-patient work: one a core, 16 at most, and no more than the memory holds."""
    return max(1, min(computer.cores, 16, int(computer.memory_gib // WORKER_GIB)))


def validation_fraction(with_masks: int, usual: float) -> float:
    """At least two patients held out, and at most half of them."""
    return usual if with_masks * usual >= 2 else round(min(0.5, 2 / max(with_masks, 1)), 2)


def folds(train: int, usual: int) -> int:
    """One fold for 20 patients, two at the least; none below eight patients."""
    return 0 if train < 8 else min(usual, max(2, train // 20))


def batch_size(train: int, usual: int) -> int:
    """The largest power of two that leaves eight steps an epoch (three slices a patient), 8 at least."""
    most = 3 * train // _STEPS_AN_EPOCH
    return max(8, min(usual, 2 ** max(0, most.bit_length() - 1)))


def decide(size: str, cohort: Cohort, computer: Computer) -> dict[str, tuple[Any, str]]:
    """Dotted key -> (value, why), in the order of the params file.

    The rules, where the profile's value is not simply taken over:

    - ``study.workers``: :func:`workers`;
    - ``benchmark.patients``: the profile's, or all that have masks where there are fewer, or where not all training
      patients have one (the draw would fall on those without, too);
    - ``validation_fraction``: :func:`validation_fraction`;
    - ``segmentation.network``: for a rehearsal the quickest;
    - ``reader_study.per_class``: not more than there are training patients;
    - ``classification.batch_size`` and ``.folds``: :func:`batch_size`, :func:`folds`;
    - ``classification.epochs``, for networks that start from random weights: more in proportion, up to four times,
      where a cohort is smaller than the profile's, so that as many steps are taken.
    """
    name = PROFILES[size]
    chosen: dict[str, tuple[Any, str]] = {
        "study.workers": (
            workers(computer),
            f"one a core ({computer.cores}), {WORKER_GIB:g} GiB each ({computer.memory_gib:.0f} GiB here)",
        )
    }
    sections = profile(size)
    for section, values in sections.items():
        for key, value in values.items():
            dotted = f"{section}.{key}"
            chosen[dotted] = (value, _WHY.get(dotted, f"as in params/{name}.yml"))
    for section in ("benchmark", "segmentation"):
        usual = make_params(sections).model_dump()[section]["validation_fraction"]
        held = validation_fraction(cohort.with_masks, usual)
        chosen[f"{section}.validation_fraction"] = (
            held,
            f"of the {cohort.with_masks} training patients with masks, held out to compare and to watch the training",
        )
    drawn = sections["benchmark"].get("patients", 500)
    if cohort.with_masks < cohort.train:
        chosen["benchmark.patients"] = (None, f"null: all {cohort.with_masks} with masks; {cohort.train} train in all")
    elif cohort.train <= drawn:
        chosen["benchmark.patients"] = (None, f"null: all {cohort.train} training patients")
    else:
        chosen["benchmark.patients"] = (drawn, f"drawn from {cohort.train}; as in params/{name}.yml")
    if size == "tiny":
        chosen["segmentation.network"] = (
            "nnunet",
            "the quickest of the four, for a rehearsal; else winner, the benchmark's",
        )
    _decide_later(chosen, sections, cohort, size)
    order = list(sections)
    return dict(sorted(chosen.items(), key=lambda item: [*("study", "cohort"), *order].index(item[0].split(".")[0])))


def _decide_later(
    chosen: dict[str, tuple[Any, str]], sections: dict[str, dict[str, Any]], cohort: Cohort, size: str
) -> None:
    """What concerns images and the classifier."""
    usual = make_params(sections)
    readers, classifier = usual.reader_study, usual.classification
    chosen["reader_study.per_class"] = (
        min(readers.per_class, max(1, cohort.train)),
        "real images, and as many synthetic ones; not more than training patients",
    )
    batch = batch_size(cohort.train, classifier.batch_size)
    slices = 3 * cohort.train
    chosen["classification.batch_size"] = (
        batch,
        f"slices a step; {slices} slices of {cohort.train} patients are there",
    )
    chosen["classification.folds"] = (
        folds(cohort.train, classifier.folds),
        "of the cross-validation by patient: one for 20 training patients, at least 2; none below 8 patients",
    )
    meant = _patients_of(size)
    if size == "laptop" and 0 < cohort.train < meant:
        epochs = round(classifier.epochs * min(4.0, meant / cohort.train))
        chosen["classification.epochs"] = (
            epochs, f"{cohort.train} training patients make fewer steps an epoch than the demo's {meant}"
        )  # fmt: skip


def _patients_of(size: str) -> int:
    from hepaper.study import study_files

    values = yaml.safe_load((study_files("params") / f"{PROFILES[size]}.yml").read_text("utf-8"))
    return int(values["cohort"]["patients"]["train"])


def _shown(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000).strip().removesuffix("...").strip()


def render(name: str, table: str, size: str, why: str, cohort: Cohort, computer: Computer) -> str:
    """The params file, every value with its reason; checked by reading it back.

    Parameters
    ----------
    name, table
        The study's name, and the path of its table as the run shall look for it.
    size, why
        Which size, and why that one.
    """
    chosen = decide(size, cohort, computer)
    lines = [
        f"# Study {name}, size '{size}' ({why}). Written by hepaper {__version__}; change what you like.",
        f"# Eligible by the table: {cohort.train} training patients ({cohort.with_masks} with a mask), "
        f"{cohort.external_1} and {cohort.external_2} external ones. What is not here has the default of params/README.md.",
        "study:",
        f"  name: {name} # the run's folder is runs/{name}",
    ]
    if size == "tiny":
        lines.insert(1, "# A rehearsal: every stage runs, and its numbers mean nothing.")
    if size == "gpu":
        lines.insert(
            1, "# The published lengths of training. hepaper's authors have not run them: nobody knows the time."
        )
    section = "study"
    for dotted, (value, reason) in chosen.items():
        mine, key = dotted.split(".", 1)
        if mine != section:
            if section == "study":
                lines += [
                    "cohort:",
                    "  source: table # real scans, not phantoms",
                    f"  table: {_shown(table)} # seen from where you start the run",
                ]
            lines.append(f"{mine}:")
            section = mine
        lines.append(f"  {key}: {_shown(value)} # {reason}")
    lines += ["book:", f"  title: {_shown('Hematoma expansion: study ' + name)} # on the front page"]
    text = "\n".join(lines) + "\n"
    make_params(yaml.safe_load(text), f"{name}.yml")
    return text
