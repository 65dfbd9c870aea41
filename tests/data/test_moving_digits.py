"""The embedded clips: the class is the motion, and a clip reversed is one of the opposite class."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from ffconv.data.moving_digits import MovingDigits
from ffconv.errors import InputError


def clip(samples: MovingDigits, index: int) -> tuple[np.ndarray, int]:
    video, label = samples[index]
    with video.open() as opened:
        return np.stack([frame.picture for frame in opened.frames()]), label


def opposite(name: str) -> str:
    turns = {"up": "down", "down": "up", "left": "right", "right": "left"}
    return " ".join(turns.get(word, word) for word in name.split())


def test_there_are_eight_directions_at_two_speeds():
    assert len(set(MovingDigits.classes)) == 16
    assert Counter(name.split()[0] for name in MovingDigits.classes) == {"slow": 8, "fast": 8}


def test_samples_come_in_pairs_that_are_reversed():
    samples = MovingDigits("val", size=32, frames=8)
    for index in range(20):
        (forward, label), (backward, other) = clip(samples, index), clip(samples, index + len(samples) // 2)
        np.testing.assert_array_equal(backward, forward[::-1])
        assert samples.classes[other] == opposite(samples.classes[label])


@pytest.mark.parametrize(("size", "frames"), [(32, 8), (48, 4), (64, 16)])
def test_the_digit_moves_as_its_class_says(size, frames):
    """The bright part's centre moves down and right by the class's signs, fast ones twice as far."""
    samples, lengths = MovingDigits("train", size=size, frames=frames), {"slow": set(), "fast": set()}
    rows, columns = np.mgrid[:size, :size]
    for index in range(60):
        pictures, label = clip(samples, index)
        bright = np.where(pictures[..., 0] >= 128, pictures[..., 0].astype(float), 0)
        mass = bright.sum(axis=(1, 2))
        path = np.stack([(bright * axis).sum(axis=(1, 2)) / mass for axis in (rows, columns)], axis=1)
        steps = np.diff(path, axis=0)
        assert np.allclose(steps, steps[0], atol=1e-6)
        speed, *words = samples.classes[label].split()
        expected = ("down" in words) - ("up" in words), ("right" in words) - ("left" in words)
        assert np.sign(np.round(steps[0])).tolist() == list(expected)
        lengths[speed].add(round(float(np.abs(steps[0]).max()), 3))
    (slow,), (fast,) = lengths.values()
    assert fast == pytest.approx(2 * slow)


def test_classes_are_equally_frequent():
    samples = MovingDigits("train")
    counts = np.bincount([samples[index][1] for index in range(len(samples))], minlength=16)
    assert counts.min() > 80
    assert (counts[::2] == counts[1::2]).all()


def test_a_clip_is_a_function_of_split_and_index():
    first, again, other = MovingDigits("val"), MovingDigits("val"), MovingDigits("train")
    again[7]
    np.testing.assert_array_equal(clip(first, 4)[0], clip(again, 4)[0])
    assert not np.array_equal(clip(first, 4)[0], clip(other, 4)[0])


@pytest.mark.parametrize(
    "fields", [{"split": "test"}, {"size": 15}, {"frames": 1}, {"count": 3}, {"frames": 40}]
)
def test_values_outside_their_range(fields):
    with pytest.raises(InputError, match=next(iter(fields))):
        MovingDigits(**({"split": "val"} | fields))
