"""What tasks that name a class have in common: the names, and splits that are labelled by them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ffconv.data.embedded import Split
from ffconv.data.limit import limited
from ffconv.data.samples import require_same_classes
from ffconv.tasks.split_task import SplitTask, SplitTaskConfig
from ffconv.training.task import Share


class LabelledTask(SplitTask):
    """A task with classes, whatever has the labels.

    Args:
        config: Network, data.
        share: This process's part of the work.
        classes: Names the labels must be counted by, a checkpoint's; by default those of the training set.
        open_split: Opens the samples of a split.
    """

    main_metric = "top1"

    def __init__(
        self,
        config: SplitTaskConfig,
        share: Share,
        *,
        classes: tuple[str, ...] | None,
        open_split: Callable[[Split], Any],
    ) -> None:
        super().__init__(config, share)
        self._expected_classes, self._open_split = classes, open_split

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in label order."""
        return self._expected_classes or tuple(self._samples("train").classes)

    def _samples(self, split: Split) -> Any:
        return self._loaders.samples(split)

    def _opened(self, split: Split) -> Any:
        """Opens a split: no more samples than the limit, their classes those of the labels."""
        samples = self._open_split(split)
        expected = self._expected_classes if split == "train" else self.classes
        if expected is not None:
            require_same_classes(expected, samples.classes, f"data split {split}")
        limit = self._settings.limit
        return samples if limit is None else limited(samples, limit)
