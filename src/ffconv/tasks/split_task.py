"""What all tasks have in common: the splits of their data, their batches, what a checkpoint says of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Protocol

from ffconv.tasks.loaders import SplitLoaders, Watch
from ffconv.tasks.networks import ModelConfig
from ffconv.training.config import plain
from ffconv.training.task import Batch, Share


class SplitTaskConfig(Protocol):
    """What every task's configuration has."""

    @property
    def model(self) -> ModelConfig: ...
    @property
    def data(self) -> Any: ...
    @property
    def limit(self) -> int | None: ...


class SplitTask:
    """The part of `ffconv.training.task.Task` that is the same whatever the samples are.

    A task sets its `name`, the `noun` of its samples and, in `__init__`, `self._loaders`; network, loss and
    evaluation are its own.

    Args:
        config: Network, data.
        share: This process's part of the work.
    """

    name: ClassVar[str]
    noun: ClassVar[str] = "images"
    _loaders: SplitLoaders

    def __init__(self, config: SplitTaskConfig, share: Share) -> None:
        self.share = share
        self._settings = config

    @property
    def unit(self) -> str:
        return self.noun

    def check(self) -> None:
        self._loaders.check()

    def batches_per_epoch(self) -> int:
        return self._loaders.batches_per_epoch()

    def train_batches(self, epoch: int, start: int) -> Iterable[Batch]:
        return self._loaders.train(epoch, start)

    def describe(self) -> str:
        train, val = (len(self._loaders.samples(split)) for split in ("train", "val"))
        return f"{self._settings.model.name}: {train} training and {val} validation {self.noun}"

    def metadata(self) -> dict[str, Any]:
        data, model = plain(self._settings.data), self._settings.model
        del data["workers"]  # of this machine, and the same run gives the same file with any number
        return {
            "task": self.name,
            "model": {"name": model.name, "arguments": model.arguments},
            "data": data,
        }

    def watch_evaluation(self, watch: Watch) -> None:
        """Have the batches of evaluation go through a function that shows how far it is."""
        self._loaders.watch_evaluation = watch

    def skipped(self) -> Iterable[tuple[str, str]]:
        return self._loaders.skipped.items()
