"""Trainer of U-Mamba with one Mamba layer at the bottleneck: the study's settings, nnU-Net's losses and weights."""

from __future__ import annotations

from hepaper.segmentation.networks.build import build_network
from hepaper.segmentation.trainers.nnUNetTrainerHE import nnUNetTrainerHE


class nnUNetTrainerHEUMambaBot(nnUNetTrainerHE):
    """The same training as :class:`nnUNetTrainerHE`, another network."""

    @staticmethod
    def build_network_architecture(
        plans_manager, configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision=True
    ):
        """The network for these plans; nnU-Net calls this for training and for inference."""
        return build_network(
            "umamba_bot", plans_manager, configuration_manager, num_input_channels, num_output_channels,
            enable_deep_supervision,
        )  # fmt: skip
