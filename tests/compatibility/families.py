"""The networks of the compatibility matrix: every family, as small as it can be with all its parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn

import ffconv
from ffconv.nn import FFC1d, FFC2d, FFC3d

NARROW = {"layers": (1, 1, 1, 1), "channels": (16, 16, 32, 32), "num_classes": 5}


@dataclass(frozen=True)
class Family:
    """One column of the matrix.

    Args:
        name: in the table.
        build: makes the network, in training mode.
        size: of the input, (C, *size); even sides.
        other_sizes: further sizes of the map, odd ones where the network takes them; no map inside it is one
            pixel wide, for which compilers make a graph of its own.
    """

    name: str
    build: Callable[[], nn.Module]
    size: tuple[int, ...]
    other_sizes: tuple[tuple[int, ...], ...]

    def network(self) -> nn.Module:
        """The same network at every call, in training mode, its norms as after some steps of training."""
        torch.manual_seed(0)
        network = self.build()
        x = self.input(batch=4)
        with torch.no_grad():
            for _ in range(3):
                network(x)
        return network

    def input(self, size: tuple[int, ...] | None = None, *, batch: int = 2) -> Tensor:
        """The same map for every size and batch, values from 0 to 1."""
        generator = torch.Generator().manual_seed(1)
        return torch.rand(batch, self.size[0], *(size or self.size[1:]), generator=generator)


def _layers(kind: Any) -> nn.Module:
    """Local, then both with a stride, then local again, as the paper's networks have them."""
    norm = {FFC1d: nn.BatchNorm1d, FFC2d: nn.BatchNorm2d, FFC3d: nn.BatchNorm3d}[kind]
    return nn.Sequential(
        kind(3, 16, 3, padding=1, bias=False, ratio_in=0, ratio_out=0.5),
        norm(16),
        nn.ReLU(),
        kind(16, 16, 3, stride=2, padding=1, ratio=0.5),
        nn.ReLU(),
        kind(16, 4, 1, ratio_in=0.5, ratio_out=0),
    )


def _model(name: str, **arguments: Any) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, **arguments)


def _converted(name: str, **arguments: Any) -> Callable[[], nn.Module]:
    return lambda: ffconv.convert(timm.create_model(name, num_classes=5, **arguments))


def _pose() -> nn.Module:
    """With weights as after some training: the first ones are near zero, and so are the heatmaps."""
    network = timm.create_model("ffc_pose_resnet18", **{**NARROW, "width": 16})
    for layer in (*network.deconv_layers, network.final_layer):
        if isinstance(layer, (nn.ConvTranspose2d, nn.Conv2d)):
            nn.init.kaiming_normal_(layer.weight)
    return network


_LAMA = {"width": 8, "downsamplings": 2, "blocks": 1}
_LAMA_OPTIONS = {
    "gated": True,
    "spectral_pos_encoding": True,
    "fft_norm": "backward",
    "spatial_scale_factor": 0.5,
}
_IMAGE = ((3, 64, 64), ((65, 75), (96, 80)))

FAMILIES = tuple(
    Family(*fields)
    for fields in (
        ("FFC1d", lambda: _layers(FFC1d), (3, 16), ((17,), (23,))),
        ("FFC2d", lambda: _layers(FFC2d), (3, 12, 10), ((9, 7), (14, 11))),
        ("FFC3d", lambda: _layers(FFC3d), (3, 4, 8, 6), ((5, 9, 7), (6, 7, 10))),
        ("FFC-ResNet", _model("ffc_resnet18", **NARROW), *_IMAGE),
        ("FFC-ResNeXt", _model("ffc_resnext50_32x4d", cardinality=4, base_width=32, **NARROW), *_IMAGE),
        ("FFC-SE-ResNet", _model("ffc_seresnet50", **NARROW), *_IMAGE),
        ("converted MobileNet", _converted("mobilenetv3_small_050"), *_IMAGE),
        ("converted ConvNeXt", _converted("test_convnext"), *_IMAGE),
        (
            "FFC-I3D + NL",
            _model("ffc_i3d_resnet18_nl", **{**NARROW, "layers": (1, 2, 1, 1), "drop_rate": 0.0}),
            (3, 4, 48, 40),
            ((5, 33, 43), (6, 64, 48)),
        ),
        ("FFC-SimpleBaseline", _pose, (3, 64, 64), ((96, 64), (64, 128))),
        ("LaMa", _model("lama_generator", **_LAMA), (4, 32, 32), ((36, 44), (48, 40))),
        (
            "LaMa, all options",
            _model("lama_generator", **_LAMA, **_LAMA_OPTIONS),
            (4, 32, 32),
            ((36, 44), (48, 40)),
        ),
    )
)
