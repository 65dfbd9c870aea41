"""The parts of a network as its trial forward shows them: stem, heads, 1x1 maps and the last stage."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce

from ffconv.surgery.channels import Flow
from ffconv.surgery.maps import FeatureMaps
from ffconv.surgery.trace import Convolution, Trace

# A module that begins with the first convolution and holds no more than these is a stem (ResNet-D has three).
_LARGEST_STEM = 3
# Between two stages sizes change by 2 or more; a convolution without padding takes a few pixels.
_SCALE_STEP = 1.5
_ACTIVATIONS = frozenset(
    {"relu", "leaky_relu", "_prelu_kernel", "elu", "gelu", "silu", "mish", "hardswish", "hardtanh"}
)


def find_stem(trace: Trace) -> set[str]:
    """Convolutions that read the network's input, and the small module around them (a deep stem)."""
    raw = _raw(trace)
    names = list(dict.fromkeys(name for _, name in trace.calls()))
    sources = [(name, trace.nodes[index].sources) for index, name in trace.calls()]
    readers = {name for name, read in sources if read and all(raw[source] for source in read)}
    stem = set(readers)
    for reader in readers:
        parent = reader.rpartition(".")[0]
        siblings = [name for name in names if parent and name.startswith(f"{parent}.")]
        if len(siblings) <= _LARGEST_STEM and siblings[:1] == [reader] and len(siblings) < len(names):
            stem.update(siblings)
    return stem


def find_heads(trace: Trace) -> set[str]:
    """Convolutions whose output the network returns without norm or activation, summed at most once."""
    raw, heads = _raw(trace), set()
    for end in _ends(trace, raw, trace.outputs):
        node = trace.nodes[end]
        computed = [source for source in node.sources if not raw[source]]
        if node.module is not None:
            heads.add(node.module)
        elif node.flow is Flow.KEEPS and len(computed) > 1:
            # The score maps of several scales; a sum of anything else is a residual block's.
            summed = {trace.nodes[part].module for part in _ends(trace, raw, computed)}
            heads.update(name for name in summed if name is not None and None not in summed)
    return heads


def _ends(trace: Trace, raw: list[bool], starts: Iterable[int]) -> list[int]:
    """Where one arrives from ``starts``, going back through what only rearranges, rescales or pools a map."""
    ends, waiting, seen = [], list(starts), set(starts)
    while waiting:
        index = waiting.pop()
        node = trace.nodes[index]
        computed = [source for source in node.sources if not raw[source]]
        joins = node.flow is Flow.KEEPS and len(computed) > 1
        shapes = "norm" in node.operation or node.operation in _ACTIVATIONS
        if node.module is not None or node.flow is Flow.MAKES or joins or shapes:
            ends.append(index)
        else:
            waiting.extend(source for source in computed if source not in seen)
            seen.update(computed)
    return ends


def find_points(trace: Trace) -> set[str]:
    """Convolutions that only ever read or give a 1x1 map, as in squeeze-and-excitation."""
    points, others = set(), set()
    for index, name in trace.calls():
        before, after = trace.sizes(index)
        (points if math.prod(before) == 1 or math.prod(after) == 1 else others).add(name)
    return points - others


