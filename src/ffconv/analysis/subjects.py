"""What can be benchmarked: networks by name, and single operators beside their baselines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ffconv.analysis import reference, reference_lama
from ffconv.analysis.networks import NetworkSpec, takes_clips
from ffconv.analysis.work import Subject
from ffconv.errors import require
from ffconv.models import LamaGenerator
from ffconv.nn import FFC2d, FourierUnit, SpectralTransform, split_channels

Operator = Literal["fourier-unit", "spectral-transform", "ffc"]
_FRAMES = 8
MapSize = tuple[int, int]


@dataclass(frozen=True)
class OperatorShape:
    """The layer to be timed, with as many channels out as in.

    Args:
        channels: of the map; of an FFC the local and the global ones together.
        kernel_size: odd; of an FFC.
        ratio: share of global channels of an FFC, strictly between 0 and 1.
        lfu: whether there is a Local Fourier Unit.
        padding_mode: of an FFC.
    """

    channels: int = 64
    kernel_size: int = 3
    ratio: float = 0.25
    lfu: bool = True
    padding_mode: reference.PaddingMode = "zeros"

    def __post_init__(self) -> None:
        require(self.kernel_size % 2 == 1, f"kernel_size={self.kernel_size} must be odd")
        require(
            0 < self.ratio < 1,
            f"ratio={self.ratio} must lie between 0 and 1: both kinds of channels are timed",
        )
        smallest = min(split_channels(self.channels, self.ratio))
        require(smallest >= 8, f"channels={self.channels} must leave at least 8 for each kind of channels")


def network_subject(spec: NetworkSpec) -> Subject:
    """A network on random colour images, or clips of 8 frames."""
    frames = (_FRAMES,) if takes_clips(spec.build("meta")) else ()
    return Subject(str(spec), spec.build, lambda batch, size: torch.randn(batch, 3, *frames, *size))


def inpainting_subjects(*, width: int, blocks: int) -> tuple[Subject, ...]:
    """LaMa's generator on random images with masks; the last one, the plain transcription, is the peer."""
    arguments: dict[str, Any] = {"width": width, "blocks": blocks}

    def make_input(batch: int, size: MapSize) -> Tensor:
        return torch.rand(batch, 4, *size)

    return (
        Subject("lama_generator", lambda: LamaGenerator(**arguments), make_input),
        Subject(
            _PLAIN.format("lama_generator"), lambda: reference_lama.LamaGenerator(**arguments), make_input
        ),
    )


def operator_subjects(operator: Operator, shape: OperatorShape, size: MapSize) -> tuple[Subject, ...]:
    """Our operator and its baselines; the last one, the plain transcription of the paper, is the peer.

    The transcription of an FFC takes pairs: its map comes already split, as in a network of such layers.

    Raises:
        InputError: for odd sides with a Local Fourier Unit, which the paper defines on even ones.
    """
    if operator != "fourier-unit" and shape.lfu:
        even = size[0] % 2 == 0 and size[1] % 2 == 0
        require(
            even,
            f"size={size[0]}x{size[1]}: the baseline's Local Fourier Unit needs even sides (--lfu false)",
        )
    return _BUILDERS[operator](shape)


def _fourier_unit(shape: OperatorShape) -> tuple[Subject, ...]:
    channels = shape.channels
    return (
        _on_one_map("FourierUnit", channels, lambda: FourierUnit(channels, channels)),
        _on_one_map(
            _PLAIN.format("FourierUnit"), channels, lambda: reference.FourierUnit(channels, channels)
        ),
    )


def _spectral_transform(shape: OperatorShape) -> tuple[Subject, ...]:
    channels, lfu = shape.channels, shape.lfu
    return (
        _on_one_map("SpectralTransform", channels, lambda: SpectralTransform(channels, channels, lfu=lfu)),
        _on_one_map(
            _PLAIN.format("SpectralTransform"),
            channels,
            lambda: reference.SpectralTransform(channels, channels, lfu=lfu),
        ),
    )


def _ffc(shape: OperatorShape) -> tuple[Subject, ...]:
    channels, kernel = shape.channels, shape.kernel_size
    padding: dict[str, Any] = {"padding": kernel // 2, "padding_mode": shape.padding_mode}
    ffc: dict[str, Any] = {**padding, "ratio": shape.ratio, "lfu": shape.lfu}
    parts = split_channels(channels, shape.ratio)

    def make_pair(batch: int, size: MapSize) -> tuple[Tensor, ...]:
        return tuple(torch.randn(batch, part, *size) for part in parts)

    return (
        _on_one_map("FFC2d", channels, lambda: FFC2d(channels, channels, kernel, bias=False, **ffc)),
        _on_one_map("Conv2d", channels, lambda: nn.Conv2d(channels, channels, kernel, bias=False, **padding)),
        Subject(
            _PLAIN.format("FFC"),
            lambda: reference.FFC(channels, channels, kernel, **ffc),
            make_pair,
            is_operator=True,
        ),
    )


def _on_one_map(name: str, channels: int, build: Callable[[], nn.Module]) -> Subject:
    return Subject(name, build, lambda batch, size: torch.randn(batch, channels, *size), is_operator=True)


_PLAIN = "{} (plain transcription)"
_BUILDERS: dict[Operator, Callable[[OperatorShape], tuple[Subject, ...]]] = {
    "fourier-unit": _fourier_unit,
    "spectral-transform": _spectral_transform,
    "ffc": _ffc,
}
