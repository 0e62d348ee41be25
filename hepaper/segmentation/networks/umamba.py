"""U-Mamba: nnU-Net's U-shape with residual blocks and Mamba layers, for volumes.

Ma J, Li F, Wang B. U-Mamba: enhancing long-range dependency for biomedical image segmentation. arXiv:2401.04722.
:class:`UMambaEnc` has a Mamba layer after each encoder stage, :class:`UMambaBot` a single one at the bottleneck.

Both are built from what nnU-Net's planner decided, and both are faithful to the authors' networks, with their names
of parameters: weights move between the two. In a state dict ``encoder.stem`` is the residual entry at full
resolution, ``encoder.stages`` counts down from it, ``encoder.mamba_layers`` follows the stages, ``decoder.stages``,
``decoder.upsample_layers`` and ``decoder.seg_layers`` count up from the deepest. The decoder refers to its encoder, so
each tensor of the encoder has a second name, ``decoder.encoder.*``; in nnU-Net's own networks it is the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from dynamic_network_architectures.building_blocks.residual import BasicBlockD
from dynamic_network_architectures.initialization.weight_init import InitWeights_He
from torch import Tensor, nn

from hepaper.errors import HepaperError
from hepaper.segmentation.networks.mamba import MambaLayer
from hepaper.segmentation.networks.patches import require_admissible, text, total_stride

Size = Sequence[int]
Triple = tuple[int, int, int]

NORM: dict[str, Any] = {"eps": 1e-5, "affine": True}
NONLINEARITY: dict[str, Any] = {"inplace": True}  # LeakyReLU with its default slope, 0.01

# U-Mamba has one choice of each of these; a plan that asks for another is refused rather than quietly ignored
ONLY = {
    "conv_op": "Conv3d",
    "conv_bias": True,
    "norm_op": "InstanceNorm3d",
    "norm_op_kwargs": NORM,
    "dropout_op": None,
    "dropout_op_kwargs": None,
    "nonlin": "LeakyReLU",
    "nonlin_kwargs": NONLINEARITY,
}


class Plan(NamedTuple):
    """What the planner decided, with the number of blocks that the authors' networks have."""

    input_channels: int
    num_classes: int
    features: tuple[int, ...]
    kernels: tuple[Triple, ...]
    strides: tuple[Triple, ...]
    encoder_blocks: tuple[int, ...]
    decoder_blocks: tuple[int, ...]


def _plan(
    input_channels: int,
    n_stages: int,
    features_per_stage: Sequence[int],
    kernel_sizes: Sequence[Size],
    strides: Sequence[Size],
    n_conv_per_stage: Sequence[int],
    num_classes: int,
    n_conv_per_stage_decoder: Sequence[int],
    others: dict[str, Any],
) -> Plan:
    """Check and copy: the caller's lists stay as they are."""
    for key, asked in others.items():
        if key not in ONLY:
            raise TypeError(f"U-Mamba has no argument {key}")
        name = asked.__name__ if isinstance(asked, type) else asked or None  # some plans write {} for no arguments
        if (name.rpartition(".")[2] if isinstance(name, str) else name) != ONLY[key]:
            raise HepaperError(f"U-Mamba has {key} {ONLY[key]} and the plan asks for {name}: take nnU-Net's 3d_fullres")
    lists = {
        "features_per_stage": (features_per_stage, n_stages),
        "kernel_sizes": (kernel_sizes, n_stages),
        "strides": (strides, n_stages),
        "n_conv_per_stage": (n_conv_per_stage, n_stages),
        "n_conv_per_stage_decoder": (n_conv_per_stage_decoder, n_stages - 1),
    }
    for key, (values, count) in lists.items():
        if len(values) != count:
            raise HepaperError(
                f"U-Mamba of {n_stages} stages needs {count} values in {key}, the plan has {len(values)}"
            )
    return Plan(
        input_channels,
        num_classes,
        tuple(features_per_stage),
        tuple(_triple(kernel) for kernel in kernel_sizes),
        tuple(_triple(stride) for stride in strides),
        block_counts(n_stages, n_conv_per_stage),
        block_counts(n_stages, n_conv_per_stage_decoder),
    )


def _triple(size: Size) -> Triple:
    if len(size) != 3:
        raise HepaperError(f"U-Mamba works on volumes and the plan has sizes like {list(size)}: take 3d_fullres")
    return size[0], size[1], size[2]