def find_last_stage(
    trace: Trace, movable: Collection[str], maps: FeatureMaps, modules: Mapping[str, Convolution]
) -> set[str]:
    """The convolutions of the last stage in order of execution; empty if there is no earlier one.

    A stage begins where the size of the map changes. After a downsampling, the first convolutions of its
    first block, which work on the larger map, belong to it too: what is computed from nothing but the map
    that all of the stage is computed from. A dilated network keeps its map: there the last stage is its last
    chain of residual blocks and what follows.

    Args:
        trace: the trial forward.
        movable: convolutions that may become FFCs.
        maps: the families that these make.
        modules: the convolution modules by name.
    """
    calls = _calls_over_the_map(trace)
    end = 1 + max((i for i, call in enumerate(calls) if call.name in movable), default=-1)
    steps = [i for i in range(1, end) if _is_step(calls[i - 1].size, calls[i].size)]
    if not steps:
        return set()
    before, after = calls[steps[-1] - 1].size, calls[steps[-1]].size
    tail = calls[steps[-1] : end]
    stages = [tail]
    if math.prod(after) < math.prod(before):
        if any(max(modules[call.name].dilation) > 1 for call in tail):
            tail = _last_residual_chain(tail, maps)
        whole = _whole_blocks(tail, trace, calls, movable=movable, maps=maps)
        # Further back, among parallel streams say, it would be no block any more.
        reached = {call.size for call in whole if call.index < tail[0].index}
        stages = [whole, tail] if reached <= {before, after} else [tail]
    made = maps.makers()
    for stage in stages:
        found = [call for call in stage if call.name in movable]
        names = {call.name for call in found}
        # Global channels cannot end in maps that are added to earlier ones.
        ends = all(
            names.issuperset(made[family])
            for call in found
            if (family := maps.family(call.index)) is not None
        )
        if ends and not names.issuperset(movable):
            return names
    return set()


@dataclass(frozen=True)
class _Call:
    """A convolution in the trial forward: its node, its name and the size of its output."""

    index: int
    name: str
    size: tuple[int, ...]


def _calls_over_the_map(trace: Trace) -> list[_Call]:
    """The calls that tell of the map's size: no heads, no 1x1 maps, none over channels instead of the map."""
    ignored = find_heads(trace) | find_points(trace)
    calls = [
        _Call(index, name, trace.sizes(index)[1]) for index, name in trace.calls() if name not in ignored
    ]
    return [call for call in calls if len(call.size) == len(calls[0].size)]


def _raw(trace: Trace) -> list[bool]:
    """For each node whether it is the input, no more than rearranged or rescaled."""
    raw: list[bool] = []
    for node in trace.nodes:
        follows = node.module is None and node.flow is not Flow.MAKES and bool(node.sources)
        raw.append(node.operation == "input" or (follows and all(raw[source] for source in node.sources)))
    return raw


def _is_step(before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    return any(max(a, b) >= _SCALE_STEP * min(a, b) for a, b in zip(before, after, strict=True))


def _last_residual_chain(calls: list[_Call], maps: FeatureMaps) -> list[_Call]:
    """The calls from the first one on that makes a part of the last sum of several convolutions' outputs."""
    made = maps.makers()
    families = [maps.family(call.index) for call in calls]
    chains = [family for family in families if family is not None and len(made[family]) > 1]
    return calls[families.index(chains[-1]) :] if chains else calls


def _whole_blocks(
    tail: list[_Call], trace: Trace, calls: list[_Call], *, movable: Collection[str], maps: FeatureMaps
) -> list[_Call]:
    """The tail together with all that is computed from the map from which all of the tail is computed."""
    tree = _DominatorTree(trace)
    members = set(tail)
    while True:
        start = reduce(tree.common, (tree.parents[call.index] for call in members))
        families = {maps.family(call.index) for call in members if call.name in movable} - {None}
        related = {call for call in calls if call.name in movable and maps.family(call.index) in families}
        more = {call for call in calls if tree.is_below(call.index, start)} | related
        if more <= members:
            return [call for call in calls if call in members]
        members |= more


class _DominatorTree:
    """For each node the last one that all its sources have come through; -1 is the network's inputs."""

    def __init__(self, trace: Trace) -> None:
        self.parents: list[int] = []
        self._depths: list[int] = []
        for node in trace.nodes:
            parent = reduce(self.common, node.sources) if node.sources else -1
            self.parents.append(parent)
            self._depths.append(self._depth(parent) + 1)

    def _depth(self, index: int) -> int:
        return 0 if index < 0 else self._depths[index]

    def common(self, a: int, b: int) -> int:
        """The last node through which both a and b have come, one of them included."""
        while a != b:
            if self._depth(a) < self._depth(b):
                a, b = b, a
            a = self.parents[a]
        return a

    def is_below(self, index: int, start: int) -> bool:
        """Return True if the node is computed from ``start`` alone."""
        while self._depth(index) > self._depth(start):
            index = self.parents[index]
            if index == start:
                return True
        return False
