"""A part of a source, for quick tries."""

from __future__ import annotations

from typing import Any

from ffconv.errors import InputError


class Limited:
    """Some of a source's samples, evenly spread over it, so that sorted classes all keep their share.

    Args:
        samples: A map-style source.
        count: How many to keep, at most as many as there are.
    """

    def __init__(self, samples: Any, count: int):
        self._samples = samples
        self._count = count
        self.classes: tuple[str, ...] = samples.classes

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < self._count:
            raise IndexError(index)
        return self._samples[index * len(self._samples) // self._count]


def limited(samples: Any, count: int) -> Any:
    """The source itself if it has no more than `count` samples, else that many of them.

    Raises:
        InputError: if the source is a stream, which cannot be taken apart.
    """
    if len(samples) <= count:
        return samples
    if not hasattr(samples, "__getitem__"):
        raise InputError(
            "limit needs data that can be read in any order: a folder, local uncompressed shards"
        )
    return Limited(samples, count)
