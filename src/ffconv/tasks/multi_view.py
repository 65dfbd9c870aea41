"""Scores of videos from many views each, of which no more than a batch is on the device."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ffconv.data.clip_config import ClipConfig, ViewsConfig
from ffconv.data.views import normalised, view_batches, windows_per_clip
from ffconv.metrics.views import ViewMeans
from ffconv.training.task import Batch, Share


@dataclass(frozen=True)
class ScoredVideo:
    """What a network says of a video.

    Args:
        index: its number among the samples.
        label: its class, `NO_LABEL` without one.
        spans: (clips, 2), the seconds at which each clip begins and ends.
        clip_scores: (clips, C) float64, softmax scores averaged over the crops of each clip.
    """

    index: int
    label: int
    spans: Tensor
    clip_scores: Tensor

    @property
    def scores(self) -> Tensor:
        """(C,), softmax scores averaged over all views."""
        return self.clip_scores.mean(dim=0)


def scored_videos(
    network: nn.Module, videos: Iterable[Batch], config: ClipConfig, *, views: ViewsConfig, share: Share
) -> Iterator[ScoredVideo]:
    """Runs a network over the views of videos.

    Args:
        network: in evaluation mode, on the share's device.
        videos: batches of one video each, as `ffconv.data.clips.PrepareViews` makes them.
        config: how clips are cut.
        views: how many, as `videos` were prepared for.
        share: its batch size bounds the views that are on the device at a time.
    """
    waiting: deque[Batch] = deque()

    def noted() -> Iterator[Batch]:
        for batch in videos:
            video = {name: values[0] for name, values in batch.items()}
            waiting.append({name: video[name] for name in ("index", "label", "span")})
            yield video

    means = ViewMeans(windows_per_clip(views.crops, config))
    clips: list[Tensor] = []
    for batch in view_batches(noted(), config, crops=views.crops, size=share.batch_size):
        inputs = share.move({"clip": batch.clips})["clip"]
        for mean in means.add(batch.owners, network(normalised(inputs, config))):
            clips.append(mean)
            if len(clips) == views.clips:
                video = waiting.popleft()
                yield ScoredVideo(int(video["index"]), int(video["label"]), video["span"], torch.stack(clips))
                clips = []
