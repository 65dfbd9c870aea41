"""webdataset shards that can only be read from their beginning: pipes, URLs, compressed tars.

What holds, and what does not:

- Evaluation gives every sample exactly once over all processes and workers.
- A training epoch has exactly ``len(stream) // (batch_size * world_size)`` batches. Each lane (a worker of
  a process) reads its own shards, shuffled by (seed, epoch), through a shuffle buffer; where the shards do
  not divide evenly, a lane that ends early reads its shards again and another leaves some samples out.
- A sample's randomness is f(seed, epoch, index), as everywhere.
- A run that resumes mid-epoch with the same processes and workers sees the batches it would have seen (the
  earlier samples are read, not decoded), unless unreadable samples were skipped. With other numbers of
  workers or processes the run is exact in the number of samples only, since the shards are dealt out
  differently.

Uncompressed shards on a local disk need none of this: ``LocalShards`` reads them by index.
"""

from __future__ import annotations

import gzip
import random
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

from torch.utils.data import IterableDataset, get_worker_info

from ffconv.data.fetching import MAXIMUM_UNREADABLE_RUN, Fetched, LoaderSpec, collated, given_up
from ffconv.data.images import IMAGES
from ffconv.data.media import Media
from ffconv.data.samples import Prepare, SkippedSample, UnreadableSample
from ffconv.data.seeding import borrowed_randomness, derive_seed, permutation
from ffconv.data.shard_index import ShardIndex, is_remote, require_allowed, require_webdataset
from ffconv.data.shards import StrictTarInfo, file_and_label, parse_label, tar_members
from ffconv.errors import InputError
from ffconv.files import require_regular
from ffconv.wording import counted


class _Raw(NamedTuple):
    """An undecoded sample: its number in the whole set, its name, its file and its label."""

    number: int
    name: str
    content: bytes
    label: int


class ShardStream:
    """Shards read in sequence; has a length and classes, but no samples by index.

    Args:
        urls: the shards, as webdataset opens them (``pipe:command``, URL, local path).
        index: the class names, and the shards' numbers of samples, in the order of ``urls``.
        shuffle_buffer: undecoded samples a worker holds to shuffle among; 0 keeps the shards' order.
        media: what the shards hold.
        allow_commands: whether ``pipe:command`` may run.

    Raises:
        InputError: where the index does not fit the shards, webdataset is not installed, or a command is not
            allowed.
    """

    def __init__(
        self,
        urls: Sequence[str],
        index: ShardIndex,
        shuffle_buffer: int = 1000,
        media: Media = IMAGES,
        *,
        allow_commands: bool = False,
    ) -> None:
        require_webdataset()
        for url in urls:
            require_allowed(url, allow_commands)
        if len(urls) != len(index.shards):
            raise InputError(
                f"{urls[0]}: {counted(len(urls), 'shard')}, but the index lists {len(index.shards)}"
            )
        self.urls = tuple(urls)
        self.classes = index.classes
        self.shuffle_buffer = shuffle_buffer
        self.media = media
        self.counts = [shard.nsamples for shard in index.shards]

    def __len__(self) -> int:
        return sum(self.counts)

    def read(self, number: int) -> Iterator[_Raw]:
        """The undecoded samples of shard ``number``.

        Raises:
            InputError: naming a shard that cannot be read or does not hold the samples its index says.
        """
        url, first = self.urls[number], sum(self.counts[:number])
        position = 0
        for position, fields in enumerate(_samples_of(url), start=1):
            name = f"{url}:{fields['__key__']}"
            content, label_file = file_and_label(fields, name, self.media)
            label = parse_label(label_file, name)
            if label >= len(self.classes):
                raise InputError(f"{name}: label {label}, but {counted(len(self.classes), 'class')}")
            yield _Raw(first + position - 1, name, content, label)
        if position != self.counts[number]:
            raise InputError(
                f"{url}: {counted(position, 'sample')}, but its index says {self.counts[number]}"
            )


def _samples_of(url: str) -> Iterator[dict[str, Any]]:
    """Yield webdataset's samples of one shard: contents by extension."""
    from webdataset.gopen import gopen, set_options
    from webdataset.tariterators import group_by_keys

    try:
        if not is_remote(url):
            require_regular(Path(url))
        stream: Any = gopen(url)
        try:
            # tarfile would read gzip itself, but compare no check sum.
            opened = gzip.GzipFile(fileobj=stream) if url.endswith((".gz", ".tgz")) else stream
            with tarfile.open(fileobj=opened, mode="r|*", tarinfo=StrictTarInfo) as tar:
                yield from group_by_keys(_contents(tar, url))
        except GeneratorExit:  # whoever reads has enough; a command that is cut off may complain
            set_options(stream, ignore_errors=True)
            raise
        finally:
            stream.close()
    except InputError:
        raise
    except Exception as error:  # damaged bytes fail anywhere in tarfile and the decompressors
        reason = getattr(error, "strerror", None) or (error.args[0] if error.args else type(error).__name__)
        raise InputError(f"{url}: is no complete tar file ({reason})") from error


