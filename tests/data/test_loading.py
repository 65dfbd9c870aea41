"""Batches: the same bits for any number of workers, every sample once, resumable, with bad files skipped."""

from __future__ import annotations

import gc
import os
import random
from collections import Counter
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pytest
import torch

from ffconv.data.fetching import MAXIMUM_UNREADABLE_RUN
from ffconv.data.images import ImageFolder
from ffconv.data.loading import BatchLoader, LoaderSpec, batches_per_epoch, eval_batches, train_batches
from ffconv.data.samples import SkippedSample, UnreadableSample
from ffconv.data.transforms import ImageTransformConfig, PrepareImage, train_transform
from ffconv.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on few cores


class Numbers:
    """Sample i is the number i; the ones in ``bad`` cannot be read. Notes what was read."""

    classes = ("number",)

    def __init__(self, count: int, bad: tuple[int, ...] = ()) -> None:
        self.count, self.bad = count, bad
        self.read: list[int] = []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        self.read.append(index)
        if index in self.bad:
            raise UnreadableSample(f"file {index}", "is bad")
        return index


def as_is(item: int, index: int) -> dict[str, int]:
    return {"index": index}


def with_noise(item: int, index: int) -> dict[str, object]:
    """Draws from every generator a transform may use."""
    draws = [random.random(), np.random.random(), torch.rand(()).item()]  # noqa: NPY002
    return {"index": index, "noise": torch.tensor(draws)}


def indices(batches) -> list[list[int]]:
    return [batch["index"].tolist() for batch in batches]


def flat(batches) -> list[int]:
    return list(chain.from_iterable(indices(batches)))


def assert_same(first, second) -> None:
    first, second = list(first), list(second)
    assert len(first) == len(second) > 0
    for left, right in zip(first, second, strict=True):
        assert left.keys() == right.keys()
        assert all(torch.equal(left[key], right[key]) for key in left)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_change_no_bit_of_training(tree, workers):
    config = ImageTransformConfig(train_size=8, rand_augment=9, colour_jitter=0.4, random_erasing=0.5)
    samples, prepare = ImageFolder(tree), PrepareImage(train_transform(config))
    alone, together = (
        train_batches(samples, prepare, spec=LoaderSpec(4, seed=5, workers=number), epoch=2)
        for number in (0, workers)
    )
    assert_same(alone, together)


@pytest.mark.parametrize("workers", [0, 2])
def test_every_generator_is_seeded_per_sample(workers):
    """A sample's randomness depends on seed, epoch and index, not on what was drawn before it."""

    def noise(epoch: int, start: int = 0, seed: int = 0) -> dict[int, tuple[float, ...]]:
        spec = LoaderSpec(5, seed=seed, workers=workers)
        batches = list(train_batches(Numbers(20), with_noise, spec=spec, epoch=epoch, start=start))
        return {
            int(index): tuple(row.tolist())
            for batch in batches
            for index, row in zip(batch["index"], batch["noise"], strict=True)
        }

    whole = noise(0)
    assert noise(0, start=2).items() <= whole.items()
    assert len(set(whole.values())) == 20
    assert not set(noise(1).values()) & set(whole.values())
    assert not set(noise(0, seed=1).values()) & set(whole.values())


def test_the_process_keeps_its_own_randomness():
    def state() -> list[object]:
        return [random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()]  # noqa: NPY002

    before = state()
    for workers in (0, 1):
        list(train_batches(Numbers(8), with_noise, spec=LoaderSpec(4, workers=workers), epoch=0))
    assert state() == before


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [
        flat(train_batches(Numbers(50), as_is, spec=LoaderSpec(10, seed=seed), epoch=epoch))
        for seed in (0, 1)
        for epoch in (0, 1)
    ]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len(set(map(tuple, orders))) == 4


def test_the_order_is_the_same_on_every_machine():
    """Resuming elsewhere relies on it."""
    order = flat(train_batches(Numbers(8), as_is, spec=LoaderSpec(8, seed=1), epoch=3))
    assert order == [7, 0, 1, 3, 2, 4, 5, 6]


@pytest.mark.parametrize("start", [0, 3, 5])
def test_resuming_gives_the_rest(start):
    spec = LoaderSpec(4, seed=1)
    whole = list(train_batches(Numbers(21), with_noise, spec=spec, epoch=1))
    rest = list(train_batches(Numbers(21), with_noise, spec=spec, epoch=1, start=start))
    assert indices(rest) == indices(whole)[start:]
    assert all(torch.equal(a["noise"], b["noise"]) for a, b in zip(rest, whole[start:], strict=True))


def test_resuming_reads_nothing_of_what_was_done():
    samples = Numbers(20)
    rest = flat(train_batches(samples, as_is, spec=LoaderSpec(4), epoch=0, start=3))
    assert samples.read == rest