class ResidualBlock(nn.Module):
    """Two convolutions with instance norms, and a strided 1x1x1 convolution (never an identity, no norm) as skip."""

    def __init__(self, inputs: int, outputs: int, kernel: Triple, stride: Triple = (1, 1, 1)):
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        self.conv1 = nn.Conv3d(inputs, outputs, kernel, stride, padding)
        self.norm1 = nn.InstanceNorm3d(outputs, **NORM)
        self.act1 = nn.LeakyReLU(**NONLINEARITY)
        self.conv2 = nn.Conv3d(outputs, outputs, kernel, padding=padding)
        self.norm2 = nn.InstanceNorm3d(outputs, **NORM)
        self.act2 = nn.LeakyReLU(**NONLINEARITY)
        self.conv3 = nn.Conv3d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, Z, Y, X) to (B, outputs, Z / stride, ...)."""
        y = self.norm2(self.conv2(self.act1(self.norm1(self.conv1(x)))))
        y += self.conv3(x)
        return self.act2(y)


def _blocks(count: int, inputs: int, outputs: int, kernel: Triple, stride: Triple = (1, 1, 1)) -> nn.Sequential:
    """A residual block that changes features and resolution, then ``count - 1`` that change neither."""
    plain = [
        BasicBlockD(
            nn.Conv3d,
            outputs,
            outputs,
            list(kernel),
            [1, 1, 1],
            conv_bias=True,
            norm_op=nn.InstanceNorm3d,
            norm_op_kwargs=NORM,
            nonlin=nn.LeakyReLU,
            nonlin_kwargs=NONLINEARITY,
        )
        for _ in range(count - 1)
    ]
    return nn.Sequential(ResidualBlock(inputs, outputs, kernel, stride), *plain)


def block_counts(n_stages: int, wanted: Sequence[int]) -> tuple[int, ...]:
    """The authors' rule for encoder and decoder: from stage ceil(n_stages / 2) on 1 block, whatever the plan says.

    The decoder counts from the deepest stage, so that its *finest* stages lose a block.

    >>> block_counts(7, [2, 2, 2, 2, 2, 2, 2]), block_counts(7, [2, 2, 2, 2, 2, 2])
    ((2, 2, 2, 2, 1, 1, 1), (2, 2, 2, 2, 1, 1))
    """
    return tuple(1 if stage >= math.ceil(n_stages / 2) else count for stage, count in enumerate(wanted))


class Encoder(nn.Module):
    """Stem and stages; after each stage comes its Mamba layer, which in a network without them is an identity."""

    def __init__(self, plan: Plan, mamba_layers: Sequence[nn.Module]):
        super().__init__()
        features, kernels = plan.features, plan.kernels
        self.stem = _blocks(plan.encoder_blocks[0], plan.input_channels, features[0], kernels[0])
        self.mamba_layers = nn.ModuleList(mamba_layers)
        self.stages = nn.ModuleList(
            _blocks(*stage)
            for stage in zip(
                plan.encoder_blocks, (features[0], *features[:-1]), features, kernels, plan.strides, strict=True
            )
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """The map after each stage, finest first."""
        x = self.stem(x)
        maps = []
        for stage, mamba in zip(self.stages, self.mamba_layers, strict=True):
            x = mamba(stage(x))
            maps.append(x)
        return maps


class UpsampleLayer(nn.Module):
    """Nearest-neighbour upsampling and a 1x1x1 convolution.

    The convolution comes first: the two commute exactly, and it then has a fraction of the voxels to work on.
    """

    def __init__(self, inputs: int, outputs: int, stride: Size):
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, 1)
        self.upsample = nn.Upsample(scale_factor=tuple(float(step) for step in stride), mode="nearest")

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, Z, Y, X) to (B, outputs, Z * stride, ...)."""
        return self.upsample(self.conv(x))


class Decoder(nn.Module):
    """From the deepest stage up; one segmentation head a stage.

    ``deep_supervision`` may be set at any time: a list of the maps of all stages, finest first, or the finest alone.
    """

    def __init__(self, encoder: Encoder, plan: Plan, deep_supervision: bool):
        super().__init__()
        self.deep_supervision = deep_supervision
        self.encoder = encoder  # unused here, but the second name of its tensors is part of every checkpoint
        features = plan.features
        up = range(len(features) - 2, -1, -1)
        self.stages = nn.ModuleList(
            _blocks(count, 2 * features[s], features[s], plan.kernels[s])
            for s, count in zip(up, plan.decoder_blocks, strict=True)
        )
        self.upsample_layers = nn.ModuleList(
            UpsampleLayer(features[s + 1], features[s], plan.strides[s + 1]) for s in up
        )
        self.seg_layers = nn.ModuleList(nn.Conv3d(features[s], plan.num_classes, 1) for s in up)

    def forward(self, skips: Sequence[Tensor]) -> Tensor | list[Tensor]:
        """Logits from the stage outputs of the encoder, finest first."""
        x = skips[-1]
        maps = []
        last = len(self.stages) - 1
        for number, stage in enumerate(self.stages):
            x = stage(torch.cat((self.upsample_layers[number](x), skips[-2 - number]), 1))
            if self.deep_supervision or number == last:
                maps.append(self.seg_layers[number](x))
        return maps[::-1] if self.deep_supervision else maps[0]


