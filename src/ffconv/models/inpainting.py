"""LaMa's generator, the best-known FFC network, entered in timm's registry.

timm.create_model("lama_generator")                                    the published big-lama
timm.create_model("lama_generator", blocks=9)                          lama-fourier
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise
from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from ffconv.errors import require
from ffconv.models.lama_layers import FourierOptions, GatedFFC2d, LamaFourierUnit
from ffconv.nn import FFC2d, split_channels


class LamaGenerator(nn.Module):
    """LaMa's ``FFCResNetGenerator``: an encoder, residual blocks of FFCs, a decoder.

    The input is an image with its hole set to 0 and the mask as a further channel; the output an image, of
    which the hole is used. All convolutions of the encoder and the blocks pad by reflection.

    Reference: Suvorov et al., Resolution-robust Large Mask Inpainting with Fourier Convolutions, WACV 2022.
    Deviation: one tensor instead of a pair.

    Args:
        in_chans: channels of the image plus one.
        num_classes: channels of the output; timm's name for the size of a head.
        width: channels after the first convolution; each downsampling doubles them.
        downsamplings: how often the encoder halves the map.
        blocks: residual blocks of two FFCs each.
        ratio: share of global channels in the blocks; at 0 all convolutions are ordinary ones.
        lfu: whether Spectral Transforms have a Local Fourier Unit.
        gated: whether the blocks' paths between local and global channels have gates.
        max_channels: no layer has more.
        fourier: fields of :class:`ffconv.models.lama_layers.FourierOptions`.
    Shape:
        x (N, in_chans, H, W) -> (N, num_classes, H, W), in (0, 1); H and W multiples of ``multiple`` and at
        least twice that.
    Raises:
        InputError: for a value outside its range.
    """

    def __init__(
        self,
        *,
        in_chans: int = 4,
        num_classes: int = 3,
        width: int = 64,
        downsamplings: int = 3,
        blocks: int = 18,
        ratio: float = 0.75,
        lfu: bool = False,
        gated: bool = False,
        max_channels: int = 1024,
        **fourier: Any,
    ) -> None:
        super().__init__()
        require(min(in_chans, num_classes, width) > 0, "in_chans, num_classes and width must be at least 1")
        for name, value in (("lfu", lfu), ("gated", gated)):
            require(isinstance(value, bool), f"{name}={value!r} must be true or false")
        require(downsamplings > 0, f"downsamplings={downsamplings} must be at least 1")
        require(blocks >= 0, f"blocks={blocks} must not be negative")
        self.num_classes, self.num_features = num_classes, width
        self.multiple = 2**downsamplings
        widths = [min(max_channels, width * 2**step) for step in range(downsamplings + 1)]
        deepest = widths[-1]
        make = _BlockConvolutions(deepest, ratio, lfu=lfu, gated=gated, options=FourierOptions(**fourier))
        self.stem = _normed(_reflecting(in_chans, width, 7))
        # The global channels begin where the blocks do.
        ratios = [0.0] * (downsamplings - 1) + [ratio if make.has_global else 0.0]
        self.down = nn.Sequential(
            *(
                _normed(_reflecting(before, after, 3, stride=2, ratio_out=share))
                for (before, after), share in zip(pairwise(widths), ratios, strict=True)
            )
        )
        self.blocks = nn.Sequential(*(LamaBlock(make) for _ in range(blocks)))
        self.up = nn.Sequential(
            *(
                _normed(nn.ConvTranspose2d(before, after, 3, stride=2, padding=1, output_padding=1))
                for before, after in pairwise(reversed(widths))
            )
        )
        self.head = nn.Conv2d(width, num_classes, 7, padding=3, padding_mode="reflect")

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.head(self.up(self.blocks(self.down(self.stem(x))))))


def hide(image: Tensor, mask: Tensor) -> Tensor:
    """What an inpainting network is given: the image with its hole set to 0, and the mask.

    Shape:
        image (N, C, H, W), mask (N, 1, H, W) with 1 inside the hole -> (N, C + 1, H, W).
    """
    return torch.cat([image * (1 - mask), mask], dim=1)


class LamaBlock(nn.Module):
    """x plus two convolutions, each with norm and ReLU.

    Args:
        make: makes a convolution.
    Shape:
        x (N, C, H, W) -> (N, C, H, W).
    """

    def __init__(self, make: _BlockConvolutions) -> None:
        super().__init__()
        self.conv1, self.bn1, self.act1 = make(), nn.BatchNorm2d(make.channels), nn.ReLU(inplace=True)
        self.conv2, self.bn2, self.act2 = make(), nn.BatchNorm2d(make.channels), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act1(self.bn1(self.conv1(x)))
        return x + self.act2(self.bn2(self.conv2(y)))


class _BlockConvolutions:
    """Makes the convolutions of the blocks: FFCs, gated ones, or ordinary ones where nothing is global."""

    def __init__(
        self, channels: int, ratio: float, *, lfu: bool, gated: bool, options: FourierOptions
    ) -> None:
        local, everywhere = split_channels(channels, ratio)
        require(
            not gated or min(local, everywhere) > 0,
            f"gated needs both kinds of channels, ratio={ratio} leaves {local} local ones of {channels}",
        )
        self.channels, self.has_global = channels, everywhere > 0
        self._ratio, self._lfu, self._gated, self._options = ratio, lfu, gated, options

    def __call__(self) -> nn.Module:
        if not self.has_global:
            return _reflecting(self.channels, self.channels, 3)
        kind = GatedFFC2d if self._gated else FFC2d
        convolution = kind(
            self.channels,
            self.channels,
            3,
            padding=1,
            padding_mode="reflect",
            ratio=self._ratio,
            lfu=self._lfu,
            bias=False,
        )
        if self._options != FourierOptions() and convolution.spectral is not None:
            hidden = convolution.spectral.fu.in_channels
            convolution.spectral.add_module("fu", LamaFourierUnit(hidden, self._options))
        return convolution


def _reflecting(
    in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, ratio_out: float = 0.0
) -> nn.Module:
    """A convolution of local channels, without bias, padded by reflection."""
    geometry: dict[str, Any] = {
        "stride": stride,
        "padding": kernel_size // 2,
        "bias": False,
        "padding_mode": "reflect",
    }
    if ratio_out:
        return FFC2d(in_channels, out_channels, kernel_size, ratio_in=0.0, ratio_out=ratio_out, **geometry)
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size, **geometry)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution


def _normed(convolution: Any) -> nn.Sequential:
    """The convolution with norm and ReLU."""
    norm = nn.BatchNorm2d(convolution.out_channels)
    return nn.Sequential(OrderedDict(conv=convolution, bn=norm, act=nn.ReLU(inplace=True)))


# timm looks this name up in the module of an entry point.
default_cfgs = generate_default_cfgs(
    {
        "lama_generator.untrained": {
            "num_classes": 3,
            "input_size": (4, 256, 256),
            "mean": (0.0,) * 4,
            "std": (1.0,) * 4,
            "first_conv": "stem.conv",
            "classifier": "head",
            "license": "apache-2.0",
            "paper_name": "Resolution-robust Large Mask Inpainting with Fourier Convolutions",
        }
    }
)


@register_model
def lama_generator(pretrained: bool = False, **arguments: Any) -> LamaGenerator:
    """LaMa's generator; its defaults are those of big-lama, 51.0 M parameters."""
    return build_model_with_cfg(LamaGenerator, "lama_generator", pretrained, **arguments)
