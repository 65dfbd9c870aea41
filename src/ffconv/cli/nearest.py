"""What the user may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint at the known name nearest to the given one, or nothing where none is near.

    A dotted name's last part counts too: for ``lr`` the nearest of ``optim.lr`` and ``seed`` is ``optim.lr``.

    Example:
        >>> did_you_mean("optim.lrr", ["optim.lr", "seed"])
        '; did you mean optim.lr?'
    """
    names = sorted(known)
    by_last_part = {full.rpartition(".")[2]: full for full in reversed(names)}
    near = difflib.get_close_matches(name, names, n=1) or [
        by_last_part[part]
        for part in difflib.get_close_matches(name.rpartition(".")[2], by_last_part, n=1, cutoff=0.75)
    ]
    return f"; did you mean {near[0]}?" if near else ""
