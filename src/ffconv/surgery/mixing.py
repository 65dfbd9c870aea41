"""Where an FFC reads the global channels of others at other positions than they were made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ffconv.surgery.channels import Flow
from ffconv.surgery.trace import Trace

_OPERATIONS = {
    "cat": "concatenation",
    "split": "split",
    "split_with_sizes": "split",
    "slice": "split",
    "select": "split",
    "unbind": "split",
    "transpose": "shuffle",
    "permute": "shuffle",
    "view": "shuffle",
    "channel_shuffle": "shuffle",
    "native_channel_shuffle": "shuffle",
    "constant_pad_nd": "padding",
    "copy": "assignment",
}
_SOURCES_SHOWN = 4

# For each FFC whose global channels a tensor holds, what has mixed them since.
_Held = dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Mixing:
    """An FFC that reads mixed channels; it takes the last ones as global all the same.

    Args:
        reader: name of the FFC.
        operations: what stands in between: concatenation, split, shuffle, ...
        sources: names of the FFCs that made the global channels.
    """

    reader: str
    operations: tuple[str, ...]
    sources: tuple[str, ...]

    def __str__(self) -> str:
        shown = ", ".join(self.sources[:_SOURCES_SHOWN])
        more = len(self.sources) - _SOURCES_SHOWN
        by = ", ".join(self.operations)
        return f"{self.reader} <- {by} of {shown}{f' and {more} more' if more > 0 else ''}"


def find_mixings(trace: Trace, ratios: Mapping[str, tuple[float, float]]) -> tuple[Mixing, ...]:
    """The FFCs that read global channels of others at other positions.

    Args:
        trace: the trial forward.
        ratios: ``(ratio_in, ratio_out)`` of each convolution.
    """
    held: list[_Held] = []
    read: dict[str, _Held] = {}
    for node in trace.nodes:
        name = node.module
        if name is not None and ratios[name][0] > 0:
            mixed = _merge([read.get(name, {}), *(held[source] for source in node.sources)], ())
            read[name] = {source: by for source, by in mixed.items() if by}
        if name is not None and node.flow is Flow.MAKES:
            held.append({name: ()} if ratios[name][1] > 0 else {})
        elif node.flow is Flow.MIXES:
            operation = _OPERATIONS.get(node.operation, node.operation)
            held.append(_merge((held[source] for source in node.sources), (operation,)))
        else:
            held.append(_merge((held[source] for source in node.kept), ()))
    return tuple(
        Mixing(reader, tuple(dict.fromkeys(one for by in mixed.values() for one in by)), tuple(mixed))
        for reader, mixed in read.items()
        if mixed
    )


def _merge(parts: Iterable[_Held], operations: tuple[str, ...]) -> _Held:
    merged: _Held = {}
    for part in parts:
        for name, by in part.items():
            merged[name] = tuple(dict.fromkeys((*merged.get(name, ()), *by, *operations)))
    return merged
