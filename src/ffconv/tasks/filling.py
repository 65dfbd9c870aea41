"""An inpainting network on images of any size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffconv.errors import require
from ffconv.interop.lama import load_lama
from ffconv.models.inpainting import hide
from ffconv.tasks.inpainting import load_inpainter
from ffconv.tasks.packages import is_described


def load_filler(path: Path, arguments: Mapping[str, Any] | None = None) -> nn.Module:
    """The network of a checkpoint of ours, of a package, or of one of LaMa's, in evaluation mode.

    Args:
        path: a .safetensors file of ``ffconv train`` or of a package, or what LaMa's training saved.
        arguments: of LaMa's network, where its weights do not tell them.
    Raises:
        InputError: if it is none of these, or cannot be read.
    """
    if not is_described(path):
        return load_lama(path, arguments)
    require(not arguments, f"{path} says itself which network it belongs to: leave out --arguments")
    return load_inpainter(path).network


@torch.no_grad()
def fill(network: nn.Module, image: Tensor, hole: Tensor, *, max_pixels: int | None = None) -> Tensor:
    """The image with its hole filled; the other pixels are left as they are.

    Sides are padded to what the network takes, by mirroring at the border. An image of more than `max_pixels`
    is filled at that size, and what is drawn into the hole enlarged: tiles would hide from the network what
    lies outside them.

    Args:
        network: (1, 4, H, W) -> (1, 3, H, W); its ``multiple`` is what sides must be multiples of.
        image: (3, H, W), in [0, 1].
        hole: (H, W) bool, True inside it.
        max_pixels: largest H W the network is given; None sets no bound.
    Returns:
        (3, H, W), in [0, 1].
    """
    size = image.shape[-2:]
    scale = 1.0 if max_pixels is None else min(1.0, math.sqrt(max_pixels / math.prod(size)))
    pixels, mask = image[None], hole[None, None].to(image.dtype)
    if scale < 1:
        # Both by the same cells, so that nothing of the hole gets into what is shown.
        smaller = (max(1, int(size[0] * scale)), max(1, int(size[1] * scale)))
        pixels, mask = F.adaptive_avg_pool2d(pixels, smaller), F.adaptive_max_pool2d(mask, smaller)
    multiple = getattr(network, "multiple", 1)
    padded = [_mirrored(part, multiple) for part in (pixels, mask)]
    drawn = network(hide(*padded)).float()[..., : pixels.shape[-2], : pixels.shape[-1]]
    if scale < 1:
        drawn = F.interpolate(drawn, size=size, mode="bicubic", align_corners=False).clamp(0, 1)
    return torch.where(hole, drawn[0], image)


def _mirrored(x: Tensor, multiple: int) -> Tensor:
    """Continued at the bottom and the right to multiples of a number, at least twice that, border repeated.

    Two cells are the least that padding by reflection inside the network takes.
    """
    for axis in (-2, -1):
        side = x.shape[axis]
        index = torch.arange(max(2, -(-side // multiple)) * multiple, device=x.device) % (2 * side)
        x = x.index_select(axis, torch.minimum(index, 2 * side - 1 - index))
    return x
