"""Classes of images and of videos with their probabilities, and the names people know them by."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from ffconv.data.clip_config import ViewsConfig
from ffconv.data.clips import PrepareViews
from ffconv.data.loading import Batch, Batches, LoaderSpec, eval_batches
from ffconv.data.transforms import PrepareImage, eval_transform
from ffconv.errors import require
from ffconv.tasks.multi_view import scored_videos
from ffconv.training.task import Share

if TYPE_CHECKING:
    from torch import Tensor

    from ffconv.data.fetching import OnError
    from ffconv.data.samples import Samples
    from ffconv.data.videos import Decoder
    from ffconv.interop.checkpoint_info import ClipInfo, ImageInfo
    from ffconv.tasks.networks import Trained

_WORDNET_ID = re.compile(r"n\d{8}")


class ImagePredictor:
    """Names the most likely classes of images.

    Args:
        trained: Network, and what its checkpoint says of it.
        device: Where the network runs.
        top: Number of classes per image.
        batch_size: Images on the device at a time.

    Raises:
        InputError: For a value outside its range.
    """

    def __init__(
        self, trained: Trained[ImageInfo], device: torch.device, *, top: int = 5, batch_size: int = 32
    ) -> None:
        _require_positive(top=top, batch_size=batch_size)
        self._network, self._info = trained.network.to(device), trained.info
        self._device, self._top, self._batch_size = device, top, batch_size

    def batches(self, images: Samples[Any], *, workers: int = 0, on_error: OnError = "raise") -> Batches:
        """Return the batches of images, prepared as the checkpoint says."""
        spec = LoaderSpec(self._batch_size, workers=workers, on_error=on_error)
        return eval_batches(images, PrepareImage(eval_transform(self._info.transform)), spec=spec)

    @torch.no_grad()
    def predict(self, batches: Iterable[Batch]) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        """Yield the index of each image and its classes, see `top_classes`."""
        for batch in batches:
            probabilities = self._network(batch["image"].to(self._device)).float().softmax(1).cpu()
            for index, own in zip(batch["index"], probabilities, strict=True):
                yield int(index), top_classes(own, self._info.classes, top=self._top)


class ClipPredictor:
    """Names the most likely classes of videos, of each as a whole and of each of its clips.

    Args:
        trained: Network, and what its checkpoint says of it.
        device: Where the network runs.
        views: Clips per video and crops per clip.
        top: Number of classes.
        batch_size: Views on the device at a time.
        decoder: Library that decodes videos.

    Raises:
        InputError: For a value outside its range.
    """

    def __init__(
        self,
        trained: Trained[ClipInfo],
        device: torch.device,
        *,
        views: ViewsConfig,
        top: int = 5,
        batch_size: int = 8,
        decoder: Decoder = "pyav",
    ) -> None:
        _require_positive(top=top, batch_size=batch_size)
        self._network, self._info = trained.network.to(device), trained.info
        self._share, self._views, self._top = Share(batch_size, device=device), views, top
        self._decoder: Decoder = decoder

    def batches(self, videos: Samples[Any], *, workers: int = 0, on_error: OnError = "raise") -> Batches:
        """Return the frames of each video that its views need, one video a batch."""
        prepare = PrepareViews(self._info.clip, self._views.clips, self._decoder)
        return eval_batches(videos, prepare, spec=LoaderSpec(1, workers=workers, on_error=on_error))

    @torch.no_grad()
    def predict(self, batches: Iterable[Batch]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the index of each video and its classes.

        ``predictions`` are those of the whole video, see `top_classes`; ``clips`` has for each clip
        ``start`` and ``end`` in seconds and its own ``predictions``.
        """
        clip, classes = self._info.clip, self._info.classes
        for video in scored_videos(self._network, batches, clip, views=self._views, share=self._share):
            whole, *clips = (
                top_classes(scores, classes, top=self._top) for scores in (video.scores, *video.clip_scores)
            )
            parts = [
                {"start": round(start, 3), "end": round(end, 3), "predictions": found}
                for (start, end), found in zip(video.spans.tolist(), clips, strict=True)
            ]
            yield video.index, {"predictions": whole, "clips": parts}


def top_classes(probabilities: Tensor, classes: Sequence[str], *, top: int) -> list[dict[str, Any]]:
    """Return the most likely classes of one sample, the likeliest first.

    Args:
        probabilities: (C,), one per class.
        classes: Names of the classes.
        top: Largest number of classes to return.

    Returns:
        For each its ``class``, its ``name`` in words and its ``probability``.
    """
    titles = class_titles(classes)
    values, labels = probabilities.topk(min(top, len(titles)))
    return [
        {"class": classes[label], "name": titles[label], "probability": round(value, 6)}
        for label, value in zip(labels.tolist(), values.tolist(), strict=True)
    ]


def class_titles(classes: Sequence[str]) -> list[str]:
    """Return ImageNet's words where the names of classes are WordNet ids, else the names.

    Example:
        >>> class_titles(["n01440764", "n02979186"])
        ['tench, Tinca tinca', 'cassette player']
        >>> class_titles(["cat", "dog"])
        ['cat', 'dog']
    """
    if not all(_WORDNET_ID.fullmatch(name) for name in classes):
        return list(classes)
    from timm.data import ImageNetInfo

    words = ImageNetInfo("imagenet-22k")
    known = set(words.label_names())
    return [words.label_name_to_description(name) if name in known else name for name in classes]


def _require_positive(**values: int) -> None:
    for name, value in values.items():
        require(value > 0, f"{name}={value} must be at least 1")
