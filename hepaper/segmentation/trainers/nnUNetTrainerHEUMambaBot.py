"""Trainer of U-Mamba with one Mamba layer at the bottleneck."""

from __future__ import annotations

from hepaper.segmentation.trainers.nnUNetTrainerHE import nnUNetTrainerHE


class nnUNetTrainerHEUMambaBot(nnUNetTrainerHE):
    """The same training as :class:`nnUNetTrainerHE`, another network."""

    network_name = "umamba_bot"
