"""What all tasks have in common: the splits of their data, their batches, what a checkpoint says of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Protocol

from ffconv.interop.checkpoint_info import CheckpointInfo, check_info
from ffconv.tasks.loaders import SplitLoaders, Watch
from ffconv.tasks.networks import ModelConfig
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

    A task sets the `noun` of its samples and, in `__init__`, `self._loaders`; network, loss, evaluation and
    `info` are its own.

    Args:
        config: Network, data.
        share: This process's part of the work.
    """

    noun: ClassVar[str] = "images"
    _loaders: SplitLoaders

    def __init__(self, config: SplitTaskConfig, share: Share) -> None:
        self.share = share
        self._settings = config

    @property
    def unit(self) -> str:
        return self.noun

    def info(self) -> CheckpointInfo:
        """What a checkpoint says of the network, apart from metrics."""
        raise NotImplementedError

    def check(self) -> None:
        self._loaders.check()
        check_info(self.info())

    def batches_per_epoch(self) -> int:
        return self._loaders.batches_per_epoch()

    def train_batches(self, epoch: int, start: int) -> Iterable[Batch]:
        return self._loaders.train(epoch, start)

    def describe(self) -> str:
        train, val = (len(self._loaders.samples(split)) for split in ("train", "val"))
        return f"{self._settings.model.name}: {train} training and {val} validation {self.noun}"

    def metadata(self) -> dict[str, Any]:
        return self.info().metadata()

    def watch_evaluation(self, watch: Watch) -> None:
        """Have the batches of evaluation go through a function that shows how far it is."""
        self._loaders.watch_evaluation = watch

    def skipped(self) -> Iterable[tuple[str, str]]:
        return self._loaders.skipped.items()
