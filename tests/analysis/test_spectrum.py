"""Spectral weights and spectra of features."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from ffconv.analysis.spectrum import feature_spectra, spectral_weights
from ffconv.errors import InputError
from ffconv.nn import FFC2d, FourierUnit


def unit_with(blocks: Tensor, groups: int = 1) -> FourierUnit:
    """A Fourier Unit from its 2x2 blocks (C_out, C_in / groups, 2, 2)."""
    unit = FourierUnit(blocks.shape[1] * groups, blocks.shape[0], groups)
    with torch.no_grad():
        unit.conv.weight.copy_(blocks.transpose(1, 2).flatten(2).flatten(0, 1)[..., None, None])
    return unit


def multiplication(number: complex) -> Tensor:
    return torch.tensor([[number.real, -number.imag], [number.imag, number.real]])


def test_multiplication_by_complex_numbers_is_recognised() -> None:
    blocks = torch.stack([multiplication(3 + 4j), multiplication(-2j)])[:, None]
    (weights,) = spectral_weights(unit_with(blocks))
    assert weights.complex_share == pytest.approx(1)
    torch.testing.assert_close(weights.magnitude, torch.tensor([[5.0], [2.0]], dtype=torch.float64))


def test_conjugation_has_no_complex_share() -> None:
    (weights,) = spectral_weights(unit_with(torch.tensor([[[[1.0, 0.0], [0.0, -1.0]]]])))
    assert weights.complex_share == 0


def test_the_share_is_one_of_energy() -> None:
    conjugation = torch.tensor([[0.0, 1.0], [1.0, 0.0]])  # times i
    (weights,) = spectral_weights(unit_with(torch.stack([multiplication(3 + 4j), conjugation])[:, None]))
    assert weights.complex_share == pytest.approx(25 / 26)


def test_random_weights_are_half_complex() -> None:
    (weights,) = spectral_weights(FourierUnit(64, 64))
    assert weights.complex_share == pytest.approx(0.5, abs=0.02)


def test_singular_values_are_those_of_the_whole_matrix_with_groups() -> None:
    blocks = torch.randn(4, 2, 2, 2)
    (weights,) = spectral_weights(unit_with(blocks, groups=2))
    matrices = [blocks[part].transpose(1, 2).flatten(2).flatten(0, 1) for part in (slice(0, 2), slice(2, 4))]
    expected = torch.linalg.svdvals(torch.block_diag(*matrices).double())
    torch.testing.assert_close(weights.singular_values, expected)


def test_local_units_are_marked() -> None:
    units = spectral_weights(FFC2d(16, 16, 1, ratio=0.5))
    assert [(unit.name, unit.local) for unit in units] == [("spectral.fu", False), ("spectral.lfu", True)]


def test_a_network_without_fourier_units_is_refused() -> None:
    with pytest.raises(InputError, match="Conv2d has no Fourier Unit"):
        spectral_weights(nn.Conv2d(1, 1, 1))


def identity_of_local_channels() -> nn.Sequential:
    """An FFC whose one local channel is the input's first, and whose global one is its second."""
    ffc = FFC2d(2, 2, 1, ratio=0.5, ratio_in=0, lfu=False, bias=False)
    assert ffc.weight_l2l is not None
    assert ffc.weight_l2g is not None
    with torch.no_grad():
        ffc.weight_l2l.copy_(torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1))
        ffc.weight_l2g.copy_(torch.tensor([0.0, 1.0]).reshape(1, 2, 1, 1))
    return nn.Sequential(ffc)


def test_a_wave_has_its_power_at_its_frequency() -> None:
    x = torch.arange(16.0)
    wave = torch.cos(2 * math.pi * 3 * x / 16).expand(16, 16)
    noise = torch.randn(64, 16, 16)
    images = torch.stack([wave.expand(64, 16, 16), noise], dim=1)
    spectrum = feature_spectra(identity_of_local_channels(), images)["0"]
    assert spectrum.local_channels is not None
    assert spectrum.global_channels is not None
    assert spectrum.frequency[spectrum.local_channels.argmax()] == pytest.approx(3 / 16)
    assert int((spectrum.local_channels > 1e-6).sum()) == 1
    torch.testing.assert_close(spectrum.global_channels, torch.ones(8), atol=0.15, rtol=0)


def test_frequencies_are_in_cycles_per_pixel_of_oblong_maps() -> None:
    wave = torch.cos(2 * math.pi * torch.arange(24.0) / 6).expand(1, 2, 12, 24)
    spectrum = feature_spectra(identity_of_local_channels(), wave)["0"]
    assert spectrum.size == (12, 24)
    assert spectrum.local_channels is not None
    assert spectrum.frequency[spectrum.local_channels.argmax()] == pytest.approx(1 / 6)


def test_the_mean_of_a_map_does_not_count() -> None:
    images = torch.randn(8, 2, 8, 8)
    model = identity_of_local_channels()
    plain, shifted = (feature_spectra(model, x)["0"].local_channels for x in (images, images + 7))
    torch.testing.assert_close(plain, shifted, atol=1e-4, rtol=1e-4)


def test_the_last_layer_of_each_map_size_is_taken() -> None:
    def ffc(stride: int, ratio_out: float) -> FFC2d:
        return FFC2d(8, 8, 3, stride, 1, ratio_in=0.5, ratio_out=ratio_out)

    model = nn.Sequential(ffc(1, 0.5), ffc(1, 0.5), ffc(2, 0.5), ffc(1, 0))
    assert list(feature_spectra(model, torch.randn(1, 8, 8, 8))) == ["1", "2"]


def test_a_layer_of_another_kind_is_refused() -> None:
    with pytest.raises(InputError, match="no FFC2d called '0'"):
        feature_spectra(nn.Sequential(nn.Conv2d(1, 1, 1)), torch.zeros(1, 1, 4, 4), ["0"])


def test_a_network_without_both_kinds_of_channels_is_refused() -> None:
    with pytest.raises(InputError, match="no FFC2d with local and global channels"):
        feature_spectra(nn.Sequential(nn.Conv2d(1, 1, 1)), torch.zeros(1, 1, 4, 4))
