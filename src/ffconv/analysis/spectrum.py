"""What Fourier Units have learned, and which frequencies the two kinds of channels carry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ffconv.analysis.watching import watch
from ffconv.errors import InputError
from ffconv.nn import FFC2d, FourierUnit, LocalFourierUnit


@dataclass(frozen=True)
class SpectralWeights:
    """The channel mixing W of one Fourier Unit, a real matrix on [re0, im0, re1, im1, ...].

    Args:
        name: the unit's name in its network.
        local: whether it is a Local Fourier Unit.
        magnitude: (C_out, C_in / groups), the Frobenius norm of each 2x2 block over sqrt(2): |w| where the
            block multiplies by a complex number w.
        singular_values: of W, descending.
        complex_share: share of W's energy, in [0, 1], that multiplies by complex numbers; the rest multiplies
            the conjugate. 1/2 for random weights; 1 for what a convolution of the map could do too.
    """

    name: str
    local: bool
    magnitude: Tensor
    singular_values: Tensor
    complex_share: float


def spectral_weights(model: nn.Module) -> list[SpectralWeights]:
    """The weights of all Fourier Units of a network, in order.

    Raises:
        InputError: if it has none.
    """
    units = [(name, unit) for name, unit in model.named_modules() if isinstance(unit, FourierUnit)]
    if not units:
        raise InputError(f"{type(model).__name__} has no Fourier Unit")
    return [_weights(name, unit) for name, unit in units]


def _weights(name: str, unit: FourierUnit) -> SpectralWeights:
    weight = unit.conv.weight.detach().double().flatten(1)  # (2 C_out, 2 C_in / groups)
    groups = weight.unflatten(0, (unit.groups, -1))
    blocks = (
        weight.unflatten(0, (-1, 2)).unflatten(2, (-1, 2)).transpose(1, 2)
    )  # (C_out, C_in / groups, 2, 2)
    a, b, c, d = blocks.flatten(2).unbind(-1)
    # [[a, b], [c, d]] sends z to u z + v conj(z) with 2 u = a + d + i (c - b) and 2 v = a - d + i (c + b).
    multiplied = ((a + d) ** 2 + (c - b) ** 2).sum()
    conjugated = ((a - d) ** 2 + (c + b) ** 2).sum()
    return SpectralWeights(
        name,
        isinstance(unit, LocalFourierUnit),
        torch.linalg.matrix_norm(blocks) / 2**0.5,
        torch.linalg.svdvals(groups).flatten().sort(descending=True).values,
        float(multiplied / (multiplied + conjugated)),
    )


@dataclass(frozen=True)
class RadialSpectrum:
    """Mean power of a layer's channels over the distance from frequency zero, which is left out.

    Args:
        size: (H, W) of the layer's map.
        frequency: cycles per pixel of the map, rising to 0.5.
        local_channels: power, 1 being that of a flat spectrum of the same total; None where there are none.
        global_channels: the same for the global ones.
    """

    size: tuple[int, int]
    frequency: Tensor
    local_channels: Tensor | None
    global_channels: Tensor | None


def feature_spectra(
    model: nn.Module, images: Tensor, layers: Sequence[str] | None = None
) -> dict[str, RadialSpectrum]:
    """Radially averaged power spectra of what FFC layers put out, before any norm.

    Args:
        model: run in evaluation mode; its mode is put back.
        images: (N, C, H, W).
        layers: names of ``FFC2d`` modules; by default the last of each map size with both kinds of channels.
    Raises:
        InputError: if a layer is no ``FFC2d``, does not run, or none is there to choose.
    """
    convolutions = {name: module for name, module in model.named_modules() if isinstance(module, FFC2d)}
    for layer in layers or ():
        if layer not in convolutions:
            raise InputError(f"{type(model).__name__} has no FFC2d called {layer!r}")
    layers = layers or _last_of_each_size(model, images, convolutions)
    with torch.no_grad():
        return watch(
            model, images, layers, lambda layer, output: _spectrum(output, convolutions[layer].out_local)
        )


def _last_of_each_size(model: nn.Module, images: Tensor, convolutions: dict[str, FFC2d]) -> list[str]:
    """The last FFC at each map size that puts out local and global channels."""
    both = [name for name, ffc in convolutions.items() if ffc.out_local and ffc.out_global]
    if not both:
        raise InputError(f"{type(model).__name__} has no FFC2d with local and global channels")
    with torch.no_grad():
        sizes = watch(model, images[:1], both, lambda _, output: tuple(output.shape[2:]))
    return list({size: name for name, size in sizes.items()}.values())


def _spectrum(output: Tensor, local_channels: int) -> RadialSpectrum:
    height, width = output.shape[2:]
    distance = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.fftfreq(width)[None])
    rings = min(height, width) // 2
    ring = (2 * rings * distance).round().long().flatten()  # ring r is r / (2 rings) cycles per pixel
    population = torch.bincount(ring)
    power = torch.fft.fft2(output.float()).abs().square().mean(dim=0).cpu()

    def radial(channels: Tensor) -> Tensor | None:
        if not len(channels):
            return None
        mean = channels.mean(dim=0).flatten()
        by_ring = torch.bincount(ring, weights=mean) / population
        return (by_ring / mean[1:].mean())[1 : rings + 1]

    frequency = torch.arange(1, rings + 1) / (2 * rings)
    local, global_ = radial(power[:local_channels]), radial(power[local_channels:])
    return RadialSpectrum((height, width), frequency, local, global_)
