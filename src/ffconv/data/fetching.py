"""What the worker processes hand to the main process, shared by folders of files and streams of shards."""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from ffconv.data.samples import SkippedSample
from ffconv.errors import require

Batch = dict[str, Tensor]
OnError = Literal["raise", "skip"]

#: Stands for the epoch's number where evaluation derives a sample's randomness.
EVALUATION = -1

#: Unreadable samples in a row after which "skip" gives up: the source is broken, not a file.
MAXIMUM_UNREADABLE_RUN = 100


@dataclass(frozen=True)
class LoaderSpec:
    """How batches are made.

    Args:
        batch_size: samples per batch and process.
        seed: what the order and every sample's randomness derive from.
        workers: worker processes of this process; 0 prepares in the process itself. Changes no bit of a
            batch.
        rank, world_size: this process's number and the number of processes that share an epoch.
        pin_memory: page-locked batches, for faster copies to a CUDA device.
        on_error: ``raise`` stops at an unreadable sample, ``skip`` leaves it out and reports it.
        drop_last: training only: whether the incomplete last global batch is left out. Otherwise it is
            filled, from the start of the epoch's order, to a multiple of ``world_size``.

    Raises:
        InputError: for a value outside its range.
    """

    batch_size: int
    seed: int = 0
    workers: int = 0
    rank: int = 0
    world_size: int = 1
    pin_memory: bool = False
    on_error: OnError = "raise"
    drop_last: bool = True

    def __post_init__(self) -> None:
        require(self.batch_size >= 1, f"batch_size={self.batch_size} must be at least 1")
        require(self.workers >= 0, f"workers={self.workers} must not be negative")
        require(
            0 <= self.rank < self.world_size,
            f"rank={self.rank} must lie in [0, world_size={self.world_size})",
        )
        require(self.on_error in get_args(OnError), f"on_error={self.on_error!r} must be raise or skip")


def worker_processes(configured: int | None) -> int:
    """The configured number, or one a core this process may use, at most eight."""
    if configured is not None:
        return configured
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


class Fetched(NamedTuple):
    """One batch (None when no sample of it was readable), what was left out, and why nothing can follow.

    Errors travel as values: an exception that leaves a worker arrives as a text of several lines.
    """

    batch: Batch | None
    skipped: tuple[SkippedSample, ...] = ()
    failure: str = ""


def collated(prepared: Sequence[dict[str, Any]], skipped: Sequence[SkippedSample]) -> Fetched:
    """Stacks what ``prepare`` gave, key by key."""
    return Fetched(default_collate(list(prepared)) if prepared else None, tuple(skipped))


def given_up(skipped: Sequence[SkippedSample]) -> Fetched:
    """What a batch becomes after ``MAXIMUM_UNREADABLE_RUN`` unreadable samples in a row."""
    failure = f"{MAXIMUM_UNREADABLE_RUN} unreadable samples in a row, the last one {skipped[-1].name}"
    return Fetched(None, tuple(skipped), failure)


def data_loader(
    dataset: Dataset[Fetched], spec: LoaderSpec, *, workers: int, sampler: Sampler[Any] | None = None
) -> DataLoader[Fetched]:
    """A loader over a data set that gives whole batches; with a sampler its workers outlive the epoch."""
    if workers:
        gc.collect()  # here, where what is left over may still own threads: see _start_worker
    return DataLoader(
        dataset,
        batch_size=None,
        sampler=sampler,
        num_workers=workers,
        collate_fn=_unchanged,
        pin_memory=spec.pin_memory,
        persistent_workers=workers > 0 and sampler is not None,
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # else every epoch would draw a number from the global generator
    )


def _unchanged(fetched: Any) -> Any:
    return fetched


def _start_worker(worker: int) -> None:
    """Parts a worker from the main process.

    A group of its own: Ctrl-C and a scheduler's SIGTERM go to a whole group, but the main process decides.
    torch's own handlers end the worker when the main process asks for it, or is gone.

    What a forked worker has inherited it never collects: a video left open in a reference cycle would wait,
    when freed, for its decoder's threads, which a fork does not copy.
    """
    os.setpgid(0, 0)
    gc.freeze()
