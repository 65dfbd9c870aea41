"""A small tree of images, each of one colour that tells which it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

CLASSES = ("ant", "bee", "cat")
PER_CLASS = 8


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """24 lossless images in three class folders; image i of the sorted order has the grey level 10 i."""
    root = tmp_path / "tree"
    for number, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for place in range(PER_CLASS):
            level = 10 * (number * PER_CLASS + place)
            Image.new("RGB", (12, 9), (level, level, level)).save(root / name / f"{place}.png")
    return root
