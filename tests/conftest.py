"""Shared by all tests: fixed seeds, two threads, and the reference data where it is at hand."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

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


@pytest.fixture(autouse=True)
def _exact_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default cuDNN rounds the operands of float32 convolutions to ten bits, each algorithm in its way."""
    if torch.cuda.is_available():
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture
def fill_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on, what is written does not fit on the disk."""

    def refuse(descriptor: int) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return lambda: monkeypatch.setattr(os, "fsync", refuse)


@pytest.fixture
def reference() -> Path:
    """The folder with ``golden/`` and ``data/``; use together with ``@pytest.mark.reference``."""
    return REFERENCE
