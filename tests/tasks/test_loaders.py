from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from ffconv.data.samples import UnreadableSample
from ffconv.errors import InputError
from ffconv.tasks.loaders import SplitLoaders
from ffconv.training.task import Share


@dataclass(frozen=True)
class Reading:
    """How the numbers below are read."""

    worker_processes: int = 0
    on_error: Any = "raise"
    verify: bool = False


class Numbers:
    """The numbers from 0, of which some cannot be read."""

    classes = ()

    def __init__(self, count: int, unreadable: tuple[int, ...] = ()) -> None:
        self.count, self.unreadable = count, unreadable

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        if index in self.unreadable:
            raise UnreadableSample(f"number {index}", "is odd")
        return index


def loaders(
    train: Numbers, val: Numbers | None = None, *, share: Share | None = None, **reading: Any
) -> tuple[SplitLoaders, list[str]]:
    """The loaders, which give ten times the number in training, and the splits that were opened."""
    opened: list[str] = []

    def open_split(split: str) -> Numbers:
        opened.append(split)
        return train if split == "train" or val is None else val

    made = SplitLoaders(
        open_split,
        for_training=lambda samples: lambda item, index: {"x": 10 * item},
        for_evaluation=lambda samples: lambda item, index: {"x": item},
        reading=Reading(**reading),
        share=share or Share(batch_size=4),
    )
    return made, opened


def numbers(batches: Any) -> list[int]:
    return [value for batch in batches for value in batch["x"].tolist()]


def test_a_training_epoch_has_whole_batches_of_prepared_samples():
    made, _ = loaders(Numbers(10))
    found = numbers(made.train(0, 0))
    assert (made.batches_per_epoch(), len(found), len(set(found))) == (2, 8, 8)
    assert set(found) <= {10 * number for number in range(10)}


def test_training_goes_on_from_a_batch():
    made, _ = loaders(Numbers(12))
    assert numbers(made.train(3, 1)) == numbers(loaders(Numbers(12))[0].train(3, 0))[4:]


def test_a_set_smaller_than_a_batch_is_one():
    assert sorted(numbers(loaders(Numbers(3))[0].train(0, 0))) == [0, 10, 20]


def test_evaluation_has_every_sample_once_over_the_processes():
    shares = [Share(batch_size=2, rank=rank, world_size=2) for rank in range(2)]
    parts = [numbers(loaders(Numbers(5), share=share)[0].evaluation("val")) for share in shares]
    assert sorted(parts[0] + parts[1]) == list(range(5))


def test_a_split_is_opened_once_and_not_before_it_is_asked_for():
    made, opened = loaders(Numbers(8))
    assert opened == []
    for _ in range(2):
        list(made.evaluation("val"))
    assert opened == ["val"]


def test_unreadable_samples_are_noted_with_their_reason():
    made, _ = loaders(Numbers(8), Numbers(4, unreadable=(1,)), on_error="skip")
    assert numbers(made.evaluation("val")) == [0, 2, 3]
    assert made.skipped == {"number 1": "is odd"}


@pytest.mark.parametrize("verify", [False, True])
def test_check_reads_everything_where_it_is_asked_to(verify: bool):
    made, opened = loaders(Numbers(8), Numbers(4, unreadable=(1,)), verify=verify)
    if verify:
        with pytest.raises(InputError, match="number 1"):
            made.check()
    else:
        made.check()
    assert opened == ["train", "val"]