def test_length_counts_the_batches_to_come():
    assert len(train_batches(Numbers(21), as_is, spec=LoaderSpec(4), epoch=0, start=2)) == 3


@pytest.mark.parametrize("start", [-1, 6])
def test_start_outside_the_epoch(start):
    with pytest.raises(InputError, match=f"start={start} must lie in"):
        train_batches(Numbers(21), as_is, spec=LoaderSpec(4), epoch=0, start=start)


def ranks(count: int, world_size: int, **options) -> list[list[list[int]]]:
    """The training batches of each rank."""
    return [
        indices(
            train_batches(
                Numbers(count),
                as_is,
                spec=LoaderSpec(3, rank=rank, world_size=world_size, **options),
                epoch=0,
            )
        )
        for rank in range(world_size)
    ]


def test_processes_share_an_epoch():
    shares = ranks(25, 2)
    assert [len(share) for share in shares] == [4, 4]
    assert len({index for share in shares for batch in share for index in batch}) == 24


def test_processes_make_the_batches_of_one_process():
    """Two processes of batch 3 do together what one of batch 6 does."""
    together = [a + b for a, b in zip(*ranks(24, 2), strict=True)]
    assert together == indices(train_batches(Numbers(24), as_is, spec=LoaderSpec(6), epoch=0))


@pytest.mark.parametrize("count", [25, 26, 29, 1])
def test_incomplete_last_batch_is_filled_evenly(count):
    shares = ranks(count, 2, drop_last=False)
    assert [len(batch) for batch in shares[0]] == [len(batch) for batch in shares[1]]
    read = Counter(index for share in shares for batch in share for index in batch)
    assert set(read) == set(range(count))
    assert read.total() == count + count % 2


@pytest.mark.parametrize(
    ("count", "drop_last", "expected"), [(24, True, 4), (29, True, 4), (25, False, 5), (24, False, 4)]
)
def test_batches_per_epoch(count, drop_last, expected):
    spec = LoaderSpec(3, world_size=2, drop_last=drop_last)
    assert batches_per_epoch(Numbers(count), spec) == expected
    assert len(indices(train_batches(Numbers(count), as_is, spec=spec, epoch=0))) == expected


def test_too_few_samples_for_a_batch():
    with pytest.raises(InputError, match="5 samples cannot fill one batch of 6"):
        train_batches(Numbers(5), as_is, spec=LoaderSpec(3, world_size=2), epoch=0)


@pytest.mark.parametrize(
    ("count", "world_size", "workers"),
    [(1, 2, 0), (7, 1, 0), (7, 3, 0), (24, 2, 0), (25, 2, 0), (25, 3, 0), (25, 2, 2)],
)
def test_evaluation_gives_every_sample_once(count, world_size, workers):
    seen = [
        index
        for rank in range(world_size)
        for index in flat(
            eval_batches(
                Numbers(count), as_is, spec=LoaderSpec(4, workers=workers, rank=rank, world_size=world_size)
            )
        )
    ]
    assert sorted(seen) == list(range(count))


def test_evaluation_of_one_process_is_in_order():
    assert indices(eval_batches(Numbers(7), as_is, spec=LoaderSpec(3))) == [[0, 1, 2], [3, 4, 5], [6]]


def test_batches_can_be_iterated_again():
    batches = train_batches(Numbers(12), with_noise, spec=LoaderSpec(4), epoch=0)
    assert_same(batches, batches)


def test_workers_stay_from_epoch_to_epoch():
    class Process(Numbers):
        def __getitem__(self, index: int) -> int:
            return torch.utils.data.get_worker_info().seed

    def pids(item: int, index: int) -> dict[str, int]:
        import os

        return {"index": index, "process": os.getpid()}

    loader = BatchLoader(Process(8), pids, LoaderSpec(4, workers=1))
    first, second = (
        {int(pid) for batch in loader.train(epoch) for pid in batch["process"]} for epoch in (0, 1)
    )
    assert first == second


class LeftOver:
    """Garbage, as it holds itself; notes the process that frees it."""

    def __init__(self, notes: Path) -> None:
        self.notes, self.itself = notes, self

    def __del__(self) -> None:
        with self.notes.open("a") as notes:
            notes.write(f"{os.getpid()}\n")


def collecting(item: int, index: int) -> dict[str, int]:
    gc.collect()
    return {"index": index}


@pytest.fixture
def without_collection() -> Iterator[None]:
    """Garbage stays until it is asked for."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("without_collection")
def test_workers_free_nothing_of_the_main_process(tmp_path):
    """A decoder's threads are not there in a fork, and whoever frees the decoder waits for them."""
    batches = eval_batches(Numbers(2), collecting, spec=LoaderSpec(1, workers=1))
    LeftOver(tmp_path / "notes")
    list(batches)
    assert not (tmp_path / "notes").exists()
    gc.collect()
    assert (tmp_path / "notes").read_text().split() == [str(os.getpid())]


