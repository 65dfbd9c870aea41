"""The kernels against explicit DFT matrices; run by test_kernels.py, in a process of its own.

On the CPU by Triton's interpreter, which must be chosen before the kernels are made, else on a GPU.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import oracles
from ffconv.backends import triton
from ffconv.dispatch import FFTBackend, fft_backend, irfftn, rfftn
from ffconv.nn import FourierUnit, SpectralTransform

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
torch.backends.cudnn.allow_tf32 = False  # rounded operands would hide what the kernels are off by
# What three TF32 products and the sums of matrix units are off by is more than the interpreter's float32.
EXACT = 1e-6 if DEVICE == "cpu" else 1e-5
IMAGE = (2, 3)
SIZES = [(1, 1), (2, 5), (7, 4), (20, 33), (3, 65), (36, 3)]


def noise(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(DEVICE, dtype)


def as_parts(spectrum: Tensor) -> Tensor:
    return torch.complex(spectrum[:, 0::2].double(), spectrum[:, 1::2].double()).cpu()


def off(ours: Tensor, expected: Tensor) -> float:
    """Largest error over the largest value."""
    with torch.no_grad():
        return float((ours.cpu().to(expected.dtype) - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("size", SIZES)
def test_forward(size: tuple[int, int]) -> None:
    x = noise(2, 3, *size)
    assert off(as_parts(triton.rfft2(x)), oracles.rfftn(x.cpu().double())) < EXACT


@pytest.mark.parametrize("size", SIZES)
def test_inverse_of_a_spectrum_that_is_not_hermitian(size: tuple[int, int]) -> None:
    spectrum = noise(2, 6, size[0], size[1] // 2 + 1)
    expected = oracles.irfftn(as_parts(spectrum), IMAGE, size[1])
    assert off(triton.irfft2(spectrum, size[1]), expected) < EXACT


@pytest.mark.parametrize(("compute", "tolerance"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
def test_half_precision_operands(compute: torch.dtype, tolerance: float) -> None:
    x, spectrum = noise(1, 2, 9, 14), noise(1, 4, 9, 8)
    there, back = triton.rfft2(x, compute=compute), triton.irfft2(spectrum, 14, compute=compute)
    assert there.dtype == back.dtype == compute
    assert 1e-5 < off(as_parts(there), oracles.rfftn(x.cpu().double())) < tolerance
    assert 1e-5 < off(back, oracles.irfftn(as_parts(spectrum), IMAGE, 14)) < tolerance


def test_a_half_precision_map_is_transformed_in_float32() -> None:
    x = noise(1, 2, 6, 5, dtype=torch.bfloat16)
    spectrum = triton.rfft2(x)
    assert spectrum.dtype == torch.float32
    assert off(as_parts(spectrum), oracles.rfftn(x.cpu().double())) < EXACT


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.to(memory_format=torch.channels_last),
        lambda x: x[:, ::2, :, 1:],
        lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    ],
)
def test_memory_layout_does_not_matter(view: Callable[[Tensor], Tensor]) -> None:
    x = view(noise(2, 4, 5, 8))
    assert torch.equal(triton.rfft2(x), triton.rfft2(x.contiguous()))


def test_inner_columns_are_weighted() -> None:
    x, spectrum = noise(1, 2, 3, 6), noise(1, 4, 3, 4)
    weights = torch.tensor([1.0, 0.25, 0.25, 1.0], device=DEVICE)
    torch.testing.assert_close(triton.rfft2(x, inner=0.25), triton.rfft2(x) * weights)
    torch.testing.assert_close(triton.irfft2(spectrum, 6, inner=0.25), triton.irfft2(spectrum * weights, 6))


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("with_residual", [False, True])
def test_what_is_done_on_the_way(relu: bool, normed: bool, with_residual: bool) -> None:
    spectrum = noise(2, 4, 5, 4)
    scale, shift, residual = noise(4), noise(4) + 0.3, noise(2, 2, 5, 7)
    y = triton.irfft2(
        spectrum,
        7,
        norm=(scale, shift) if normed else None,
        relu=relu,
        residual=residual if with_residual else None,
    )
    changed = spectrum * scale[:, None, None] + shift[:, None, None] if normed else spectrum
    expected = oracles.irfftn(as_parts(changed.relu() if relu else changed), IMAGE, 7)
    assert off(y, expected + residual.cpu().double() if with_residual else expected) < EXACT


@pytest.mark.parametrize("size", [(3, 4), (4, 3), (1, 1)])
def test_gradients(size: tuple[int, int]) -> None:
    x, grad = noise(1, 2, *size), noise(1, 2, *size) + 1

    def gradient(x: Tensor, backend: FFTBackend) -> Tensor:
        x = x.requires_grad_()
        with fft_backend(backend):
            y = irfftn(rfftn(x, IMAGE).square(), IMAGE, size[1])
        return torch.autograd.grad(y, x, grad.to(x))[0]

    expected = gradient(x.detach().double(), "torch")
    assert off(gradient(x.clone(), "triton"), expected.cpu()) < 10 * EXACT


@pytest.mark.parametrize(("axes", "size"), [((2,), (9,)), ((3, 4), (2, 6, 5)), ((2, 3, 4), (2, 3, 4))])
def test_other_axes(axes: tuple[int, ...], size: tuple[int, ...]) -> None:
    x = noise(2, 3, *size)
    with fft_backend("triton"):
        spectrum = rfftn(x, axes)
        back = irfftn(spectrum, axes, size[axes[-1] - 2])
    assert off(as_parts(spectrum), oracles.rfftn(x.cpu().double(), axes)) < EXACT
    torch.testing.assert_close(back, x, rtol=0, atol=10 * EXACT)


@pytest.mark.parametrize("size", [(4, 6), (129, 2)])
def test_a_compiler_is_told_the_layout_that_comes(size: tuple[int, int]) -> None:
    x = noise(2, 3, *size)
    spectrum = triton.rfft2(x) if max(size) < 129 else noise(2, 6, size[0], size[1] // 2 + 1)
    torch.library.opcheck(torch.ops.ffconv.rfftn, (x, IMAGE, "triton", 1.0))
    torch.library.opcheck(torch.ops.ffconv.irfftn, (spectrum, IMAGE, size[1], "triton", 1.0))


def test_the_fused_unit_tells_a_compiler_its_layout() -> None:
    arguments = (noise(1, 2, 4, 6), noise(6, 4), noise(6), noise(6))
    torch.library.opcheck(torch.ops.ffconv.fourier_unit, arguments, test_utils="test_schema")
    torch.library.opcheck(torch.ops.ffconv.fourier_unit, arguments, test_utils="test_faketensor")


@pytest.fixture
def unit() -> FourierUnit:
    unit = FourierUnit(3, 4).eval().to(DEVICE)
    oracles.randomise_norms(unit)
    return unit


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Sizes of the maps for which kernels computed a whole unit."""
    sizes: list[tuple[int, ...]] = []
    run = triton.fourier_unit

    def counting(x: Tensor, *args: Tensor) -> Tensor:
        sizes.append(tuple(x.shape))
        return run(x, *args)

    monkeypatch.setattr(triton, "fourier_unit", counting)
    return sizes


