"""nnU-Net's trainer with this study's settings, read from the plans; the base of the four networks' trainers.

nnU-Net finds the trainers here through ``nnUNet_extTrainer``, so ``nnUNetv2_train 1 3d_fullres 0 -tr nnUNetTrainerHE``
works in a shell too (``hepaper env RUN`` prints the variables). It imports every module in this folder: keep the folder
small and free of optional imports.
"""

from __future__ import annotations

import contextlib
import csv
import itertools
import os
import queue
import random
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from tqdm import tqdm

from hepaper import machine
from hepaper.errors import HepaperError
from hepaper.params import SegmentationParams


class BatchesAhead:
    """Prepares batches in one thread, in the order training asks for them: ``n`` training, ``m`` validation, again.

    One thread for both loaders, because they share NumPy's and torch's global random state: the order of draws, and so
    every batch, depends on the seed alone.
    """

    def __init__(self, train: Iterator, validation: Iterator, n: int, m: int, epochs: int, ahead: int = 3):
        self._order = itertools.chain.from_iterable(
            itertools.chain(itertools.repeat(train, n), itertools.repeat(validation, m)) for _ in range(epochs)
        )
        self._queue: queue.Queue = queue.Queue(ahead)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="batches")
        self._thread.start()

    def _work(self) -> None:
        for loader in itertools.chain(self._order, [None]):
            try:
                item = next(loader) if loader is not None else StopIteration()
            except BaseException as error:  # handed to the training loop, which raises it
                item = error
            while not self._stop.is_set():
                try:
                    self._queue.put(item, timeout=0.2)
                    break
                except queue.Full:
                    continue
            if self._stop.is_set() or isinstance(item, BaseException):
                return

    def __iter__(self) -> BatchesAhead:
        return self

    def __next__(self) -> dict:
        item = self._queue.get()
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> None:
        """Stop the thread and wait for it."""
        self._stop.set()
        self._thread.join()