@pytest.mark.usefixtures("without_collection")
def test_what_is_left_over_is_freed_before_workers_start(tmp_path):
    LeftOver(tmp_path / "notes")
    eval_batches(Numbers(2), as_is, spec=LoaderSpec(1, workers=1))
    assert (tmp_path / "notes").read_text().split() == [str(os.getpid())]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_left_early_does_not_leak_into_the_next(workers):
    loader = BatchLoader(Numbers(40), as_is, LoaderSpec(4, workers=workers))
    list(islice(loader.train(0), 2))
    assert indices(loader.train(1)) == indices(train_batches(Numbers(40), as_is, spec=LoaderSpec(4), epoch=1))


def test_two_epochs_of_one_loader_cannot_be_mixed():
    loader = BatchLoader(Numbers(12), as_is, LoaderSpec(4))
    first = iter(loader.train(0))
    next(first)
    next(iter(loader.train(1)))
    with pytest.raises(RuntimeError, match="only the newest"):
        next(first)


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_sample_stops_with_its_name(workers):
    batches = train_batches(Numbers(12, bad=(5,)), as_is, spec=LoaderSpec(4, workers=workers), epoch=0)
    with pytest.raises(UnreadableSample, match=r"^file 5: is bad$"):
        list(batches)


@pytest.mark.parametrize("workers", [0, 2])
def test_skipping_in_training_takes_the_next_good_sample(workers):
    spec = LoaderSpec(4, workers=workers, on_error="skip")
    batches = train_batches(Numbers(12, bad=(5, 11)), as_is, spec=spec, epoch=0)
    plain = indices(train_batches(Numbers(12), as_is, spec=LoaderSpec(4), epoch=0))
    assert indices(batches) == [[{5: 6, 11: 0}.get(index, index) for index in batch] for batch in plain]
    assert sorted(batches.skipped, key=lambda sample: sample.index) == [
        SkippedSample(5, "file 5", "is bad"),
        SkippedSample(11, "file 11", "is bad"),
    ]


@pytest.mark.parametrize("workers", [0, 2])
def test_skipping_in_evaluation_leaves_the_sample_out(workers):
    spec = LoaderSpec(2, workers=workers, on_error="skip")
    batches = eval_batches(Numbers(7, bad=(0, 2, 3)), as_is, spec=spec)
    assert indices(batches) == [[1], [4, 5], [6]]
    assert [sample.index for sample in batches.skipped] == [0, 2, 3]


def test_a_sample_is_listed_once():
    batches = train_batches(
        Numbers(12, bad=(4, 5)), as_is, spec=LoaderSpec(4, on_error="skip", drop_last=False), epoch=0
    )
    list(batches)
    assert sorted(sample.index for sample in batches.skipped) == [4, 5]


def test_a_broken_source_is_given_up():
    samples = Numbers(1000, bad=tuple(range(1000)))
    batches = train_batches(samples, as_is, spec=LoaderSpec(4, on_error="skip"), epoch=0)
    with pytest.raises(InputError, match=f"^{MAXIMUM_UNREADABLE_RUN} unreadable samples in a row"):
        list(batches)


def test_keys_of_any_task_are_collated():
    def prepare(item: int, index: int) -> dict[str, object]:
        return {"clip": torch.full((2, 3), item), "weight": 0.5, "name": str(item), "index": index}

    (batch,) = eval_batches(Numbers(2), prepare, spec=LoaderSpec(2))
    assert batch["clip"].tolist() == [[[0] * 3] * 2, [[1] * 3] * 2]
    assert batch["weight"].tolist() == [0.5, 0.5]
    assert batch["name"] == ["0", "1"]


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 0},
        {"workers": -1},
        {"rank": 2, "world_size": 2},
        {"rank": -1},
        {"on_error": "ignore"},
    ],
)
def test_values_outside_their_range(options):
    with pytest.raises(InputError, match=next(iter(options))):
        LoaderSpec(**{"batch_size": 4, **options})


@pytest.mark.gpu
@pytest.mark.parametrize("workers", [0, 1])
def test_pinned_memory(workers):
    (batch,) = eval_batches(Numbers(4), with_noise, spec=LoaderSpec(4, workers=workers, pin_memory=True))
    assert batch["noise"].is_pinned()


@pytest.mark.reference
def test_workers_change_no_bit_of_real_photographs(reference, tmp_path):
    (tmp_path / "all").symlink_to(reference / "data" / "imagenet_samples")
    samples = ImageFolder(tmp_path)
    prepare = PrepareImage(train_transform(ImageTransformConfig(train_size=64, rand_augment=9)))
    alone, one, two = (
        train_batches(samples, prepare, spec=LoaderSpec(8, workers=workers), epoch=0) for workers in range(3)
    )
    alone = list(alone)
    assert_same(alone, one)
    assert_same(alone, two)
