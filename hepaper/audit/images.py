"""Counts of scans and images, what they imply for training, and the scores of the synthetic images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from hepaper.audit.check import (
    NOT_CHECKABLE,
    REPRODUCED,
    ROUNDING,
    Absent,
    Check,
    collect,
    count,
    equal,
    exists,
    get,
    holds,
    number,
    rounded,
    source,
    text,
)

SECTION = "Images and training"


# ------------------------------------------------------------------------------------------------ counts


def _two_scans(published: Mapping[str, Any], block: str, patients: tuple[str, ...], item: str) -> Iterator[Check]:
    scans, people = count(published, block, "scans"), count(published, *patients)
    yield Check(
        SECTION, item, str(scans), str(2 * people), equal(scans, 2 * people),
        f"Baseline and follow-up of {people} patients: 2 × {people} = {2 * people}", source(published, block),
    )  # fmt: skip


def _partition(published: Mapping[str, Any]) -> Iterator[Check]:
    scans = count(published, "segmentation_benchmark", "scans")
    parts = [count(published, "segmentation_benchmark", "partition", key) for key in ("training", "validation")]
    sizes = [scans * part / sum(parts) for part in parts]
    shown = " and ".join(f"{size:g}" for size in sizes)
    yield Check(
        SECTION, "Benchmark: split into training and validation", f"{parts[0]}:{parts[1]}", f"{shown} scans",
        holds(all(size.is_integer() for size in sizes)),
        f"{scans} scans at {parts[0]}:{parts[1]} are {shown}, which must be whole numbers.",
        source(published, "segmentation_benchmark"),
    )  # fmt: skip


def _slices(published: Mapping[str, Any], kind: str, item: str) -> Iterator[Check]:
    images = get(published, "augmentation", "images")
    real = count(images, next(iter(images)), f"real_{kind}")
    each, patients = count(published, "slices", "per_patient"), count(published, "patients", kind, "train")
    yield Check(
        SECTION, item, str(real), str(each * patients), equal(real, each * patients),
        f"{each} slices of each of {patients} training patients: {each} × {patients} = {each * patients}",
        source(published, "augmentation"),
    )  # fmt: skip


def _ratio(published: Mapping[str, Any], name: str) -> Iterator[Check]:
    he, synthetic, nhe = (
        count(published, "augmentation", "images", name, key) for key in ("real_he", "synthetic_he", "real_nhe")
    )
    ratio = number(published, "augmentation", "ratio", name)
    if he + synthetic == 0:
        raise Absent(name)
    exact = nhe / (he + synthetic)
    yield Check(
        SECTION, f"{name}: HE to NHE", f"1:{ratio}", f"1:{text(exact, 4)}", rounded(ratio, exact),
        f"{nhe} / ({he} + {synthetic}) = {text(exact, 4)}", source(published, "augmentation"),
    )  # fmt: skip
    if synthetic:
        wanted = nhe / ratio - he
        yield Check(
            SECTION, f"{name}: synthetic images that make the ratio", str(synthetic), f"{wanted:g}",
            rounded(synthetic, wanted), f"{nhe} / {ratio} − {he} = {wanted:g}", source(published, "augmentation"),
        )  # fmt: skip


def _drawn(published: Mapping[str, Any]) -> Iterator[Check]:
    name = get(published, "reader_study", "drawn_from")
    there = {
        "real": (
            count(published, "patients", "he", "train"),
            "training patients with expansion, one maximum slice each",
        ),
        "synthetic": (count(published, "augmentation", "images", name, "synthetic_he"), f"synthetic images of {name}"),
    }
    for kind, (most, what) in there.items():
        drawn = count(published, "reader_study", "drawn", kind)
        yield Check(
            SECTION, f"Reader study: {kind} images drawn", str(drawn), f"of {most}", holds(drawn <= most),
            f"There are {most} {what}.", source(published, "reader_study"),
        )  # fmt: skip


# ------------------------------------------------------------------------------------------------ optimiser steps


def optimiser_steps(images: int, batch_size: int, epochs: int) -> tuple[int, int]:
    """Optimiser steps with the last, smaller batch of each epoch used, and with it dropped."""
    return epochs * math.ceil(images / batch_size), epochs * (images // batch_size)


def arms(published: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Images, optimiser steps (last batch used or dropped) of every arm, by its name; arms without counts left out."""
    epochs, batch = count(published, "classification", "epochs"), count(published, "classification", "batch_size")
    found = {}
    for arm, name in get(published, "classification", "trained_on").items():
        try:
            images = sum(
                count(published, "augmentation", "images", name, k) for k in ("real_he", "synthetic_he", "real_nhe")
            )
        except Absent:
            continue
        used, dropped = optimiser_steps(images, batch, epochs)
        found[arm] = {"images": images, "steps": used, "steps_dropped": dropped}
    return found