@pytest.mark.parametrize("size", [(7, 6), (1, 1)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 10 * EXACT), (torch.bfloat16, 1e-2)])
def test_a_unit_in_inference_is_fused(
    unit: FourierUnit,
    size: tuple[int, int],
    dtype: torch.dtype,
    tolerance: float,
    fused: list[tuple[int, ...]],
) -> None:
    x = noise(2, 3, *size, dtype=dtype)
    with torch.no_grad(), fft_backend("triton"):
        y = unit(x)
    assert fused == [tuple(x.shape)]
    assert y.dtype == dtype
    assert off(y, oracles.fourier_unit(copy.deepcopy(unit).cpu().double(), x.cpu().double())) < tolerance


def test_a_unit_under_autocast_mixes_in_half_precision(
    unit: FourierUnit, fused: list[tuple[int, ...]]
) -> None:
    x = noise(2, 3, 6, 5)
    expected = oracles.fourier_unit(copy.deepcopy(unit).cpu().double(), x.cpu().double())
    with torch.no_grad(), fft_backend("triton"), torch.autocast(DEVICE, torch.bfloat16):
        y = unit(x)
    assert len(fused) == 1
    assert 1e-5 < off(y, expected) < 2e-2


@pytest.mark.parametrize(
    "change",
    [
        lambda unit: unit.train(),
        lambda unit: unit.bn.register_forward_hook(lambda *_: None),
        lambda unit: setattr(unit, "conv", torch.nn.Conv2d(6, 8, 1, device=DEVICE)),
        lambda unit: torch.set_grad_enabled(True),
    ],
    ids=["training", "hook", "bias", "gradient"],
)
def test_a_unit_that_is_not_fused_computes_the_same(
    unit: FourierUnit, change: Callable[[FourierUnit], Any], fused: list[tuple[int, ...]]
) -> None:
    x = noise(2, 3, 6, 5)
    with torch.no_grad():
        change(unit)
        with fft_backend("triton"):
            y = copy.deepcopy(unit)(x)
        with fft_backend("torch"):
            torch.testing.assert_close(y, unit(x), rtol=1e-4, atol=1e-5)
    assert not fused


def test_a_spectral_transform_trains() -> None:
    transform = SpectralTransform(8, 8).to(DEVICE)
    twin, x = copy.deepcopy(transform), noise(2, 8, 6, 7)
    with fft_backend("triton"):
        F.mse_loss(transform(x), x).backward()
    with fft_backend("torch"):
        F.mse_loss(twin(x), x).backward()
    for ours, expected in zip(transform.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, expected.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("train", [False, True])
def test_a_compiler_takes_a_network_as_one_graph(train: bool) -> None:
    network = torch.nn.Sequential(SpectralTransform(8, 8), torch.nn.ReLU()).to(DEVICE).train(train)
    network = network.to(memory_format=torch.channels_last)
    x = noise(2, 8, 6, 7).to(memory_format=torch.channels_last)
    torch.compiler.reset()
    compiled = torch.compile(copy.deepcopy(network), fullgraph=True, backend="aot_eager")
    with fft_backend("triton"), torch.set_grad_enabled(train):
        torch.testing.assert_close(compiled(x), network(x), rtol=1e-4, atol=1e-5)
