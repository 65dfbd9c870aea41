"""Fourier Unit and Local Fourier Unit."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import golden
import oracles
from ffconv.nn import FourierUnit, LocalFourierUnit

SIZES = [(1, 1), (1, 6), (6, 1), (7, 5), (8, 6), (9, 9)]
UNITS = [(FourierUnit, oracles.fourier_unit), (LocalFourierUnit, oracles.local_fourier_unit)]


def _linear(unit: FourierUnit, blocks: torch.Tensor) -> FourierUnit:
    """A unit whose norm is the identity and whose convolution is ``blocks``."""
    unit.eval()
    unit.bn.eps = 0.0
    with torch.no_grad():
        unit.conv.weight.copy_(blocks[:, :, None, None])
    return unit


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("unit", "oracle"), UNITS)
def test_oracle(unit, oracle, groups, size):
    module = unit(8, 6, groups, dtype=torch.float64).eval()
    oracles.randomise_norms(module)
    x = torch.randn(2, 8, *size, dtype=torch.float64)
    torch.testing.assert_close(module(x), oracle(module, x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_channels_not_a_multiple_of_four(size):
    module = LocalFourierUnit(5, 3, dtype=torch.float64).eval()
    x = torch.randn(2, 5, *size, dtype=torch.float64)
    torch.testing.assert_close(module(x), oracles.local_fourier_unit(module, x), rtol=0, atol=1e-12)


@pytest.mark.reference
@pytest.mark.parametrize("name", golden.FOURIER_UNIT_CASES)
def test_golden(name, reference):
    arguments, weights, tensors = golden.load_case(reference, name)
    unit = FourierUnit(**arguments, dtype=torch.float64)
    golden.assert_reproduces(unit, weights, tensors)


@pytest.mark.parametrize("size", SIZES)
def test_identity_weights_keep_what_relu_keeps(size):
    """Both signs of each part in channels of their own: relu(s) - relu(-s) = s, so nothing is lost."""
    eye = torch.eye(4, dtype=torch.float64)
    unit = _linear(FourierUnit(2, 4, dtype=torch.float64), torch.cat([eye, -eye]))
    x = torch.randn(1, 2, *size, dtype=torch.float64)
    y = unit(x)
    torch.testing.assert_close(y[:, :2] - y[:, 2:], x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(7, 8), (6, 5)])
def test_complex_linear_weights_commute_with_shifts(size):
    a, b = torch.randn(2, 3, 3, dtype=torch.float64)
    rows = torch.stack([torch.stack([a, -b], -1), torch.stack([b, a], -1)], 1)  # (C_out, part, C_in, part)
    blocks = rows.reshape(6, 6)
    unit = _linear(FourierUnit(3, 6, dtype=torch.float64), torch.cat([blocks, -blocks]))
    x = torch.randn(1, 3, *size, dtype=torch.float64)

    def linear(x):
        y = unit(x)
        return y[:, :3] - y[:, 3:]

    shift = {"shifts": (2, 3), "dims": (-2, -1)}
    torch.testing.assert_close(linear(x.roll(**shift)), linear(x).roll(**shift), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(6, 6), (5, 7)])
def test_every_output_depends_on_every_input_pixel(size):
    unit = FourierUnit(4, 4, dtype=torch.float64).eval()
    oracles.randomise_norms(unit)
    x = torch.randn(1, 4, *size, dtype=torch.float64, requires_grad=True)
    for output in unit(x).sum(1).flatten():
        (grad,) = torch.autograd.grad(output, x, retain_graph=True)
        assert (grad.abs().sum(1) > 1e-9).all()


@pytest.mark.parametrize("unit", [FourierUnit, LocalFourierUnit])
def test_samples_are_independent_in_eval(unit):
    module = unit(4, 4, dtype=torch.float64).eval()
    x = torch.randn(3, 4, 5, 6, dtype=torch.float64)
    torch.testing.assert_close(module(x)[1:2], module(x[1:2]), rtol=0, atol=1e-14)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("size", [(3, 4), (1, 3)])
@pytest.mark.parametrize("unit", [FourierUnit, LocalFourierUnit])
def test_gradcheck(unit, size, training):
    module = unit(4, 2, dtype=torch.float64).train(training)
    module.bn.momentum = 0.0
    x = torch.randn(2, 4, *size, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_input_is_transformed_in_float32(dtype):
    torch.manual_seed(0)
    unit = FourierUnit(4, 4).eval()
    x = torch.randn(2, 4, 9, 7).to(dtype)
    y = copy.deepcopy(unit).to(dtype)(x)
    assert y.dtype == dtype
    # One rounding: the two may take different ways, whose last bits differ.
    torch.testing.assert_close(y, unit(x.float()).to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_parameters_stay_float32_in_a_half_precision_network(dtype):
    unit = nn.Sequential(FourierUnit(4, 4)).to(dtype)
    assert {p.dtype for p in unit.parameters()} == {torch.float32}
    assert unit.double()[0].conv.weight.dtype == torch.float64


def test_float16_autocast_holds_a_constant_map_of_ten_thousand():
    unit = FourierUnit(2, 2).eval()
    x = torch.full((1, 2, 256, 256), 1e4)
    with torch.autocast("cpu", torch.float16):
        y = unit(x)
    torch.testing.assert_close(y, unit(x), rtol=5e-3, atol=5e-3 * 1e4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((6, 8, 4), "groups=4 must divide in_channels=6"),
        ((8, 6, 4), "groups=4 must divide out_channels=6"),
        ((8, 8, 0), "groups=0 must divide in_channels=8"),
        ((0, 8), "in_channels=0 must be positive"),
    ],
)
def test_raises(arguments, message):
    with pytest.raises(ValueError, match=message):
        FourierUnit(*arguments)
