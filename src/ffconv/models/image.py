"""The paper's image networks, made of timm's by conversion and entered in timm's registry.

    timm.create_model("ffc_resnet50", ratio=0.25, lfu=True)        after ``import ffconv``

They take every argument of timm's ResNet beside those of :class:`FFCResNet`.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import SEModule, get_norm_layer
from timm.models import generate_default_cfgs
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import nn

from ffconv.models.registry import PAPER_CFG, enter
from ffconv.ops import FFC2d
from ffconv.surgery import convert


class FFCResNet(ResNet):
    """timm's ResNet with all convolutions behind the stem converted to Fast Fourier Convolutions.

    The global path begins in the first block of layer1 and ends in layer4. As in the authors' networks the
    first block of layer1 has a 1x1 shortcut also where timm's BasicBlock networks have none.

    Reference: Chi et al., NeurIPS 2020, Sec. 4.1.

    Args:
        ratio: share of global channels, in [0, 1].
        lfu: whether Spectral Transforms have a Local Fourier Unit.
        local_to_global: whether local channels feed global ones where both are on both sides.
        global_to_local: the same in the other direction.
        se: squeeze-and-excitation of width C // 16 over all channels of a block's output.
        zero_init_last: whether the last norm of a block starts at zero.
        arguments: those of ``timm.models.resnet.ResNet``, block and layers among them.
    Raises:
        ffconv.errors.InputError: if ratio is outside [0, 1].
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
        if se:
            arguments["block_args"] = {
                **(arguments.get("block_args") or {}),
                "attn_layer": _squeeze_excitation,
            }
        super().__init__(zero_init_last=zero_init_last, **arguments)
        _ensure_shortcut(self.get_submodule("layer1.0"), arguments.get("norm_layer", nn.BatchNorm2d))
        convert(
            self,
            ratio,
            lfu,
            local_to_global=local_to_global,
            global_to_local=global_to_local,
            example_input=torch.empty(1, arguments.get("in_chans", 3), 224, 224, device="meta"),
        )
        for module in self.modules():
            if isinstance(module, FFC2d):  # conversion carried over slices of the whole convolution's weights
                module.reset_parameters()


def _squeeze_excitation(channels: int, **arguments: Any) -> SEModule:
    return SEModule(channels, rd_channels=channels // 16, **arguments)


def _ensure_shortcut(block: Any, norm_layer: Any) -> None:
    if block.downsample is None:
        last = block.conv3 if isinstance(block, Bottleneck) else block.conv2
        make_norm: Any = get_norm_layer(norm_layer)
        shortcut = nn.Conv2d(block.conv1.in_channels, last.out_channels, 1, bias=False)
        nn.init.kaiming_normal_(shortcut.weight, mode="fan_out", nonlinearity="relu")
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
