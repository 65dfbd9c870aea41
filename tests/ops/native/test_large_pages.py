"""Large pages for results whose memory is new in each call."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from ffconv.nn import native
from single_ffc import layer

_REGIONS, _LARGE_PAGES = Path("/proc/self/smaps"), Path("/sys/kernel/mm/transparent_hugepage")

pytestmark = [
    pytest.mark.skipif(not native.available(), reason="no C++ compiler on this machine"),
    pytest.mark.skipif(not (_REGIONS.exists() and _LARGE_PAGES.exists()), reason="no large pages here"),
]


def asks_for_large_pages(x: Tensor) -> bool:
    """Whether the system was asked for them where the middle of x lies."""
    middle, inside = x.data_ptr() + x.nbytes // 2, False
    for line in _REGIONS.read_text().splitlines():
        name, *rest = line.split()
        if "-" in name:
            start, end = (int(number, 16) for number in name.split("-"))
            inside = start <= middle < end
        elif name == "VmFlags:" and inside:
            return "hg" in rest
    return False


@pytest.mark.parametrize(("side", "expected"), [(160, True), (32, False)])
def test_a_large_result_has_them(side: int, expected: bool) -> None:
    ffc = layer(1, channels=(2, 256), ratio=0.0)
    with torch.no_grad():
        y = ffc(torch.ones(1, 2, side, side, dtype=torch.float64).to(memory_format=torch.channels_last))
    assert asks_for_large_pages(y) == expected
