"""Stage 9 as a whole: synthetic images measured against held-out real ones, by set, by sampler, and for copies.

Everything is compared at the generator's resolution. Held out are the real HE images of the external splits; the line to
compare with is what real *training* images reach against the same held-out ones at the same number, since no generator
that learnt from them can be expected to do better.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from hepaper.augmentation import dataset, quality, sets
from hepaper.augmentation.features import Extractor, choose
from hepaper.augmentation.stage import MODEL, load_synthetic
from hepaper.parallel import progress
from hepaper.study import Study, stage, whole_file, write_csv, write_json

FOLDER = ("augmentation", "quality")
#: the measures that the paper's Fig. 5B has
FIG5B = ("frechet", "score")
#: measure -> which way is better, and whether it goes by the extractor's own name
MEASURES = {
    "frechet": "lower", "frechet_unbiased": "lower", "kid": "lower", "score": "higher", "precision": "higher",
    "recall": "higher", "density": "higher", "coverage": "higher",
}  # fmt: skip
#: training draws its rotations between these: a copy may be turned as well
_TURNS = 24
#: pixels a side at which copies are looked for
_SMALL = 32


def _pictures(study: Study, table: pd.DataFrame) -> np.ndarray:
    """ROI images at the generator's size, (n, size, size) in [0, 1]."""
    from hepaper.crops import load_crops, to_input

    batch = to_input(load_crops(study, table), study.params.augmentation.image_size)
    return ((batch[:, 0] + 1) / 2).clamp(0, 1).numpy()


def held_out(study: Study) -> tuple[pd.DataFrame, str]:
    """Real ROI images that the generator has not learnt from (patient_id, image), and what they are in words.

    The external patients' with expansion. Where there are fewer than two such patients, the training patients' without
    expansion: not the same kind of image, but real, and never shown to the generator.
    """
    rois = study.read("rois", "rois.csv")
    labels = study.read("volumes", "labels.csv").set_index("patient_id")["he"]
    expanding = labels.reindex(rois["patient_id"]).fillna(False).astype(bool).to_numpy()
    table = rois[(rois["split"] != "train") & expanding].reset_index(drop=True)
    what = "external patients with expansion"
    if table["patient_id"].nunique() < 2:
        training = dataset.training_rois(study)
        table = training[training["label"] == 0].reset_index(drop=True)
        what = "training patients without expansion, for want of two external ones with it"
    words = f"{len(table)} real images of {table['patient_id'].nunique()} {what}"
    return table[["patient_id", "image"]], words


def _names(extractor: Extractor) -> dict[str, str]:
    return {
        "frechet": extractor.label,
        "frechet_unbiased": f"{extractor.label}, corrected for n",
        "kid": extractor.kernel_label,
        "score": extractor.score_label,
        "precision": "Precision (fidelity)",
        "recall": "Recall (diversity)",
        "density": "Density (fidelity)",
        "coverage": "Coverage (diversity)",
    }


