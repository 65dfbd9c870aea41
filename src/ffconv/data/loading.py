"""Batches of an epoch: the same bits for any number of workers, resumable at any batch.

The order of a training epoch is f(seed, epoch) and a sample's randomness is f(seed, epoch, index); the
state of a worker's generator enters neither. A global batch is ``world_size * batch_size`` neighbours of
the order, of which each process takes its block. Starting at batch ``start`` skips the earlier ones
without touching their files.

Streamed shards (``ShardStream``) cannot be addressed by index; ``ffconv.data.streaming`` says what holds
there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler

from ffconv.data.fetching import (
    EVALUATION,
    MAXIMUM_UNREADABLE_RUN,
    Batch,
    Fetched,
    LoaderSpec,
    OnError,
    collated,
    data_loader,
    given_up,
)
from ffconv.data.samples import Prepare, Samples, SkippedSample, UnreadableSample
from ffconv.data.seeding import borrowed_randomness, derive_seed, permutation
from ffconv.data.streaming import ShardStream, StreamedBatches
from ffconv.errors import InputError
from ffconv.wording import counted

__all__ = [
    "Batch",
    "BatchLoader",
    "Batches",
    "LoaderSpec",
    "batches_per_epoch",
    "eval_batches",
    "train_batches",
]

Source = Samples[Any] | ShardStream


class Batches:
    """The batches of one epoch for one process.

    ``len()`` is the number of batches, those before ``start`` not counted (for an
    evaluation an estimate: unreadable samples are left out, and shards may be dealt out unevenly).
    ``skipped`` lists what was left out so far, each sample once; it fills while iterating.
    """

    def __init__(self, fetch: Callable[[], Iterable[Fetched]], length: int, on_error: OnError) -> None:
        self._fetch = fetch
        self._length = length
        self._on_error = on_error
        self._skipped: dict[int, SkippedSample] = {}

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Batch]:
        for fetched in self._fetch():
            for sample in fetched.skipped:
                if self._on_error == "raise":
                    raise UnreadableSample(sample.name, sample.reason)
                self._skipped[sample.index] = sample
            if fetched.failure:
                raise InputError(fetched.failure)
            if fetched.batch is not None:
                yield fetched.batch

    @property
    def skipped(self) -> tuple[SkippedSample, ...]:
        """What was left out so far."""
        return tuple(self._skipped.values())


class BatchLoader:
    """Makes ``Batches`` of one source and keeps its worker processes from epoch to epoch.

    Of the ``Batches`` of one loader only the newest may be iterated: training and evaluation take a loader
    each.

    Args:
        samples: a map-style source, or a ``ShardStream`` (whose workers start anew each epoch).
        prepare: ``(samples[index], index) -> dict``; collated key by key. Picklable where workers are
            spawned.
        spec: sizes, seed, processes.
    """

    def __init__(self, samples: Source, prepare: Prepare, spec: LoaderSpec) -> None:
        self._samples = samples
        self._prepare = prepare
        self._spec = spec
        self._keys = _EpochKeys()
        self._loader: DataLoader[Fetched] | None = None

    def train(self, epoch: int, start: int = 0) -> Batches:
        """The training batches ``start``, ``start + 1``, ... of an epoch.

        Raises:
            InputError: where the source does not fill a single batch, or ``start`` lies outside the epoch.
        """
        total = batches_per_epoch(self._samples, self._spec)
        if not 0 <= start <= total:
            raise InputError(f"start={start} must lie in [0, {total}], the batches of an epoch")
        if isinstance(self._samples, ShardStream):
            streamed = StreamedBatches(
                self._samples, self._prepare, self._spec, epoch=epoch, span=range(start, total)
            )
            return self._streamed(streamed, total - start)
        return self._batches(self._samples, _training_keys(len(self._samples), self._spec, epoch)[start:])

    def evaluation(self) -> Batches:
        """Every sample exactly once over all processes, in order, without padding.

        The numbers of batches of two processes may differ by one (by more for a ``ShardStream``), so nothing
        collective may happen per batch.
        """
        spec = self._spec
        share = range(spec.rank, len(self._samples), spec.world_size)
        if isinstance(self._samples, ShardStream):
            streamed = StreamedBatches(self._samples, self._prepare, spec, epoch=EVALUATION)
            return self._streamed(streamed, -(-len(share) // spec.batch_size))
        firsts = range(0, len(share), spec.batch_size)
        keys = [_BatchKey(EVALUATION, share[first : first + spec.batch_size]) for first in firsts]
        return self._batches(self._samples, keys)

    def _batches(self, samples: Samples[Any], keys: list[_BatchKey]) -> Batches:
        if self._loader is None:
            dataset = _IndexedBatches(samples, self._prepare, self._spec)
            self._loader = data_loader(dataset, self._spec, workers=self._spec.workers, sampler=self._keys)
        fetch = partial(_fetch, self._loader, self._keys, keys)
        return Batches(fetch, len(keys), self._spec.on_error)

    def _streamed(self, streamed: StreamedBatches, length: int) -> Batches:
        fetch = partial(data_loader, streamed, self._spec, workers=streamed.workers)
        return Batches(fetch, length, self._spec.on_error)


def train_batches(
    samples: Source, prepare: Prepare, *, spec: LoaderSpec, epoch: int, start: int = 0
) -> Batches:
    """``BatchLoader.train`` for a single epoch."""
    return BatchLoader(samples, prepare, spec).train(epoch, start)


def eval_batches(samples: Source, prepare: Prepare, *, spec: LoaderSpec) -> Batches:
    """``BatchLoader.evaluation`` for a single pass."""
    return BatchLoader(samples, prepare, spec).evaluation()


def batches_per_epoch(samples: Source, spec: LoaderSpec) -> int:
    """Number of training batches of an epoch, the same for every process.

    Raises:
        InputError: where it would be none.
    """
    total, together = len(samples), spec.batch_size * spec.world_size
    count = total // together if spec.drop_last else -(-total // together)
    if count == 0:
        raise InputError(
            f"{counted(total, 'sample')} cannot fill one batch of {together}"
            f" (batch_size={spec.batch_size} on {counted(spec.world_size, 'process')}): lower the batch size"
        )
    return count


class _BatchKey(NamedTuple):
    """What a worker is asked for: the epoch's number and the indices of one batch."""

    epoch: int
    indices: Sequence[int] | np.ndarray


