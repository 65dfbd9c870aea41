"""A task's data, from its splits to this process's batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, Protocol

from ffconv.data.embedded import Split
from ffconv.data.fetching import OnError
from ffconv.data.loading import Batches, BatchLoader, LoaderSpec, batches_per_epoch
from ffconv.data.samples import Prepare
from ffconv.data.verify import number_only, refuse_unreadable, verify
from ffconv.training.task import Batch, Share


class Reading(Protocol):
    """What every data configuration says of how files are read."""

    @property
    def worker_processes(self) -> int: ...
    @property
    def on_error(self) -> OnError: ...
    @property
    def verify(self) -> bool: ...


#: What batches go through on their way.
Watch = Callable[[Batches], Iterator[Batch]]


class SplitLoaders:
    """The splits of a data set, opened when asked for, and their batches; loaders stay from epoch to epoch.

    Args:
        open_split: Opens the samples of a split.
        for_training: Makes, of the training samples, what prepares each of them.
        for_evaluation: The same for evaluation.
        for_checking: Prepares a sample to see whether it can be read.
        evaluation_batch: Samples in a batch of evaluation; by default the share's.
        reading: Worker processes, and what to do with unreadable files.
        share: This process's part of the work.
    """

    def __init__(
        self,
        open_split: Callable[[Split], Any],
        *,
        for_training: Callable[[Any], Prepare],
        for_evaluation: Callable[[Any], Prepare],
        reading: Reading,
        share: Share,
        for_checking: Prepare = number_only,
        evaluation_batch: int | None = None,
    ) -> None:
        self._open_split, self._reading, self._share = open_split, reading, share
        self._for_training, self._for_evaluation = for_training, for_evaluation
        self._for_checking, self._evaluation_batch = for_checking, evaluation_batch
        self._samples: dict[Split, Any] = {}
        self._evaluations: dict[Split, BatchLoader] = {}
        self.skipped: dict[str, str] = {}  # reason for each unreadable sample left out so far, by name
        self.watch_evaluation: Watch = iter  # shows a person how far it is

    def samples(self, split: Split) -> Any:
        """The samples of a split."""
        if split not in self._samples:  # listing a million files takes its time
            self._samples[split] = self._open_split(split)
        return self._samples[split]

    def check(self) -> None:
        """Opens both splits and, where the configuration asks for it, reads every file.

        Raises:
            InputError: for what is missing or unreadable.
        """
        for split in ("train", "val"):
            samples = self.samples(split)
            if self._reading.verify:
                workers = self._reading.worker_processes
                refuse_unreadable(verify(samples, read=self._for_checking, workers=workers), len(samples))

    def batches_per_epoch(self) -> int:
        """Training batches of an epoch, the same for every process."""
        return batches_per_epoch(self.samples("train"), self._training_spec)

    def train(self, epoch: int, start: int) -> Iterator[Batch]:
        """The training batches of an epoch from number ``start`` on."""
        return self._noted(self._training.train(epoch, start))

    def evaluation(self, split: Split) -> Iterator[Batch]:
        """Every sample of a split once over all processes."""
        if split not in self._evaluations:
            samples = self.samples(split)
            spec = self._spec(drop_last=False, batch_size=self._evaluation_batch)
            prepare = self._for_evaluation(samples)
            self._evaluations[split] = BatchLoader(samples, prepare, spec)
        return self._noted(self._evaluations[split].evaluation(), self.watch_evaluation)

    def _noted(self, batches: Batches, watch: Watch = iter) -> Iterator[Batch]:
        try:
            yield from watch(batches)
        finally:
            self.skipped |= {sample.name: sample.reason for sample in batches.skipped}

    @cached_property
    def _training(self) -> BatchLoader:
        samples = self.samples("train")
        return BatchLoader(samples, self._for_training(samples), self._training_spec)

    @cached_property
    def _training_spec(self) -> LoaderSpec:
        # A set smaller than a batch, as --limit makes it, is a batch of its own.
        together = self._share.batch_size * self._share.world_size
        return self._spec(drop_last=len(self.samples("train")) >= together)

    def _spec(self, *, drop_last: bool, batch_size: int | None = None) -> LoaderSpec:
        return LoaderSpec(
            batch_size=batch_size or self._share.batch_size,
            seed=self._share.seed,
            workers=self._reading.worker_processes,
            rank=self._share.rank,
            world_size=self._share.world_size,
            pin_memory=self._share.device.type == "cuda",
            on_error=self._reading.on_error,
            drop_last=drop_last,
        )
