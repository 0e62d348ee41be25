"""Trainer of nnFormer, with its authors' weights for the three outputs."""

from __future__ import annotations

from hepaper.segmentation.networks import nnformer
from hepaper.segmentation.trainers.nnUNetTrainerHE import nnUNetTrainerHE


class nnUNetTrainerHENNFormer(nnUNetTrainerHE):
    """The same training as :class:`nnUNetTrainerHE`, another network and its own deep supervision."""

    network_name = "nnformer"
    output_weights = nnformer.DEEP_SUPERVISION_WEIGHTS
