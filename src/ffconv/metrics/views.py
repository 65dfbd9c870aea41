"""Scores of a video from those of its views."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor


class ViewMeans:
    """Means of softmax scores over the views of a clip or a video, however the views are batched.

    Views must come owner by owner.

    Args:
        views: of each owner.

    Example:
        >>> means = ViewMeans(2)
        >>> list(means.add([0], torch.tensor([[0.0, 0.0]])))
        []
        >>> logits = torch.tensor([[0.0, 100.0], [100.0, 0.0]])
        >>> [mean.tolist() for mean in means.add([0, 1], logits)]
        [[0.25, 0.75]]
    """

    def __init__(self, views: int) -> None:
        self._views = views
        self._seen = 0
        self._sum: Tensor | float = 0.0

    def add(self, owners: Sequence[int], logits: Tensor) -> Iterator[Tensor]:
        """Adds views and gives the mean scores (C,), float64 on the CPU, of each owner they complete.

        Args:
            owners: which clip or video each view belongs to.
            logits: (N, C).
        """
        scores = logits.detach().float().softmax(dim=1).cpu().double()
        place = 0
        for _, same in groupby(owners):
            count = len(list(same))
            self._sum = self._sum + scores[place : place + count].sum(dim=0)
            self._seen += count
            place += count
            if self._seen == self._views:
                yield torch.as_tensor(self._sum) / self._views
                self._seen, self._sum = 0, 0.0
