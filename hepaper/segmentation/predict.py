"""A trained network and its masks: nnU-Net's sliding window, then the removal of specks."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from hepaper import images, machine
from hepaper.errors import HepaperError
from hepaper.params import TrainingParams
from hepaper.segmentation.environment import CONFIGURATION, trainer_class


def remove_specks(mask: np.ndarray, spacing: tuple[float, float, float], smallest_ml: float) -> np.ndarray:
    """Drop 26-connected components below ``smallest_ml`` mL from a mask (z, y, x) of ``spacing`` mm."""
    import cc3d

    if smallest_ml <= 0 or not mask.any():
        return mask
    least = smallest_ml * 1000 / float(np.prod(spacing))
    return cc3d.dust(mask.astype(np.uint8), threshold=least, connectivity=26).astype(np.uint8)


def head_box(values: np.ndarray, spacing: tuple[float, float, float], margin_mm: float = 5.0) -> tuple[slice, ...]:
    """The in-plane box around everything denser than air (-300 HU), all slices: a network need not look at air."""
    box = [slice(None)]
    for axis in (1, 2):
        others = tuple(other for other in range(3) if other != axis)
        # a row counts when more than a stray voxel of it is no air
        there = np.flatnonzero((values > -300).sum(axis=others) > 0.002 * values.size / values.shape[axis])
        if not len(there):
            return (slice(None),) * 3
        margin = int(np.ceil(margin_mm / spacing[axis]))
        box.append(slice(max(0, int(there[0]) - margin), int(there[-1]) + 1 + margin))
    return tuple(box)


#: Networks without a parameter whose shape depends on the patch.
ANY_SIZE = ("nnunet", "umamba_bot")


class Segmenter:
    """A trained segmentation network, loaded from a model folder.

    Parameters
    ----------
    model
        The folder that :func:`hepaper.segmentation.train.train` wrote.
    device
        As in ``study.device``.
    mirror, tile_step, whole_slices, smallest_component_ml
        As in ``segmentation`` of the params.
    """

    def __init__(
        self,
        model: Path,
        device: str = "auto",
        mirror: bool = True,
        tile_step: float = 0.5,
        whole_slices: bool = False,
        smallest_component_ml: float = 0.1,
    ):
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
        from safetensors.torch import load_file

        for needed in ("network.safetensors", "plans.json", "dataset.json", "model.json"):
            if not (model / needed).is_file():
                raise HepaperError(f"{model / needed} is missing; run the stage that trains it first")
        plans = PlansManager(json.loads((model / "plans.json").read_text("utf-8")))
        dataset_json = json.loads((model / "dataset.json").read_text("utf-8"))
        about = json.loads((model / "model.json").read_text("utf-8"))
        configuration = plans.get_configuration(CONFIGURATION)
        self.mirror_axes = tuple(about["mirror_axes"]) if about["mirror_axes"] else None
        with contextlib.redirect_stdout(io.StringIO()):  # nnU-Net prints its citation at every turn
            trainer = trainer_class(about["network"])
            network = trainer.build_network_architecture(plans, configuration, 1, 2, False)
            network.load_state_dict(load_file(model / "network.safetensors"))
            where = machine.device(device)
            self.predictor = nnUNetPredictor(
                tile_step_size=tile_step,
                use_mirroring=mirror,
                perform_everything_on_device=where.type == "cuda",
                device=where,
                allow_tqdm=False,
            )
            self.predictor.manual_initialization(
                network.to(where),
                plans,
                configuration,
                [network.state_dict()],
                dataset_json,
                trainer.__name__,
                self.mirror_axes,
            )
        self.network = network
        self.smallest_component_ml = smallest_component_ml
        self.configuration = configuration
        strides = configuration.network_arch_init_kwargs["strides"]
        self.patch = [int(n) for n in configuration.patch_size]
        self.multiple = [int(n) for n in np.prod(strides, axis=0)]
        self.whole_slices = whole_slices and about["network"] in ANY_SIZE

    @classmethod
    def of(cls, model: Path, settings: TrainingParams, device: str) -> Segmenter:
        """The network in ``model``, used as the params say."""
        return cls(
            model, device, settings.mirror, settings.tile_step, settings.whole_slices, settings.smallest_component_ml
        )

    def segment(self, scan: sitk.Image) -> sitk.Image:
        """The hematoma mask (uint8) of one preprocessed scan in HU, on the scan's own grid."""
        values = images.array(scan).astype(np.float32)
        spacing = images.spacing(scan)
        box = head_box(values, spacing)
        if self.whole_slices:
            self._fit_tile(values[box].shape, spacing)
        with contextlib.redirect_stdout(io.StringIO()), machine.autocast(self.predictor.device):
            found = self.predictor.predict_single_npy_array(values[box][None], {"spacing": list(spacing)})
        mask = np.zeros(values.shape, np.uint8)
        mask[box] = np.asarray(found) == 1
        return images.like(remove_specks(mask, spacing, self.smallest_component_ml), scan)

    def _fit_tile(self, shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
        """Make nnU-Net's tile as wide as the scan will be at the network's spacing, and no deeper than the patch.

        Across, fewer tiles cost less and the network sees the whole head. Deeper than in training it is not made:
        instance normalisation would then average over more slices than the network has learnt with, which costs more
        Dice than the tiles cost time.
        """
        from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape

        needed = compute_new_shape(shape, spacing, self.configuration.spacing)
        # twice the multiple at least: an instance norm needs more than one voxel at the bottom
        tile = [max(2 * step, -(-int(n) // step) * step) for n, step in zip(needed, self.multiple, strict=True)]
        tile[0] = min(tile[0], self.patch[0])
        self.configuration.configuration["patch_size"] = tile
