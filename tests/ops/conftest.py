"""What tests of the compiled library's calls share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from ffconv.ops import native


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Sizes of the maps that went the short way."""
    made: list[tuple[int, ...]] = []
    run = native.Convolution.__call__

    def counted(self: native.Convolution, x: Tensor, *others: Tensor | None) -> Tensor:
        made.append(tuple(x.shape))
        return run(self, x, *others)

    monkeypatch.setattr(native.Convolution, "__call__", counted)
    return made


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)
