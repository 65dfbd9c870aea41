"""Predict from Python: files, PIL images, arrays or tensors in; classes or keypoints out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ffconv.data.clip_config import Crops, ViewsConfig
from ffconv.data.decoding import read_image, to_rgb, turn_upright
from ffconv.data.media import NO_LABEL
from ffconv.data.videos import Decoder, VideoArray, VideoFile
from ffconv.errors import InputError, require
from ffconv.files import checkpoint_file
from ffconv.interop.checkpoint_info import ClipInfo, ImageInfo, PoseInfo, task_of_file
from ffconv.interop.hub import package_folder
from ffconv.tasks.class_prediction import ClipPredictor, ImagePredictor
from ffconv.tasks.networks import choose_device, load_trained
from ffconv.tasks.person_boxes import PersonBox, Picture, whole_picture
from ffconv.tasks.pose_prediction import FoundPerson, PosePredictor, pose_predictor

_PATH = (str, os.PathLike)
_SINGLE = (*_PATH, Image.Image, np.ndarray, Tensor)


class Predictor:
    """A trained network with its preprocessing: the Python form of ``ffconv predict``.

    Args:
        source: A .safetensors checkpoint, a run folder (its best), a package, or ``"user/name"`` on the
            Hugging Face Hub.
        device: "auto" (the accelerator, if there is one), or any device of torch's.
        top: Classes per image or video.
        batch_size: Images, persons or views on the device at a time; by default 32, of views 8.
        clips: Clips per video.
        crops: Crops per clip: 1, 3 or 10.
        flip: Average keypoints' heatmaps with the mirrored image's; by default as the evaluation of training.
        decoder: Library that decodes videos: pyav or torchcodec.
        revision: Branch, tag or commit on the Hub.
        token: The Hub's, for a private repository.

    Attributes:
        task: classification, pose or action.
        names: Names of the classes, or of the keypoints.
        device: Where the network runs.

    Raises:
        InputError: If there is no such checkpoint, it does another task, or a value is out of range.

    Example:
        >>> import ffconv
        >>> predictor = ffconv.Predictor("runs/ffc_resnet50")  # doctest: +SKIP
        >>> predictor("photo.jpg")[0]  # doctest: +SKIP
        {'class': 'n01440764', 'name': 'tench, Tinca tinca', 'probability': 0.981234}
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        *,
        device: str | torch.device = "auto",
        top: int = 5,
        batch_size: int | None = None,
        clips: int = 10,
        crops: Crops = 3,
        flip: bool | None = None,
        decoder: Decoder = "pyav",
        revision: str | None = None,
        token: str | None = None,
    ) -> None:
        self.device = choose_device(device)
        path = Path(source)
        if not path.exists() and path.suffix != ".safetensors":
            path = package_folder(str(source), revision=revision, token=token)
        path = checkpoint_file(path)
        self.task = task_of_file(path)
        size: dict[str, Any] = {} if batch_size is None else {"batch_size": batch_size}
        self._engine: ImagePredictor | ClipPredictor | PosePredictor
        if self.task == "classification":
            trained = load_trained(path, ImageInfo)
            self._engine = ImagePredictor(trained, self.device, top=top, **size)
        elif self.task == "action":
            views = ViewsConfig(clips, crops)
            trained = load_trained(path, ClipInfo)
            self._engine = ClipPredictor(trained, self.device, views=views, top=top, decoder=decoder, **size)
        elif self.task == "pose":
            trained = load_trained(path, PoseInfo)
            self._engine = pose_predictor(trained, self.device, flip=flip, **size)
        else:
            raise InputError(f"{path} is a checkpoint of {self.task}: ffconv.inpaint(image, mask, model=...)")
        self.names: tuple[str, ...] = trained.info.names

    def __repr__(self) -> str:
        return f"Predictor(task={self.task!r}, names={len(self.names)}, device={str(self.device)!r})"

    def __call__(self, inputs: Any, *, boxes: Any = None, fps: float | None = None) -> Any:
        """Predict one input or several.

        Args:
            inputs: An image: a path, a PIL image, an array (H, W) or (H, W, C), or a tensor (C, H, W), with 1
                (grey), 3 (RGB) or 4 (RGB and alpha) channels; integers span their range (uint8, uint16),
                floats [0, 1]. For a network of videos a path, an array (T, H, W, C) or a tensor
                (T, C, H, W). Several: a list of these, or one more axis in front.
            boxes: For keypoints: boxes of the persons of the image, (P, 4) left, top, width, height in
                pixels; for several images one such list each. By default the whole image is one person.
            fps: Frames per second of a video that is given as an array or tensor.

        Returns:
            Of an image its classes, the likeliest first: dictionaries with ``class``, ``name`` and
            ``probability``. Of a video ``predictions``, the same for all of it, and ``clips``, each with
            ``start``, ``end`` (seconds) and ``predictions``. For keypoints the persons, surest first: see
            :class:`ffconv.tasks.pose_prediction.FoundPerson`. For several inputs a list of these.

        Raises:
            InputError: For an unreadable file, or an input of another kind, shape or range.
        """
        require(boxes is None or self.task == "pose", f"boxes are of keypoints, not of {self.task}")
        require(fps is None or self.task == "action", f"fps is of videos, not of {self.task}")
        single_axes = 4 if self.task == "action" else 3
        if not isinstance(inputs, _SINGLE):
            items, several = _listed(inputs), True
        else:
            several = getattr(inputs, "ndim", 0) == single_axes + 1
            items = list(cast("Any", inputs)) if several else [inputs]
        if not items:
            return []
        if isinstance(self._engine, PosePredictor):
            found = _find_keypoints(self._engine, items, boxes if several or boxes is None else [boxes])
        elif isinstance(self._engine, ClipPredictor):
            videos = _Given(items, lambda video: as_video(video, fps))
            found = [result for _, result in self._engine.predict(self._engine.batches(videos))]
        else:
            images = _Given(items, as_image)
            found = [classes for _, classes in self._engine.predict(self._engine.batches(images))]
        return found if several else found[0]


