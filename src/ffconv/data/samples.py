"""What every source of samples offers, and how an unreadable sample is reported."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from ffconv.errors import InputError
from ffconv.wording import counted

ItemOut = TypeVar("ItemOut", covariant=True)

#: Turns what a source gives at an index into the dictionary that is collated into a batch.
Prepare = Callable[[Any, int], dict[str, Any]]


class Samples(Protocol[ItemOut]):
    """A map-style source of decoded, untransformed samples.

    An image source gives ``(PIL.Image in RGB, label)``. ``samples[index]`` raises ``UnreadableSample`` when
    the file behind the index cannot be read. A source is picklable, so that workers can be spawned.
    """

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their labels."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> ItemOut: ...


class EncodedSample(NamedTuple):
    """A sample as it is stored: name, extension (without dot) and bytes of its file, and its label."""

    name: str
    extension: str
    content: bytes
    label: int


@runtime_checkable
class EncodedSamples(Protocol):
    """A source that also gives a sample as it is stored, so that it can be copied without loss."""

    def encoded(self, index: int) -> EncodedSample:
        """The sample at an index."""
        ...


class UnreadableSample(InputError):
    """A file that cannot be read as a sample; the message is ``name: reason``."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


@dataclass(frozen=True)
class SkippedSample:
    """An unreadable sample that was left out: its index in the source, its name (path) and the reason."""

    index: int
    name: str
    reason: str


def require_same_classes(expected: Sequence[str], found: Sequence[str], where: str) -> None:
    """Refuses a source whose classes are not exactly the expected ones, in the same order.

    Args:
        expected: the class names labels are counted by, for example a checkpoint's.
        found: the class names of the source.
        where: what the source is called in the message.

    Raises:
        InputError: naming what is missing and what is unknown.
    """
    if tuple(expected) == tuple(found):
        return
    missing, unknown = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    differences = [
        f"{what} {some(names)}" for what, names in (("without", missing), ("with", unknown)) if names
    ]
    raise InputError(
        f"{where}: {_classes(found)} {' and '.join(differences) or 'in another order'}, "
        f"but the labels are counted by {_classes(expected)} {some(expected)}"
    )


def _classes(names: Sequence[str]) -> str:
    return counted(len(names), "class")


def some(names: Iterable[str], most: int = 5) -> str:
    """The first names of a list, and how many there are if these are not all."""
    listed = list(names)
    return ", ".join(listed[:most]) + (f", ... ({len(listed)} in all)" if len(listed) > most else "")
