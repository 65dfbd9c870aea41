"""What tasks that name a class have in common: the classes, the splits, the checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Protocol

from ffconv.data.embedded import Split
from ffconv.data.limit import limited
from ffconv.data.samples import require_same_classes
from ffconv.tasks.loaders import SplitLoaders
from ffconv.tasks.networks import ModelConfig
from ffconv.training.config import plain
from ffconv.training.task import Batch, Share


class LabelledConfig(Protocol):
    """What the configuration of such a task has."""

    @property
    def model(self) -> ModelConfig: ...
    @property
    def data(self) -> Any: ...
    @property
    def limit(self) -> int | None: ...


class LabelledTask:
    """The part of `ffconv.training.task.Task` that is the same whatever has the labels.

    A task sets its `name` and, in `__init__`, `self._loaders`; network, loss and evaluation are its own.

    Args:
        config: Network, data.
        share: This process's part of the work.
        classes: Names the labels must be counted by, a checkpoint's; by default those of the training set.
        open_split: Opens the samples of a split.
    """

    name: ClassVar[str]
    main_metric = "top1"
    _loaders: SplitLoaders

    def __init__(
        self,
        config: LabelledConfig,
        share: Share,
        *,
        classes: tuple[str, ...] | None,
        open_split: Callable[[Split], Any],
    ) -> None:
        self.share = share
        self._settings, self._expected_classes, self._open_split = config, classes, open_split

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in label order."""
        return self._expected_classes or tuple(self._samples("train").classes)

    def check(self) -> None:
        self._loaders.check()

    def batches_per_epoch(self) -> int:
        return self._loaders.batches_per_epoch()

    def train_batches(self, epoch: int, start: int) -> Iterable[Batch]:
        return self._loaders.train(epoch, start)

    def metadata(self) -> dict[str, Any]:
        data, model = plain(self._settings.data), self._settings.model
        del data["workers"]  # of this machine, and the same run gives the same file with any number
        return {
            "task": self.name,
            "model": {"name": model.name, "arguments": model.arguments},
            "classes": self.classes,
            "data": data,
        }

    def skipped(self) -> Iterable[tuple[str, str]]:
        return self._loaders.skipped.items()

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
