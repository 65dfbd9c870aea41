"""3x3 convolutions of the one call by tiles of pixels, against the layer's parts one by one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ffconv.nn import FFC2d, native
from ffconv.surgery import fuse
from single_ffc import CHANNELS, Shortcut, by_parts, image, layer

pytestmark = pytest.mark.skipif(not native.available(), reason="no C++ compiler on this machine")


def many(*size: int) -> Tensor:
    """Images enough for their tiles to be worth packing the weights for."""
    return image(*size, number=64)


def makes_tiles(ffc: nn.Module, x: Tensor) -> bool:
    """Whether sums and differences of a value's products are taken: of an infinite one they are no numbers,
    where a product alone is infinite.
    """
    x = x.clone(memory_format=torch.preserve_format)
    x[:, 0, 1, 1] = torch.inf
    with torch.no_grad():
        return bool(ffc(x)[:, :, 0, 0].isnan().any())


@pytest.mark.parametrize("geometry", [(3, 1, 1), (3,), (3, 1, 2), (3, 1, (0, 4)), (3, 1, "same")], ids=str)
@pytest.mark.parametrize("size", [(3, 3), (4, 4), (5, 8), (9, 6), (7, 7)], ids=str)
def test_small_maps(size: tuple[int, int], geometry: tuple[Any, ...], calls: list) -> None:
    ffc, x = layer(*geometry, lfu=False), many(*size)
    with torch.no_grad():
        torch.testing.assert_close(ffc(x), by_parts(ffc, x), atol=1e-11, rtol=1e-11)
    assert len(calls) == 1


@pytest.mark.parametrize("size", [(2, 2), (1, 2), (2, 1), (2, 5)], ids=str)
def test_maps_no_larger_than_a_tile(size: tuple[int, int]) -> None:
    ffc, x = layer(3, 1, 1), image(*size, number=500)
    with torch.no_grad():
        torch.testing.assert_close(ffc(x), by_parts(ffc, x), atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize(
    "options",
    [
        {"ratio": 0.25},
        {"ratio": 0.75},
        {"ratio": 1.0},
        {"ratio_in": 1.0, "ratio_out": 0.5},
        {"ratio_in": 0.5, "ratio_out": 1.0},
        {"ratio_in": 0.0, "ratio_out": 0.5},
        {"ratio": 0.0},
        {"local_to_global": False},
        {"global_to_local": False},
        {"lfu": False, "bias": False},
        {"padding_mode": "reflect"},
        {"padding_mode": "circular"},
    ],
    ids=str,
)
@pytest.mark.parametrize("channels", [CHANNELS, (24, 128), (24, 19)], ids=str)
def test_options(channels: tuple[int, int], options: dict[str, Any]) -> None:
    ffc, x = layer(3, 1, 1, channels=channels, **options), image(15, 14)
    with torch.no_grad():
        torch.testing.assert_close(ffc(x), by_parts(ffc, x), atol=1e-11, rtol=1e-11)


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("number", [1, 3, 4])
@pytest.mark.parametrize("channels", [CHANNELS, (24, 128), (24, 24)], ids=str)
@pytest.mark.parametrize("size", [(15, 14), (5, 131), (33, 28)], ids=str)
@pytest.mark.parametrize("keep", [False, True])
def test_threads_share_images_rows_and_panels(
    keep: bool, size: tuple[int, int], channels: tuple[int, int], number: int
) -> None:
    ffc, x = layer(3, 1, 1, channels=channels), image(*size, number=number)
    network: nn.Module = fuse(nn.Sequential(ffc)) if keep else ffc
    with torch.no_grad():
        torch.testing.assert_close(network(x), by_parts(ffc, x), atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("ratio_out", [0.0, 0.25])
@pytest.mark.parametrize("size", [(15, 15), (8, 60)], ids=str)
def test_a_shortcut_is_added_before_the_relu(size: tuple[int, int], ratio_out: float, calls: list) -> None:
    ffc, x = layer(3, 1, 1, ratio_out=ratio_out), image(*size)
    other = torch.randn(len(x), CHANNELS[1], *size, dtype=x.dtype).to(memory_format=torch.channels_last)
    before = other.clone()
    y = fuse(Shortcut(ffc))(x, other)
    assert len(calls) == 1
    torch.testing.assert_close(y, nn.functional.relu(by_parts(ffc, x) + other), atol=1e-11, rtol=1e-11)
    assert torch.equal(other, before)


def test_a_relu_keeps_what_is_no_number() -> None:
    ffc, x = layer(3, 1, 1, ratio=0), image(15, 15)
    x[0, 0, 7, 7] = torch.nan
    y = fuse(nn.Sequential(ffc, nn.ReLU()))(x)
    assert y[0, :, 6:9, 6:9].isnan().all()
    assert y[1].isfinite().all()


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("number", [1, 2])
def test_weights_that_change_are_followed(number: int, keep: bool) -> None:
    ffc, x = layer(3, 1, 1).to(memory_format=torch.channels_last), image(15, 15, number=number)
    network: nn.Module = fuse(nn.Sequential(ffc)) if keep else ffc
    with torch.no_grad():
        network(x)
        for tensor in ffc.parameters():
            tensor.mul_(1.5)
        if keep:
            network.load_state_dict(fuse(nn.Sequential(ffc)).state_dict())
        torch.testing.assert_close(network(x), by_parts(ffc, x), atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("seed", range(3))
def test_they_are_as_exact_as_a_convolution(seed: int) -> None:
    torch.manual_seed(seed)
    ffc = FFC2d(64, 64, 3, padding=1, ratio=0).eval()
    x = torch.randn(1, 64, 28, 28).to(memory_format=torch.channels_last)
    assert makes_tiles(ffc, x)
    with torch.no_grad():
        y, by_torch = ffc(x), by_parts(ffc, x)
        exact = by_parts(ffc.double(), x.double())
    assert (y - exact).norm() < 1.5 * (by_torch - exact).norm()


@pytest.mark.parametrize(
    ("geometry", "size", "number", "expected"),
    [
        ((3, 1, 1), (14, 14), 1, True),
        ((3, 1, 1), (12, 12), 1, False),
        ((3, 1, 1), (12, 12), 2, True),
        ((3, 2, 1), (28, 28), 2, False),
        ((3, (1, 2), 1), (28, 28), 2, False),
        ((3, 1, 2, 2), (28, 28), 2, False),
        ((5, 1, 2), (28, 28), 2, False),
        (((3, 1), 1, (1, 0)), (28, 28), 2, False),
    ],
    ids=str,
)
def test_where_they_are_made(
    geometry: tuple[Any, ...], size: tuple[int, int], number: int, expected: bool
) -> None:
    assert makes_tiles(layer(*geometry, ratio=0), image(*size, number=number)) == expected


def test_of_few_channels_they_are_not_made() -> None:
    assert not makes_tiles(layer(3, 1, 1, channels=(24, 3), ratio=0), image(28, 28))


def test_weights_that_stay_packed_suit_any_number_of_images() -> None:
    ffc = layer(3, 1, 1, ratio=0)
    network = fuse(nn.Sequential(ffc))
    for number in (1, 8, 2):
        x = image(12, 12, number=number)
        assert not makes_tiles(network, x)
        torch.testing.assert_close(network(x), by_parts(ffc, x))
