"""Data sets that need no file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from ffconv.data.embedded import Digits, FarMarks
from ffconv.errors import InputError


def pixels(samples, index: int) -> np.ndarray:
    return np.asarray(samples[index][0])


def test_splits_of_the_digits_are_all_digits_once():
    images = load_digits().images
    splits = (Digits("train", 8), Digits("val", 8))
    levels = np.stack([pixels(split, index)[..., 0] for split in splits for index in range(len(split))])
    restored = np.rint(levels * (16 / 255))
    assert sorted(map(np.ndarray.tobytes, restored)) == sorted(map(np.ndarray.tobytes, images))


def test_digits_keep_their_labels():
    digits = load_digits()
    label_of = {image.tobytes(): label for image, label in zip(digits.images, digits.target, strict=True)}
    samples = Digits("val", 8)
    for index in range(len(samples)):
        image, label = samples[index]
        assert label == label_of[np.rint(np.asarray(image)[..., 0] * (16 / 255)).tobytes()]


def test_every_digit_is_a_fifth_of_validation():
    train, val = (np.bincount(Digits(split).labels) for split in ("train", "val"))
    assert (val == (train + val) // 5).all()


def test_digits_are_enlarged():
    assert Digits("train", 40)[0][0].size == (40, 40)


def test_far_marks_depend_on_the_index_alone():
    forward, backward = FarMarks("train", 32), FarMarks("train", 32)
    first = [pixels(forward, index) for index in range(4)]
    second = [pixels(backward, index) for index in reversed(range(4))][::-1]
    np.testing.assert_array_equal(first, second)


def test_far_marks_of_the_splits_differ():
    assert not np.array_equal(pixels(FarMarks("train", 32), 0), pixels(FarMarks("val", 32), 0))


def marks(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions (M, 2) and colours (M, 3) of the saturated pixels; the background is grey."""
    positions = np.argwhere(np.ptp(image.astype(int), axis=-1) > 0)
    return positions, image[tuple(positions.T)]


@pytest.mark.parametrize("size", [16, 32, 61])
def test_label_says_whether_the_colours_are_equal(size):
    samples = FarMarks("val", size, count=64)
    for index in range(64):
        image, label = samples[index]
        _, colours = marks(np.asarray(image))
        assert label == (len(np.unique(colours, axis=0)) == 1)


def test_marks_lie_far_apart():
    samples = FarMarks("val", 64, count=200)
    for index in range(200):
        positions, _ = marks(pixels(samples, index))
        assert len(positions) == 2 * 8 * 8
        corner = positions[0]
        other = positions[np.abs(positions - corner).max(axis=1) >= 8][0]
        assert np.hypot(*(other - corner)) > 32 - 8


def test_one_mark_tells_nothing():
    """Over both classes the colours are equally frequent."""
    samples = FarMarks("train", 16, count=2000)
    counts = {0: {}, 1: {}}
    for index in range(2000):
        image, label = samples[index]
        for colour in marks(np.asarray(image))[1]:
            counts[label][tuple(colour)] = counts[label].get(tuple(colour), 0) + 1
    frequencies = [[count for _, count in sorted(counts[label].items())] for label in (0, 1)]
    shares = np.array(frequencies) / np.sum(frequencies, axis=1, keepdims=True)
    assert np.abs(shares - 0.25).max() < 0.03


def as_tensors(split: str, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    samples = FarMarks(split, 32, count=count)
    items = [samples[index] for index in range(count)]
    images = torch.from_numpy(np.stack([np.asarray(image) for image, _ in items]))
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1, torch.tensor([label for _, label in items])


def trained_loss(head: nn.Module) -> float:
    """Validation loss after some epochs of a network of receptive field 5 before its average pooling."""
    network = nn.Sequential(
        nn.Conv2d(3, 16, 5, 2),
        nn.ReLU(),
        nn.Conv2d(16, 16, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        head,
    )
    images, labels = as_tensors("train", 2048)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(6):
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(images[batch]), labels[batch]).backward()
            optimizer.step()
    images, labels = as_tensors("val", 512)
    with torch.no_grad():
        return nn.functional.cross_entropy(network.eval()(images), labels).item()


def test_small_receptive_field_stays_at_chance():
    assert trained_loss(nn.Linear(16, 2)) > np.log(2) - 0.005


def test_large_receptive_field_solves_it():
    """The same network with a head that combines what the marks contribute."""
    head = nn.Sequential(nn.BatchNorm1d(16), nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 2))
    assert trained_loss(head) < 0.35


@pytest.mark.parametrize(
    "make",
    [
        lambda: Digits("test"),
        lambda: Digits("train", 7),
        lambda: FarMarks("test"),
        lambda: FarMarks("train", 15),
        lambda: FarMarks("train", count=0),
        lambda: FarMarks("train", colours=1),
    ],
)
def test_values_outside_their_range(make):
    with pytest.raises(InputError, match="must"):
        make()
