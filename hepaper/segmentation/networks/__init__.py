"""The segmentation networks that no library has, and the state-space layer that one of them is built on.

Checkpoints. The names and shapes in each network's ``state_dict`` are those of its authors' released code and do not
change between versions of hepaper:

- ``Mamba``: ``in_proj``, ``conv1d``, ``x_proj``, ``dt_proj``, ``A_log``, ``D``, ``out_proj``, as in ``mamba_ssm``;
- ``UMambaEnc``, ``UMambaBot``: ``encoder.stem``, ``encoder.stages``, ``encoder.mamba_layers`` (Enc) or ``mamba_layer``
  (Bot), ``decoder.stages``, ``decoder.upsample_layers``, ``decoder.seg_layers``; every encoder tensor a second time
  under ``decoder.encoder``;
- ``NNFormer``: ``model_down``, ``decoder``, ``final``;
- ``UNETRPlusPlus``: ``unetr_pp_encoder``, ``encoder1``, ``decoder5`` … ``decoder2``, ``out1`` … ``out3``.

A model folder (:func:`hepaper.segmentation.train.train`) holds that state dict as ``network.safetensors``, tensors that
have two names twice, beside the plans it was built from. nnU-Net's own checkpoints hold it under ``network_weights``.
"""

from hepaper.segmentation.networks.mamba import Mamba
from hepaper.segmentation.networks.nnformer import NNFormer
from hepaper.segmentation.networks.selective_scan import selective_scan
from hepaper.segmentation.networks.umamba import UMambaBot, UMambaEnc
from hepaper.segmentation.networks.unetrpp import UNETRPlusPlus

__all__ = ["Mamba", "NNFormer", "UMambaBot", "UMambaEnc", "UNETRPlusPlus", "selective_scan"]
