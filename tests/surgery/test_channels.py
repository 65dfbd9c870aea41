"""Where channels go in single operations."""

from __future__ import annotations

import pytest
import torch
from torch import Size

from ffconv.surgery.channels import IMAGE_SPAN, Flow, Passage, Span, follow

MAP = Size((2, 8, 6, 6))


@pytest.mark.parametrize(
    ("operation", "arguments", "result", "passage"),
    [
        ("relu", (), MAP, Passage(Flow.KEEPS, (0,), Span(1, 2))),
        ("max_pool2d_with_indices", (), Size((2, 8, 3, 3)), Passage(Flow.KEEPS, (0,), Span(1, 2))),
        ("mean", (), Size((2, 8)), Passage(Flow.KEEPS, (0,), Span(1, 2))),
        ("view", (), Size((2, 8, 36)), Passage(Flow.KEEPS, (0,), Span(1, 2))),
        ("view", (), Size((2, 2, 4, 6, 6)), Passage(Flow.KEEPS, (0,), Span(1, 3))),
        ("permute", (None, [0, 2, 3, 1]), Size((2, 6, 6, 8)), Passage(Flow.KEEPS, (0,), Span(3, 4))),
        ("pixel_shuffle", (), Size((2, 2, 12, 12)), Passage(Flow.KEEPS, (0,), Span(1, 2))),
        ("mean", (), Size((2, 1, 6, 6)), Passage(Flow.MIXES, (), Span(1, 2))),
        ("cat", (), Size((2, 12, 6, 6)), Passage(Flow.MIXES, (), Span(1, 2))),
        ("channel_shuffle", (), MAP, Passage(Flow.MIXES, (), Span(1, 2))),
        ("addmm", (), Size((72, 32)), Passage(Flow.MAKES, (), Span(1, 2))),
        ("bmm", (), Size((2, 36, 8)), Passage(Flow.MAKES, (), Span(2, 3))),
    ],
)
def test_one_operand(operation: str, arguments: tuple, result: Size, passage: Passage) -> None:
    assert follow(operation, arguments, [(MAP, IMAGE_SPAN)], result) == passage


def test_samples_that_follow_one_another_on_the_channel_axis_keep_their_channels() -> None:
    """As inside an instance norm."""
    folded = Size((1, 16, 6, 6))
    assert follow("view", (), [(MAP, IMAGE_SPAN)], folded) == Passage(Flow.KEEPS, (0,), Span(1, 2, 2))
    passage = follow("native_batch_norm", (), [(folded, Span(1, 2, 2))], folded)
    assert passage == Passage(Flow.KEEPS, (0,), Span(1, 2, 2))
    assert follow("view", (), [(folded, Span(1, 2, 2))], MAP) == Passage(Flow.KEEPS, (0,), IMAGE_SPAN)


def test_groups_that_become_samples_are_no_view_of_the_channels() -> None:
    assert follow("view", (), [(MAP, IMAGE_SPAN)], Size((4, 4, 6, 6))).flow is Flow.MIXES


def test_half_of_the_channels_is_no_view_of_them_though_the_batch_makes_up_the_count() -> None:
    assert follow("slice", (), [(MAP, IMAGE_SPAN)], Size((2, 4, 6, 6))).flow is Flow.MIXES


def test_gate_of_one_channel_is_not_kept() -> None:
    operands = [(MAP, IMAGE_SPAN), (Size((2, 1, 6, 6)), IMAGE_SPAN)]
    assert follow("mul", (), operands, MAP) == Passage(Flow.KEEPS, (0,), Span(1, 2))


def test_gate_of_all_channels_is_kept() -> None:
    operands = [(MAP, IMAGE_SPAN), (Size((2, 8, 1, 1)), IMAGE_SPAN)]
    assert follow("mul", (), operands, MAP) == Passage(Flow.KEEPS, (0, 1), Span(1, 2))


def test_swapping_the_two_axes_of_grouped_channels_is_a_shuffle() -> None:
    grouped = Size((2, 2, 4, 6, 6))
    passage = follow("transpose", (None, 1, 2), [(grouped, Span(1, 3))], Size((2, 4, 2, 6, 6)))
    assert passage == Passage(Flow.MIXES, (), Span(1, 3))


def test_channels_last_survive_a_flattening_of_the_map() -> None:
    passage = follow("view", (), [(Size((2, 6, 6, 8)), Span(3, 4))], Size((72, 8)))
    assert passage == Passage(Flow.KEEPS, (0,), Span(1, 2))


@pytest.mark.parametrize(("groups", "flow"), [(1, Flow.MAKES), (2, Flow.MAKES), (8, Flow.KEEPS)])
def test_convolution_by_groups(groups: int, flow: Flow) -> None:
    arguments = (torch.empty(MAP), None, None, [1], [0], [1], False, [0], groups)
    assert follow("convolution", arguments, [(MAP, IMAGE_SPAN)], MAP).flow is flow
