"""Under float16 autocast spectra are scaled by their size, which a compiler must take for a variable."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.utils import counters

from compatibility.families import FAMILIES

_BY_NAME = {family.name: family for family in FAMILIES}


@pytest.mark.parametrize("name", ["FFC1d", "FFC2d", "LaMa, all options"])
def test_one_graph_for_all_sizes(name: str) -> None:
    family = _BY_NAME[name]
    network = family.network().eval()
    torch.compiler.reset()
    counters.clear()
    compiled = torch.compile(network, fullgraph=True, dynamic=True, backend="eager")
    with torch.no_grad(), torch.autocast("cpu", torch.float16):
        for size in (*family.other_sizes, family.size[1:]):
            x = family.input(size)
            torch.testing.assert_close(compiled(x), network(x), rtol=1e-2, atol=1e-2)
    assert counters["stats"]["unique_graphs"] == 1
