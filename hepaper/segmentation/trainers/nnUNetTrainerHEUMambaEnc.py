"""Trainer of U-Mamba with a Mamba layer after every encoder stage."""

from __future__ import annotations

from hepaper.segmentation.trainers.nnUNetTrainerHE import nnUNetTrainerHE


class nnUNetTrainerHEUMambaEnc(nnUNetTrainerHE):
    """The same training as :class:`nnUNetTrainerHE`, another network."""

    network_name = "umamba_enc"