def as_image(image: Any) -> Image.Image:
    """Return an image of any kind as 8-bit RGB, as its file would be read.

    Args:
        image: A path, a PIL image, an array (H, W) or (H, W, C), or a tensor (C, H, W).

    Raises:
        InputError: For an unreadable file, or another kind, shape, data type or range.
    """
    if isinstance(image, _PATH):
        path = Path(image)
        require(
            not path.is_dir(), f"{path} is a folder: give its files, as in sorted(Path(folder).iterdir())"
        )
        return read_image(path)
    if isinstance(image, Image.Image):
        require(image.mode != "F", "image of mode F has no defined range: convert it to L or RGB")
        return to_rgb(turn_upright(image))
    if isinstance(image, Tensor):
        pixels = image.detach().cpu()
        require(pixels.ndim == 3, f"image tensor of shape {tuple(image.shape)} must be (C, H, W)")
        return as_image(pixels.permute(1, 2, 0).numpy())
    require(
        isinstance(image, np.ndarray),
        f"input of type {type(image).__name__} must be a path, a PIL image, an array or a tensor",
    )
    pixels = image[..., None] if image.ndim == 2 else image
    require(
        pixels.ndim == 3 and pixels.shape[2] in (1, 3, 4) and pixels.size > 0,
        f"image of shape {image.shape} must be (H, W) or (H, W, C), as a tensor (C, H, W), with 1, 3 or 4"
        " channels",
    )
    whole = _to_8_bit(pixels)
    return to_rgb(Image.fromarray(whole[..., 0] if whole.shape[2] == 1 else whole))


def as_video(video: Any, fps: float | None) -> VideoFile | VideoArray:
    """Return a path, an array (T, H, W, C) or a tensor (T, C, H, W) as a video.

    Raises:
        InputError: For another kind or shape, or frames without ``fps``.
    """
    if isinstance(video, _PATH):
        path = Path(video)
        require(
            not path.is_dir(), f"{path} is a folder: give its files, as in sorted(Path(folder).iterdir())"
        )
        return VideoFile(str(path), path)
    known = isinstance(video, np.ndarray | Tensor) and video.ndim == 4 and len(video) > 0
    shape = f" of shape {tuple(video.shape)}" if hasattr(video, "shape") else ""
    require(
        known,
        f"video {type(video).__name__}{shape} must be a path, an array (T, H, W, C) or a tensor (T, C, H, W)",
    )
    if fps is None or not 0 < fps < float("inf"):
        raise InputError(f"fps={fps} must be the frames per second of a video that is an array or tensor")
    return VideoArray("video", np.stack([np.asarray(as_image(frame)) for frame in video]), fps)


class _Given:
    """Inputs as unlabelled samples, each read when its turn comes."""

    classes: tuple[str, ...] = ()

    def __init__(self, items: Sequence[Any], read: Callable[[Any], Any]) -> None:
        self._items, self._read = items, read

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self._read(self._items[index]), NO_LABEL


def _find_keypoints(
    predictor: PosePredictor, images: Sequence[Any], boxes: Sequence[Any] | None
) -> list[list[FoundPerson]]:
    require(
        boxes is None or len(boxes) == len(images),
        f"boxes of {len(boxes or ())} images for {len(images)} images: give a list of boxes for each",
    )
    found = []
    for number, item in enumerate(images):
        image = as_image(item)
        persons = whole_picture(Picture("", number, image)) if boxes is None else _read_boxes(boxes[number])
        found.append(predictor(image, persons))
    return found


def _listed(inputs: Any) -> list[Any]:
    if not isinstance(inputs, Iterable):
        raise InputError(
            f"input of type {type(inputs).__name__} must be a path, a PIL image, an array, a tensor or a list"
        )
    return list(inputs)


def _to_8_bit(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels)
    if pixels.dtype == np.uint16:
        return ((pixels.astype(np.int64) * 255 + 2**15 - 1) // (2**16 - 1)).astype(np.uint8)
    require(
        np.issubdtype(pixels.dtype, np.floating),
        f"image of {pixels.dtype} must be uint8, uint16 or floating point",
    )
    low, high = float(pixels.min()), float(pixels.max())
    inside = 0 <= low <= high <= 1  # False for NaN
    require(
        inside,
        f"image of floats must lie in [0, 1], not in [{low:g}, {high:g}]: not yet normalised, or as uint8",
    )
    return np.rint(pixels * 255).astype(np.uint8)


def _read_boxes(boxes: Any) -> list[PersonBox]:
    rule = "boxes must be (P, 4): left, top, width, height in pixels of each person"
    try:
        values = np.asarray(boxes, dtype=float)
    except (TypeError, ValueError) as error:
        raise InputError(rule) from error
    if values.size == 0:
        return []
    require(values.ndim == 2 and values.shape[1] == 4, f"{rule}, not of shape {values.shape}")
    require(bool(np.isfinite(values).all() and (values[:, 2:] > 0).all()), f"{rule}, finite, sides above 0")
    return [PersonBox(box, 1.0) for box in values]
