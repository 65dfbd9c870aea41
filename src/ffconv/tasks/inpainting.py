"""Inpainting: batches of images with drawn holes, a reconstruction loss, evaluation inside the holes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn
from torch.utils.data import default_collate

from ffconv.data.config import DataConfig, Split, open_samples
from ffconv.data.limit import limited
from ffconv.data.masks import MaskConfig, PrepareHoles
from ffconv.data.transforms import ImageTransformConfig, eval_transform, train_transform
from ffconv.errors import InputError, require
from ffconv.interop.checkpoint_info import InpaintingInfo
from ffconv.metrics.inpainting import InpaintingMetrics, InpaintingScores
from ffconv.models.inpainting import hide
from ffconv.tasks.hole_pictures import draw_filled
from ffconv.tasks.loaders import SplitLoaders
from ffconv.tasks.networks import ModelConfig, build_network, require_output
from ffconv.tasks.split_task import SplitTask
from ffconv.training.task import Batch, Share

_COLOURS = 3
_PICTURES = 6


@dataclass(frozen=True)
class ReconstructionConfig:
    """Difference of the network's output from the image, inside and outside the hole.

    Args:
        norm: l1, mean absolute difference; l2, mean squared difference.
        hole: Weight of the mean over the pixels of the holes.
        known: Weight of the mean over the other pixels, which the network is shown.
    """

    norm: Literal["l1", "l2"] = "l1"
    hole: float = 1.0
    known: float = 1.0

    def __post_init__(self) -> None:
        require(self.norm in ("l1", "l2"), f"loss.norm={self.norm!r} must be l1 or l2")
        require(
            self.hole > 0 and self.known >= 0,
            f"loss.hole={self.hole} must be above 0 and loss.known={self.known} at least 0",
        )


def _unnormalised() -> DataConfig:
    return DataConfig(transform=ImageTransformConfig(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)))


@dataclass(frozen=True)
class InpaintingConfig:
    """Options of inpainting.

    Args:
        model: Network of four channels, image and mask, to three.
        data: Images, with or without labels; they stay in [0, 1].
        masks: Holes.
        loss: Loss.
        limit: Use no more than this many images of each split, spread over the set; null uses all.
    """

    model: ModelConfig = field(default_factory=lambda: ModelConfig("lama_generator"))
    data: DataConfig = field(default_factory=_unnormalised)
    masks: MaskConfig = field(default_factory=MaskConfig)
    loss: ReconstructionConfig = field(default_factory=ReconstructionConfig)
    limit: int | None = None

    def __post_init__(self) -> None:
        require(self.limit is None or self.limit > 0, f"limit={self.limit} must be at least 1, or null")
        transform = self.data.transform
        require(
            set(transform.mean) == {0} and set(transform.std) == {1},
            "inpainting networks take images in [0, 1]: data.transform.mean must be 0 and .std 1",
        )


class Inpainting(SplitTask):
    """Inpainting, as `ffconv.training.task.Task` asks for it.

    Args:
        config: Network, images, holes, loss.
        share: This process's part of the work.
    """

    main_metric = "hole_psnr"

    def __init__(self, config: InpaintingConfig, share: Share) -> None:
        super().__init__(config, share)
        self.config = config
        transform = config.data.transform
        self._for_evaluation = PrepareHoles(eval_transform(transform), config.masks, fixed=True)
        self._loaders = SplitLoaders(
            self._open,
            for_training=lambda samples: PrepareHoles(train_transform(transform), config.masks, fixed=False),
            for_evaluation=lambda samples: self._for_evaluation,
            reading=config.data,
            share=share,
        )

    def build_model(self) -> nn.Module:
        network = build_network(self.config.model, _COLOURS)
        for side in {self.config.data.transform.train_size, self.config.data.transform.eval_size}:
            require_output(
                network,
                self.config.model.name,
                input_size=(_COLOURS + 1, side, side),
                output_size=(_COLOURS, side, side),
                advice="take an inpainting network, and sizes that are multiples of"
                f" {getattr(network, 'multiple', 1)}",
            )
        return network

    def loss(self, model: nn.Module, batch: Batch, step: int) -> Tensor:
        image, mask = batch["image"], batch["mask"]
        difference = model(hide(image, mask)).float() - image
        error = difference.abs() if self.config.loss.norm == "l1" else difference.square()
        hole = (error * mask).sum() / (_COLOURS * mask.sum())
        known = (error * (1 - mask)).sum() / (_COLOURS * (1 - mask).sum())
        return self.config.loss.hole * hole + self.config.loss.known * known

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return self.scores(model, "val").as_dict()

    def scores(self, model: nn.Module, split: Split) -> InpaintingScores:
        """Scores of a network, in evaluation mode, over exactly the images of a split.

        Every process must call it; all get the same.
        """
        metrics = InpaintingMetrics(self.config.masks.kinds)
        for batch in map(self.share.move, self._loaders.evaluation(split)):
            image, mask = batch["image"], batch["mask"]
            metrics.update(model(hide(image, mask)).float(), image, mask, batch["kind"])
        return metrics.compute()

    def pictures(self, model: nn.Module, split: Split = "val") -> Mapping[str, bytes]:
        """The first images of a split with their holes, filled."""
        samples = self._loaders.samples(split)
        if not hasattr(samples, "__getitem__"):  # streamed shards have no first images
            return {}
        first = range(min(_PICTURES, len(samples)))
        readable = [sample for index in first if (sample := self._prepared(samples, index)) is not None]
        if not readable:
            return {}
        batch = self.share.move(default_collate(readable))
        image, mask = batch["image"], batch["mask"]
        return {"samples.png": draw_filled(image, mask, model(hide(image, mask)).float())}

    def info(self) -> InpaintingInfo:
        model, transform = self.config.model, self.config.data.transform
        return InpaintingInfo(model.name, model.arguments, transform, self.config.masks)

    def _open(self, split: Split) -> Any:
        samples = open_samples(self.config.data, split, labelled=False)
        return samples if self.config.limit is None else limited(samples, self.config.limit)

    def _prepared(self, samples: Any, index: int) -> dict[str, Any] | None:
        try:
            return self._for_evaluation(samples[index], index)
        except InputError:  # an unreadable file; evaluation has already said so
            return None
