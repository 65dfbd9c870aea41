"""Random holes for inpainting: strokes and boxes, thin, medium or thick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image, ImageDraw

from ffconv.data.seeding import derive_seed
from ffconv.data.transforms import ImageTransform
from ffconv.errors import require

MaskKind = Literal["thin", "medium", "thick"]

#: Holes above this share of the image are drawn anew: what is left would say too little.
LARGEST_HOLE = 0.5
_SMALLEST_SIDE = 16


@dataclass(frozen=True)
class _Brush:
    """How a kind of mask is drawn; lengths are shares of the image's short side.

    Args:
        strokes: fewest and most strokes, each of up to five straight segments.
        width: of a stroke.
        length: of a segment.
        boxes: fewest and most boxes where the mask is one of boxes.
        side: of a box.
        box_share: probability of a mask of boxes instead of strokes.
    """

    strokes: tuple[int, int]
    width: tuple[float, float]
    length: tuple[float, float]
    boxes: tuple[int, int] = (1, 1)
    side: tuple[float, float] = (0.0, 0.0)
    box_share: float = 0.0


# LaMa's sizes at 256 px (configs/data_gen/random_*_256.yaml) as shares; it draws a box mask in .3 / 1.3.
_BRUSHES: dict[MaskKind, _Brush] = {
    "thin": _Brush((4, 50), (0.02, 0.055), (0.04, 0.19)),
    "medium": _Brush((4, 5), (0.02, 0.21), (0.04, 0.43), (1, 5), (0.04, 0.2), 0.23),
    "thick": _Brush((1, 5), (0.02, 0.41), (0.04, 0.82), (1, 3), (0.12, 0.59), 0.23),
}


@dataclass(frozen=True)
class MaskConfig:
    """Holes.

    Args:
        kinds: what is drawn: thin, medium, thick. Training draws one of them at random for each image,
            evaluation takes turns, and its holes are the same for every run.
    """

    kinds: tuple[MaskKind, ...] = get_args(MaskKind)

    def __post_init__(self) -> None:
        known = get_args(MaskKind)
        require(
            bool(self.kinds) and set(self.kinds) <= set(known) and len(set(self.kinds)) == len(self.kinds),
            f"masks.kinds={list(self.kinds)} must be some of {', '.join(known)}, each once",
        )


def draw_mask(height: int, width: int, kind: MaskKind, random: np.random.Generator) -> np.ndarray:
    """A hole of at least one pixel and at most half the image: (height, width) bool, True inside it.

    Raises:
        InputError: for a side below 16, on which thin strokes are no longer thin.

    Example:
        >>> hole = draw_mask(64, 64, "thick", np.random.default_rng(0))
        >>> bool(0 < hole.mean() <= 0.5)
        True
    """
    require(
        min(height, width) >= _SMALLEST_SIDE, f"a mask of {width}x{height} px must have sides of at least 16"
    )
    brush = _BRUSHES[kind]
    while True:
        canvas = Image.new("1", (width, height))
        pen = ImageDraw.Draw(canvas)
        if random.random() < brush.box_share:
            _draw_boxes(pen, (width, height), brush, random)
        else:
            _draw_strokes(pen, (width, height), brush, random)
        hole = np.array(canvas)
        if 0 < hole.mean() <= LARGEST_HOLE:
            return hole


def _draw_strokes(
    pen: ImageDraw.ImageDraw, size: tuple[int, int], brush: _Brush, random: np.random.Generator
) -> None:
    short = min(size)
    for _ in range(random.integers(*brush.strokes, endpoint=True)):
        point = random.uniform((0, 0), size)
        heading = random.uniform(0, 2 * np.pi)
        for _ in range(random.integers(1, 5, endpoint=True)):
            length, width = short * random.uniform(*brush.length), short * random.uniform(*brush.width)
            end = np.clip(point + length * np.array([np.cos(heading), np.sin(heading)]), 0, size)
            pen.line([*point, *end], fill=1, width=max(1, round(width)))
            for x, y in (point, end):  # round ends
                pen.ellipse([x - width / 2, y - width / 2, x + width / 2, y + width / 2], fill=1)
            point, heading = end, heading + random.uniform(-np.pi / 2, np.pi / 2)


def _draw_boxes(
    pen: ImageDraw.ImageDraw, size: tuple[int, int], brush: _Brush, random: np.random.Generator
) -> None:
    for _ in range(random.integers(*brush.boxes, endpoint=True)):
        sides = min(size) * random.uniform(*brush.side, size=2)
        corner = random.uniform((0, 0), size - sides)
        pen.rectangle([*corner, *(corner + sides)], fill=1)


class PrepareHoles:
    """``prepare`` of inpainting: ``(image, label), index -> {"image", "mask", "kind", "index"}``.

    The image is (3, H, W), the mask (1, H, W) with 1 inside the hole, the kind its place among
    ``config.kinds``.

    Args:
        transform: of the image.
        config: the holes.
        fixed: make kind and hole a function of the index alone, for evaluation; otherwise they follow torch's
            generator, which the loader seeds for each sample.
    """

    def __init__(self, transform: ImageTransform, config: MaskConfig, *, fixed: bool) -> None:
        self._transform, self._kinds, self._fixed = transform, config.kinds, fixed

    def __call__(self, item: tuple[Image.Image, int], index: int) -> dict[str, Any]:
        image = self._transform(item[0])
        if self._fixed:
            random = np.random.default_rng(derive_seed("evaluation hole", index))
            kind = index % len(self._kinds)
        else:
            random = np.random.default_rng(int(torch.randint(2**62, ())))
            kind = int(random.integers(len(self._kinds)))
        hole = draw_mask(image.shape[-2], image.shape[-1], self._kinds[kind], random)
        mask = torch.from_numpy(hole).to(image.dtype)[None]
        return {"image": image, "mask": mask, "kind": kind, "index": index}
