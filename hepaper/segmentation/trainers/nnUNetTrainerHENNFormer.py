"""Trainer of nnFormer: the study's settings, its authors' weights for the three outputs."""

from __future__ import annotations

from hepaper.segmentation.networks import nnformer
from hepaper.segmentation.networks.build import build_network
from hepaper.segmentation.trainers.nnUNetTrainerHE import nnUNetTrainerHE


class nnUNetTrainerHENNFormer(nnUNetTrainerHE):
    """The same training as :class:`nnUNetTrainerHE`, another network and its own deep supervision."""

    output_weights = nnformer.DEEP_SUPERVISION_WEIGHTS

    @staticmethod
    def build_network_architecture(
        plans_manager, configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision=True
    ):
        """The network for these plans; nnU-Net calls this for training and for inference."""
        return build_network(
            "nnformer", plans_manager, configuration_manager, num_input_channels, num_output_channels,
            enable_deep_supervision,
        )  # fmt: skip
