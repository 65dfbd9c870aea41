"""Fill holes in a PIL image, a NumPy array or a tensor, and return the same type."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ffconv.data.holes import SMALLEST_MARGIN, Box, crop_around, draw_holes, grow_hole
from ffconv.data.image_masks import MaskMeaning, hole_of_mask, resize_hole
from ffconv.errors import InputError, require
from ffconv.surgery.modes import modes_kept
from ffconv.tasks.filling import Refinement, fill, load_filler
from ffconv.wording import counted

Strategy = Literal["auto", "whole", "crop", "resize"]
ImageT = TypeVar("ImageT", Image.Image, np.ndarray, Tensor)

MAX_PIXELS = 2**21

_GREY = (0.299, 0.587, 0.114)  # as Pillow weighs red, green and blue
_LARGEST = {torch.uint8: 255, torch.uint16: 65535}
_ARRAY_MODES = ("L", "LA", "RGB", "RGBA", "I;16")


@dataclass(frozen=True)
class InpaintConfig:
    """How holes are filled.

    Args:
        strategy: whole gives the network the whole image; crop gives it a rectangle around each hole; resize
            scales a large image down to `max_pixels` and enlarges the filling; auto takes whole up to
            `max_pixels` and crop above.
        max_pixels: Largest image or crop that the network is given, except by whole; bounds memory.
        margin: Pixels of the image on each side of a hole in its crop; by default half of the hole's longer
            side, at least 128.
        dilate: Grow the hole by so many pixels; by default by `feather`.
        feather: Blend over the outermost pixels of the grown hole, at most `dilate`.
        refinement: Refine over an image pyramid; None does not.

    Raises:
        InputError: For a value outside its range.
    """

    strategy: Strategy = "auto"
    max_pixels: int = MAX_PIXELS
    margin: int | None = None
    dilate: int | None = None
    feather: int = 0
    refinement: Refinement | None = None

    def __post_init__(self) -> None:
        known = get_args(Strategy)
        require(self.strategy in known, f"strategy={self.strategy!r} must be one of {', '.join(known)}")
        require(self.max_pixels > 0, f"max_pixels={self.max_pixels} must be at least 1")
        for name in ("margin", "dilate", "feather"):
            value = getattr(self, name)
            require(value is None or value >= 0, f"{name}={value} must be at least 0")
        require(
            self.dilate is None or self.feather <= self.dilate,
            f"feather={self.feather} must be at most dilate={self.dilate}: it blends the outermost pixels of"
            " the dilated hole",
        )

    def grow(self, hole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the grown hole and the weight of the filling, see `grow_hole`."""
        return grow_hole(
            hole, dilate=self.feather if self.dilate is None else self.dilate, feather=self.feather
        )

    def regions(self, hole: np.ndarray) -> list[Box]:
        """Return the rectangles that are filled one by one, each with its part of the grown hole."""
        height, width = hole.shape
        if self.strategy == "crop" or (self.strategy == "auto" and height * width > self.max_pixels):
            return crop_around(hole, self.margin)
        return [Box(0, 0, width, height)]

    def bound(self) -> int | None:
        """Return the largest rectangle in pixels that is filled at its own size; None without a bound."""
        return None if self.strategy == "whole" else self.max_pixels

    def describe(self, hole: np.ndarray) -> str:
        """Say in a line how the grown hole of a large image is filled; empty where nothing is special."""
        height, width = hole.shape
        regions, bound = self.regions(hole), self.bound()
        if self.refinement is not None:
            bound = min(bound or self.refinement.max_pixels, self.refinement.max_pixels)
        parts = []
        if regions != [Box(0, 0, width, height)]:
            sizes = ", ".join("{}x{}".format(*region.size) for region in regions[:3])
            margin = (
                f"margin {self.margin}"
                if self.margin is not None
                else (f"margin half the hole's longer side, at least {SMALLEST_MARGIN}")
            )
            more = ", ..." if len(regions) > 3 else ""
            parts.append(f"filled in {counted(len(regions), 'crop')} of {sizes}{more} px ({margin})")
        larger = [region for region in regions if bound is not None and math.prod(region.size) > bound]
        if larger:
            what = f"{counted(len(larger), 'crop')} scaled down to" if parts else "filled at"
            parts.append(f"{what} {bound} pixels, and the filling enlarged")
        if not parts:
            return ""
        above = f" is above max_pixels {self.max_pixels}" if height * width > self.max_pixels else ""
        return f"{width}x{height} px{above}: {'; '.join(parts)}"


