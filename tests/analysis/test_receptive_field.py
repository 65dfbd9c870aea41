"""Effective receptive fields."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ffconv.analysis.receptive_field import effective_receptive_field, half_radius
from ffconv.nn import FFC2d


def test_a_convolutions_field_is_the_absolute_value_of_its_kernel() -> None:
    conv = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.arange(-4.0, 5.0).reshape(1, 1, 3, 3))
    field = effective_receptive_field(nn.Sequential(conv), torch.randn(2, 1, 7, 7), ["0"])["0"]
    expected = torch.zeros(7, 7)
    expected[2:5, 2:5] = conv.weight.detach()[0, 0].abs()
    torch.testing.assert_close(field, expected)


def test_colours_are_averaged() -> None:
    conv = nn.Conv2d(2, 1, 1, bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([3.0, -1.0]).reshape(1, 2, 1, 1))
    field = effective_receptive_field(nn.Sequential(conv), torch.zeros(1, 2, 3, 3), ["0"])["0"]
    assert field[1, 1] == 2


def test_images_are_averaged_after_the_absolute_value() -> None:
    class Square(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.square() / 2

    images = torch.stack([torch.full((1, 1, 1), 3.0), torch.full((1, 1, 1), -1.0)])
    field = effective_receptive_field(nn.Sequential(Square()), images, ["0"])["0"]
    assert field.item() == 2


def test_an_ffc_sees_the_whole_image_where_a_convolution_does_not() -> None:
    images = torch.randn(2, 32, 16, 16)
    plain = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1))
    ffc = nn.Sequential(FFC2d(32, 32, 3, padding=1, ratio=0.5))
    assert int((effective_receptive_field(plain, images, ["0"])["0"] > 0).sum()) == 9
    assert bool((effective_receptive_field(ffc, images, ["0"])["0"] > 0).all())


def test_layers_come_in_the_order_asked_for() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3))
    assert list(effective_receptive_field(model, torch.zeros(1, 1, 9, 9), ["1", "0"])) == ["1", "0"]


@pytest.mark.parametrize(("row", "column"), [(4, 4), (4, 7), (1, 2)])
def test_half_radius_of_a_point_is_its_distance(row: int, column: int) -> None:
    field = torch.zeros(9, 8)
    field[row, column] = 2.0
    assert half_radius(field) == pytest.approx(math.hypot(row - 4, column - 4))


def test_half_radius_takes_half_of_the_sum() -> None:
    field = torch.zeros(1, 11)
    field[0, 5], field[0, 7], field[0, 10] = 4.0, 2.0, 3.0
    assert half_radius(field) == 2
