"""nnU-Net's trainer with this study's settings, read from the plans.

nnU-Net finds it through ``nnUNet_extTrainer``, so ``nnUNetv2_train 1 3d_fullres 0 -tr nnUNetTrainerHE`` works too.
It imports every module in this folder: keep the folder small and free of optional imports.
"""

from __future__ import annotations

import contextlib
import csv
import itertools
import os
import queue
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from tqdm import tqdm

from hepaper import machine
from hepaper.errors import HepaperError


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
    with ``weights_only=True``, and a stop at the first loss that is not finite.
    """

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008  (nnU-Net reads this signature)
    ):
        super().__init__(plans, configuration, fold, dataset_json, device)
        ours = plans["hepaper"]
        self.num_epochs = ours["epochs"]
        self.num_iterations_per_epoch = ours["iterations_per_epoch"]
        self.num_val_iterations_per_epoch = ours["validation_iterations"]
        self.initial_lr = ours["learning_rate"]
        self.momentum = ours["momentum"]
        self.weight_decay = ours["weight_decay"]
        self.save_every = ours["checkpoint_every"]
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

    def _build_loss(self):
        """nnU-Net's loss, always in float32: softmax and Dice sums are where half precision goes wrong."""
        loss = super()._build_loss()

        def in_float32(output, target):
            return loss([o.float() for o in output] if isinstance(output, (list, tuple)) else output.float(), target)

        return in_float32

    def train_step(self, batch: dict) -> dict:
        """nnU-Net's step; on a CPU that has bfloat16 instructions the network runs in them (CUDA: nnU-Net's own)."""
        with machine.autocast(self.device) if self.device.type == "cpu" else contextlib.nullcontext():
            return super().train_step(batch)

    def validation_step(self, batch: dict) -> dict:
        """As :meth:`train_step`."""
        with machine.autocast(self.device) if self.device.type == "cpu" else contextlib.nullcontext():
            return super().validation_step(batch)

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
        with tqdm(total=self.num_epochs, initial=self.current_epoch, desc="training", mininterval=2, ascii=True) as bar:
            self.bar = bar
            try:
                super().run_training()
            finally:
                if self.ahead is not None:
                    self.ahead.close()

    def on_epoch_end(self) -> None:
        """nnU-Net's bookkeeping, then ours: stop on a loss that is not finite, write the log, move the bar."""
        losses = {name: float(self.logger.get_value(f"{name}_losses", step=-1)) for name in ("train", "val")}
        if not all(np.isfinite(loss) for loss in losses.values()):
            raise HepaperError(
                f"the loss is not finite in epoch {self.current_epoch} (training {losses['train']}, validation "
                f"{losses['val']}); lower segmentation.learning_rate or look at the scans"
            )
        super().on_epoch_end()
        if self.local_rank == 0:
            self.write_log(Path(self.output_folder) / "training_log.csv")
        if self.bar is not None:
            self.bar.set_postfix(loss=f"{losses['train']:.3f}", dice=f"{self._ema():.3f}", refresh=False)
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
        network = self.network.module if self.is_ddp else self.network
        network = getattr(network, "_orig_mod", network)
        temporary = filename + ".part"
        torch.save(
            {
                "network_weights": network.state_dict(),
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
        network = self.network.module if self.is_ddp else self.network
        getattr(network, "_orig_mod", network).load_state_dict(saved["network_weights"])
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
