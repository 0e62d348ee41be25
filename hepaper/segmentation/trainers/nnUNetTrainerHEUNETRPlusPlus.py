"""Trainer of UNETR++, with its authors' weights for the three outputs."""

from __future__ import annotations

from hepaper.segmentation.networks import unetrpp
from hepaper.segmentation.trainers.nnUNetTrainerHE import nnUNetTrainerHE


class nnUNetTrainerHEUNETRPlusPlus(nnUNetTrainerHE):
    """The same training as :class:`nnUNetTrainerHE`, another network and its own deep supervision."""

    network_name = "unetrpp"
    output_weights = unetrpp.DEEP_SUPERVISION_WEIGHTS
