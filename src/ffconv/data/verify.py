"""Reads every sample before training starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.distributed as dist
from rich.progress import track

from ffconv.data.loading import LoaderSpec, Source, eval_batches
from ffconv.data.samples import Prepare, SkippedSample
from ffconv.errors import InputError


def number_only(item: Any, index: int) -> dict[str, Any]:
    """``prepare`` that keeps nothing of a sample but its number."""
    return {"index": index}


def verify(
    samples: Source, *, read: Prepare = number_only, workers: int = 0, progress: bool = True
) -> tuple[SkippedSample, ...]:
    """Decodes every sample, in parallel, and lists the unreadable ones.

    Under torch.distributed the processes share the work and all return the whole list.

    Args:
        samples: the source.
        read: prepares a sample; for sources that give files unread, it reads them.
        workers: worker processes of this process.
        progress: show a progress bar (of the first process).
    """
    together = dist.is_available() and dist.is_initialized()
    rank, world_size = (dist.get_rank(), dist.get_world_size()) if together else (0, 1)
    spec = LoaderSpec(16, workers=workers, rank=rank, world_size=world_size, on_error="skip")
    batches = eval_batches(samples, read, spec=spec)
    for _ in track(batches, "reading every sample", total=len(batches), disable=not progress or rank > 0):
        pass
    if not together:
        return batches.skipped
    lists: list[tuple[SkippedSample, ...]] = [()] * world_size
    dist.all_gather_object(lists, batches.skipped)
    return tuple(sorted((sample for part in lists for sample in part), key=lambda sample: sample.index))


def refuse_unreadable(found: Sequence[SkippedSample], total: int) -> None:
    """Raises InputError that counts and names what ``verify`` found among ``total``, if anything."""
    if not found:
        return
    named = "; ".join(f"{sample.name}: {sample.reason}" for sample in found[:3])
    more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
    raise InputError(f"{len(found)} of {total} samples cannot be read: {named}{more}")