@stage("quality")
def run(study: Study) -> None:
    """``sets.csv``, ``settings.csv``, ``distances.csv``, ``neighbours.csv`` and ``augmentation/quality.json``."""
    settings, seed = study.params.quality, study.params.study.seed
    folder = study.path(*FOLDER)
    training = dataset.training_rois(study)
    real = training[training["label"] == 1].reset_index(drop=True)
    outside, reference = held_out(study)
    extractor = choose(
        settings.features,
        Path(settings.inception_weights) if settings.inception_weights else None,
        folder / "encoder.safetensors",
        _pictures(study, training),
        seed,
        device=study.params.study.device,
    )
    pictures = {
        "real": _pictures(study, real),
        "held_out": _pictures(study, outside),
        "synthetic": load_synthetic(study),
    }
    seen = {name: extractor.outputs(batch) for name, batch in pictures.items()}
    features = {name: outputs[0] for name, outputs in seen.items()}
    table = _by_set(study, extractor, seen, real, outside)
    write_csv(folder / "sets.csv", table)
    report = quality.quality_report(
        features["held_out"],
        features["synthetic"],
        outside["patient_id"],
        pool=np.concatenate([features["real"], features["held_out"]]),
        pool_groups=[*real["patient_id"], *outside["patient_id"]],
        repeats=settings.bootstrap,
        k=settings.neighbours,
        k_coverage=settings.neighbours,
        seed=seed,
    )
    against = _same_number(features["real"], features["held_out"], int(report["reference_n"]), settings.bootstrap, seed)
    line = _same_number(
        features["real"], features["held_out"], settings.setting_images, settings.bootstrap, seed, all_b=True
    )
    by_setting = _settings(study, extractor, features["held_out"], outside["patient_id"].to_numpy())
    write_csv(folder / "settings.csv", by_setting)
    pool, turns = _turned(_small(pictures["real"]), study.params.augmentation.rotate_deg)
    copies = _copies(study, pictures, pool, np.tile(real["patient_id"].to_numpy(), turns), outside)
    write_csv(folder / "distances.csv", _distances(copies))
    write_csv(
        folder / "neighbours.csv",
        _neighbours(study, pictures, pool.reshape(turns, len(real), *pool.shape[1:]), real, copies),
    )
    chosen = by_setting[by_setting["chosen"]].iloc[0]
    first = by_setting.iloc[0]
    results: dict[str, Any] = {
        "features": extractor.label,
        "score": extractor.score_label,
        "held_out": reference,
        "held_out_images": len(outside),
        "held_out_patients": int(outside["patient_id"].nunique()),
        "synthetic_images": len(pictures["synthetic"]),
        **report,
        # what a perfect generator of training images would reach against the held-out ones at the same number
        "real_vs_real": against,
        "real_vs_real_settings": line,  # the same at the settings' number of images, against all held-out ones
        "ratio_to_real": report["frechet_same_n"] / against,
        "chosen_setting": chosen["setting"],
        "chosen_evaluations": int(chosen["evaluations"]),
        "reference_setting": first["setting"],
        "evaluations_saved": float(first["evaluations"] / chosen["evaluations"]),
        "seconds_saved": float(first["seconds"] / chosen["seconds"]),
        **copies.flat(),
        "memorised_threshold": copies.tests["heldout"].threshold,
        "memorised": int((copies.fake.distance < copies.tests["heldout"].threshold).sum()),
    }
    write_json(study.path("augmentation", "quality.json"), results)
    study.record("quality", results)


def _same_number(a: np.ndarray, b: np.ndarray, n: int, repeats: int, seed: int, all_b: bool = False) -> float:
    """Mean Fréchet distance of ``n`` images of ``a`` to as many, or to all, of ``b``, over random draws."""
    rng = np.random.default_rng(seed)

    def some(x: np.ndarray) -> np.ndarray:
        return x[rng.choice(len(x), min(n, len(x)), replace=False)]

    return float(np.mean([quality.frechet(some(a), b if all_b else some(b)) for _ in range(repeats)]))


def _by_set(
    study: Study, extractor: Extractor, seen: dict[str, Any], real: pd.DataFrame, outside: pd.DataFrame
) -> pd.DataFrame:
    """One row a set and measure; the sets' HE images, and the synthetic ones alone, against the held-out ones."""
    settings, seed = study.params.quality, study.params.study.seed
    (reference, reference_p), (mine, mine_p), (made, made_p) = seen["held_out"], seen["real"], seen["synthetic"]
    counts = {name: int((sets.read_set(study, name)["origin"] == "synthetic").sum()) for name in sets.SETS}
    real_groups = real["patient_id"].tolist()
    parts = {
        name: (np.concatenate([mine, made[:count]]), np.concatenate([mine_p, made_p[:count]]),
               real_groups + [f"synthetic {number}" for number in range(count)])
        for name, count in counts.items()
    }  # fmt: skip
    parts["synthetic"] = (made, made_p, [f"synthetic {number}" for number in range(len(made))])
    names = _names(extractor)
    found = {
        name: quality.estimates(
            reference, features, outside["patient_id"], groups, reference_p, probabilities,
            k=settings.neighbours, k_coverage=settings.neighbours, repeats=settings.bootstrap, seed=seed,
        )
        for name, (features, probabilities, groups) in progress(parts.items(), "measuring")
    }  # fmt: skip
    rows = []
    for name, estimates in found.items():
        for measure, better in MEASURES.items():
            key = "score_fake" if measure == "score" else measure
            if key not in estimates:
                continue
            line = estimates["score_real"] if measure == "score" else found["real_imbalanced"].get(key)
            rows.append(
                {
                    "set": name,
                    "measure": measure,
                    "label": names[measure],
                    "value": estimates[key].value,
                    "ci_low": estimates[key].low,
                    "ci_high": estimates[key].high,
                    "better": better,
                    "images": len(parts[name][0]),
                    "reference": line.value if line is not None else math.nan,
                }
            )
    return pd.DataFrame(rows)