def _steps(published: Mapping[str, Any]) -> Iterator[Check]:
    epochs, batch = count(published, "classification", "epochs"), count(published, "classification", "batch_size")
    found = arms(published)
    if len(found) < 2:
        raise Absent("classification.trained_on")
    steps = [arm["steps"] for arm in found.values()]
    more = 100 * (max(steps) / min(steps) - 1)
    same = len(set(steps)) == 1
    yield Check(
        SECTION, "What the arms differ in", "different class ratios",
        "; ".join(f"{name}: {arm['steps']} optimiser steps" for name, arm in found.items()),
        REPRODUCED if same else NOT_CHECKABLE,
        f"{epochs} epochs in batches of {batch}: "
        + "; ".join(
            f"{name} {arm['images']} images, {epochs} × ⌈{arm['images']}/{batch}⌉ = {arm['steps']} steps "
            f"({arm['steps_dropped']} if incomplete batches are dropped)" for name, arm in found.items()
        )
        + ("." if same else f". The longest training has {more:.0f} % more steps than the shortest. Epochs were equal, so "
           "the class ratio changes together with the length of training, and the printed results cannot tell which of "
           "them makes a difference."),
        source(published, "classification"), needs="" if same else "arms trained for equally many steps",
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------ FID and IS


def synthetic_score_ceiling(mixture: float, real: float, synthetic_share: float) -> float:
    """Greatest Inception score the synthetic part of a mixture can have.

    ln IS is the mutual information of image and class. That of a mixture is the mean of its parts', weighted by
    their shares, plus a term that is never negative. So (1 - t) ln IS_real + t ln IS_synthetic <= ln IS_mixture.
    """
    return math.exp((math.log(mixture) - (1 - synthetic_share) * math.log(real)) / synthetic_share)


def mixture_distance_ceiling(distance: float, share: float, smaller_share: float) -> float:
    """Greatest FID, against the real part, of a mixture with the ``smaller_share`` of the same synthetic images.

    Along t, the share of synthetic images, FID(t) is convex with FID(0) = 0: the trace terms and the distance of
    the means add to a linear function of t, the covariance is operator-concave in t, and the trace of a square root
    is concave and monotone. So FID(s) <= (s / t) FID(t) for s < t.
    """
    return distance * smaller_share / share


def _score_range(published: Mapping[str, Any]) -> Iterator[Check]:
    scores = {
        name: number(published, "augmentation", "inception_score", name)
        for name in get(published, "augmentation", "inception_score")
    }
    shown = ", ".join(map(str, scores.values()))
    yield Check(
        SECTION, "Inception scores lie in their range", shown, "1 or more", holds(all(s.high >= 1 for s in scores.values())),
        "The exponential of a mean Kullback-Leibler divergence cannot be below 1; it is 1 where every image gets the "
        "same answer.", source(published, "augmentation"),
    )  # fmt: skip


def _images(published: Mapping[str, Any], name: str) -> tuple[int, int, int]:
    he, synthetic, nhe = (
        count(published, "augmentation", "images", name, key) for key in ("real_he", "synthetic_he", "real_nhe")
    )
    return he, synthetic, nhe


def _augmented(published: Mapping[str, Any]) -> list[str]:
    """Sets with synthetic images, from few to many."""
    names = [name for name in get(published, "augmentation", "images") if _images(published, name)[1]]
    return sorted(names, key=lambda name: _images(published, name)[1])


def _real(published: Mapping[str, Any]) -> str:
    for name in get(published, "augmentation", "images"):
        if not _images(published, name)[1]:
            return name
    raise Absent("a set without synthetic images")


def _mixture_scores(published: Mapping[str, Any], name: str) -> Iterator[Check]:
    mixed = number(published, "augmentation", "inception_score", name)
    real = number(published, "augmentation", "inception_score", _real(published))
    he, synthetic, nhe = _images(published, name)
    share = synthetic / (he + synthetic + nhe)
    ceiling = synthetic_score_ceiling(mixed.high, real.low, share)
    yield Check(
        SECTION, f"{name}: Inception score, if of all its images", str(mixed),
        f"synthetic images {text(ceiling, 2)} or less", exists(ceiling >= 1),
        f"If the score is that of all {he + synthetic + nhe} images, {100 * share:.1f} % of them synthetic, and the real "
        f"ones score {real}, then (1 − t) ln IS(real) + t ln IS(synthetic) ≤ ln IS(all) leaves the synthetic ones at most "
        f"{text(ceiling, 3)}. Impossible below 1. The formula of the paper is taken as it stands, without splits.",
        source(published, "augmentation"),
    )  # fmt: skip


def _reading(published: Mapping[str, Any]) -> Iterator[Check]:
    names = _augmented(published)
    if len(names) != 2:
        raise Absent("two augmented sets")
    few, many = names
    fid_few, fid_many = (number(published, "augmentation", "fid", name) for name in names)
    score_few, score_many = (number(published, "augmentation", "inception_score", name) for name in names)
    counts = {name: _images(published, name) for name in names}
    alone = {"FID": fid_few.high >= fid_many.low, "IS": score_few.low <= score_many.high}
    shares = {
        "HE images": [counts[n][1] / (counts[n][0] + counts[n][1]) for n in names],
        "all images": [counts[n][1] / sum(counts[n]) for n in names],
    }
    ceilings = {what: mixture_distance_ceiling(fid_many.high, s[1], s[0]) for what, s in shares.items()}
    whole = {what: fid_few.low <= ceiling for what, ceiling in ceilings.items()}
    fits = all(alone.values()) or any(whole.values())
    lines = [
        f"One generator drew {counts[few][1]} images for {few} (FID {fid_few}, IS {score_few}) and {counts[many][1]} for "
        f"{many} (FID {fid_many}, IS {score_many}). Two readings of what was scored:",
        "Synthetic images alone: with more images the expected FID cannot rise nor the expected ln IS fall, because both "
        "are a convex and a concave function of averages. The printed FID "
        f"{'agrees' if alone['FID'] else 'does not agree'} with that direction, the printed IS "
        f"{'agrees' if alone['IS'] else 'does not agree'}.",
        "Sets as they are trained on, against their real images: the smaller share of synthetic images must have the "
        "smaller FID, "
        + ", ".join(f"at most {text(ceilings[w], 1)} for {w}" for w in ceilings)
        + f" of {few}, where {fid_few} is printed; this takes the two draws to have the same means and covariances.",
        "Directions are those of expectations, so chance and the choice of images may explain a single draw.",
    ]
    yield Check(
        SECTION, "FID and IS: which images were scored", f"FID {fid_few} and {fid_many}; IS {score_few} and {score_many}",
        "a reading explains both" if fits else "no single reading has all directions as expected",
        ROUNDING if fits else NOT_CHECKABLE, "\n".join(lines), source(published, "augmentation"),
        needs="" if fits else "which images stood on either side, and the spread over repeated draws of equal size",
    )  # fmt: skip


def checks(published: Mapping[str, Any]) -> list[Check]:
    """Counts of scans and images, steps of training, and what FID and IS say of each other."""
    images = published.get("augmentation", {}).get("images", {})
    synthetic = [name for name, counts in images.items() if counts.get("synthetic_he")]
    return collect(
        published,
        partial(_two_scans, block="segmentation", patients=("patients", "n", "train"), item="Full-scale training: scans"),
        partial(
            _two_scans, block="segmentation_benchmark", patients=("segmentation_benchmark", "patients"),
            item="Benchmark: scans",
        ),
        _partition,
        partial(_slices, kind="he", item="Real HE images"),
        partial(_slices, kind="nhe", item="Real NHE images"),
        *(partial(_ratio, name=name) for name in images),
        _drawn,
        _steps,
        _score_range,
        *(partial(_mixture_scores, name=name) for name in synthetic),
        _reading,
    )  # fmt: skip
