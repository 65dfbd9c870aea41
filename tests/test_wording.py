from __future__ import annotations

import pytest

from ffconv.wording import counted


@pytest.mark.parametrize(
    ("number", "thing", "words"),
    [
        (0, "image", "0 images"),
        (1, "image", "1 image"),
        (2, "class", "2 classes"),
        (1, "batch", "1 batch"),
        (2, "batch", "2 batches"),
        (2, "entry", "2 entries"),
    ],
)
def test_one_thing_and_several(number: int, thing: str, words: str):
    assert counted(number, thing) == words
