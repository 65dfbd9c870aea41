"""Filled holes, to be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.utils import make_grid

from ffconv.errors import require
from ffconv.files import write_atomically
from ffconv.pictures import encoded
from ffconv.wording import printable

_GREY = 0.5
_TITLE = 17  # pixels of the line of titles
_SMALLEST_SIDE = 96  # below it every pixel is shown as several


def draw_filled(images: Tensor, masks: Tensor, predicted: Tensor) -> bytes:
    """Draw a row an image, under titles: with its hole in grey, filled, the network's output, original.

    Args:
        images: (N, 3, H, W), in [0, 1].
        masks: (N, 1, H, W), 1 inside the hole.
        predicted: (N, 3, H, W), the network's outputs.
    Returns:
        A PNG picture.
    """
    hidden = images + masks * (_GREY - images)
    filled = images + masks * (predicted - images)
    columns = torch.stack([hidden, filled, predicted, images], dim=1).flatten(0, 1)
    grid = make_grid(columns.clamp(0, 1).cpu(), nrow=4, padding=2, pad_value=1.0)
    pixels = (grid * 255).round().to(torch.uint8).permute(1, 2, 0)
    picture = Image.fromarray(pixels.numpy())
    if (side := min(images.shape[-2:])) < _SMALLEST_SIDE:
        factor = -(-_SMALLEST_SIDE // side)
        picture = picture.resize((factor * picture.width, factor * picture.height), Image.Resampling.NEAREST)
    return encoded(_titled(picture, ("with hole", "filled", "network output", "original")))


def _titled(picture: Image.Image, titles: Sequence[str]) -> Image.Image:
    """Return the picture under a line with a title for each of its columns, which are equally wide."""
    titled = Image.new("RGB", (picture.width, picture.height + _TITLE), "white")
    titled.paste(picture, (0, _TITLE))
    pen, font = ImageDraw.Draw(titled), ImageFont.load_default(_TITLE - 5)
    for column, title in enumerate(titles):
        middle = (column + 0.5) * picture.width / len(titles)
        pen.text((middle, _TITLE / 2), title, fill="black", font=font, anchor="mm")
    return titled


class ContactSheet:
    """Rows of photograph, hole and result, for a person to check a folder.

    Args:
        path: The file, .png or .jpg. After 40 rows another page begins, ``sheet-2.png`` and so on.

    Raises:
        InputError: For another extension.
    """

    _CELL = 256
    _GAP = 4
    _LINE = 16
    _ROWS = 40
    _MARK = np.array([255, 0, 160])

    def __init__(self, path: Path) -> None:
        forms = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
        require(path.suffix.lower() in forms, f"{path}: a contact sheet is a .png or .jpg file")
        self._path, self._form = path, forms[path.suffix.lower()]
        self._rows: list[tuple[str, list[Image.Image]]] = []
        self._page = 1

    def add(self, name: str, image: Image.Image, hole: np.ndarray, result: Image.Image) -> None:
        """Add a row; a full page is written at once.

        Args:
            name: Written above the row.
            image: RGB.
            hole: (H, W) bool, shown in colour on the image.
            result: RGB.
        """
        pixels = np.asarray(image)
        marked = np.where(hole[..., None], (0.3 * pixels + 0.7 * self._MARK).astype(np.uint8), pixels)
        cells = [image.copy(), Image.fromarray(marked), result.copy()]
        for cell in cells:
            cell.thumbnail((self._CELL, self._CELL))
        self._rows.append((name, cells))
        if len(self._rows) == self._ROWS:
            self.finish()

    def finish(self) -> None:
        """Write the rows that are not written yet."""
        if not self._rows:
            return
        step = self._CELL + self._GAP
        heights = [max(cell.height for cell in cells) + self._LINE + self._GAP for _, cells in self._rows]
        page = Image.new("RGB", (3 * step + self._GAP, sum(heights) + self._LINE + self._GAP), "white")
        pen = ImageDraw.Draw(page)
        for column, title in enumerate(("photograph", "hole", "result")):
            pen.text((self._GAP + column * step, 2), title, fill="black")
        top = self._LINE
        for (name, cells), height in zip(self._rows, heights, strict=True):
            pen.text((self._GAP, top + 2), printable(name), fill="black")
            for column, cell in enumerate(cells):
                page.paste(cell, (self._GAP + column * step, top + self._LINE))
            top += height
        number = "" if self._page == 1 else f"-{self._page}"
        write_atomically(self._path.with_stem(f"{self._path.stem}{number}"), encoded(page, self._form))
        self._rows, self._page = [], self._page + 1
