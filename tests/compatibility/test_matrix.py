"""Every cell of the compatibility matrix; docs/compatibility.md is made of the same rows."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

from compatibility.families import FAMILIES, Family
from compatibility.matrix import ROWS, Row
from compatibility.table import with_table

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"


def _cells() -> list:
    return [
        pytest.param(
            row,
            family,
            id=f"{row.check.__name__}-{family.name}",
            marks=[] if row.quick is None or family.name in row.quick else [pytest.mark.slow],
        )
        for row in ROWS
        for family in FAMILIES
    ]


@pytest.mark.parametrize(("row", "family"), _cells())
def test_cell(row: Row, family: Family) -> None:
    limit = row.limits.get(family.name)
    with warnings.catch_warnings():
        # A trace is of one size, and torch says so wherever the size is read.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        # torch's own operations that torch.func.vmap takes one example at a time.
        warnings.filterwarnings("ignore", "There is a performance drop.* batching rule for aten::")
        # Said of the gradients of torch's own depthwise convolutions.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        if limit is None:
            row.check(family)
        else:
            with pytest.raises(limit.error, match=limit.message):
                row.check(family)


def test_the_page_holds_the_table_of_these_rows() -> None:
    page = PAGE.read_text()
    assert page == with_table(page), "write it anew: cd tests && python -m compatibility.table"
