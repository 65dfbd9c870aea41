"""What a person sees at a terminal while a command is at work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def shown(items: Iterable[Item], what: str, *, total: int) -> Iterator[Item]:
    """The items, with a bar on stderr as long as they last; none for a single item, nor off a terminal.

    Args:
        items: what is worked on.
        what: is being done with them.
        total: how many there are, or about so many.
    """
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    unseen = not console.is_terminal or total == 1
    yield from track(items, what, total=total, console=console, transient=True, disable=unseen)
