"""Shared by all tests: fixed seeds, two threads, and the reference data where it is at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

REFERENCE = Path(os.environ.get("FFCONV_REFERENCE", Path(__file__).resolve().parents[2] / "shared"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    no_gpu = pytest.mark.skip(reason="no CUDA device on this machine")
    no_reference = pytest.mark.skip(reason=f"no reference data at {REFERENCE} (set FFCONV_REFERENCE)")
    for item in items:
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(no_gpu)
        if "reference" in item.keywords and not REFERENCE.is_dir():
            item.add_marker(no_reference)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def reference() -> Path:
    """The folder with ``golden/`` and ``data/``; use together with ``@pytest.mark.reference``."""
    return REFERENCE
