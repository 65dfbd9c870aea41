"""Where the channels of a feature map go in one operation: made anew, kept in order, or mixed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from torch import Size

Span = tuple[int, int]
"""The axes ``start ... stop - 1`` over which a tensor's channels are spread, in row-major order."""

# Every output channel is a sum over input channels.
_MAKERS = frozenset({"mm", "addmm", "bmm", "baddbmm", "addbmm", "linear", "matmul", "dot", "mv"})
# Neighbouring channels become one, or the reverse: the last channels stay the last.
_BLOCKWISE = frozenset({"pixel_shuffle", "pixel_unshuffle"})
_SHUFFLES = frozenset({"channel_shuffle", "native_channel_shuffle"})
_PERMUTATIONS = frozenset({"permute", "transpose", "t"})


class Flow(Enum):
    """What an operation does to channels."""

    MAKES = "makes"
    KEEPS = "keeps"
    MIXES = "mixes"


@dataclass(frozen=True)
class Passage:
    """One operation seen from the channels.

    Args:
        flow: makes new channels, keeps their order, or mixes them (part, concatenation, shuffle).
        kept: positions of the operands whose channels the result holds in the same order.
        span: the axes of the result's channels.
    """

    flow: Flow
    kept: tuple[int, ...]
    span: Span


def is_depthwise(groups: int, in_channels: int) -> bool:
    """Whether a convolution works on each channel by itself, which keeps the channels' order."""
    return groups == in_channels > 1


def follow(
    operation: str, arguments: Sequence[Any], operands: Sequence[tuple[Size, Span]], result: Size
) -> Passage:
    """What an ATen operation does to the channels of its operands.

    Args:
        operation: ATen's name without namespace and trailing underscore.
        arguments: its positional arguments.
        operands: shapes and channel axes of the operands that are feature maps.
        result: the result's shape.
    """
    if operation == "convolution":
        depthwise = is_depthwise(arguments[8], arguments[0].shape[1])
        return Passage(Flow.KEEPS, (0,), (1, 2)) if depthwise else Passage(Flow.MAKES, (), (1, 2))
    if operation in _MAKERS or operation.startswith("_scaled_dot_product"):
        return Passage(Flow.MAKES, (), (len(result) - 1, len(result)))
    if operation in _BLOCKWISE:
        return Passage(Flow.KEEPS, (0,), (1, 2))
    if operation in _SHUFFLES:
        return Passage(Flow.MIXES, (), (1, 2))
    if operation in _PERMUTATIONS:
        return _permute(operation, arguments, *operands[0])
    spans = [_carried_span(source, span, result) for source, span in operands]
    common = next((span for span in spans if span is not None), None)
    if common is None:
        source, span = operands[0]
        return Passage(Flow.MIXES, (), span if len(source) == len(result) else (1, 2))
    return Passage(Flow.KEEPS, tuple(i for i, span in enumerate(spans) if span == common), common)


def _permute(operation: str, arguments: Sequence[Any], source: Size, span: Span) -> Passage:
    order = list(range(len(source)))
    if operation == "permute":
        order = [axis % len(source) for axis in arguments[1]]
    else:
        a, b = (axis % len(source) for axis in arguments[1:3]) if operation == "transpose" else (0, -1)
        order[a], order[b] = order[b], order[a]
    axes = [order.index(axis) for axis in range(*span)]
    first, last = min(axes), max(axes)
    if axes == list(range(first, last + 1)):
        return Passage(Flow.KEEPS, (0,), (first, last + 1))
    return Passage(Flow.MIXES, (), (first, last + 1) if last - first == len(axes) - 1 else (1, 2))


def _carried_span(source: Size, span: Span, result: Size) -> Span | None:
    """The channels' axes in a result, judged by shapes; None if it does not hold them in the same order."""
    start, stop = span
    channels = source[start:stop]
    if len(source) == len(result) and result[start:stop] == channels:
        return span
    if source.numel() == result.numel():
        return _viewed_span(source, span, result)
    if len(source) == len(result):
        return None
    if result[start:stop] == channels:
        return span  # axes behind the channels were reduced or added
    if stop == len(source) and result[-len(channels) :] == channels:
        return len(result) - len(channels), len(result)  # axes before channels that stand last
    return None


def _viewed_span(source: Size, span: Span, result: Size) -> Span | None:
    """The axes of a reshaped tensor with as many channels and as many elements behind them as before."""
    channels, behind = math.prod(source[span[0] : span[1]]), math.prod(source[span[1] :])
    for start in range(1, len(result)):
        for stop in range(start + 1, len(result) + 1):
            if math.prod(result[start:stop]) == channels and math.prod(result[stop:]) == behind:
                return start, stop
    return None