class UMambaEnc(nn.Module):
    """U-Mamba with a Mamba layer after every encoder stage.

    A layer's tokens are the voxels of its map; where the map has no more voxels than channels, its channels. The
    latter makes the layer's width a number of voxels, so that such a network works on patches of ``patch_size`` only.

    Parameters
    ----------
    input_channels, num_classes
        Channels of the scan and of the logits.
    n_stages, features_per_stage, kernel_sizes, strides
        As in ``arch_kwargs`` of nnU-Net's plans.
    n_conv_per_stage, n_conv_per_stage_decoder
        Blocks a stage; the authors' networks overrule the second half of each list with 1 (see :func:`block_counts`).
    patch_size
        Voxels (z, y, x), each a multiple of the product of the strides.
    deep_supervision
        Return the logits of all decoder stages; ``network.decoder.deep_supervision`` changes it later.
    plan
        What else ``arch_kwargs`` holds (``conv_op``, ``norm_op``, ...): checked, because U-Mamba has no choice there.

    Raises
    ------
    HepaperError
        If the plan asks for something that U-Mamba is not, or a patch does not fit the strides.

    Examples
    --------
    >>> import torch
    >>> network = UMambaEnc(1, 2, [4, 8], [[1, 3, 3], [3, 3, 3]], [[1, 1, 1], [1, 2, 2]], [2, 2], 2, [2], [4, 8, 8])
    >>> [tuple(logits.shape) for logits in network(torch.zeros(1, 1, 4, 8, 8))]
    [(1, 2, 4, 8, 8)]
    """

    def __init__(
        self,
        input_channels: int,
        n_stages: int,
        features_per_stage: Sequence[int],
        kernel_sizes: Sequence[Size],
        strides: Sequence[Size],
        n_conv_per_stage: Sequence[int],
        num_classes: int,
        n_conv_per_stage_decoder: Sequence[int],
        patch_size: Size,
        deep_supervision: bool = True,
        **plan: Any,
    ):
        super().__init__()
        layout = _plan(
            input_channels, n_stages, features_per_stage, kernel_sizes, strides, n_conv_per_stage, num_classes,
            n_conv_per_stage_decoder, plan,
        )  # fmt: skip
        require_admissible("umamba_enc", patch_size, layout.strides)
        self.patch_size = tuple(patch_size)
        self.strides = layout.strides
        layers = [MambaLayer(*tokens) for tokens in _tokens(layout, self.patch_size)]
        self.any_size = not any(layer.channel_token for layer in layers)
        self.encoder = Encoder(layout, layers)
        self.decoder = Decoder(self.encoder, layout, deep_supervision)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits (B, num_classes, Z, Y, X) of x (B, input_channels, Z, Y, X), or a list of them, finest first.

        Raises
        ------
        HepaperError
            If the network cannot work on maps of this size.
        """
        size = tuple(x.shape[2:])
        if not self.any_size and size != self.patch_size:
            raise HepaperError(
                f"this UMambaEnc was built for patches of {text(self.patch_size)} voxels and got {text(size)}; "
                "its deepest Mamba layers depend on the size, so cut or pad to the patch, or build it for this size"
            )
        _check_size("umamba_enc", size, self.strides)
        return self.decoder(self.encoder(x))


class UMambaBot(nn.Module):
    """U-Mamba with one Mamba layer, over the voxels of the bottleneck; works on every size the strides divide.

    Parameters, errors and outputs as in :class:`UMambaEnc`; there is no ``patch_size`` to give.
    """

    def __init__(
        self,
        input_channels: int,
        n_stages: int,
        features_per_stage: Sequence[int],
        kernel_sizes: Sequence[Size],
        strides: Sequence[Size],
        n_conv_per_stage: Sequence[int],
        num_classes: int,
        n_conv_per_stage_decoder: Sequence[int],
        deep_supervision: bool = True,
        **plan: Any,
    ):
        super().__init__()
        layout = _plan(
            input_channels, n_stages, features_per_stage, kernel_sizes, strides, n_conv_per_stage, num_classes,
            n_conv_per_stage_decoder, plan,
        )  # fmt: skip
        self.strides = layout.strides
        self.encoder = Encoder(layout, [nn.Identity() for _ in layout.features])
        self.mamba_layer = MambaLayer(layout.features[-1])
        self.decoder = Decoder(self.encoder, layout, deep_supervision)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """As :meth:`UMambaEnc.forward`."""
        _check_size("umamba_bot", tuple(x.shape[2:]), self.strides)
        maps = self.encoder(x)
        maps[-1] = self.mamba_layer(maps[-1])
        return self.decoder(maps)


def _tokens(plan: Plan, patch: tuple[int, ...]) -> Iterator[tuple[int, bool]]:
    """Width of the tokens, and whether they are channels, for the map after each stage."""
    for features, stride in zip(plan.features, plan.strides, strict=True):
        patch = tuple(size // step for size, step in zip(patch, stride, strict=True))
        channels = math.prod(patch) <= features
        yield (math.prod(patch) if channels else features), channels


def _initialise(network: nn.Module) -> None:
    """Kaiming normal for 3D convolutions; Mamba layers keep the values they were made with."""
    initialise = InitWeights_He(0.01)
    for module in network.modules():  # each once, unlike ``apply``: the decoder refers to the encoder
        initialise(module)


def _check_size(network: str, size: tuple[int, ...], strides: Sequence[Size]) -> None:
    total = total_stride(strides)
    # the second: one voxel at the bottom, of which there is no instance norm
    if any(voxels % step for voxels, step in zip(size, total, strict=True)) or size == total:
        require_admissible(network, size, strides)
