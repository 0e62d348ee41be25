"""The segmentation networks that no library has, and the state-space layer that one of them is built on."""

from hepaper.segmentation.networks.mamba import Mamba
from hepaper.segmentation.networks.nnformer import NNFormer
from hepaper.segmentation.networks.selective_scan import selective_scan
from hepaper.segmentation.networks.umamba import UMambaBot, UMambaEnc
from hepaper.segmentation.networks.unetrpp import UNETRPlusPlus

__all__ = ["Mamba", "NNFormer", "UMambaBot", "UMambaEnc", "UNETRPlusPlus", "selective_scan"]
