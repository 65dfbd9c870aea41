"""Progress of a command: a bar at a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from ffconv.wording import say

Item = TypeVar("Item")

_SILENT_SECONDS = 2.0  # without a word
_PLAIN_SECONDS = 15.0  # between two lines


def shown(items: Iterable[Item], what: str, *, total: int) -> Iterator[Item]:
    """Yield the items, with a bar on stderr; off a terminal with lines where they take more than two seconds.

    Args:
        items: what is worked on.
        what: is being done with them.
        total: how many there are, or about so many.
    """
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    if console.is_terminal:
        yield from track(items, what, total=total, console=console, transient=True, disable=total == 1)
        return
    last, wait = time.perf_counter(), _SILENT_SECONDS
    for done, item in enumerate(items, start=1):
        yield item
        if time.perf_counter() - last > wait and done < total:
            last, wait = time.perf_counter(), _PLAIN_SECONDS
            say(f"{what}: {done} of {total}", file=sys.stderr)


@contextmanager
def announced(what: str) -> Iterator[None]:
    """Print a line on stderr where the block takes more than two seconds.

    Not for blocks that start processes: a thread waits meanwhile.
    """
    timer = threading.Timer(_SILENT_SECONDS, say, (f"{what} ...", sys.stderr))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