class nnUNetTrainerHE(nnUNetTrainer):
    """The paper's settings (SGD, Nesterov, poly schedule, Dice + cross-entropy), from ``plans["hepaper"]``.

    Beyond nnU-Net's own trainer: seeded and repeatable batches, a ``training_log.csv`` an epoch, checkpoints that load
    with ``weights_only=True``, and a stop at the first loss that is not finite. Plans that hepaper did not write (a
    user's own nnU-Net dataset) get the defaults of the params, which are the paper's.

    A network trains under it by setting :attr:`network_name` and, where its outputs are not those of nnU-Net's decoder,
    :attr:`output_weights`.
    """

    #: A network of :func:`hepaper.segmentation.networks.build.build_network`; None: the one of nnU-Net's plans.
    network_name: str | None = None

    #: Weights of the deep-supervision losses, finest output first, as the network's authors have them. None: the
    #: network has nnU-Net's outputs and gets nnU-Net's weights. Otherwise it has an attribute ``deep_supervision`` and
    #: a property ``deep_supervision_scales``.
    output_weights: tuple[float, ...] | None = None
    enable_deep_supervision: bool

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008  (nnU-Net reads this signature)
    ):
        super().__init__(plans, configuration, fold, dataset_json, device)
        defaults = SegmentationParams().model_dump()
        ours = {**defaults, "seed": 2025, **plans.get("hepaper", {})}
        self.num_epochs = ours["epochs"]
        self.num_iterations_per_epoch = ours["iterations_per_epoch"]
        self.num_val_iterations_per_epoch = ours["validation_iterations"]
        self.initial_lr = ours["learning_rate"]
        self.momentum = ours["momentum"]
        self.weight_decay = ours["weight_decay"]
        self.save_every = ours["checkpoint_every"]
        self.mirror_axes = tuple(ours["mirror_axes"])
        self.seed = ours["seed"]
        self.logger.plot_progress_png = lambda folder: None  # the book draws the curves, once, from the log
        self.bar: tqdm | None = None
        self.ahead: BatchesAhead | None = None

    def initialize(self) -> None:
        """Build network and optimiser from the seed, so that equal settings start equal."""
        random.seed(self.seed)
        np.random.seed(self.seed % 2**32)
        torch.manual_seed(self.seed)
        super().initialize()

    def configure_optimizers(self):
        """SGD with Nesterov momentum under nnU-Net's polynomial decay."""
        optimizer = torch.optim.SGD(
            self.network.parameters(),
            self.initial_lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            nesterov=True,
        )
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)

    @classmethod
    def build_network_architecture(
        cls, plans_manager, configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision=True
    ):
        """The network for these plans; nnU-Net calls this, with these names, for training and for inference."""
        given = (plans_manager, configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision)
        if cls.network_name is None:
            return super().build_network_architecture(*given)
        from hepaper.segmentation.networks.build import build_network

        return build_network(cls.network_name, *given)

    def _do_i_compile(self) -> bool:
        """Only when ``nnUNet_compile`` asks for it: compiling pays off in long trainings and can fail in short ones."""
        return "nnUNet_compile" in os.environ and super()._do_i_compile()

    def _build_loss(self):
        """nnU-Net's loss, always in float32: softmax and Dice sums are where half precision goes wrong."""
        if self.output_weights is None or not self.enable_deep_supervision:
            loss = super()._build_loss()
        else:
            self.enable_deep_supervision = False
            try:
                loss = DeepSupervisionWrapper(super()._build_loss(), np.array(self.output_weights))
            finally:
                self.enable_deep_supervision = True

        def in_float32(output, target):
            return loss([o.float() for o in output] if isinstance(output, (list, tuple)) else output.float(), target)

        return in_float32

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self):
        """nnU-Net's augmentation, mirrored along the axes of the params only."""
        rotation, flat, initial_patch, _ = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        self.inference_allowed_mirroring_axes = self.mirror_axes
        return rotation, flat, initial_patch, self.mirror_axes

    def plain_network(self) -> Any:
        """The network without what DDP and torch.compile wrap around it."""
        network = self.network.module if self.is_ddp else self.network
        return getattr(network, "_orig_mod", network)

    def _get_deep_supervision_scales(self):
        """Sizes of the network's outputs, as shares of the patch."""
        if self.output_weights is None or not self.enable_deep_supervision:
            return super()._get_deep_supervision_scales()
        return [list(scale) for scale in self.plain_network().deep_supervision_scales]

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Switch the coarser outputs on or off."""
        if self.output_weights is None:
            super().set_deep_supervision_enabled(enabled)
        else:
            self.plain_network().deep_supervision = enabled

    def train_step(self, batch: dict) -> dict:
        """nnU-Net's step; on a CPU that has bfloat16 instructions the network runs in them (CUDA: nnU-Net's own)."""
        with machine.autocast(self.device) if self.device.type == "cpu" else contextlib.nullcontext():
            return self._finite(super().train_step(batch), batch)

    def validation_step(self, batch: dict) -> dict:
        """As :meth:`train_step`."""
        with machine.autocast(self.device) if self.device.type == "cpu" else contextlib.nullcontext():
            return self._finite(super().validation_step(batch), batch)

    def _finite(self, result: dict, batch: dict) -> dict:
        if not np.isfinite(result["loss"]):
            raise HepaperError(
                f"the loss is not finite ({float(result['loss'])}) in epoch {self.current_epoch}, case(s) "
                f"{', '.join(map(str, batch['keys']))}; look at these scans, or lower the learning rate"
            )
        return result

    def plot_network_architecture(self) -> None:
        """Nothing: the drawing needs hiddenlayer, which does not run with current torch."""

    def get_dataloaders(self):
        """On CUDA nnU-Net's own worker processes; elsewhere one thread that prepares batches ahead.

        A process forked after torch has started its OpenMP threads can hang for ever, which is what happens with
        nnU-Net's workers on a CPU. One thread is safe, keeps the order of random numbers, and overlaps with training.
        """
        if self.device.type == "cuda":
            return super().get_dataloaders()
        before = os.environ.get("nnUNet_n_proc_DA")
        os.environ["nnUNet_n_proc_DA"] = "0"
        try:
            train, validation = super().get_dataloaders()
        finally:
            if before is None:
                del os.environ["nnUNet_n_proc_DA"]
            else:
                os.environ["nnUNet_n_proc_DA"] = before
        # a training that is taken up again goes on with new batches instead of repeating the first ones
        np.random.seed((self.seed + 7919 * self.current_epoch) % 2**32)
        torch.manual_seed(self.seed + 7919 * self.current_epoch)
        epochs = self.num_epochs - self.current_epoch
        self.ahead = BatchesAhead(
            train, validation, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch, epochs
        )
        return self.ahead, self.ahead

    def run_training(self) -> None:
        """Train, with a progress bar over the epochs, and leave no thread behind."""
        # torch gives up Python's lock in every operation and, while batches are being prepared, gets it back only when
        # the switch interval (5 ms by default) is over: longer than most operations of a small network take
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        with tqdm(
            total=self.num_epochs,
            initial=self.current_epoch,
            desc=f"training {type(self).__name__}",
            mininterval=2,
            ascii=True,
        ) as bar:
            self.bar = bar
            try:
                super().run_training()
            finally:
                sys.setswitchinterval(interval)
                if self.ahead is not None:
                    self.ahead.close()
                for loader in (self.dataloader_train, self.dataloader_val):
                    if hasattr(loader, "_finish"):  # nnU-Net's worker processes, which an error would leave behind
                        loader._finish()

    def on_epoch_end(self) -> None:
        """nnU-Net's bookkeeping, then ours: write the log, move the bar."""
        super().on_epoch_end()
        if self.local_rank == 0:
            self.write_log(Path(self.output_folder) / "training_log.csv")
        if self.bar is not None:
            loss = float(self.logger.get_value("train_losses", step=-1))
            self.bar.set_postfix(loss=f"{loss:.3f}", dice=f"{self._ema():.3f}", refresh=False)
            self.bar.update()

    def _ema(self) -> float:
        return float(self.logger.get_value("ema_fg_dice", step=-1))

    def write_log(self, path: Path) -> None:
        """One row an epoch: epoch, lr, train_loss, val_loss, pseudo_dice, ema_pseudo_dice."""
        names = {
            "lr": "lrs",
            "train_loss": "train_losses",
            "val_loss": "val_losses",
            "pseudo_dice": "mean_fg_dice",
            "ema_pseudo_dice": "ema_fg_dice",
        }
        columns = {ours: self.logger.get_value(theirs, step=None) for ours, theirs in names.items()}
        count = min(len(values) for values in columns.values())
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["epoch", *columns])
            for epoch in range(count):
                writer.writerow([epoch, *(f"{float(values[epoch]):.8g}" for values in columns.values())])

    def save_checkpoint(self, filename: str) -> None:
        """nnU-Net's checkpoint in plain types, whole or not at all, so that it loads with ``weights_only=True``."""
        if self.local_rank != 0 or self.disable_checkpointing:
            return
        temporary = filename + ".part"
        torch.save(
            {
                "network_weights": self.plain_network().state_dict(),
                "optimizer_state": self.optimizer.state_dict(),
                "grad_scaler_state": self.grad_scaler.state_dict() if self.grad_scaler is not None else None,
                "logging": _plain(self.logger.get_checkpoint()),
                "_best_ema": _plain(self._best_ema),
                "current_epoch": self.current_epoch + 1,
                "init_args": _plain(self.my_init_kwargs),
                "trainer_name": type(self).__name__,
                "inference_allowed_mirroring_axes": _plain(self.inference_allowed_mirroring_axes),
            },
            temporary,
        )
        os.replace(temporary, filename)

    def load_checkpoint(self, filename_or_checkpoint: str | dict) -> None:
        """Take up a training where a checkpoint left it."""
        if not self.was_initialized:
            self.initialize()
        saved = filename_or_checkpoint
        if not isinstance(saved, dict):
            saved = torch.load(saved, map_location=self.device, weights_only=True)
        self.plain_network().load_state_dict(saved["network_weights"])
        self.optimizer.load_state_dict(saved["optimizer_state"])
        if self.grad_scaler is not None and saved["grad_scaler_state"] is not None:
            self.grad_scaler.load_state_dict(saved["grad_scaler_state"])
        self.logger.load_checkpoint(saved["logging"])
        self._best_ema = saved["_best_ema"]
        self.current_epoch = saved["current_epoch"]
        self.inference_allowed_mirroring_axes = saved["inference_allowed_mirroring_axes"]


def _plain(value):
    """The same content without NumPy scalars, devices or other types that a safe loader refuses."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if value is None or isinstance(value, (bool, int, float, str, torch.Tensor)):
        return value
    return str(value)
