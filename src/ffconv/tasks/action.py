"""Action recognition: classes of videos, from clips in training and from many views in a test."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ffconv.data.clip_config import ViewsConfig
from ffconv.data.clips import PrepareTrainingClips, PrepareViews, read_whole
from ffconv.data.embedded import Split
from ffconv.data.video_config import VideoDataConfig, open_videos
from ffconv.data.views import normalised
from ffconv.errors import require
from ffconv.interop.checkpoint_info import ClipInfo
from ffconv.metrics.classification import ClassificationMetrics, ClassificationScores
from ffconv.tasks.labelled import LabelledTask
from ffconv.tasks.loaders import SplitLoaders, Watch
from ffconv.tasks.multi_view import scored_videos
from ffconv.tasks.networks import ModelConfig, build_network
from ffconv.tasks.norms import freeze_norms, keep_frozen
from ffconv.training.task import Batch, Share


@dataclass(frozen=True)
class ActionConfig:
    """Options of action recognition.

    Args:
        model: Network; its weights may be those of the image network that it inflates.
        data: Videos.
        freeze_bn: Keep batch norms as they are: neither their statistics nor their scales are trained.
        limit: Use no more than this many videos of each split, spread over all classes; null uses all.
    """

    model: ModelConfig = field(default_factory=lambda: ModelConfig("ffc_c2d_resnet50"))
    data: VideoDataConfig = field(default_factory=VideoDataConfig)
    freeze_bn: bool = False
    limit: int | None = None

    def __post_init__(self) -> None:
        require(self.limit is None or self.limit > 0, f"limit={self.limit} must be at least 1, or null")


class Action(LabelledTask):
    """Action recognition, as `ffconv.training.task.Task` asks for it.

    Args:
        config: Network, videos.
        share: This process's part of the work; in a test its batches are of views.
        classes: Names the labels must be counted by, a checkpoint's; by default those of the training set.
    """

    noun = "videos"

    def __init__(self, config: ActionConfig, share: Share, *, classes: tuple[str, ...] | None = None):
        super().__init__(config, share, classes=classes, open_split=partial(open_videos, config.data))
        self.config = config
        self._loaders = self._split_loaders(self._opened, config.data.validation)
        self._testing = self._split_loaders(self._loaders.samples, config.data.test)

    @property
    def unit(self) -> str:
        return "clips" if self.config.data.clip.segments == 1 else "videos"

    def build_model(self) -> nn.Module:
        network = build_network(self.config.model, len(self.classes))
        if self.config.freeze_bn:
            freeze_norms(network)
        return network

    def info(self) -> ClipInfo:
        model, data = self.config.model, self.config.data
        return ClipInfo(model.name, model.arguments, self.classes, data.clip, data.test)

    def loss(self, model: nn.Module, batch: Batch, step: int) -> Tensor:
        if self.config.freeze_bn:
            keep_frozen(model)
        videos, segments = batch["clip"].shape[:2]
        scores = model(self._input(batch["clip"].flatten(0, 1)))
        return F.cross_entropy(scores.view(videos, segments, -1).mean(dim=1), batch["label"])

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return self._scores(model, self._loaders.evaluation("val"), self.config.data.validation).as_dict()

    def scores(self, model: nn.Module, split: Split) -> ClassificationScores:
        """Scores of a network, in evaluation mode, over exactly the videos of a split, by a test's views.

        Every process must call it; all get the same.
        """
        return self._scores(model, self._testing.evaluation(split), self.config.data.test)

    def watch_evaluation(self, watch: Watch) -> None:
        super().watch_evaluation(watch)
        self._testing.watch_evaluation = watch

    def skipped(self) -> Iterable[tuple[str, str]]:
        return (self._loaders.skipped | self._testing.skipped).items()

    def _scores(self, model: nn.Module, videos: Iterable[Batch], views: ViewsConfig) -> ClassificationScores:
        metrics = ClassificationMetrics(self.classes)
        clip = self.config.data.clip
        for video in scored_videos(model, videos, clip, views=views, share=self.share):
            scores, label = video.scores, torch.tensor([video.label])
            loss = -scores.clamp(min=torch.finfo(torch.float32).tiny).log()[label]
            metrics.update(scores[None], label, losses=loss)
        return metrics.compute()

    def _input(self, clips: Tensor) -> Tensor:
        """Clips (N, 3, T, H, W) uint8 as the network takes them."""
        return normalised(self.share.move({"clip": clips})["clip"], self.config.data.clip)

    def _split_loaders(self, open_split: Callable[[Split], Any], views: ViewsConfig) -> SplitLoaders:
        data = self.config.data
        return SplitLoaders(
            open_split,
            for_training=lambda _: PrepareTrainingClips(data.clip, data.decoder),
            for_evaluation=lambda _: PrepareViews(data.clip, views.clips, data.decoder),
            for_checking=partial(read_whole, decoder=data.decoder),
            evaluation_batch=1,  # videos have different sizes
            reading=data,
            share=self.share,
        )
