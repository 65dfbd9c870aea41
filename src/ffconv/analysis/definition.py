"""Parameters and multiply-adds of the Fourier layers, from their definition, not from what is executed.

Every part of an FFC is a convolution of a weight W at P positions and costs ``numel(W) * P`` multiply-adds:

    l2l, l2g, g2l, both 1x1 convolutions around the units    P = H W, the layer's output size
    the Fourier Unit's 1x1 convolution                       P = H (W // 2 + 1)
    the Local Fourier Unit's                                 P = h (w // 2 + 1), h, w = ceil of H / 2, W / 2

The Fourier transforms are kept apart. One real two-dimensional transform of an H x W map takes
5/2 HW log2(HW) operations (half of the usual 5 N log2 N of a complex one), which is 5/4 HW log2(HW)
multiply-adds; a Fourier Unit has one for each input and each output channel. A clip has each position and
each transform once a frame; where time is transformed too, one transform spans T H W.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.conv import _ConvNd

from ffconv.nn import Axes, FFCNd, FourierUnit, LocalFourierUnit, SpectralTransform

FFT_FORMULA = "5/4 HW log2(HW) multiply-adds for one real H x W transform"
DEFINED = (FFCNd, SpectralTransform, FourierUnit)

_PATHS = {"l2l": "local to local", "l2g": "local to global", "g2l": "global to local"}

Size = tuple[int, ...]


@dataclass(frozen=True)
class Part:
    """One row of a count: a layer, or one part of a layer made of several.

    Args:
        name: dotted name of the module; the paths of an FFC carry a suffix such as ``.l2g``.
        kind: the module's class, or what the part does.
        output: size (C, ...) of its output without the batch axis; empty if it did not run.
        parameters: parameters of its own.
        multiply_adds: for one input.
        fft: multiply-adds of its Fourier transforms; not among the others.
        zero_block: multiply-adds that one fused convolution spends on zero weights; not among the others.
        normalised: values that pass through a normalisation layer.
        transposed: multiply-adds that a transposed convolution, whose weight acts on each position of its
            input, would have on top if it acted on each of its output; not among the others.
    """

    name: str
    kind: str
    output: Size = ()
    parameters: int = 0
    multiply_adds: int = 0
    fft: int = 0
    zero_block: int = 0
    normalised: int = 0
    transposed: int = 0

    @property
    def executed(self) -> int:
        """Multiply-adds when the three paths of an FFC run as one convolution with a zero block."""
        return self.multiply_adds + self.zero_block


def parts_by_definition(
    name: str, module: nn.Module, inputs: Sequence[Size], outputs: Sequence[Size]
) -> Iterator[Part]:
    """The parts of a layer among ``DEFINED``, counted over all its calls.

    Args:
        name: its name in the network; "" for a network that is this layer alone.
        module: the layer.
        inputs: size (N, C, H, W) of the input of each call.
        outputs: size of the output of each call.
    """
    match module:
        case FFCNd():
            yield from _ffc(name, module, [_Grid.of(size, module.axes) for size in outputs])
        case SpectralTransform():
            grids = [_Grid.of(size, module.fu.axes) for size in outputs]
            yield from _spectral_transform(name, module, grids)
        case FourierUnit():
            yield _fourier_unit(name, module, [_Grid.of(size, module.axes) for size in inputs])


@dataclass(frozen=True)
class _Grid:
    """Where one call of a layer is evaluated.

    Args:
        count: maps (images, clips).
        size: of each.
        spectral: the axes of the size that are transformed.
    """

    count: int
    size: Size
    spectral: tuple[int, ...]

    @classmethod
    def of(cls, size: Size, axes: Axes) -> _Grid:
        return cls(size[0], size[2:], tuple(axis - 2 for axis in axes.spectral))

    @property
    def positions(self) -> int:
        return self.count * math.prod(self.size)

    @property
    def half_spectrum(self) -> int:
        width = self.size[self.spectral[-1]]
        return self.positions // width * (width // 2 + 1)

    @property
    def fft(self) -> float:
        """Multiply-adds of the transforms of one channel."""
        return 1.25 * self.positions * math.log2(math.prod(self.size[axis] for axis in self.spectral))

    def halved(self) -> _Grid:
        size = tuple(-(-n // 2) if axis in self.spectral else n for axis, n in enumerate(self.size))
        return _Grid(self.count, size, self.spectral)


def _ffc(name: str, ffc: FFCNd, grids: list[_Grid]) -> Iterator[Part]:
    positions = sum(grid.positions for grid in grids)
    weights = {path: getattr(ffc, f"weight_{path}") for path in _PATHS}
    weights = {path: weight for path, weight in weights.items() if weight is not None}
    dense = ffc.in_channels * ffc.out_channels * math.prod(ffc.kernel_size)
    zeros = dense - sum(weight.numel() for weight in weights.values())
    yield Part(
        name,
        type(ffc).__name__,
        _output(ffc.out_channels, grids),
        parameters=0 if ffc.bias is None else ffc.bias.numel(),
        # With groups every path is a convolution of its own and nothing is spent on zeros.
        zero_block=zeros * positions if ffc.groups == 1 else 0,
    )
    for path, weight in weights.items():
        output = _output(weight.shape[0], grids)
        yield Part(_join(name, path), _PATHS[path], output, weight.numel(), weight.numel() * positions)
    if ffc.spectral is not None:
        yield from _spectral_transform(_join(name, "spectral"), ffc.spectral, grids)
    for child_name, child in ffc.named_children():
        if isinstance(child, _ConvNd):  # a subclass's own, such as gates
            yield _convolution(_join(name, child_name), child, None, grids)


def _spectral_transform(name: str, transform: SpectralTransform, grids: list[_Grid]) -> Iterator[Part]:
    yield _convolution(_join(name, "conv1"), transform.conv1, transform.bn1, grids)
    yield _fourier_unit(_join(name, "fu"), transform.fu, grids)
    if transform.lfu is not None:
        yield _fourier_unit(_join(name, "lfu"), transform.lfu, grids)
    yield _convolution(_join(name, "conv2"), transform.conv2, None, grids)


def _convolution(name: str, conv: _ConvNd, norm: nn.Module | None, grids: list[_Grid]) -> Part:
    positions = sum(grid.positions for grid in grids)
    return Part(
        name,
        type(conv).__name__,
        _output(conv.out_channels, grids),
        parameters=_parameters(conv) + _parameters(norm),
        multiply_adds=conv.weight.numel() * positions,
        normalised=0 if norm is None else conv.out_channels * positions,
    )


def _fourier_unit(name: str, unit: FourierUnit, grids: list[_Grid]) -> Part:
    """A Fourier Unit on maps of the given sizes; a Local one works on maps of half the size."""
    mapped = [grid.halved() for grid in grids] if isinstance(unit, LocalFourierUnit) else grids
    positions = sum(grid.half_spectrum for grid in mapped)
    transformed_channels = (unit.conv.in_channels + unit.conv.out_channels) // 2
    return Part(
        name,
        type(unit).__name__,
        _output(unit.out_channels, grids),
        parameters=_parameters(unit),
        multiply_adds=unit.conv.weight.numel() * positions,
        fft=round(transformed_channels * sum(grid.fft for grid in mapped)),
        normalised=unit.conv.out_channels * positions,
    )


def _parameters(module: nn.Module | None) -> int:
    return 0 if module is None else sum(parameter.numel() for parameter in module.parameters())


def _output(channels: int, grids: list[_Grid]) -> Size:
    if not grids:
        return ()
    size = grids[0].size
    return (channels, *size) if grids[0].count == 1 else (channels, grids[0].count, *size)


def _join(name: str, part: str) -> str:
    return f"{name}.{part}" if name else part
