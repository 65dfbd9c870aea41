"""The paper's image networks: timm's ResNets with FFC blocks, in timm's registry.

    timm.create_model("ffc_resnet50", ratio=0.25, lfu=True)        after ``import ffconv``

They take every argument of timm's ResNet beside those of :class:`FFCResNet`.
"""

from __future__ import annotations

from typing import Any

from timm.layers import SEModule, get_norm_layer
from timm.models import generate_default_cfgs
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import nn

from ffconv.errors import InputError, require
from ffconv.models.registry import PAPER_CFG, enter
from ffconv.nn import FFC2d, split_channels


class FFCResNet(ResNet):
    """timm's ResNet with FFC blocks behind the stem.

    The global path begins in the first block of layer1 and ends in layer4. As in the authors' networks the first block
    of layer1 has a 1x1 shortcut also where timm's BasicBlock networks have none.

    Reference: Chi et al., NeurIPS 2020, Sec. 4.1.

    Args:
        ratio: Share of global channels, in [0, 1].
        lfu: Give Spectral Transforms a Local Fourier Unit.
        local_to_global: Let local channels feed global ones where both are on both sides.
        global_to_local: The same in the other direction.
        se: Add squeeze-and-excitation of width C // 16 over all channels of a block's output.
        zero_init_last: Start the last norm of each block at zero.
        arguments: Those of ``timm.models.resnet.ResNet``, block and layers among them.
    Raises:
        ffconv.errors.InputError: If ratio is outside [0, 1], or a switch is neither true nor false.
    """

    def __init__(
        self,
        *,
        ratio: float = 0.25,
        lfu: bool = True,
        local_to_global: bool = True,
        global_to_local: bool = True,
        se: bool = False,
        zero_init_last: bool = False,
        **arguments: Any,
    ) -> None:
        require(0 <= ratio <= 1, f"ratio={ratio} must lie in [0, 1]")
        paths = {"local_to_global": local_to_global, "global_to_local": global_to_local}
        for name, value in {"lfu": lfu, **paths, "se": se}.items():
            require(isinstance(value, bool), f"{name}={value!r} must be true or false")
        if se:
            arguments["block_args"] = {
                **(arguments.get("block_args") or {}),
                "attn_layer": _squeeze_excitation,
            }
        super().__init__(zero_init_last=zero_init_last, **arguments)
        _ensure_shortcut(self.get_submodule("layer1.0"), arguments.get("norm_layer", nn.BatchNorm2d))
        ratio_in = 0.0  # of the stem
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            ratio_out = 0.0 if stage is self.layer4 else ratio
            for block in stage:  # pyright: ignore[reportGeneralTypeIssues]
                _use_ffc(block, ratio_in, ratio_out, lfu, paths)
                ratio_in = ratio_out


def _use_ffc(block: Any, ratio_in: float, ratio_out: float, lfu: bool, paths: dict[str, bool]) -> None:
    """Make all convolutions of a residual block FFCs: the first and the shortcut from ratio_in, all to ratio_out."""

    def ffc(conv: nn.Conv2d, ratio_in: float) -> nn.Conv2d | FFC2d:
        if not (
            split_channels(conv.in_channels, ratio_in)[1] or split_channels(conv.out_channels, ratio_out)[1]
        ):
            return conv  # no global channels: the plain convolution
        geometry = (
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            conv.stride,
            conv.padding,
            conv.dilation,
        )
        # A switch cannot cut off a part whose only path it is.
        is_free = 0 < ratio_in < 1 and 0 < ratio_out < 1
        options: dict[str, Any] = {"ratio_in": ratio_in, "ratio_out": ratio_out, "lfu": lfu}
        factory: dict[str, Any] = {"device": conv.weight.device, "dtype": conv.weight.dtype}
        bias = conv.bias is not None
        try:
            return FFC2d(*geometry, conv.groups, bias, **options, **(paths if is_free else {}), **factory)
        except ValueError as error:
            raise InputError(f"the network has no FFC form: {error}") from error

    block.conv1 = ffc(block.conv1, ratio_in)
    block.conv2 = ffc(block.conv2, ratio_out)
    if isinstance(block, Bottleneck):
        block.conv3 = ffc(block.conv3, ratio_out)  # pyright: ignore[reportAttributeAccessIssue]
    shortcut: Any = block.downsample
    for i, layer in enumerate(shortcut or ()):
        if isinstance(layer, nn.Conv2d):
            shortcut[i] = ffc(layer, ratio_in)


def _squeeze_excitation(channels: int, **arguments: Any) -> SEModule:
    return SEModule(channels, rd_channels=channels // 16, **arguments)


def _ensure_shortcut(block: Any, norm_layer: Any) -> None:
    if block.downsample is None:
        last = block.conv3 if isinstance(block, Bottleneck) else block.conv2
        make_norm: Any = get_norm_layer(norm_layer)
        shortcut = nn.Conv2d(block.conv1.in_channels, last.out_channels, 1, bias=False)
        layers = nn.Sequential(shortcut, make_norm(last.out_channels))
        block.downsample = layers.to(last.weight.device, last.weight.dtype)


def _cfg() -> dict[str, Any]:
    return {
        **PAPER_CFG,
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (7, 7),
        "crop_pct": 0.875,
        "interpolation": "bilinear",
        "first_conv": "conv1",
        "classifier": "fc",
    }


_NETWORKS: dict[str, dict[str, Any]] = {
    "ffc_resnet18": {"block": BasicBlock, "layers": (2, 2, 2, 2)},
    "ffc_resnet26": {"block": Bottleneck, "layers": (2, 2, 2, 2)},
    "ffc_resnet34": {"block": BasicBlock, "layers": (3, 4, 6, 3)},
    "ffc_resnet50": {"block": Bottleneck, "layers": (3, 4, 6, 3)},
    "ffc_resnet101": {"block": Bottleneck, "layers": (3, 4, 23, 3)},
    "ffc_resnet152": {"block": Bottleneck, "layers": (3, 8, 36, 3)},
    "ffc_resnet200": {"block": Bottleneck, "layers": (3, 24, 36, 3)},
    "ffc_resnext50_32x4d": {
        "block": Bottleneck,
        "layers": (3, 4, 6, 3),
        "cardinality": 32,
        "base_width": 4,
    },
    "ffc_resnext101_32x8d": {
        "block": Bottleneck,
        "layers": (3, 4, 23, 3),
        "cardinality": 32,
        "base_width": 8,
    },
    "ffc_seresnet50": {"block": Bottleneck, "layers": (3, 4, 6, 3), "se": True},
}

# timm looks this name up in the module of an entry point.
default_cfgs = generate_default_cfgs({f"{name}.untrained": _cfg() for name in _NETWORKS})

for _name, _defaults in _NETWORKS.items():
    enter(_name, FFCResNet, _defaults, module=__name__)
