"""3x3 convolutions in training by tiles, against torch's operations."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ffconv.nn import FFC2d, FFC3d, native, fft_backend
from single_ffc import layer

pytestmark = pytest.mark.skipif(not native.available(), reason="no C++ compiler on this machine")
close = functools.partial(torch.testing.assert_close, atol=1e-10, rtol=1e-10)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Sizes of the maps of whose weights a gradient was made by tiles."""
    made: list[tuple[int, ...]] = []
    run = native.Convolution.weight_gradients

    def counted(self: native.Convolution, x: Tensor, grad: Tensor) -> list[Tensor | None]:
        made.append(tuple(x.shape))
        return run(self, x, grad)

    monkeypatch.setattr(native.Convolution, "weight_gradients", counted)
    return made


def image(*size: int, number: int = 2, channels: int = 24) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(number, channels, *size, dtype=torch.float64, generator=generator)
    return x.contiguous(memory_format=torch.channels_last).requires_grad_()


def step(ffc: nn.Module, x: Tensor) -> list[Tensor]:
    """The result, and the gradients of x and of all parameters."""
    y = ffc(x)
    factors = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    inputs = [one for one in (x, *ffc.parameters()) if one.requires_grad]
    return [y, *torch.autograd.grad((y * factors).sum(), inputs)]


def assert_same(ffc: nn.Module, x: Tensor) -> None:
    found = step(ffc, x)
    with fft_backend("fft"):
        expected = step(ffc, x)
    close(found, expected)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ratio": 0.75},
        {"ratio": 0.3},
        {"ratio": 0.0},
        {"ratio_in": 0.0, "ratio_out": 0.5},
        {"ratio_in": 1.0, "ratio_out": 0.0},
        {"bias": False},
        {"padding_mode": "reflect"},
        {"padding_mode": "circular", "ratio": 0.75},
    ],
    ids=str,
)
@pytest.mark.parametrize("channels", [(24, 40), (24, 128), (72, 24)], ids=str)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_options(
    memory_format: torch.memory_format, channels: tuple[int, int], options: dict[str, Any], calls: list
) -> None:
    ffc = layer(3, 1, 1, channels=channels, **options).to(memory_format=memory_format)
    assert_same(ffc, image(15, 14, channels=channels[0]))
    assert len(calls) == 1


@pytest.mark.parametrize("geometry", [(3, 1, 1), (3,), (3, 1, 2), (3, 1, (0, 4)), (3, 1, "same")], ids=str)
@pytest.mark.parametrize("size", [(4, 4), (5, 5), (5, 8), (9, 6)], ids=str)
def test_small_maps(size: tuple[int, int], geometry: tuple[Any, ...], calls: list) -> None:
    assert_same(layer(*geometry, lfu=False), image(*size, number=64))
    assert len(calls) == 1


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("size", [(5, 131), (33, 28)], ids=str)
def test_threads_share_tiles_and_points(size: tuple[int, int], calls: list) -> None:
    assert_same(layer(3, 1, 1), image(*size))
    assert len(calls) == 1


@pytest.mark.parametrize(
    "options", [{"local_to_global": False}, {"global_to_local": False}, {"ratio": 1.0}], ids=str
)
def test_other_paths_go_by_torch(options: dict[str, Any], calls: list) -> None:
    assert_same(layer(3, 1, 1, **options), image(15, 14))
    assert not calls


@pytest.mark.parametrize("geometry", [(1,), (5, 1, 2), (3, 2, 1), (3, 1, 2, 2)], ids=str)
def test_other_geometries_go_by_torch(geometry: tuple[Any, ...], calls: list) -> None:
    assert_same(layer(*geometry), image(15, 14))
    assert not calls


def test_contiguous_maps_stay_so(calls: list) -> None:
    x = image(15, 14).detach().contiguous().requires_grad_()
    y = layer(3, 1, 1, ratio=0)(x)
    y.sum().backward()
    assert y.is_contiguous()
    assert not calls


def test_few_small_maps_go_by_torch(calls: list) -> None:
    assert_same(layer(3, 1, 1), image(8, 8))
    assert not calls


@pytest.mark.parametrize("kept", ["weight_l2l", "weight_l2g", "bias", "x"])
def test_gradients_of_some_tensors(kept: str) -> None:
    ffc, x = layer(3, 1, 1), image(15, 14)
    x.requires_grad_(kept == "x")
    for name, parameter in ffc.named_parameters():
        parameter.requires_grad_(name == kept)
    assert_same(ffc, x)


def test_second_derivatives() -> None:
    ffc = FFC2d(32, 32, 3, padding=1, ratio_out=0).double().to(memory_format=torch.channels_last)
    x = image(15, 14, channels=32)

    def second() -> tuple[Tensor, ...]:
        inputs = (x, *ffc.parameters())
        (of_x,) = torch.autograd.grad(ffc(x).square().sum(), x, create_graph=True)
        return torch.autograd.grad(of_x.square().sum(), inputs)

    found = second()
    with fft_backend("fft"):
        close(found, second())


def test_changed_weights_are_noticed() -> None:
    ffc, x = layer(3, 1, 1), image(15, 14)
    y = ffc(x)
    with torch.no_grad():
        next(ffc.parameters()).mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_frames_of_clips(calls: list) -> None:
    torch.manual_seed(0)
    ffc = FFC3d(24, 40, (1, 3, 3), padding=(0, 1, 1)).double()
    x = torch.randn(2, 24, 3, 9, 8, dtype=torch.float64, requires_grad=True)
    assert_same(ffc, x)
    assert calls == [(6, 24, 9, 8)]


@pytest.mark.parametrize("number", [1, 32])
def test_they_are_exact(number: int) -> None:
    torch.manual_seed(0)
    ffc, x = FFC2d(64, 64, 3, padding=1, ratio=0), image(28, 28, number=number, channels=64)
    with fft_backend("fft"):
        exact = step(ffc.double(), x)
    found = step(ffc.float(), x.detach().float().requires_grad_())
    for one, known in zip(found, exact, strict=True):
        assert (one - known).norm() < 1e-6 * known.norm()
