"""An inpainting network on images of any size, and refinement of what it draws."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffconv.errors import InputError, require
from ffconv.files import checkpoint_file
from ffconv.interop.checkpoint_info import InpaintingInfo, is_described
from ffconv.interop.lama import load_lama
from ffconv.models.inpainting import LamaGenerator, hide
from ffconv.tasks.networks import load_trained


def load_filler(path: str | Path, arguments: Mapping[str, Any] | None = None) -> nn.Module:
    """Build the network of a checkpoint of ours, of a package, or of one of LaMa's, in evaluation mode.

    Args:
        path: A .safetensors file of ``ffconv train`` or of a package, the folder of such a file, or what
            LaMa publishes: its folder, ``best.ckpt``, or a TorchScript file such as ``big-lama.pt``.
        arguments: Of LaMa's network, where its weights do not tell them.

    Raises:
        InputError: If it is none of these, or cannot be read.
    """
    path = checkpoint_file(Path(path))
    if not is_described(path):
        return load_lama(path, arguments)
    require(not arguments, f"{path} says itself which network it belongs to: leave out --arguments")
    return load_trained(path, InpaintingInfo).network


@dataclass(frozen=True)
class Refinement:
    """Refinement of a filling over an image pyramid.

    The image is filled at its smallest level first. At each finer level the features in front of the residual
    blocks are optimised until the filling, scaled down, agrees with the one of the level before.

    Reference: Kulshreshtha, Pugh, Jiddi, Feature Refinement to Improve High Resolution Image Inpainting,
    2022.
    Deviation: levels differ by a factor of 2, and are scaled down by a bilinear filter with antialiasing.

    Args:
        steps: Steps of Adam at each level.
        lr: Learning rate of Adam.
        min_side: No level has a short side below this; about the side that the network was trained at.
        max_pixels: A larger image or crop is refined at this size and the filling enlarged: bounds memory.

    Raises:
        InputError: For a value outside its range.
    """

    steps: int = 15
    lr: float = 2e-3
    min_side: int = 256
    max_pixels: int = 2**20

    def __post_init__(self) -> None:
        for name in ("steps", "min_side", "max_pixels"):
            require(getattr(self, name) > 0, f"refinement {name}={getattr(self, name)} must be at least 1")
        require(self.lr > 0, f"refinement lr={self.lr} must be above 0")

    def levels(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        """Height and width of each level for an image's, the smallest first.

        Example:
            >>> Refinement(min_side=100).levels((401, 800))
            [(100, 200), (200, 400), (401, 800)]
        """
        levels = [size]
        while min(levels[0]) // 2 >= self.min_side:
            levels.insert(0, (levels[0][0] // 2, levels[0][1] // 2))
        return levels


def fill(
    network: nn.Module,
    image: Tensor,
    hole: Tensor,
    *,
    max_pixels: int | None = None,
    refinement: Refinement | None = None,
) -> Tensor:
    """Fill the hole of an image; the other pixels are left as they are.

    Sides are padded to what the network takes, by mirroring at the border. An image of more than `max_pixels`
    is filled at that size, and what is drawn into the hole enlarged.

    Args:
        network: (1, 4, H, W) -> (1, 3, H, W); its ``multiple`` is what sides must be multiples of.
        image: (3, H, W), in [0, 1].
        hole: (H, W) bool, True inside it.
        max_pixels: Largest H W the network is given; None sets no bound.
        refinement: Refines what LaMa's generator draws, at most at its own ``max_pixels``.

    Returns:
        (3, H, W), in [0, 1].

    Raises:
        InputError: For a refinement of a network other than LaMa's generator.
    """
    size = (image.shape[-2], image.shape[-1])
    bounds = [bound for bound in (max_pixels, refinement and refinement.max_pixels) if bound is not None]
    scale = min([1.0, *(math.sqrt(bound / math.prod(size)) for bound in bounds)])
    smaller = (max(1, int(size[0] * scale)), max(1, int(size[1] * scale))) if scale < 1 else size
    pixels, mask = _shrink(image[None], hole[None, None].to(image.dtype), smaller)
    if refinement is None:
        with torch.no_grad():
            drawn = _cut(network(_padded(network, pixels, mask)), smaller)
    else:
        drawn = _draw_refined(network, pixels, mask, refinement)
    if scale < 1:
        drawn = F.interpolate(drawn, size=size, mode="bicubic", align_corners=False).clamp(0, 1)
    return torch.where(hole, drawn[0], image)


def _draw_refined(network: nn.Module, image: Tensor, mask: Tensor, refinement: Refinement) -> Tensor:
    if not isinstance(network, LamaGenerator):
        kind = type(network).__name__
        raise InputError(f"refinement optimises the features of LaMa's generator; {kind} has none such")
    smallest, *finer = refinement.levels((image.shape[-2], image.shape[-1]))
    with _frozen(network):
        drawn = _draw_level(network, *_shrink(image, mask, smallest), None, refinement)
        for size in finer:
            drawn = _draw_level(network, *_shrink(image, mask, size), drawn, refinement)
    return drawn


def _draw_level(
    network: LamaGenerator, pixels: Tensor, hole: Tensor, coarse: Tensor | None, refinement: Refinement
) -> Tensor:
    """Draw one level; with the drawing of the coarser level, optimise the features to agree with it."""
    size = (pixels.shape[-2], pixels.shape[-1])
    with torch.no_grad():
        features = network.encode(_padded(network, pixels, hole))
    if coarse is not None:
        smaller = (coarse.shape[-2], coarse.shape[-1])
        # Only coarse pixels that lie wholly in the hole: the others show known pixels as well.
        inside = F.adaptive_avg_pool2d(hole, smaller).expand_as(coarse) == 1
        features.requires_grad_()
        optimiser = torch.optim.Adam([features], lr=refinement.lr)
        for _ in range(refinement.steps if bool(inside.any()) else 0):
            with torch.enable_grad():
                drawn = _cut(network.decode(features, checkpointing=True), size)
                filled = torch.where(hole > 0, drawn, pixels)
                shrunk = F.interpolate(filled, smaller, mode="bilinear", align_corners=False, antialias=True)
                (shrunk - coarse)[inside].abs().mean().backward()
            optimiser.step()
            optimiser.zero_grad()
    with torch.no_grad():
        return _cut(network.decode(features), size)


def _padded(network: nn.Module, pixels: Tensor, mask: Tensor) -> Tensor:
    multiple = getattr(network, "multiple", 1)
    return hide(_mirrored(pixels, multiple), _mirrored(mask, multiple))


def _cut(drawn: Tensor, size: tuple[int, int]) -> Tensor:
    return drawn.float()[..., : size[0], : size[1]]


def _shrink(image: Tensor, mask: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Scale both down by the same cells, so that nothing of the hole gets into what is shown."""
    if size == tuple(image.shape[-2:]):
        return image, mask
    return F.adaptive_avg_pool2d(image, size), F.adaptive_max_pool2d(mask, size)


def _mirrored(x: Tensor, multiple: int) -> Tensor:
    """Continue at the bottom and the right to multiples of a number, at least twice that, border repeated.

    Two cells are the least that padding by reflection inside the network takes.
    """
    for axis in (-2, -1):
        side = x.shape[axis]
        index = torch.arange(max(2, -(-side // multiple)) * multiple, device=x.device) % (2 * side)
        x = x.index_select(axis, torch.minimum(index, 2 * side - 1 - index))
    return x


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """Compute no gradients of the weights beside those of the features."""
    trained = [weight for weight in network.parameters() if weight.requires_grad]
    for weight in trained:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in trained:
            weight.requires_grad_(True)