class _EpochKeys(Sampler[_BatchKey]):
    """The keys of the epoch being read; exchanged between epochs, so that the workers can stay."""

    def __init__(self) -> None:
        self.current: list[_BatchKey] = []

    def __iter__(self) -> Iterator[_BatchKey]:
        return iter(self.current)

    def __len__(self) -> int:
        return len(self.current)


def _fetch(loader: DataLoader[Fetched], sampler: _EpochKeys, keys: list[_BatchKey]) -> Iterator[Fetched]:
    sampler.current = keys
    for fetched in loader:
        if sampler.current is not keys:
            raise RuntimeError("of the Batches of one BatchLoader only the newest may be iterated")
        yield fetched


def _training_keys(total: int, spec: LoaderSpec, epoch: int) -> list[_BatchKey]:
    order = permutation(total, spec.seed, "order", epoch)
    together = spec.batch_size * spec.world_size
    if spec.drop_last:
        order = order[: total // together * together]
    else:
        order = np.resize(order, -(-total // spec.world_size) * spec.world_size)  # repeats from the start
    blocks = (order[first : first + together] for first in range(0, len(order), together))
    return [_BatchKey(epoch, np.split(block, spec.world_size)[spec.rank]) for block in blocks]


class _IndexedBatches(Dataset[Fetched]):
    """Makes the batch of a key; runs in the workers."""

    def __init__(self, samples: Samples[Any], prepare: Prepare, spec: LoaderSpec) -> None:
        self._samples = samples
        self._prepare = prepare
        self._seed = spec.seed
        self._replaces = spec.on_error == "skip"

    def __getitem__(self, key: _BatchKey) -> Fetched:
        prepared: list[dict[str, Any]] = []
        skipped: list[SkippedSample] = []
        with borrowed_randomness() as seed_everything:
            for index in key.indices:
                before = len(skipped)
                for candidate in self._candidates(int(index), key.epoch):
                    seed_everything(derive_seed(self._seed, "sample", key.epoch, candidate))
                    try:
                        prepared.append(self._prepare(self._samples[candidate], candidate))
                        break
                    except UnreadableSample as error:
                        skipped.append(SkippedSample(candidate, error.name, error.reason))
                if len(skipped) - before == MAXIMUM_UNREADABLE_RUN:
                    return given_up(skipped)
        return collated(prepared, skipped)

    def _candidates(self, index: int, epoch: int) -> Iterator[int]:
        """The index itself and, where training replaces what it skips, its successors."""
        replacements = MAXIMUM_UNREADABLE_RUN if self._replaces and epoch != EVALUATION else 1
        for step in range(replacements):
            yield (index + step) % len(self._samples)
