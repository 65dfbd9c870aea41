"""Filled holes, to be looked at."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from ffconv.pictures import encoded

_GREY = 0.5
_SMALLEST_SIDE = 96  # below it every pixel is shown as several


def draw_filled(images: Tensor, masks: Tensor, predicted: Tensor) -> bytes:
    """A row an image: with its hole in grey, filled, as the network drew it, as it was.

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
    return encoded(picture)
