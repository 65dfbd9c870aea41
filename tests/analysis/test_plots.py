"""Pictures: PNG files of the right parts with units on their axes."""

from __future__ import annotations

import io

import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from ffconv.analysis import plots
from ffconv.analysis.spectrum import RadialSpectrum, spectral_weights
from ffconv.nn import FFC2d


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that become PNG files during a test."""
    figures: list[Figure] = []
    png = plots.png

    def keep(figure: Figure) -> bytes:
        figures.append(figure)
        return png(figure)

    monkeypatch.setattr(plots, "png", keep)
    return figures


def titles(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


def is_png(content: bytes) -> bool:
    return Image.open(io.BytesIO(content)).format == "PNG"


def test_receptive_fields_have_a_row_a_network_and_a_column_a_layer(drawn: list[Figure]) -> None:
    point = torch.zeros(9, 9)
    point[4, 6] = 3
    fields = {"plain": {"layer1": point, "layer2": point}, "other": {"stage": torch.ones(9, 9)}}
    assert is_png(plots.draw_receptive_fields(fields))
    (figure,) = drawn
    assert titles(figure) == [
        "layer1: half within 2 px",
        "layer2: half within 2 px",
        "stage: half within 4 px",
    ]
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert labels[0] == "plain\n\ny (px)"
    assert labels[2] == "other\n\ny (px)"
    # One scale for all: labelled at the left, and below the lowest panel of each column.
    assert [axes.get_xlabel() for axes in figure.axes[:3]] == ["", "x (px)", "x (px)"]
    assert {axes.get_xlim() for axes in figure.axes[:3]} == {(-0.5, 8.5)}


@pytest.mark.parametrize("rows", [1, 2])
def test_the_label_of_the_colour_bar_is_whole(rows: int, drawn: list[Figure]) -> None:
    plots.draw_receptive_fields({f"network {row}": {"layer": torch.ones(9, 9)} for row in range(rows)})
    (figure,) = drawn
    figure.draw_without_rendering()
    label = figure.axes[-1].yaxis.label.get_window_extent()
    assert label.y0 >= 0
    assert label.y1 <= figure.bbox.height
    assert label.x1 <= figure.bbox.width


def test_a_field_without_a_gradient_is_drawn_too() -> None:
    assert is_png(plots.draw_receptive_fields({"dead": {"layer": torch.zeros(4, 4)}}))


@pytest.mark.parametrize("lfu", [True, False])
def test_spectral_weights_are_drawn_with_and_without_local_units(drawn: list[Figure], lfu: bool) -> None:
    model = torch.nn.Sequential(*(FFC2d(16, 16, 1, ratio=0.5, lfu=lfu) for _ in range(4)))
    assert is_png(plots.draw_spectral_weights("net", spectral_weights(model)))
    (figure,) = drawn
    assert titles(figure)[:3] == ["0.spectral.fu", "2.spectral.fu", "3.spectral.fu"]
    shares = next(axes for axes in figure.axes if axes.get_ylabel() == "share of energy (%)")
    assert shares.get_legend_handles_labels()[1] == [
        "Fourier Unit",
        *(["Local Fourier Unit"] if lfu else []),
        "random weights",
    ]


def test_feature_spectra_are_in_decibels_over_a_flat_one(drawn: list[Figure]) -> None:
    frequency = torch.tensor([0.25, 0.5])
    spectrum = RadialSpectrum((4, 4), frequency, torch.tensor([10.0, 0.1]), None)
    assert is_png(plots.draw_feature_spectra("net", {"layer": spectrum}))
    axes = drawn[0].axes[0]
    assert axes.get_title() == "layer (4 x 4)"
    assert list(axes.get_lines()[0].get_ydata()) == pytest.approx([10, -10])
    assert axes.get_ylabel() == "power (dB, 0 is a flat spectrum)"
