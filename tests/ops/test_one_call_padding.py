"""What the one call reads beyond a map's border, by taps and by tiles, against the parts one by one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from ffconv.nn import native
from ffconv.surgery import fuse
from single_ffc import by_parts, image, layer

pytestmark = [
    pytest.mark.skipif(not native.available(), reason="no C++ compiler on this machine"),
    pytest.mark.filterwarnings("ignore:Using padding='same'"),  # torch's own, of the parts
]

MODES = ["reflect", "replicate", "circular", ("reflect", "circular"), ("zeros", "replicate")]
FEW, MANY = 2, 64  # images: for so many, packing the weights for tiles pays


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize(
    "geometry",
    [
        (3, 1, 1),
        (3, 2, 1),
        (5, 1, 2),
        (7, 3, 3),
        (3, 1, 2, 2),
        (3, 1, 3),
        (3, 1, (0, 2)),
        ((3, 1), 1, (1, 0)),
        ((2, 4), (1, 2), 1),
        ((2, 4), 1, "same"),
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [(4, 5), (9, 8), (14, 7)], ids=str)
def test_by_taps(size: tuple[int, int], geometry: tuple[Any, ...], mode: Any, calls: list) -> None:
    ffc, x = layer(*geometry, padding_mode=mode), image(*size, number=FEW)
    with torch.no_grad():
        torch.testing.assert_close(ffc(x), by_parts(ffc, x), atol=1e-11, rtol=1e-11)
    assert calls == [tuple(x.shape)]  # the map itself


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("geometry", [(3, 1, 1), (3, 1, 3), (3, 1, (0, 2)), (3, 1, "same")], ids=str)
@pytest.mark.parametrize("size", [(4, 4), (4, 5), (9, 8), (7, 6)], ids=str)
def test_by_tiles(size: tuple[int, int], geometry: tuple[Any, ...], mode: Any, calls: list) -> None:
    ffc, x = layer(*geometry, padding_mode=mode, lfu=False), image(*size, number=MANY)
    with torch.no_grad():
        torch.testing.assert_close(ffc(x), by_parts(ffc, x), atol=1e-11, rtol=1e-11)
    assert calls == [tuple(x.shape)]


@pytest.mark.parametrize(
    ("mode", "size", "padding"),
    [
        ("replicate", (1, 1), 2),
        ("circular", (1, 1), 1),
        ("circular", (2, 3), 2),
        ("reflect", (2, 2), 1),
        ("reflect", (3, 4), 2),
        (("replicate", "reflect"), (1, 2), 1),
    ],
    ids=str,
)
@pytest.mark.parametrize("number", [FEW, 500])
def test_maps_no_larger_than_what_surrounds_them(
    number: int, mode: Any, size: tuple[int, int], padding: int
) -> None:
    ffc, x = layer(3, 1, padding, padding_mode=mode), image(*size, number=number)
    with torch.no_grad():
        torch.testing.assert_close(ffc(x), by_parts(ffc, x), atol=1e-11, rtol=1e-11)


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("number", [1, 4])
@pytest.mark.parametrize("keep", [False, True])
def test_threads_share_rows_and_panels(keep: bool, number: int) -> None:
    ffc, x = layer(3, 1, 1, padding_mode="reflect"), image(15, 14, number=number)
    network: nn.Module = fuse(nn.Sequential(ffc)) if keep else ffc
    with torch.no_grad():
        torch.testing.assert_close(network(x), by_parts(ffc, x), atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize(("mode", "padding"), [("reflect", 4), ("circular", 5)])
def test_a_map_too_small_is_refused_as_by_torch(mode: str, padding: int, calls: list) -> None:
    ffc, x = layer(3, 1, padding, padding_mode=mode), image(4, 4)
    with pytest.raises(RuntimeError, match=r"[Pp]adding") as by_torch:
        by_parts(ffc, x)
    with torch.no_grad(), pytest.raises(RuntimeError, match=r"[Pp]adding") as raised:
        ffc(x)
    assert raised.type is by_torch.type
    assert not calls
