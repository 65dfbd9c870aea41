"""Drawn holes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from ffconv.data.loading import LoaderSpec, eval_batches, train_batches
from ffconv.data.masks import MaskConfig, PrepareHoles, draw_mask
from ffconv.data.transforms import ImageTransformConfig, eval_transform
from ffconv.errors import InputError

KINDS = ("thin", "medium", "thick")


def holes(kind: str, count: int = 60, size: tuple[int, int] = (64, 96)) -> np.ndarray:
    return np.stack([draw_mask(*size, kind, np.random.default_rng(number)) for number in range(count)])  # type: ignore


class Greys:
    """Twelve images of one grey each."""

    classes = ()

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int):
        return Image.new("RGB", (32, 32), (20 * index,) * 3), -1


def prepare(*, fixed: bool, kinds: tuple = KINDS) -> PrepareHoles:
    sizes = ImageTransformConfig(
        train_size=32, eval_short_side=32, eval_size=32, mean=(0, 0, 0), std=(1, 1, 1)
    )
    return PrepareHoles(eval_transform(sizes), MaskConfig(kinds), fixed=fixed)


def radius(hole: np.ndarray) -> int:
    """How often a hole can be eaten away by a pixel from all sides before nothing is left."""
    steps = 0
    while hole.any():
        inside = np.pad(hole, 1)
        hole = hole & inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
        steps += 1
    return steps


@pytest.mark.parametrize("kind", KINDS)
def test_a_hole_is_neither_empty_nor_more_than_half(kind: str):
    shares = holes(kind).mean((1, 2))
    assert shares.min() > 0
    assert shares.max() <= 0.5


def test_thick_holes_reach_deeper_than_medium_and_thin_ones():
    thin, medium, thick = (np.mean([radius(hole) for hole in holes(kind)]) for kind in KINDS)
    assert thin < 0.7 * medium
    assert medium < 0.8 * thick


def test_sizes_follow_the_image():
    small, large = (
        np.mean([radius(hole) for hole in holes("medium", 20, size)]) for size in ((64, 64), (256, 256))
    )
    assert large == pytest.approx(4 * small, rel=0.25)


def test_some_masks_are_boxes():
    boxes = [hole for hole in holes("thick", 60) if hole.any(0).sum() * hole.any(1).sum() == hole.sum()]
    assert len(boxes) >= 3


def test_a_mask_follows_its_generator():
    first, again, other = (draw_mask(64, 64, "thick", np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_side_below_16_is_refused():
    with pytest.raises(InputError, match="mask of 64x12 px"):
        draw_mask(12, 64, "thin", np.random.default_rng(0))


@pytest.mark.parametrize("kinds", [(), ("thin", "thin"), ("wide",)])
def test_unknown_missing_or_doubled_kinds_are_refused(kinds: tuple):
    with pytest.raises(InputError, match=r"masks\.kinds="):
        MaskConfig(kinds)


def test_evaluation_draws_the_same_holes_whatever_the_seed():
    first, second = (
        next(iter(eval_batches(Greys(), prepare(fixed=True), spec=LoaderSpec(12, seed=seed))))
        for seed in (0, 1)
    )
    assert torch.equal(first["mask"], second["mask"])


def test_evaluation_takes_the_kinds_in_turn():
    (batch,) = eval_batches(Greys(), prepare(fixed=True), spec=LoaderSpec(12))
    assert batch["kind"].tolist() == [0, 1, 2] * 4


def test_training_draws_other_holes_in_each_epoch():
    first, second = (
        next(iter(train_batches(Greys(), prepare(fixed=False), spec=LoaderSpec(12), epoch=epoch)))
        for epoch in (0, 1)
    )
    order = [batch["index"].argsort() for batch in (first, second)]
    assert not torch.equal(first["mask"][order[0]], second["mask"][order[1]])


def test_training_holes_do_not_depend_on_the_workers():
    alone, shared = (
        list(train_batches(Greys(), prepare(fixed=False), spec=LoaderSpec(4, workers=workers), epoch=2))
        for workers in (0, 2)
    )
    for a, b in zip(alone, shared, strict=True):
        assert torch.equal(a["mask"], b["mask"])


def test_training_draws_every_kind():
    batches = train_batches(Greys(), prepare(fixed=False), spec=LoaderSpec(12), epoch=0)
    assert set(next(iter(batches))["kind"].tolist()) == {0, 1, 2}


def test_the_image_is_left_whole():
    (batch,) = eval_batches(Greys(), prepare(fixed=True), spec=LoaderSpec(12))
    expected = (20 * torch.arange(12) / 255)[:, None, None, None].expand(12, 3, 32, 32)
    torch.testing.assert_close(batch["image"], expected)
