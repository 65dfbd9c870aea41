"""Pictures of receptive fields and spectra; every function returns the content of a PNG file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ffconv.analysis.receptive_field import half_radius
from ffconv.analysis.spectrum import RadialSpectrum, SpectralWeights
from ffconv.pictures import BLUE, GREY, VERMILLION, new_figure, png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FAINTEST = 1e-6
_NOTHING = 1e-30  # the largest gradient of a field without any


def draw_receptive_fields(fields: Mapping[str, Mapping[str, Tensor]]) -> bytes:
    """Receptive fields, a row a network and a column a layer.

    Args:
        fields: by network, then by layer, (H, W).
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm

    rows, columns = len(fields), max(map(len, fields.values()))
    figure = new_figure(2.8 * columns + 1.5, 3.4 * rows)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    scale = LogNorm(_FAINTEST, 1)
    for row, (network, layers) in zip(grid, fields.items(), strict=True):
        for axes in row[len(layers) :]:
            axes.set_visible(False)
        for axes, (layer, field) in zip(row, layers.items(), strict=False):
            relative = (field / field.max().clamp(min=_NOTHING)).clamp(min=_FAINTEST)
            axes.imshow(relative.cpu().numpy(), norm=scale, cmap="viridis")
            axes.set_title(f"{layer}: half within {half_radius(field):.0f} px", fontsize="medium")
        row[0].set_ylabel(f"{network}\n\ny (px)")
    _label_lowest(grid, "x (px)")
    figure.colorbar(
        ScalarMappable(scale, "viridis"),
        ax=grid,
        aspect=15 * rows,
        pad=0.01,
        label="mean |gradient| of the centre unit\n/ its largest value",  # one line is longer than one row
    )
    return png(figure)


def _label_lowest(grid: Any, label: str) -> None:
    """Label the shared horizontal axis below the lowest panel of each column."""
    for column in grid.T:
        lowest = [axes for axes in column if axes.get_visible()][-1:]
        for axes in lowest:
            axes.set_xlabel(label)
            axes.xaxis.set_tick_params(labelbottom=True)


def draw_spectral_weights(network: str, weights: Sequence[SpectralWeights]) -> bytes:
    """|W| of three Fourier Units, the singular values of all, and how complex-linear they are."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    figure = new_figure(11, 7.2)
    figure.suptitle(f"Fourier Units of {network}: channel mixing W of the spectrum")
    grid = figure.add_gridspec(2, 6)
    units = [unit for unit in weights if not unit.local]
    shown = list({unit.name: unit for unit in (units[0], units[len(units) // 2], units[-1])}.values())
    width = 6 // len(shown)
    largest = max(float(unit.magnitude.max()) for unit in shown)
    top = [figure.add_subplot(grid[0, place * width : (place + 1) * width]) for place in range(len(shown))]
    scale = Normalize(0, largest)
    for axes, unit in zip(top, shown, strict=True):
        axes.imshow(unit.magnitude.cpu().numpy(), cmap="viridis", aspect="auto", norm=scale)
        axes.set(title=unit.name, xlabel="input channel", ylabel="output channel")
    figure.colorbar(ScalarMappable(scale, "viridis"), ax=top, pad=0.01, label="|W| of a channel pair")
    _draw_singular_values(figure.add_subplot(grid[1, :3]), units)
    _draw_complex_shares(figure.add_subplot(grid[1, 3:]), weights)
    return png(figure)


def _draw_singular_values(axes: Axes, units: Sequence[SpectralWeights]) -> None:
    from matplotlib import colormaps

    for index, unit in enumerate(units):
        colour = colormaps["viridis"](0.9 * index / max(1, len(units) - 1))
        end = unit.name in (units[0].name, units[-1].name)
        _draw_falling(axes, unit.singular_values, color=colour, label=unit.name if end else None)
    largest = max(units, key=lambda unit: len(unit.singular_values))
    side = len(largest.singular_values)
    random = torch.linalg.svdvals(torch.randn(side, side, generator=torch.Generator().manual_seed(0)))
    _draw_falling(axes, random, color=GREY, linestyle="--", label="random weights")
    axes.set(yscale="log", ylim=(1e-3, 1.3), title="Singular values, first unit dark, last unit light")
    axes.set(xlabel="rank (% of all)", ylabel="singular value / largest")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def _draw_falling(axes: Axes, values: Tensor, **style: Any) -> None:
    rank = torch.arange(1, len(values) + 1) * 100 / len(values)
    axes.plot(rank.numpy(), (values / values[0]).cpu().numpy(), **style)


def _draw_complex_shares(axes: Axes, weights: Sequence[SpectralWeights]) -> None:
    from matplotlib.ticker import MaxNLocator

    for local, colour, marker, label in (
        (False, BLUE, "o", "Fourier Unit"),
        (True, VERMILLION, "s", "Local Fourier Unit"),
    ):
        shares = [100 * unit.complex_share for unit in weights if unit.local == local]
        if shares:
            axes.plot(range(1, len(shares) + 1), shares, color=colour, marker=marker, label=label)
    axes.axhline(50, color=GREY, linestyle="--", label="random weights")
    axes.set(title="Share of W that multiplies by complex numbers", ylim=(0, 100))
    axes.set(xlabel="unit, from input to output", ylabel="share of energy (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def draw_feature_spectra(network: str, spectra: Mapping[str, RadialSpectrum]) -> bytes:
    """Which frequencies the local and the global channels of FFC layers carry, a panel a layer."""
    columns = min(4, len(spectra))
    rows = -(-len(spectra) // columns)
    figure = new_figure(3.3 * columns + 0.6, 3.2 * rows + 0.5)
    figure.suptitle(f"Output of FFC layers of {network}")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    grid[0][0].set_xlim(0, 0.5)
    for axes in grid.flat[len(spectra) :]:
        axes.set_visible(False)
    for axes, (layer, spectrum) in zip(grid.flat, spectra.items(), strict=False):
        frequency = spectrum.frequency.numpy()
        for power, colour, style, label in (
            (spectrum.local_channels, BLUE, "-", "local channels"),
            (spectrum.global_channels, VERMILLION, "--", "global channels"),
        ):
            if power is not None:
                axes.plot(frequency, 10 * power.log10().numpy(), style, color=colour, label=label)
        axes.axhline(0, color=GREY, linewidth=0.8)
        height, width = spectrum.size
        axes.set_title(f"{layer} ({height} x {width})")
        axes.grid(alpha=0.3)
    _label_lowest(grid, "frequency (cycles / px of the map)")
    for row in grid:
        row[0].set_ylabel("power (dB, 0 is a flat spectrum)")
    grid[0][0].legend(fontsize="small")
    return png(figure)
