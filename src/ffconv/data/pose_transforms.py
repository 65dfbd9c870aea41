"""Top-down crops: a person's box becomes the network's input, its keypoints become heatmaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from ffconv.data.heatmaps import STRIDE, CodecName, HeatmapCodec
from ffconv.data.keypoint_sets import KeypointSet
from ffconv.data.pose_samples import Person
from ffconv.data.transforms import to_normalised_tensor
from ffconv.errors import require

ChannelOrder = Literal["rgb", "bgr"]

#: An image that a crop shrinks more than this is averaged to about twice the crop's resolution first:
#: sampling four of its pixels for each of the crop would miss what lies between them. COCO's images, at most
#: 640 pixels long, stay as the protocol has them at its sizes.
_SHRINKS_WELL = 4.0


@dataclass(frozen=True)
class PoseTransformConfig:
    """Crops, augmentation and heatmaps; the defaults are SimpleBaseline's protocol at 256x192.

    Args:
        input_size: height and width of the network's input in pixels, multiples of 4 from 32 on.
        enlarge: what a box's sides are multiplied by after it was extended to the input's aspect ratio.
        scale_factor: standard deviation of the crop's random size around 1, which is clipped to one of them.
        rotation: standard deviation of the random rotation in degrees, which is clipped to two of them.
        rotation_probability: share of training samples that are rotated.
        flip: probability of a horizontal flip.
        codec: ``protocol`` (nearest pixel, quarter offset) or ``unbiased`` (sub-pixel).
        sigma: of the heatmaps' Gaussians in heatmap pixels; the protocol has 3 at 384x288.
        channel_order: what the network sees; SimpleBaseline's released networks were trained on bgr.
        mean: of the channels in [0, 1], in that order, subtracted.
        std: of the channels in [0, 1], divided by.

    Raises:
        InputError: for a value outside its range.
    """

    input_size: tuple[int, int] = (256, 192)
    enlarge: float = 1.25
    scale_factor: float = 0.3
    rotation: float = 40.0
    rotation_probability: float = 0.6
    flip: float = 0.5
    codec: CodecName = "protocol"
    sigma: float = 2.0
    channel_order: ChannelOrder = "rgb"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        fits = all(side >= 32 and side % STRIDE == 0 for side in self.input_size)
        self._require("input_size", fits, "must be multiples of 4 from 32 on")
        for name in ("rotation_probability", "flip"):
            self._require(name, 0 <= getattr(self, name) <= 1, "must be a probability in [0, 1]")
        self._require("scale_factor", 0 <= self.scale_factor < 1, "must lie in [0, 1)")
        self._require("rotation", self.rotation >= 0, "must not be negative")
        for name in ("enlarge", "sigma"):
            self._require(name, getattr(self, name) > 0, "must be positive")
        self._require("std", min(self.std) > 0, "must be positive")
        for name, kind in (("codec", CodecName), ("channel_order", ChannelOrder)):
            words = get_args(kind)
            self._require(name, getattr(self, name) in words, f"must be {' or '.join(words)}")

    @property
    def heatmap_codec(self) -> HeatmapCodec:
        """What makes heatmaps of keypoints and keypoints of heatmaps."""
        height, width = self.input_size
        return HeatmapCodec((height // STRIDE, width // STRIDE), self.sigma, self.codec)

    def _require(self, name: str, holds: bool, rule: str) -> None:
        require(holds, f"data.transform.{name}={getattr(self, name)!r} {rule}")


@dataclass(frozen=True)
class PoseTestConfig:
    """How heatmaps are made in evaluation and prediction.

    Args:
        flip: Average them with those of the mirrored image.
        flip_shift: Pixels the mirrored heatmaps are shifted to the right before; null takes what the codec
            needs: 1 for protocol, 0 for unbiased.
    """

    flip: bool = True
    flip_shift: int | None = None

    def __post_init__(self) -> None:
        require(
            self.flip_shift is None or self.flip_shift >= 0,
            f"test.flip_shift={self.flip_shift} must not be negative",
        )


@dataclass(frozen=True)
class Crop:
    """A rectangle of an image that becomes the network's input.

    Args:
        centre: (2,) x, y in pixels of the image.
        sides: (2,) width and height in pixels, of the input's aspect ratio.
        rotation: degrees by which the rectangle is turned clockwise.
        mirrored: whether left and right change places.
    """

    centre: np.ndarray
    sides: np.ndarray
    rotation: float = 0.0
    mirrored: bool = False

    def to_input(self, input_size: tuple[int, int]) -> np.ndarray:
        """(2, 3) float64: pixels of the image -> pixels of an input of height and width ``input_size``.

        The centre comes to pixel (width / 2, height / 2), as in the released code: half a pixel off the
        input's own centre, for image and keypoints alike.
        """
        height, width = input_size
        angle = np.deg2rad(self.rotation)
        cosine, sine = np.cos(angle), np.sin(angle)
        linear = width / self.sides[0] * np.array([[cosine, sine], [-sine, cosine]])
        if self.mirrored:  # about the centre, so that the protocol's mirrored image need not be made
            linear[:, 0] *= -1
        return np.column_stack([linear, (width / 2, height / 2) - linear @ self.centre])


def box_crop(box: np.ndarray | Sequence[float], config: PoseTransformConfig) -> Crop:
    """The crop of a box (left, top, width, height): extended to the input's aspect ratio, then enlarged."""
    left, top, width, height = (float(side) for side in box)
    aspect = config.input_size[1] / config.input_size[0]
    sides = np.array([max(width, height * aspect), max(height, width / aspect)])
    return Crop(np.array([left + width / 2, top + height / 2]), sides * config.enlarge)