def _settings(study: Study, extractor: Extractor, reference: np.ndarray, patients: np.ndarray) -> pd.DataFrame:
    """One row a sampler and its steps: cost, distance, and whether it can be told from the first setting's.

    It can be told when the 95 % interval of the difference in Fréchet or kernel distance lies above 0. Both images and
    patients are drawn, the same for both settings: image i has the same start in each.
    """
    settings, seed = study.params.quality, study.params.study.seed
    codes = [np.arange(settings.setting_images), np.unique(patients, return_inverse=True)[1]]
    rows, features = [], []
    for setting in settings.settings:
        images, seconds, evaluations = _drawn(study, setting)
        features.append(extractor.features(images))
        rows.append({"setting": setting, "evaluations": evaluations, "seconds": seconds})
    table = pd.DataFrame(rows)
    table[["sampler", "steps"]] = [setting.split(":") for setting in settings.settings]
    table["steps"] = table["steps"].astype(int)
    rng = np.random.default_rng(seed)
    counts = [quality.resample(code, settings.bootstrap, rng) for code in codes]

    def frechet(x: np.ndarray, left: np.ndarray, right: np.ndarray) -> float:
        return quality.frechet(x, reference, left, right)

    def kernel(x: np.ndarray) -> np.ndarray:
        return quality.kid_draws(x, reference, codes, counts)

    draws = [
        np.array([frechet(x, *pair) for pair in zip(*counts, strict=True)]) for x in progress(features, "comparing")
    ]
    kernels = [kernel(x) for x in features]
    values = np.array([quality.frechet(x, reference) for x in features])
    table["value"] = values
    table["ci_low"], table["ci_high"] = np.transpose(
        [np.maximum(0, np.quantile(d - d.mean() + v, [0.025, 0.975])) for d, v in zip(draws, values, strict=True)]
    )
    for name, drawn in (("frechet", draws), ("kid", kernels)):
        table[f"{name}_worse_low"] = [float(np.nanquantile(d - drawn[0], 0.025)) for d in drawn]
    table["worse"] = (table["frechet_worse_low"] > 0) | (table["kid_worse_low"] > 0)
    cheapest = table[~table["worse"]].sort_values(["evaluations", "value"], kind="stable").index[0]
    table["chosen"] = table.index == cheapest
    table["reference_sampler"] = table.index == 0
    table["label"] = extractor.label
    return table