def inpaint(
    image: ImageT,
    mask: Any = None,
    *,
    model: str | Path | nn.Module,
    boxes: Sequence[Sequence[float]] = (),
    polygons: Sequence[Sequence[float]] = (),
    mask_is: MaskMeaning = "white",
    strategy: Strategy = "auto",
    max_pixels: int = MAX_PIXELS,
    margin: int | None = None,
    dilate: int | None = None,
    feather: int = 0,
    refine: bool | Refinement = False,
    device: str | torch.device | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> ImageT:
    """Fill the holes of an image. Pixels outside the (dilated) hole keep their values to the bit.

    Args:
        image: A PIL image; an array (H, W) or (H, W, C); or a tensor (C, H, W) or (N, C, H, W), with 1
            (grey), 3 (RGB) or 4 (RGB and alpha) channels. Integers span their range (uint8, uint16), floats
            [0, 1].
        mask: The hole: a PIL image, or an array or tensor of the image's height and width, with or without a
            channel: bool, 0 and 1, or white (at least half of the range). Another size of the same shape is
            resized. None takes boxes and polygons alone.
        model: A checkpoint as `ffconv inpaint --checkpoint` takes it, or a network. To fill many images load
            it once: ``ffconv.tasks.filling.load_filler(path)``.
        boxes: Holes as rectangles (x0, y0, x1, y1) in pixels, x1 and y1 one past the last.
        polygons: Holes as polygons (x0, y0, x1, y1, x2, y2, ...).
        mask_is: Which pixels of a PIL mask are the hole: white, or opaque or transparent ones.
        strategy: See :class:`InpaintConfig`; so are max_pixels, margin, dilate and feather.
        refine: Refine over an image pyramid; a :class:`ffconv.tasks.filling.Refinement` sets its details.
        device: Where the network runs; None leaves a network where it is, and puts a loaded one on the
            accelerator, if there is one.
        arguments: Of LaMa's network, where its weights do not tell them.

    Returns:
        A new image of the same type, size, data type and mode; of an image with a palette, RGB or RGBA.

    Raises:
        InputError: For a checkpoint, image, mask or value that does not fit.

    Example:
        >>> from ffconv.models import LamaGenerator
        >>> network, photo = LamaGenerator(width=4, blocks=1).eval(), Image.new("RGB", (40, 30), "green")
        >>> inpaint(photo, model=network, boxes=[(10, 10, 20, 20)]).size
        (40, 30)
    """
    refinement = refine if isinstance(refine, Refinement) else (Refinement() if refine else None)
    config = InpaintConfig(strategy, max_pixels, margin, dilate, feather, refinement)
    if isinstance(model, nn.Module):
        network = model
    else:
        network = load_filler(model, arguments)
        device = device or ("cuda" if torch.cuda.is_available() else None)
    if device is not None:
        network = network.to(device)
    with _evaluating(network):
        if isinstance(image, Tensor) and image.ndim == 4:
            masks = _per_image(mask, len(image))
            holes = [
                read_hole(one, _size(image), boxes=boxes, polygons=polygons, mask_is=mask_is) for one in masks
            ]
            return torch.stack(
                [inpaint_image(network, one, hole, config) for one, hole in zip(image, holes, strict=True)]
            )
        hole = read_hole(mask, _size(image), boxes=boxes, polygons=polygons, mask_is=mask_is)
        return inpaint_image(network, image, hole, config)


def inpaint_image(network: nn.Module, image: ImageT, hole: np.ndarray, config: InpaintConfig) -> ImageT:
    """Fill the hole, (H, W) bool, of one image: as `inpaint`, with a network in evaluation mode.

    Raises:
        InputError: For an image of another kind, data type or range.
    """
    if isinstance(image, Tensor):
        return _fill_tensor(network, image.detach(), hole, config)
    if isinstance(image, np.ndarray):
        return _fill_array(network, image, hole, config)
    return _fill_pil(network, image, hole, config)


def read_hole(
    mask: Any,
    size: tuple[int, int],
    *,
    boxes: Sequence[Sequence[float]] = (),
    polygons: Sequence[Sequence[float]] = (),
    mask_is: MaskMeaning = "white",
    name: str = "mask",
) -> np.ndarray:
    """Join mask, boxes and polygons to one hole, (H, W) bool, of an image of this width and height.

    Raises:
        InputError: If there is none of them, or one does not fit.
    """
    hole = draw_holes(size, boxes=boxes, polygons=polygons)
    if isinstance(mask, Image.Image):
        hole |= hole_of_mask(mask, size, meaning=mask_is, name=name)
    elif mask is not None:
        hole |= resize_hole(_marked(mask), size)
    rule = "a mask with at least half of its range inside the hole, boxes or polygons"
    require(bool(hole.any()), f"there is no hole to fill: give {rule}")
    require(not hole.all(), "the hole covers the whole image: nothing is left to fill it from")
    return hole


def _marked(mask: Any) -> np.ndarray:
    """An array or tensor as (H, W) bool."""
    values = mask.detach().cpu().numpy() if isinstance(mask, Tensor) else np.asarray(mask)
    shape = values.shape
    while values.ndim > 2 and 1 in (values.shape[0], values.shape[-1]):
        values = values[0] if values.shape[0] == 1 else values[..., 0]
    require(values.ndim == 2, f"mask of shape {tuple(shape)} must be (H, W), with or without a channel of 1")
    if values.dtype == bool:
        return values
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    kind = "floats" if np.issubdtype(values.dtype, np.floating) else str(values.dtype)
    most = 1 if kind == "floats" else 65535 if kind == "uint16" else 255
    require(0 <= low <= high <= most, f"mask of {kind} must lie in [0, {most}], not in [{low:g}, {high:g}]")
    return values >= (0.5 if high <= 1 else (most + 1) // 2)  # integers 0 and 1 are a mask, too


def _per_image(mask: Any, images: int) -> list[Any]:
    """One mask for each image of a batch, whose own masks are a batch, too."""
    if getattr(mask, "ndim", 0) in (3, 4) and len(mask) == images:
        return list(mask)
    return [mask] * images


def _size(image: Any) -> tuple[int, int]:
    """Width and height."""
    if isinstance(image, Image.Image):
        return image.size
    if isinstance(image, Tensor) and image.ndim in (3, 4):
        return image.shape[-1], image.shape[-2]
    if isinstance(image, np.ndarray) and image.ndim in (2, 3):
        return image.shape[1], image.shape[0]
    shape = f" of shape {tuple(image.shape)}" if hasattr(image, "shape") else ""
    raise InputError(
        f"image {type(image).__name__}{shape} must be a PIL image, an array (H, W) or (H, W, C), or a tensor"
        " (C, H, W) or (N, C, H, W)"
    )


def _fill_pil(network: nn.Module, image: Image.Image, hole: np.ndarray, config: InpaintConfig) -> Image.Image:
    if image.mode in ("P", "PA"):  # a palette may lack the colours of the filling
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if image.mode in _ARRAY_MODES:
        filled = Image.fromarray(_fill_array(network, np.asarray(image), hole, config))
    else:
        ranged = not image.mode.startswith(("F", "I"))
        require(ranged, f"image of mode {image.mode} has no defined range: convert it to L, I;16 or RGB")
        try:
            colours = np.asarray(image.convert("RGB"))
            drawn = Image.fromarray(_fill_array(network, colours, hole, config)).convert(image.mode)
        except ValueError as error:
            raise InputError(f"image of mode {image.mode} must be convertible to and from RGB") from error
        changed, _ = config.grow(hole)
        filled = image.copy()
        filled.paste(drawn, mask=Image.fromarray(changed))
    filled.info = dict(image.info)
    return filled


def _fill_array(network: nn.Module, image: np.ndarray, hole: np.ndarray, config: InpaintConfig) -> np.ndarray:
    channels_first = image[None] if image.ndim == 2 else np.moveaxis(image, -1, 0)
    pixels = torch.from_numpy(np.ascontiguousarray(channels_first.astype(image.dtype.newbyteorder("="))))
    filled = _fill_tensor(network, pixels, hole, config).numpy()
    return filled[0] if image.ndim == 2 else np.ascontiguousarray(np.moveaxis(filled, 0, -1))


def _fill_tensor(network: nn.Module, image: Tensor, hole: np.ndarray, config: InpaintConfig) -> Tensor:
    """Fill an image (C, H, W): only its regions are copied to float numbers."""
    channels = len(image)
    require(channels in (1, 2, 3, 4), f"image of {channels} channels must have 1, 3 or 4")
    largest = _LARGEST.get(image.dtype, 1)
    require(
        image.is_floating_point() or image.dtype in _LARGEST,
        f"image of {image.dtype} must be uint8, uint16 or floating point",
    )
    if image.is_floating_point():
        low, high = float(image.min()), float(image.max())
        require(0 <= low <= high <= 1, f"image of floats must lie in [0, 1], not in [{low:g}, {high:g}]")
    device = next((weight.device for weight in network.parameters()), image.device)
    grown, weights = config.grow(hole)
    require(not grown.all(), "the dilated hole covers the whole image: choose a smaller dilate or feather")
    result = image.clone()
    for region in config.regions(grown):
        rows, columns = region.slices
        known = image[:, rows, columns].cpu().to(torch.float64)  # exact for all types, not on all devices
        colours = _to_rgb(known / largest).to(device, torch.float32)
        part = torch.from_numpy(grown[region.slices]).to(device)
        drawn = fill(network, colours, part, max_pixels=config.bound(), refinement=config.refinement)
        new = largest * _from_rgb(drawn.to(known), channels)
        weight = torch.from_numpy(weights[region.slices]).to(known)
        mixed = (known + weight * (new - known)).clamp(0, largest)
        if largest > 1:
            mixed = mixed.round()
        result[:, rows, columns] = torch.where(weight > 0, mixed, known).to(image.device, image.dtype)
    return result


def _to_rgb(pixels: Tensor) -> Tensor:
    """Grey, grey and alpha, RGB or RGBA in [0, 1] as RGB over white."""
    colours = pixels[:3] if len(pixels) > 2 else pixels[:1].expand(3, -1, -1)
    if len(pixels) in (2, 4):
        alpha = pixels[-1:]
        colours = colours * alpha + (1 - alpha)
    return colours


def _from_rgb(colours: Tensor, channels: int) -> Tensor:
    """RGB in the channels of the image; the filling is opaque."""
    if channels < 3:
        colours = torch.tensordot(colours.new_tensor(_GREY), colours, dims=1)[None]
    if channels in (2, 4):
        colours = torch.cat([colours, torch.ones_like(colours[:1])])
    return colours


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    with modes_kept(network):
        network.eval()
        yield
