"""What tests of the compiled library's calls share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from ffconv.nn import one_call


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Sizes of the maps of which a whole layer was made by one call."""
    made: list[tuple[int, ...]] = []
    run = one_call._Ready.run

    def counted(self: Any, x: Tensor, onto: Tensor | None) -> Tensor:
        made.append(tuple(x.shape))
        return run(self, x, onto)

    monkeypatch.setattr(one_call._Ready, "run", counted)
    return made


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)