def _contents(tar: tarfile.TarFile, url: str) -> Iterator[dict[str, Any]]:
    """Yield files as webdataset's grouping takes them."""
    for member in tar_members(tar):
        file = tar.extractfile(member)
        yield {"fname": member.name, "data": file.read() if file else b"", "__url__": url}


class StreamedBatches(IterableDataset[Fetched]):
    """Batches of a stream for one epoch; each worker makes those of its lane.

    Args:
        stream: the shards.
        prepare: as everywhere.
        spec: sizes, seed, processes.
        epoch: number of the training epoch, or ``EVALUATION``.
        span: the first training batch and the one after the last; None for an evaluation.

    Raises:
        InputError: for training on more processes than shards.
    """

    def __init__(
        self,
        stream: ShardStream,
        prepare: Prepare,
        spec: LoaderSpec,
        *,
        epoch: int,
        span: range | None = None,
    ) -> None:
        shards = len(stream.urls)
        if span is not None and shards < spec.world_size:
            raise InputError(
                f"{counted(shards, 'shard')} cannot be shared by {spec.world_size} processes:"
                " make smaller shards"
            )
        self._stream = stream
        self._prepare = prepare
        self._spec = spec
        self._epoch = epoch
        self._span = span
        order = range(shards) if span is None else permutation(shards, spec.seed, "shards", epoch).tolist()
        self._shards = order[spec.rank :: spec.world_size]
        #: Worker processes that have a shard to read, on every process alike.
        self.workers = min(spec.workers, shards // spec.world_size)

    def __iter__(self) -> Iterator[Fetched]:
        info = get_worker_info()
        worker = info.id if info else 0
        try:
            if self._span is None:
                yield from self._evaluation(worker)
            else:
                yield from self._training(worker, self._span)
        except InputError as error:
            yield Fetched(None, failure=str(error))

    @property
    def _lanes(self) -> int:
        return max(self.workers, 1)

    def _evaluation(self, lane: int) -> Iterator[Fetched]:
        samples = self._read(self._shards[lane :: self._lanes])
        while True:
            fetched = self._fetch(samples)
            if fetched.batch is None and not fetched.skipped:
                return
            yield fetched

    def _training(self, worker: int, span: range) -> Iterator[Fetched]:
        """Batch b of an epoch comes from lane b % lanes, whatever batch the epoch is entered at."""
        own = span[worker :: self._lanes]
        if not own:
            return
        lane, done = own.start % self._lanes, own.start // self._lanes
        rest = islice(self._passes(lane), done * self._spec.batch_size, None)
        for _ in own:
            yield self._fetch(rest)

    def _read(self, shards: Iterable[int]) -> Iterator[_Raw]:
        for number in shards:
            yield from self._stream.read(number)

    def _passes(self, lane: int) -> Iterator[_Raw]:
        """A lane's samples, shuffled, again and again; each once before any comes twice."""
        from webdataset.filters import shuffle

        shards, size = self._shards[lane :: self._lanes], self._stream.shuffle_buffer
        if not any(self._stream.counts[number] for number in shards):
            raise InputError(f"{self._stream.urls[shards[0]]}: holds no samples")
        for number in count():
            raws = self._read(shards)
            if size:
                seed = derive_seed(self._spec.seed, "shuffle", self._epoch, number, self._spec.rank, lane)
                raws = shuffle(size, initial=size, rng=random.Random(seed))(raws)
            yield from raws

    def _fetch(self, raws: Iterator[_Raw]) -> Fetched:
        """The next batch: unreadable samples are left out, and in training the following take their place."""
        prepared: list[dict[str, Any]] = []
        skipped: list[SkippedSample] = []
        unreadable_run = 0
        with borrowed_randomness() as seed_everything:
            for raw in raws:
                seed_everything(derive_seed(self._spec.seed, "sample", self._epoch, raw.number))
                try:
                    item = self._stream.media.from_bytes(raw.content, raw.name), raw.label
                    prepared.append(self._prepare(item, raw.number))
                    unreadable_run = 0
                except UnreadableSample as error:
                    skipped.append(SkippedSample(raw.number, error.name, error.reason))
                    unreadable_run += 1
                if self._span is not None and unreadable_run == MAXIMUM_UNREADABLE_RUN:
                    return given_up(skipped)
                if len(prepared) == self._spec.batch_size:
                    break
        return collated(prepared, skipped)
