"""The plain transcription computes what the operators compute: the same weights, the same output."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ffconv.analysis import reference
from ffconv.nn import FFC2d, FourierUnit, SpectralTransform


def stacked(values: Tensor) -> Tensor:
    """[re0, im0, re1, im1, ...] -> [re0, re1, ..., im0, im1, ...] on the first axis."""
    return torch.cat([values[0::2], values[1::2]])


@torch.no_grad()
def copy_unit(plain: reference.FourierUnit, unit: FourierUnit) -> None:
    rows = stacked(unit.conv.weight)
    plain.conv.weight.copy_(stacked(rows.transpose(0, 1)).transpose(0, 1))
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(plain.bn, name).copy_(stacked(getattr(unit.bn, name)))


@torch.no_grad()
def copy_transform(plain: reference.SpectralTransform, transform: SpectralTransform) -> None:
    plain.conv1[0].weight.copy_(transform.conv1.weight)
    plain.conv1[1].load_state_dict(transform.bn1.state_dict())
    copy_unit(plain.fu, transform.fu)
    if transform.lfu is not None:
        assert plain.lfu is not None
        copy_unit(plain.lfu, transform.lfu)
    plain.conv2.weight.copy_(transform.conv2.weight)


@torch.no_grad()
def randomise(module: nn.Module) -> None:
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            tensor.uniform_(0.2, 1.0)


@pytest.mark.parametrize("size", [(6, 8), (7, 5), (1, 3)])
def test_fourier_units_are_equal(size: tuple[int, int]) -> None:
    unit, plain = FourierUnit(3, 5).double().eval(), reference.FourierUnit(3, 5).double().eval()
    randomise(unit)
    copy_unit(plain, unit)
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(plain(x), unit(x))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("channels", "lfu"), [(16, True), (16, False), (20, True)])
def test_spectral_transforms_are_equal(stride: int, channels: int, lfu: bool) -> None:
    transform = SpectralTransform(6, channels, stride=stride, lfu=lfu).double().eval()
    plain = reference.SpectralTransform(6, channels, stride=stride, lfu=lfu).double().eval()
    randomise(transform)
    copy_transform(plain, transform)
    x = torch.randn(2, 6, 8, 12, dtype=torch.float64)
    torch.testing.assert_close(plain(x), transform(x))


@pytest.mark.parametrize("padding_mode", ["zeros", "reflect"])
def test_layers_are_equal(padding_mode: reference.PaddingMode) -> None:
    options = {"stride": 2, "padding": 1, "padding_mode": padding_mode, "ratio": 0.5}
    ffc = FFC2d(16, 32, 3, bias=False, **options).double().eval()
    plain = reference.FFC(16, 32, 3, **options).double().eval()
    assert ffc.spectral is not None
    randomise(ffc)
    copy_transform(plain.g2g, ffc.spectral)
    with torch.no_grad():
        for path in ("l2l", "l2g", "g2l"):
            getattr(plain, path).weight.copy_(getattr(ffc, f"weight_{path}"))
    x = torch.randn(2, 16, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(torch.cat(plain((x[:, :8], x[:, 8:])), dim=1), ffc(x))
