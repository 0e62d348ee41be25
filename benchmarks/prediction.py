"""Our prediction of one full-size scan against nnU-Net's command-line default, with the same trained network.

``python benchmarks/prediction.py [RUN]`` (default ``runs/demo``, which must be finished) writes
``benchmarks/results/prediction.csv`` and ``prediction.md``. The scans are phantoms that no network has seen, put on
32 x 440 x 380 voxels of 5 x 0.5 x 0.5 mm. nnU-Net's default is what ``nnUNetv2_predict`` does in its process after the
imports: its own resampling to the network's spacing and back, sliding window at half a patch, mirrored copies averaged,
float32 on a CPU. Ours: the study's resampling, head box, the tiling of the run's params, half precision where the
hardware has it, and the mask back on the scan's own grid; once as the run draws its masks, and once with tiles of patch
size at half steps (``whole_slices: false, tile_step: 0.5, mirror: false``). Dice is taken on that grid, against the exact
mask; its difference carries a standard error, for scans differ more than settings do.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk

RESULTS = Path(__file__).parent / "results"
SCANS = 16
SHAPE = (32, 440, 380)
SPACING = (5.0, 0.5, 0.5)


def full_size(values: np.ndarray, fill: float) -> np.ndarray:
    """Cut or padded about its middle to SHAPE."""
    for axis, wanted in enumerate(SHAPE):
        spare = wanted - values.shape[axis]
        if spare > 0:
            pads = [(0, 0)] * 3
            pads[axis] = (spare // 2, spare - spare // 2)
            values = np.pad(values, pads, constant_values=fill)
        elif spare < 0:
            values = values.take(range(-spare // 2, -spare // 2 + wanted), axis)
    return values


def phantoms() -> list[tuple[sitk.Image, np.ndarray]]:
    """Scans on the full-size grid and their exact masks."""
    import tempfile

    from hepaper import images
    from hepaper.cohort import PhantomCohort, read_ct
    from hepaper.cohort.read import read_mask
    from hepaper.preprocess import resample

    cohort = PhantomCohort(4 * SCANS, seed=77)
    pairs = []
    with tempfile.TemporaryDirectory() as folder:
        for row in range(SCANS):
            paths = cohort.write(4 * row, folder, "baseline")
            ct = read_ct(paths[0])
            scan = resample(ct, SPACING)
            mask = resample(read_mask(paths[1], paths[0]), SPACING, mask=True)
            made = sitk.GetImageFromArray(full_size(images.array(scan), -1024))
            made.SetSpacing(SPACING[::-1])
            pairs.append((made, full_size(images.array(mask), 0) > 0))
    return pairs


def main() -> None:
    run = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo")
    if not (run / "segmentation" / "full_scale" / "model" / "model.json").is_file():
        print(f"{run}: no trained model; run the demo first (make book), or name another run")
        return
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    from hepaper import images, machine
    from hepaper.predict import mask_on_grid
    from hepaper.preprocess import resample
    from hepaper.segmentation.metrics import dice
    from hepaper.segmentation.predict import Segmenter
    from hepaper.segmentation.stage import segmenter
    from hepaper.study import Study

    threads = machine.cores()
    torch.set_num_threads(threads)
    study = Study.at(run)
    ours = segmenter(study)
    model = study.path("segmentation", "full_scale", "model")
    least = study.params.segmentation.smallest_component_ml
    # each has a configuration of its own: whole-slice tiles change the patch size in it
    patches, default = (
        Segmenter(model, study.params.study.device, mirror=mirror, tile_step=0.5, smallest_component_ml=least)
        for mirror in (False, True)
    )
    theirs = nnUNetPredictor(
        device=ours.predictor.device, perform_everything_on_device=ours.predictor.device.type == "cuda",
        allow_tqdm=False,
    )  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        theirs.manual_initialization(
            default.network, default.predictor.plans_manager, default.predictor.configuration_manager,
            [default.network.state_dict()], default.predictor.dataset_json, default.predictor.trainer_name,
            default.mirror_axes,
        )  # fmt: skip

    def our_way(scan: sitk.Image, network: Segmenter = ours) -> np.ndarray:
        prepared = resample(scan, study.params.preprocess.spacing_mm)
        return images.array(mask_on_grid(network.segment(prepared), scan)) > 0

    def our_patches(scan: sitk.Image) -> np.ndarray:
        return our_way(scan, patches)

    def their_way(scan: sitk.Image) -> np.ndarray:
        values = images.array(scan).astype(np.float32)[None]
        with contextlib.redirect_stdout(io.StringIO()):
            return np.asarray(theirs.predict_single_npy_array(values, {"spacing": list(SPACING)})) == 1

    rows = []
    pairs = phantoms()
    our_way(pairs[0][0])  # libraries loaded, memory claimed
    for scan, truth in pairs:
        row = {}
        for name, way in (("ours", our_way), ("patches", our_patches), ("nnunet", their_way)):
            started = time.perf_counter()
            found = way(scan)
            row[f"{name}_seconds"] = time.perf_counter() - started
            row[f"{name}_dice"] = dice(found, truth)
        rows.append(row)
        print({key: round(value, 3) for key, value in row.items()}, flush=True)
    import pandas as pd

    table = pd.DataFrame(rows)
    shown = {"nnunet": "nnU-Net's command-line default", "ours": "ours, as the run draws its masks",
             "patches": "ours, tiles of patch size at half steps"}  # fmt: skip
    base = statistics.median(table["nnunet_seconds"])
    about = json.loads((run / "segmentation" / "full_scale" / "model" / "model.json").read_text("utf-8"))
    RESULTS.mkdir(exist_ok=True)
    table.to_csv(RESULTS / "prediction.csv", index=False, float_format="%.4g")
    lines = [
        "# One full-size scan",
        "",
        f"{about['network']} of the run `{study.params.study.name}` (patch {about['patch']}, {about['parameters']:,} "
        f"parameters), {SCANS} phantoms of {' x '.join(map(str, SHAPE))} voxels of 5 x 0.5 x 0.5 mm; "
        f"{threads} threads of {platform.machine()} ({ours.predictor.device.type}), torch {torch.__version__}, load on "
        f"the machine: {os.getloadavg()[0]:.1f}.",
        "",
        "| | seconds a scan (median) | times faster | Dice (mean) | difference (standard error) |",
        "|:--|--:|--:|--:|--:|",
    ]
    for name, words in shown.items():
        seconds, apart = statistics.median(table[f"{name}_seconds"]), table[f"{name}_dice"] - table["nnunet_dice"]
        lines.append(
            f"| {words} | {seconds:.2f} | {base / seconds:.1f} | {table[f'{name}_dice'].mean():.4f} | "
            f"{apart.mean():+.4f} ({apart.sem():.4f}) |"
        )
    (RESULTS / "prediction.md").write_text("\n".join(lines) + "\n", "utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