def random_crop(box: np.ndarray | Sequence[float], config: PoseTransformConfig) -> Crop:
    """`box_crop` with random size, rotation and mirroring, from torch's global generator."""
    crop = box_crop(box, config)
    size, angle = torch.randn(2).tolist()
    turned, mirrored = (torch.rand(2) < torch.tensor([config.rotation_probability, config.flip])).tolist()
    return Crop(
        crop.centre,
        crop.sides * (1 + config.scale_factor * np.clip(size, -1, 1)),
        rotation=config.rotation * float(np.clip(angle, -2, 2)) if turned else 0.0,
        mirrored=mirrored,
    )


def crop_image(image: Image.Image, crop: Crop, config: PoseTransformConfig) -> tuple[Tensor, Tensor]:
    """The network's input, and the way back from its pixels.

    Args:
        image: RGB.
        crop: what to cut out; what lies outside the image becomes black.
        config: sizes and normalisation.

    Returns:
        (3, H, W) float32, normalised, and (2, 3) float32, for `to_image`.
    """
    height, width = config.input_size
    back = _inverse(crop.to_input(config.input_size))
    matrix, reduction = back, 1
    if crop.sides[0] / width > _SHRINKS_WELL:
        reduction = int(crop.sides[0] / width / 2)
        image = image.reduce(reduction)
        matrix = np.column_stack([back[:, :2], back[:, 2] - (reduction - 1) / 2]) / reduction
    # Pillow counts from the first pixel's corner, these matrices from its centre.
    corner = matrix[:, 2] + 0.5 - matrix[:, :2].sum(axis=1) / 2
    coefficients = np.column_stack([matrix[:, :2], corner]).flatten().tolist()
    warped = image.transform((width, height), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)
    if config.channel_order == "bgr":
        warped = Image.merge("RGB", warped.split()[::-1])
    pixels = v2.Compose(to_normalised_tensor(config.mean, config.std))(warped)
    return pixels, torch.from_numpy(back).float()


def to_image(keypoints: Tensor, back: Tensor) -> Tensor:
    """Input pixels -> image pixels: (N, K, 2), (N, 2, 3) -> (N, K, 2)."""
    # A sum, not a matrix product, which autocast would take in low precision.
    return (keypoints[:, :, None] * back[:, None, :, :2]).sum(dim=3) + back[:, None, :, 2]


class PreparePose:
    """``prepare`` of keypoint detection: ``(image, person), index`` -> input, targets and the way back.

    Its keys, with the shapes of a sample: ``image`` (3, H, W), ``target`` (K, H / 4, W / 4),
    ``target_weight`` (K,), all float32; ``to_image`` (2, 3) float32, for the function `to_image`; ``index``.

    Args:
        config: crops, augmentation and heatmaps.
        keypoint_set: names what a flip exchanges.
        augment: whether crops are random, as in training.
    """

    def __init__(self, config: PoseTransformConfig, keypoint_set: KeypointSet, *, augment: bool) -> None:
        self._config = config
        self._flip_order = list(keypoint_set.flip_order)
        self._augment = augment

    def __call__(self, item: tuple[Image.Image, Person], index: int) -> dict[str, Any]:
        image, person = item
        crop = (random_crop if self._augment else box_crop)(person.box, self._config)
        pixels, back = crop_image(image, crop, self._config)
        matrix = crop.to_input(self._config.input_size)
        keypoints = person.keypoints @ matrix[:, :2].T + matrix[:, 2]
        labelled = person.visibility > 0
        if crop.mirrored:
            keypoints, labelled = keypoints[self._flip_order], labelled[self._flip_order]
        codec = self._config.heatmap_codec
        target, weight = codec.encode(torch.from_numpy(keypoints), torch.from_numpy(labelled))
        return {"image": pixels, "target": target, "target_weight": weight, "to_image": back, "index": index}


def _inverse(matrix: np.ndarray) -> np.ndarray:
    """(2, 3) -> (2, 3): the affine map back."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.column_stack([linear, -linear @ matrix[:, 2]])
