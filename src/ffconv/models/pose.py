"""Keypoint heatmaps on any backbone: SimpleBaseline and FFC-SimpleBaseline, entered in timm's registry.

timm.create_model("ffc_pose_resnet50", num_classes=17, ratio=0.25, lfu=False)
timm.create_model("pose", backbone="convnext_tiny", num_classes=17)
"""

from __future__ import annotations

import math
from typing import Any

import timm
from timm.models import generate_default_cfgs
from torch import Tensor, nn

import ffconv.models.image  # noqa: F401  registers the ffc_* backbones
from ffconv.errors import InputError
from ffconv.models.registry import PAPER_CFG, enter

HEATMAP_STRIDE = 4  # input pixels to a heatmap's pixel


class SimpleBaseline(nn.Module):
    """A backbone's last feature map, transposed convolutions of stride 2, one heatmap a keypoint.

    Each transposed convolution (kernel 4) is followed by a norm and a ReLU. Behind a backbone
    of stride 32 there are three, as published; behind another as many as lead to a quarter of the input.

    Reference: Xiao, Wu, Wei, Simple Baselines for Human Pose Estimation and Tracking, ECCV 2018, Sec. 2;
    with a Fourier backbone Chi et al., NeurIPS 2020, Sec. 4.3.

    Args:
        backbone: an image network of timm's registry whose features are maps, the ``ffc_*`` ones among them.
        num_classes: K, keypoints.
        in_chans: channels of the image.
        width: channels of every transposed convolution.
        arguments: further ones of the backbone, such as ``ratio``.
    Shape:
        (N, in_chans, H, W) -> (N, K, H / 4, W / 4), H and W multiples of the backbone's stride.
    Raises:
        InputError: if the backbone's stride is no power of two from 8 on, or it gives no features.
    """

    def __init__(
        self,
        backbone: str = "resnet50",
        *,
        num_classes: int = 17,
        in_chans: int = 3,
        width: int = 256,
        **arguments: Any,
    ) -> None:
        super().__init__()
        network: Any = timm.create_model(backbone, in_chans=in_chans, num_classes=0, **arguments)
        if not hasattr(network, "forward_intermediates"):
            raise InputError(f"backbone={backbone!r} gives no feature maps")
        network.prune_intermediate_layers(1)  # the head and what else lies behind the last feature map
        self.backbone = network
        self.num_classes, self.num_features = num_classes, width
        features = network.feature_info[-1]
        doublings = _doublings(backbone, features["reduction"])
        self.deconv_layers = nn.Sequential(*_upsampling(features["num_chs"], width, doublings))
        self.final_layer = nn.Conv2d(width, num_classes, 1)
        self._initialise()

    def forward(self, images: Tensor) -> Tensor:
        """Heatmaps (N, K, H / 4, W / 4)."""
        (features,) = self.backbone.forward_intermediates(images, indices=1, intermediates_only=True)
        return self.final_layer(self.deconv_layers(features))

    def get_classifier(self) -> nn.Module:
        """The layer with one output a keypoint."""
        return self.final_layer

    def reset_classifier(self, num_classes: int) -> None:
        """A fresh last layer for another number of keypoints."""
        weight = self.final_layer.weight
        self.num_classes = num_classes
        self.final_layer = nn.Conv2d(
            weight.shape[1], num_classes, 1, device=weight.device, dtype=weight.dtype
        )
        _small_normal(self.final_layer)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Return True if the backbone recomputes its activations in the backward pass."""
        self.backbone.set_grad_checkpointing(enable)

    def _initialise(self) -> None:
        for layer in (*self.deconv_layers, self.final_layer):
            if isinstance(layer, (nn.ConvTranspose2d, nn.Conv2d)):
                _small_normal(layer)


def _doublings(backbone: str, stride: int) -> int:
    """How often a map of the given stride is doubled to one of HEATMAP_STRIDE."""
    doublings = math.log2(stride / HEATMAP_STRIDE)
    if doublings < 1 or not doublings.is_integer():
        raise InputError(f"backbone={backbone!r} has stride {stride}: it must be 8, 16, 32 or 64")
    return int(doublings)


def _upsampling(channels: int, width: int, doublings: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for _ in range(doublings):
        layers += [
            nn.ConvTranspose2d(channels, width, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        ]
        channels = width
    return layers


def _small_normal(layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
    nn.init.normal_(layer.weight, std=0.001)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _cfg() -> dict[str, Any]:
    return {
        **PAPER_CFG,
        "num_classes": 17,
        "input_size": (3, 256, 192),
        "interpolation": "bilinear",
        "first_conv": "backbone.conv1",
        "classifier": "final_layer",
    }


# By name, the backbone each begins with unless told otherwise.
_NETWORKS = {
    **{f"pose_resnet{depth}": f"resnet{depth}" for depth in (18, 34, 50, 101, 152)},
    **{f"ffc_pose_resnet{depth}": f"ffc_resnet{depth}" for depth in (18, 34, 50, 101, 152)},
    "pose": "resnet50",
}

# timm looks this name up in the module of an entry point.
default_cfgs = generate_default_cfgs({f"{name}.untrained": _cfg() for name in _NETWORKS})

for _name, _backbone in _NETWORKS.items():
    enter(_name, SimpleBaseline, {"backbone": _backbone}, module=__name__)
