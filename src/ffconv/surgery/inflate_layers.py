"""The layer of clips for each layer of images, weights carried over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

from timm.layers import BatchNormAct2d, SelectAdaptivePool2d, SEModule
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.utils import _pair

from ffconv.errors import require
from ffconv.nn import FFC2d, FFC3d, FFCNd, FourierUnit
from ffconv.surgery.clip_layers import BatchNormAct3d, GlobalPool3d, PaddedConv3d, SqueezeExcite3d

TemporalPadding = Literal["zeros", "replicate"]
TEMPORAL_PADDINGS = ("zeros", "replicate")


@dataclass(frozen=True)
class Temporal:
    """What a convolution or a pooling sees of time.

    Args:
        kernel: frames that it takes together; odd for convolutions, which keep the number of frames.
        stride: frames from one output to the next.
    Raises:
        ffconv.errors.InputError: if one is not positive.
    """

    kernel: int = 1
    stride: int = 1

    def __post_init__(self) -> None:
        positive = min(self.kernel, self.stride) > 0
        require(positive, f"kernel={self.kernel} and stride={self.stride} must be positive")


FRAME = Temporal()
Inflater = Callable[[Any, Temporal, TemporalPadding], nn.Module]


def repeat_over_time(weight: Tensor, times: int) -> Tensor:
    """The weight of a convolution of images for one of clips: repeated over time and divided by the number of
    times.

    Shape:
        weight (C_out, C_in, *kernel) -> (C_out, C_in, times, *kernel).
    """
    return (weight.unsqueeze(2) / times).expand(-1, -1, times, -1, -1)


def _convolution(conv: nn.Conv2d, temporal: Temporal, padding: TemporalPadding) -> nn.Module:
    spatial = conv.padding
    if isinstance(spatial, str):
        spatial = _same_pads(conv) if spatial == "same" else (0, 0)
    arguments = (conv.in_channels, conv.out_channels)
    options: dict[str, Any] = {
        "kernel_size": (temporal.kernel, *conv.kernel_size),
        "stride": (temporal.stride, *conv.stride),
        "padding": (temporal.kernel // 2, *spatial),
        "dilation": (1, *conv.dilation),
        "groups": conv.groups,
        "bias": conv.bias is not None,
        **_factory(conv),
    }
    if temporal.kernel == 1 or conv.padding_mode == padding:
        return nn.Conv3d(*arguments, **options, padding_mode=conv.padding_mode)
    return PaddedConv3d(*arguments, **options, modes=(padding, conv.padding_mode, conv.padding_mode))


def _same_pads(conv: nn.Conv2d) -> tuple[int, int]:
    spans = [d * (k - 1) for k, d in zip(conv.kernel_size, conv.dilation, strict=True)]
    if any(span % 2 for span in spans):
        raise ValueError(f"padding='same' of an even kernel {conv.kernel_size} cannot be inflated")
    return spans[0] // 2, spans[1] // 2


def _transposed(conv: nn.ConvTranspose2d, *_: Any) -> nn.Module:
    in_time = {"kernel_size": 1, "stride": 1, "padding": 0, "output_padding": 0, "dilation": 1}
    geometry: dict[str, Any] = {name: (value, *getattr(conv, name)) for name, value in in_time.items()}
    return nn.ConvTranspose3d(
        conv.in_channels,
        conv.out_channels,
        **geometry,
        groups=conv.groups,
        bias=conv.bias is not None,
        **_factory(conv),
    )


def _ffc(ffc: FFC2d, temporal: Temporal, padding: TemporalPadding) -> nn.Module:
    spatial = tuple(before for before, _ in ffc.geometry.pads)
    modes = ffc.padding_mode if isinstance(ffc.padding_mode, tuple) else (ffc.padding_mode,) * 2
    modes = (padding if temporal.kernel > 1 else modes[0], *modes)
    names = ("groups", "ratio_in", "ratio_out", "lfu", "local_to_global", "global_to_local", "spectral_dims")
    return FFC3d(
        ffc.in_channels,
        ffc.out_channels,
        (temporal.kernel, *ffc.kernel_size),
        (temporal.stride, *ffc.stride),
        "same" if ffc.padding == "same" else (temporal.kernel // 2, *spatial),
        (1, *ffc.dilation),
        bias=ffc.bias is not None,
        padding_mode=modes[0] if len(set(modes)) == 1 else modes,
        **{name: getattr(ffc, name) for name in names},
        **_factory(ffc),
    )


def _norm(kind: Any) -> Inflater:
    def inflater(norm: Any, *_: Any) -> nn.Module:
        arguments = (norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        return kind(*arguments, **_factory(norm))

    return inflater


def _max_pool(pool: nn.MaxPool2d, temporal: Temporal, _: TemporalPadding) -> nn.Module:
    return nn.MaxPool3d(
        (temporal.kernel, *_pair(pool.kernel_size)),
        (temporal.stride, *_pair(pool.stride)),
        (0, *_pair(pool.padding)),
        (1, *_pair(pool.dilation)),
        return_indices=pool.return_indices,
        ceil_mode=pool.ceil_mode,
    )


def _avg_pool(pool: nn.AvgPool2d, temporal: Temporal, _: TemporalPadding) -> nn.Module:
    divisor = pool.divisor_override
    return nn.AvgPool3d(
        (temporal.kernel, *_pair(pool.kernel_size)),
        (temporal.stride, *_pair(pool.stride)),
        (0, *_pair(pool.padding)),
        pool.ceil_mode,
        pool.count_include_pad,
        None if divisor is None else divisor * temporal.kernel,
    )


def _global_pool(pool: SelectAdaptivePool2d, *_: Any) -> nn.Module:
    sizes = getattr(pool.pool, "output_size", 1)
    if set(_pair(sizes)) != {1} or getattr(pool.pool, "dim", (2, 3)) != (2, 3):
        raise ValueError("only global pooling of maps (N, C, H, W) can be inflated")
    return GlobalPool3d.of(pool)


INFLATERS: dict[type[nn.Module], Inflater] = {
    nn.Conv2d: _convolution,
    nn.ConvTranspose2d: _transposed,
    FFC2d: _ffc,
    nn.BatchNorm2d: _norm(nn.BatchNorm3d),
    nn.InstanceNorm2d: _norm(nn.InstanceNorm3d),
    BatchNormAct2d: lambda norm, *_: BatchNormAct3d(norm, **_factory(norm)),
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _avg_pool,
    # What stands behind them reads a map of this size, so that nothing is left of time.
    nn.AdaptiveAvgPool2d: lambda pool, *_: nn.AdaptiveAvgPool3d((1, *_pair(pool.output_size))),
    nn.AdaptiveMaxPool2d: lambda pool, *_: nn.AdaptiveMaxPool3d((1, *_pair(pool.output_size))),
    nn.Dropout2d: lambda drop, *_: nn.Dropout3d(drop.p, drop.inplace),
    SelectAdaptivePool2d: _global_pool,
    SEModule: lambda se, *_: SqueezeExcite3d(se),
}
# They work on the last two axes of anything.
_WORK_AS_THEY_ARE = (nn.ZeroPad2d, nn.ConstantPad2d)
# A rule may give these a kernel or a stride in time.
WITH_TIME = (nn.Conv2d, FFC2d, nn.MaxPool2d, nn.AvgPool2d)
# What is inside of these goes with them.
WHOLE = (FFCNd, SelectAdaptivePool2d)


def why_not(module: nn.Module) -> str | None:
    """Why a module can have no layer of clips in its place, or None if it can or is not one of images."""
    kind = type(module)
    if kind in INFLATERS or kind in _WORK_AS_THEY_ARE:
        return None
    if isinstance(module, (_ConvNd, FFCNd)):
        dims = len(module.kernel_size)
        return None if dims != 2 else f"unknown subclass {kind.__name__}"
    if isinstance(module, FourierUnit):
        return None if module.axes.dims != 2 else f"{kind.__name__} outside of an FFC"
    return kind.__name__ if kind.__name__.endswith("2d") else None


def _factory(module: nn.Module) -> dict[str, Any]:
    like = next(chain(module.parameters(), module.buffers()), None)
    return {} if like is None else {"device": like.device, "dtype": like.dtype}
