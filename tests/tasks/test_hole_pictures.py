"""Contact sheets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ffconv.errors import InputError
from ffconv.tasks.hole_pictures import ContactSheet


def test_a_full_page_begins_another(tmp_path: Path):
    sheet = ContactSheet(tmp_path / "sheet.jpg")
    image, hole = Image.new("RGB", (10, 10), "green"), np.zeros((10, 10), dtype=bool)
    for number in range(41):
        sheet.add(str(number), image, hole, image)
    sheet.finish()
    heights = []
    for name in ("sheet.jpg", "sheet-2.jpg"):
        with Image.open(tmp_path / name) as page:
            heights.append(page.height)
    assert heights == [20 + 40 * 30, 20 + 30]
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("name", ["naïve 犬", "a\nb", "bad\udcff", "x" * 300])
def test_any_file_name_is_drawn(name: str, tmp_path: Path):
    sheet = ContactSheet(tmp_path / "sheet.png")
    image = Image.new("RGB", (10, 10))
    sheet.add(name, image, np.zeros((10, 10), dtype=bool), image)
    sheet.finish()
    with Image.open(tmp_path / "sheet.png") as page:
        assert page.height == 20 + 30


def test_without_rows_nothing_is_written(tmp_path: Path):
    ContactSheet(tmp_path / "sheet.png").finish()
    assert not list(tmp_path.iterdir())


def test_another_extension_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"sheet\.pdf: a contact sheet is a \.png or \.jpg file"):
        ContactSheet(tmp_path / "sheet.pdf")