def _drawn(study: Study, setting: str) -> tuple[np.ndarray, float, float]:
    """Images drawn with a setting, kept in a file; seconds and network evaluations of one image."""
    from hepaper.augmentation.sample import Sampler

    sampler, steps = setting.split(":")
    count = study.params.quality.setting_images
    target = study.path(*FOLDER, "settings", f"{sampler.replace('+', 'p')}_{steps}.npz")
    if not target.is_file():
        precision = study.params.augmentation.mixed_precision
        drawer = Sampler(study.path(*MODEL), sampler, int(steps), study.params.study.device, mixed_precision=precision)
        parts, seconds, size = [], 0.0, study.params.augmentation.sampling_batch
        for start in progress(range(0, count, size), f"drawing, {setting}"):
            started = time.perf_counter()
            parts.append(drawer.draw(range(start, min(count, start + size)), study.params.study.seed + 1))
            seconds += time.perf_counter() - started
        images = np.concatenate(parts)
        images = images.mean(axis=-1) if images.ndim == 4 else images
        with whole_file(target) as temporary, temporary.open("wb") as file:
            np.savez(file, images=images, cost=np.array([seconds / count, drawer.evaluations / count]))
    with np.load(target, allow_pickle=False) as saved:
        seconds, evaluations = saved["cost"]
        return saved["images"], float(seconds), float(evaluations)


def _turned(images: np.ndarray, degrees: float) -> tuple[np.ndarray, int]:
    """The images in every direction that training may have turned them to, one direction after the other."""
    if degrees <= 0:
        return images, 1
    batch = torch.from_numpy(images)[:, None]
    turned = []
    count = max(1, round(_TURNS * degrees / 180))
    for angle in np.deg2rad(np.linspace(-degrees, degrees, count, endpoint=degrees < 180)):
        matrix = torch.tensor([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0]])
        grid = torch.nn.functional.affine_grid(matrix.float().expand(len(batch), 2, 3), list(batch.shape), False)
        turned.append(torch.nn.functional.grid_sample(batch, grid, padding_mode="border", align_corners=False)[:, 0])
    return torch.cat(turned).numpy(), count


def _small(images: np.ndarray) -> np.ndarray:
    if images.shape[-1] <= _SMALL:
        return images
    return torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(images)[:, None], _SMALL)[:, 0].numpy()


def _copies(
    study: Study, pictures: dict[str, np.ndarray], pool: np.ndarray, patients: np.ndarray, outside: pd.DataFrame
) -> quality.Memorisation:
    """Pixel distances to the nearest training image in ``pool`` (every direction, with its patients), and mirrored."""
    settings = study.params.quality
    return quality.memorisation(
        _small(pictures["synthetic"]),
        pool,
        _small(pictures["held_out"]),
        patients,
        outside["patient_id"],
        mirror=study.params.augmentation.flip,
        percentile=100 * settings.memorised_quantile,
        repeats=settings.bootstrap,
        seed=study.params.study.seed,
    )


def _distances(copies: quality.Memorisation) -> pd.DataFrame:
    groups = {"synthetic": copies.fake, "held-out real": copies.heldout, "training, another patient": copies.train}
    return pd.concat(
        [pd.DataFrame({"group": name, "distance": nearest.distance}) for name, nearest in groups.items()],
        ignore_index=True,
    )


def _neighbours(
    study: Study,
    pictures: dict[str, np.ndarray],
    pool: np.ndarray,
    real: pd.DataFrame,
    copies: quality.Memorisation,
    count: int = 3,
) -> pd.DataFrame:
    """The ``count`` training images nearest to the synthetic image that is nearest, median and farthest of all."""
    order = np.argsort(copies.fake.distance, kind="stable")
    rows = []
    for name, place in (("nearest", 0), ("median", len(order) // 2), ("farthest", len(order) - 1)):
        image = _small(pictures["synthetic"])[order[place]]
        both = [image, image[:, ::-1]] if study.params.augmentation.flip else [image]
        each = np.min([np.sqrt(np.square(pool - one).mean(axis=(2, 3))) for one in both], axis=0)
        each = each.min(axis=0)
        for rank, index in enumerate(np.argsort(each, kind="stable")[:count], start=1):
            rows.append(
                {
                    "rule": name, "synthetic": int(order[place]), "rank": rank, "image": real["image"].iloc[index],
                    "distance": float(each[index]),
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def distances(study: Study) -> dict[str, np.ndarray]:
    """Group -> distances to the nearest training image, as the stage left them."""
    table = study.read(*FOLDER, "distances.csv")
    return {str(name): part["distance"].to_numpy() for name, part in table.groupby("group", sort=False)}
