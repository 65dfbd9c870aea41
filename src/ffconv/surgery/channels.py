"""Where the channels of a feature map go in one operation: made anew, kept in order, or mixed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

from torch import Size


class Span(NamedTuple):
    """The axes ``start ... stop - 1`` over which a tensor's channels are spread, in row-major order.

    Args:
        start: first axis.
        stop: axis after the last one.
        samples: samples whose channels follow one another on these axes, as inside an instance norm, which
            computes (N, C, H, W) as (1, N C, H, W).
    """

    start: int
    stop: int
    samples: int = 1


IMAGE_SPAN = Span(1, 2)

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
    """Return True if a convolution works on each channel by itself, which keeps the channels' order."""
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
        return Passage(Flow.KEEPS, (0,), IMAGE_SPAN) if depthwise else Passage(Flow.MAKES, (), IMAGE_SPAN)
    if operation in _MAKERS or operation.startswith("_scaled_dot_product"):
        return Passage(Flow.MAKES, (), Span(len(result) - 1, len(result)))
    if operation in _BLOCKWISE:
        return Passage(Flow.KEEPS, (0,), IMAGE_SPAN)
    if operation in _SHUFFLES:
        return Passage(Flow.MIXES, (), IMAGE_SPAN)
    if operation in _PERMUTATIONS:
        return _permute(operation, arguments, *operands[0])
    spans = [_carried_span(source, span, result) for source, span in operands]
    common = next((span for span in spans if span is not None), None)
    if common is None:
        source, span = operands[0]
        return Passage(Flow.MIXES, (), span if len(source) == len(result) else IMAGE_SPAN)
    return Passage(Flow.KEEPS, tuple(i for i, span in enumerate(spans) if span == common), common)


def _permute(operation: str, arguments: Sequence[Any], source: Size, span: Span) -> Passage:
    order = list(range(len(source)))
    if operation == "permute":
        order = [axis % len(source) for axis in arguments[1]]
    else:
        a, b = (axis % len(source) for axis in arguments[1:3]) if operation == "transpose" else (0, -1)
        order[a], order[b] = order[b], order[a]
    axes = [order.index(axis) for axis in range(span.start, span.stop)]
    together = Span(min(axes), max(axes) + 1, span.samples)
    if axes == list(range(together.start, together.stop)):
        return Passage(Flow.KEEPS, (0,), together)
    return Passage(Flow.MIXES, (), together if together.stop - together.start == len(axes) else IMAGE_SPAN)


def _carried_span(source: Size, span: Span, result: Size) -> Span | None:
    """The channels' axes in a result, judged by shapes; None if it does not hold them in the same order."""
    start, stop, samples = span
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
        # Axes before channels that stand last.
        return Span(len(result) - len(channels), len(result), samples)
    return None


def _viewed_span(source: Size, span: Span, result: Size) -> Span | None:
    """Return the axes of a reshaped tensor that hold the channels, and nothing of the axes behind them."""
    channels, behind = math.prod(source[span.start : span.stop]), math.prod(source[span.stop :])
    held = {channels: span.samples}
    if span.samples > 1:
        held[channels // span.samples] = 1
    else:
        before = math.prod(source[: span.start])
        held.setdefault(before * channels, before)
    for count, samples in held.items():
        for start in range(1, len(result)):
            for stop in range(start + 1, len(result) + 1):
                if math.prod(result[start:stop]) == count and math.prod(result[stop:]) == behind:
                    return Span(start, stop, samples)
    return None
