"""Randomness as a function of what is drawn for, never of what was drawn before."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive_seed(*parts: int | str) -> int:
    """A seed in [0, 2^63) that depends on all parts and their order, the same on every machine.

    Example:
        >>> derive_seed(0, "epoch", 1) == derive_seed(0, "epoch", 1) != derive_seed(0, "epoch", 2)
        True
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def permutation(total: int, *parts: int | str) -> np.ndarray:
    """The numbers 0 .. total - 1 in an order that depends on the parts alone, (total,) int64."""
    generator = torch.Generator().manual_seed(derive_seed(*parts))
    return torch.randperm(total, generator=generator).numpy()


def seed_everything(seed: int) -> None:
    """Seeds Python's, NumPy's and torch's CPU generators (no accelerator's)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  transforms of others draw from the global generator
    torch.default_generator.manual_seed(seed)


@contextmanager
def borrowed_randomness() -> Iterator[Callable[[int], None]]:
    """Gives ``seed_everything`` for use inside the block; puts the generators' states back after it."""
    python, numpy, torch_ = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        yield seed_everything
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(torch_)
