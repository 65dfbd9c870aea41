"""Image transforms of training and evaluation, from one self-validating configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from ffconv.errors import require

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
ImageTransform = Callable[[Image.Image], Tensor]


@dataclass(frozen=True)
class ImageTransformConfig:
    """Sizes and augmentations; the defaults are the paper's ImageNet protocol.

    Args:
        train_size: side of the random resized crop in pixels.
        eval_short_side: what the short side is resized to before the centre crop, in pixels.
        eval_size: side of the centre crop in pixels, at most ``eval_short_side``.
        scale: smallest and largest area of the random crop as a fraction of the image.
        ratio: smallest and largest aspect ratio (width / height) of the random crop. With scale and ratio
            (1, 1) the crop is the whole of a square image.
        flip: probability of a horizontal flip.
        rand_augment: magnitude of RandAugment, 0 to 30; 0 switches it off.
        rand_augment_layers: operations of RandAugment per image.
        colour_jitter: strength of brightness, contrast and saturation jitter; 0 switches it off.
        random_erasing: probability of erasing a rectangle.
        interpolation: filter of all resizing (antialiased).
        mean: of the RGB channels in [0, 1], subtracted.
        std: of the RGB channels in [0, 1], divided by.

    Raises:
        InputError: for a value outside its range.
    """

    train_size: int = 224
    eval_short_side: int = 256
    eval_size: int = 224
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    rand_augment: int = 0
    rand_augment_layers: int = 2
    colour_jitter: float = 0.0
    random_erasing: float = 0.0
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        for name in ("train_size", "eval_size", "rand_augment_layers"):
            self._require(name, getattr(self, name) >= 1, "must be at least 1")
        for name in ("flip", "random_erasing"):
            self._require(name, 0 <= getattr(self, name) <= 1, "must be a probability in [0, 1]")
        for name, largest in (("scale", 1.0), ("ratio", float("inf"))):
            low, high = getattr(self, name)
            self._require(name, 0 < low <= high <= largest, f"must be [low, high] within (0, {largest:g}]")
        covers = self.eval_short_side >= self.eval_size
        self._require("eval_short_side", covers, f"must not be below eval_size={self.eval_size}")
        self._require("rand_augment", 0 <= self.rand_augment <= 30, "must lie in [0, 30]")
        self._require("colour_jitter", self.colour_jitter >= 0, "must not be negative")
        self._require("std", min(self.std) > 0, "must be positive")
        self._require(
            "interpolation", self.interpolation in _FILTERS, f"must be one of {', '.join(_FILTERS)}"
        )

    def _require(self, name: str, holds: bool, rule: str) -> None:
        require(holds, f"data.transform.{name}={getattr(self, name)!r} {rule}")


_FILTERS = {
    "nearest": InterpolationMode.NEAREST_EXACT,
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
    "lanczos": InterpolationMode.LANCZOS,
}


def train_transform(config: ImageTransformConfig) -> ImageTransform:
    """PIL RGB -> float32 (3, train_size, train_size), randomly augmented, normalised."""
    size = [config.train_size, config.train_size]
    interpolation = _FILTERS[config.interpolation]
    steps: list[Any] = [
        v2.RandomResizedCrop(size, scale=config.scale, ratio=config.ratio, interpolation=interpolation)
    ]
    if config.flip:
        steps.append(v2.RandomHorizontalFlip(config.flip))
    if config.rand_augment:
        steps.append(
            v2.RandAugment(config.rand_augment_layers, config.rand_augment, interpolation=interpolation)
        )
    if config.colour_jitter:
        steps.append(v2.ColorJitter(*[config.colour_jitter] * 3))
    steps += to_normalised_tensor(config.mean, config.std)
    if config.random_erasing:
        steps.append(v2.RandomErasing(config.random_erasing))
    return v2.Compose(steps)


def eval_transform(config: ImageTransformConfig) -> ImageTransform:
    """PIL RGB -> float32 (3, eval_size, eval_size), normalised: short side, then centre crop."""
    return v2.Compose(
        [
            _without_far_ends,
            v2.Resize(config.eval_short_side, interpolation=_FILTERS[config.interpolation]),
            v2.CenterCrop(config.eval_size),
            *to_normalised_tensor(config.mean, config.std),
        ]
    )


class PrepareImage:
    """``prepare`` of image classification: ``(image, label), index -> {"image", "label", "index"}``."""

    def __init__(self, transform: ImageTransform) -> None:
        self._transform = transform

    def __call__(self, item: tuple[Image.Image, int], index: int) -> dict[str, Any]:
        image, label = item
        return {"image": self._transform(image), "label": label, "index": index}


def _without_far_ends(image: Image.Image) -> Image.Image:
    """Cuts the ends off an image more than 16 times as long as wide, which resizing would blow up."""
    longest = 16 * min(image.size)
    if max(image.size) <= longest:
        return image
    left, top = (max(0, side - longest) // 2 for side in image.size)
    return image.crop((left, top, image.width - left, image.height - top))


def to_normalised_tensor(mean: Sequence[float], std: Sequence[float]) -> list[v2.Transform]:
    """Steps from an 8-bit image of C channels to float32 (C, H, W) in [0, 1], less the mean, over the std."""
    return [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(mean), list(std))]
