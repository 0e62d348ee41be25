"""A network from nnU-Net's plans: where the planner's choices meet each network's own arguments."""

from __future__ import annotations

from typing import Any

from torch import nn

from hepaper.errors import HepaperError
from hepaper.params import SegmentationParams
from hepaper.segmentation.networks.nnformer import NNFormer
from hepaper.segmentation.networks.umamba import UMambaBot, UMambaEnc
from hepaper.segmentation.networks.unetrpp import UNETRPlusPlus


def build_network(
    name: str,
    plans_manager: Any,
    configuration: Any,
    input_channels: int,
    output_channels: int,
    deep_supervision: bool = True,
) -> nn.Module:
    """The network ``name`` (umamba_enc, umamba_bot, nnformer, unetrpp) for nnU-Net's plans.

    U-Mamba has the planner's stages, kernels and features; nnFormer and UNETR++ have their official synapse layout
    around the planner's patch, in the widths that ``plans["hepaper"]`` gives (official ones without it). All heads
    exist whether or not deep supervision is on, so that a training checkpoint loads for inference.

    Raises
    ------
    HepaperError
        For plans of another dimension, or a patch that the network does not admit.
    """
    ours = plans_manager.plans.get("hepaper", {})
    defaults = SegmentationParams()
    patch = [int(n) for n in configuration.patch_size]
    if len(patch) != 3:
        raise HepaperError(f"{name} is a 3D network; train it with the configuration 3d_fullres")
    if name in ("umamba_enc", "umamba_bot"):
        keys = (
            "n_stages", "features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage", "n_conv_per_stage_decoder"
        )  # fmt: skip
        kwargs: dict[str, Any] = {key: configuration.network_arch_init_kwargs[key] for key in keys}
        kwargs |= {"num_classes": output_channels, "deep_supervision": deep_supervision}
        if name == "umamba_enc":
            return UMambaEnc(input_channels, patch_size=patch, **kwargs)
        return UMambaBot(input_channels, **kwargs)
    if name == "nnformer":
        return NNFormer(
            input_channels, output_channels, patch,
            embed_dim=ours.get("nnformer_embed_dim", defaults.nnformer_embed_dim),
            deep_supervision=deep_supervision, all_heads=True,
        )  # fmt: skip
    dims = ours.get("unetrpp_dims", defaults.unetrpp_dims)
    return UNETRPlusPlus(
        input_channels, output_channels, patch, dims=dims, feature_size=dims[0] // 2,
        deep_supervision=deep_supervision, all_heads=True,
    )  # fmt: skip
