"""Regular patterns."""

from __future__ import annotations

import numpy as np
import pytest

from ffconv.data.config import DataConfig, open_samples
from ffconv.data.textures import Textures
from ffconv.errors import InputError


def pixels(samples: Textures, index: int) -> np.ndarray:
    return np.asarray(samples[index][0]).astype(float)


@pytest.mark.parametrize("index", range(8))
def test_a_texture_repeats(index: int):
    image = pixels(Textures("train", 96), index)
    differences = {
        (y, x): np.abs(image[y:, x:] - image[: 96 - y, : 96 - x]).mean()
        for y in range(48)
        for x in range(48)
        if np.hypot(y, x) >= 96 / 8 - 1  # the shortest period
    }
    assert min(differences.values()) < 0.3 * np.mean(list(differences.values()))


def test_a_texture_has_two_colours_and_what_lies_between():
    for index in range(8):
        image = pixels(Textures("train", 64), index).reshape(-1, 3)
        centred = image - image.mean(0)
        values = np.linalg.svd(centred, compute_uv=False)
        assert values[1] < 0.05 * values[0]


def test_textures_depend_on_the_index_alone():
    a, b = Textures("train", 32), Textures("train", 32)
    second = [pixels(b, index) for index in reversed(range(4))][::-1]
    np.testing.assert_array_equal([pixels(a, index) for index in range(4)], second)


def test_the_splits_differ():
    assert not np.array_equal(pixels(Textures("train", 32), 0), pixels(Textures("val", 32), 0))


def test_labels_take_turns():
    samples = Textures("val", 16)
    assert [samples[index][1] for index in range(6)] == [0, 1, 2, 3, 0, 1]


def test_they_end():
    with pytest.raises(IndexError):
        Textures("val", 16, count=3)[3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("test",), "split='test'"), (("val", 8), "size=8"), (("val", 16, 0), "count=0")],
)
def test_values_out_of_range_are_refused(arguments: tuple, message: str):
    with pytest.raises(InputError, match=message):
        Textures(*arguments)


def test_they_are_a_data_format():
    assert isinstance(open_samples(DataConfig(format="textures"), "val"), Textures)
