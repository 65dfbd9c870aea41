"""Seeds that depend on what is drawn for."""

from __future__ import annotations

import random

import numpy as np
import torch

from ffconv.data.seeding import borrowed_randomness, derive_seed, permutation


def test_seed_is_the_same_on_every_machine():
    assert derive_seed(0, "sample", 1, 2) == 3589256729514015514


def test_seed_depends_on_every_part_and_their_order():
    seeds = {derive_seed(*parts) for parts in [(1, 2), (2, 1), (12,), (1, 2, 0), ("1", 2), (1, "2")]}
    assert len(seeds) == 6


def test_permutation_holds_every_number_once():
    assert sorted(permutation(100, 3, "x")) == list(range(100))


def test_permutation_depends_on_its_parts():
    assert permutation(100, 0).tolist() == permutation(100, 0).tolist() != permutation(100, 1).tolist()


def test_borrowed_randomness_is_reproducible_and_given_back():
    def draw() -> tuple[float, float, float]:
        return random.random(), np.random.random(), torch.rand(()).item()  # noqa: NPY002

    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    expected = [draw(), draw()]
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    first = draw()
    with borrowed_randomness() as seed_everything:
        seed_everything(7)
        borrowed = draw()
        seed_everything(7)
        assert draw() == borrowed
    assert [first, draw()] == expected
